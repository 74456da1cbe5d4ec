"""Takes the screenshots of docs/review-page.md anew: ``python docs/screenshots/take.py`` in the project's folder.

Starts the real service in a folder that is removed afterwards, sends it synthetic phantoms (no patient's picture) and
photographs the pages with Chromium. Needs what the acceptance tests need.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from dermoscopy.overlay import encode_png  # noqa: E402
from dermoscopy.phantoms import Kind, phantom  # noqa: E402
from tests.peers.browser import chromium  # noqa: E402
from tests.service import RunningService, running_service  # noqa: E402

PATIENT, BACK, FOREARM, FACE = "PHANTOM-1", "66643007", "70559009", "73897004"
DESKTOP, PHONE = {"width": 1360, "height": 1240}, {"width": 390, "height": 844}
IMAGES: tuple[tuple[int, Kind, str], ...] = (
    (3, "nevus", FOREARM),
    (6, "keratosis", FACE),
    (11, "nevus", BACK),
    (2, "melanoma-like", BACK),
)


def send(service: RunningService, seed: int, kind: Kind, site: str) -> str:
    """The address of the page of a new phantom."""
    picture = encode_png(phantom(seed, kind=kind, rows=600, columns=800, hairs=4).pixels)
    said = {"image": base64.b64encode(picture).decode(), "patient": {"id": PATIENT}, "body_site": site, "wait": 60}
    said["laterality"] = "L"
    answer = service.client.post("/api/v1/analyze", json=said).raise_for_status()
    return f"{service.url}/analyses/{answer.json()['report_id']}"


def open_page(browser: Browser, address: str, size: dict[str, int], scheme: str) -> Page:
    """The page, fully loaded."""
    context = browser.new_context(viewport=size, color_scheme="dark" if scheme == "dark" else "light")  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(address, wait_until="networkidle")
    return page


def keep(page: Page, name: str) -> None:
    """What the window shows, as a PNG of 200 colours: a quarter of the bytes, and no difference to the eye."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    few = picture.quantize(200, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(HERE / f"{name}.png", optimize=True)
    print(f"{name}.png: {(HERE / f'{name}.png').stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Take them all."""
    with tempfile.TemporaryDirectory() as folder, running_service(Path(folder)) as service, chromium() as browser:
        pages = [send(service, *one) for one in IMAGES]
        page = open_page(browser, pages[-1], DESKTOP, "light")
        page.locator("#now-viewer").get_by_role("checkbox", name="Heat-map").check()
        heat = page.locator("#now-viewer .layer-heat").element_handle()
        page.wait_for_function("one => one.complete && one.naturalWidth > 0", arg=heat)
        keep(page, "review-desktop")
        page = open_page(browser, pages[-1], DESKTOP, "dark")
        page.get_by_role("button", name="Edit the outline").click()
        page.evaluate("scrollTo(0, 0)")
        keep(page, "review-dark")
        page = open_page(browser, pages[2], PHONE, "light")
        page.locator("#image-title").scroll_into_view_if_needed()
        page.evaluate("scrollBy(0, 500)")
        keep(page, "review-phone")
        keep(open_page(browser, f"{service.url}/worklist", {"width": 1360, "height": 620}, "light"), "worklist")


if __name__ == "__main__":
    main()
