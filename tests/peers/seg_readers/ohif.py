"""The OHIF viewer in headless Chromium: does it list a segmentation, open it, hold the right mask, and draw it?"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import BrowserContext, Page, sync_playwright

from tests.peers.processes import program
from tests.peers.seg_readers.viewer_server import viewer_server

Corners = dict[str, float]

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

    def __init__(self, url: str, browser: BrowserContext) -> None:
        self.url = url
        self._browser = browser

    def open_segmentation(
        self, study_uid: str, image_series_uid: str, segmentation_series_uid: str, *, seconds: float = 90
    ) -> Shown:
        """Open the study in the viewer's segmentation mode and double-click the segmentation's series.

        seconds bounds each of the few things that are waited for.
        """
        shown = Shown()
        page = self._browser.new_page()
        page.set_default_timeout(seconds * 1000)
        page.on("pageerror", lambda error: shown.errors.append(str(error).splitlines()[0]))
        try:
            page.goto(f"{self.url}/segmentation?StudyInstanceUIDs={study_uid}", wait_until="commit")
            both = {image_series_uid, segmentation_series_uid}
            _until(page, lambda: both <= _display_sets(page).keys(), seconds)
            sets = _display_sets(page)
            image, segmentation = sets.get(image_series_uid), sets.get(segmentation_series_uid)
            corners = None
            if image is not None and not image["unsupported"]:
                corners = _steady_corners(page, seconds)
            shown.image_shown = corners is not None
            shown.before = _settled(page, corners, None)
            if segmentation is None:
                return shown
            row = page.locator(f'[id="thumbnail-{segmentation["id"]}"]')
            row.wait_for()
            shown.listed = True
            row.dblclick()
            _until(page, lambda: shown.errors or page.evaluate(_LABEL_MAP, segmentation["id"]), seconds)
            held = page.evaluate(_LABEL_MAP, segmentation["id"])
            page.mouse.move(700, 5)  # off the picture: hovering draws
            shown.screenshot = _settled(page, corners, shown.before)
            if held:
                labels = np.frombuffer(base64.b64decode(held["labels"]), np.uint8)
                shown.label_map = labels.reshape(held["rows"], held["columns"]) > 0
                shown.segments = list(held["segments"])
            if corners:
                shown.drawn = _differs(shown.before, shown.screenshot, corners)
            return shown
        finally:
            page.close()


def _display_sets(page: Page) -> dict[str, dict[str, Any]]:
    return {entry["series"]: entry for entry in page.evaluate(_DISPLAY_SETS)}


def _steady_corners(page: Page, seconds: float) -> Corners | None:
    """Where the image lies once that no longer changes: the viewer lays its panes out more than once."""
    seen: list[Corners | None] = [None]

    def same_again() -> bool:
        seen.append(page.evaluate(_CORNERS))
        return seen[-1] is not None and seen[-1] == seen[-2]

    return seen[-1] if _until(page, same_again, seconds) else None


def _until(page: Page, ready: Callable[[], object], seconds: float) -> bool:
    """Poll until ready() holds; False when it never did."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            return False
        page.wait_for_timeout(200)
    return True


def _settled(page: Page, corners: Corners | None, unlike: bytes | None, *, seconds: float = 20) -> bytes:
    """A picture of the page that has stopped changing, and shows something other than `unlike` (or than black)."""
    last = page.screenshot()
    if corners is None:
        return last
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        page.wait_for_timeout(500)
        now = page.screenshot()
        seen = _differs(unlike, now, corners).any() if unlike else _sampled(now, corners).std() > 1
        if seen and not _differs(last, now, corners).any():
            return now
        last = now
    return last


def _sampled(png: bytes, corners: Corners) -> np.ndarray:
    """The picture's colours on the screen, taken at the centre of each of the image's pixels."""
    screen = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    rows, columns = int(corners["rows"]), int(corners["columns"])
    y = corners["y0"] + (np.arange(rows) + 0.5) * (corners["y1"] - corners["y0"]) / rows
    x = corners["x0"] + (np.arange(columns) + 0.5) * (corners["x1"] - corners["x0"]) / columns
    inside_y = np.clip(y.astype(int), 0, screen.shape[0] - 1)
    inside_x = np.clip(x.astype(int), 0, screen.shape[1] - 1)
    return screen[np.ix_(inside_y, inside_x)]


def _differs(first: bytes, second: bytes, corners: Corners) -> np.ndarray:
    """Which of the image's pixels look different in two pictures of the screen."""
    return np.abs(_sampled(first, corners) - _sampled(second, corners)).max(axis=2) > _CHANGED


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
            yield Ohif(url, browser.new_context(viewport={"width": 1200, "height": 700}))
        finally:
            browser.close()
