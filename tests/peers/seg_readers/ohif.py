"""The OHIF viewer in headless Chromium: does it list a segmentation, open it, hold the right mask, and draw it?"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from playwright.sync_api import TimeoutError as PageTimeout

from tests.peers.processes import program
from tests.peers.seg_readers.viewer_server import viewer_server

# Software rendering: the viewer draws with WebGL, and a test machine has no graphics card.
_CHROMIUM = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-dev-shm-usage",
]
_CHANGED = 6  # by so many of 255 levels a pixel of the picture must differ to count as drawn over

_DISPLAY_SETS = """() => (window.services?.displaySetService?.getActiveDisplaySets() ?? []).map(set => ({
  id: set.displaySetInstanceUID, series: set.SeriesInstanceUID, modality: set.Modality,
  unsupported: Boolean(set.unsupported) }))"""

# The viewer's own label map of the segmentation that lies on one display set.
_LABEL_MAP = """(id) => {
  const found = (window.services?.segmentationService?.getSegmentations() ?? []).find(s => s.segmentationId === id);
  const imageId = found?.representationData?.Labelmap?.imageIds?.[0];
  const image = imageId && window.cornerstone.cache.getImage(imageId);
  if (!image) return null;
  const labels = Uint8Array.from(image.voxelManager.getScalarData());
  let text = '';
  for (let i = 0; i < labels.length; i += 32768) text += String.fromCharCode(...labels.subarray(i, i + 32768));
  return { rows: image.rows, columns: image.columns, labels: btoa(text),
           segments: Object.values(found.segments).filter(Boolean).map(s => s.label) };
}"""

# Where on the page the image's outermost corners are drawn.
_CORNERS = """() => {
  const viewport = window.cornerstone?.getRenderingEngines()?.flatMap(engine => engine.getViewports())[0];
  const data = viewport?.getImageData();
  if (!data) return null;
  const box = viewport.canvas.getBoundingClientRect();
  const [columns, rows] = data.dimensions;
  const corner = (i, j) => viewport.worldToCanvas(data.imageData.indexToWorld([i, j, 0]));
  const [x0, y0] = corner(-0.5, -0.5), [x1, y1] = corner(columns - 0.5, rows - 0.5);
  return { x0: box.x + x0, y0: box.y + y0, x1: box.x + x1, y1: box.y + y1, rows, columns };
}"""


@dataclass
class Shown:
    """What the viewer made of a study with one image and one segmentation."""

    image_shown: bool = False
    """The image itself is drawn (the viewer knows its SOP class)."""
    listed: bool = False
    """The segmentation's series stands in the list of series."""
    segments: list[str] = field(default_factory=list)
    """Labels of the segments in the panel, after opening; empty when it did not open."""
    label_map: np.ndarray | None = None
    """The mask as the viewer holds it, in the image's rows and columns."""
    drawn: np.ndarray | None = None
    """Where the picture on the screen changed by opening it, in the image's rows and columns."""
    errors: list[str] = field(default_factory=list)
    """Uncaught errors of the page; a crashed viewer is an empty page with one of these."""
    before: bytes = b""
    screenshot: bytes = b""
    """PNG of the whole page before and after opening."""


class Ohif:
    """A running viewer in front of a PACS."""

    def __init__(self, url: str, browser: Browser) -> None:
        self.url = url
        self._browser = browser

    def open_segmentation(
        self, study_uid: str, image_series_uid: str, segmentation_series_uid: str, *, seconds: float = 60
    ) -> Shown:
        """Open the study in the viewer's segmentation mode and double-click the segmentation's series."""
        shown = Shown()
        page = self._browser.new_page(viewport={"width": 1400, "height": 900})
        page.on("pageerror", lambda error: shown.errors.append(str(error).splitlines()[0]))
        try:
            page.goto(f"{self.url}/segmentation?StudyInstanceUIDs={study_uid}", timeout=seconds * 1000)
            sets = self._display_sets(page, {image_series_uid, segmentation_series_uid}, seconds)
            chosen = sets.get(segmentation_series_uid)
            image = sets.get(image_series_uid)
            if image is not None and not image["unsupported"]:
                shown.image_shown = _wait(page, _CORNERS, seconds)
                page.wait_for_timeout(1000)  # the picture comes after its geometry
            shown.before = page.screenshot()
            corners = page.evaluate(_CORNERS)
            if chosen is None:
                return shown
            row = page.locator(f'[id="thumbnail-{chosen["id"]}"]')
            shown.listed = row.is_visible()
            row.dblclick(timeout=seconds * 1000)
            _wait(page, _LABEL_MAP, seconds if shown.image_shown else 5, chosen["id"])
            page.mouse.move(700, 5)  # off the picture: hovering draws
            page.wait_for_timeout(1500)
            shown.screenshot = page.screenshot()
            held = page.evaluate(_LABEL_MAP, chosen["id"])
            if held:
                labels = np.frombuffer(base64.b64decode(held["labels"]), np.uint8)
                shown.label_map = labels.reshape(held["rows"], held["columns"]) > 0
                shown.segments = list(held["segments"])
            if corners:
                shown.drawn = _changed(shown.before, shown.screenshot, corners)
            return shown
        finally:
            page.close()

    def _display_sets(self, page: Page, series: set[str], seconds: float) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for _ in range(int(seconds / 0.25)):
            found = {entry["series"]: entry for entry in page.evaluate(_DISPLAY_SETS)}
            if series <= found.keys() and page.locator(f'[id="thumbnail-{found[max(series)]["id"]}"]').count():
                break
            page.wait_for_timeout(250)
        return found


def _wait(page: Page, script: str, seconds: float, argument: object = None) -> bool:
    try:
        page.wait_for_function(script, arg=argument, timeout=seconds * 1000)
    except PageTimeout:
        return False
    return True


def _changed(before: bytes, after: bytes, corners: dict[str, float]) -> np.ndarray:
    """Which of the image's pixels look different on the screen, sampled at each pixel's centre."""
    first, second = (np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int) for png in (before, after))
    differs = np.abs(first - second).max(axis=2) > _CHANGED
    rows, columns = int(corners["rows"]), int(corners["columns"])
    y = corners["y0"] + (np.arange(rows) + 0.5) * (corners["y1"] - corners["y0"]) / rows
    x = corners["x0"] + (np.arange(columns) + 0.5) * (corners["x1"] - corners["x0"]) / columns
    inside_y = np.clip(y.astype(int), 0, differs.shape[0] - 1)
    inside_x = np.clip(x.astype(int), 0, differs.shape[1] - 1)
    return differs[np.ix_(inside_y, inside_x)]


@contextmanager
def ohif(dicomweb_url: str, *, knows_dermoscopic: bool = False) -> Iterator[Ohif]:
    """The viewer in a browser, reading this DICOMweb server.

    The viewer as published does not know Dermoscopic Photography: it neither shows such an image nor opens a
    segmentation of one. knows_dermoscopic adds the SOP class to its list of image classes, and changes nothing else.
    """
    chromium = program("chromium", package="chromium")
    with viewer_server(dicomweb_url, knows_dermoscopic=knows_dermoscopic) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_CHROMIUM)
        try:
            yield Ohif(url, browser)
        finally:
            browser.close()
