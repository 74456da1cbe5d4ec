"""Chromium, driven by a test, and axe-core's verdict on the page that it shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tests.peers.processes import PEERS, installed, program

_AXE = PEERS / "node_modules" / "axe-core" / "axe.min.js"
_RUN = """async () => {
  const found = await window.axe.run(document, { resultTypes: ['violations'] });
  return found.violations.map(one => ({ id: one.id, impact: one.impact, help: one.help,
    nodes: one.nodes.map(node => node.target.join(' ') + ': ' + (node.any[0]?.message ?? '')).slice(0, 5) }));
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; every context in it begins without cookies."""
    path = program("chromium", package="chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"]
        )
        try:
            yield browser
        finally:
            browser.close()


def grave_faults(page: Page) -> list[dict[str, Any]]:
    """Serious and critical violations by axe-core (https://github.com/dequelabs/axe-core), with where they are."""
    source = installed(_AXE).read_text(encoding="utf-8")
    page.evaluate(source)  # not as a script element: our pages allow none but their own
    return [one for one in page.evaluate(_RUN) if one["impact"] in ("serious", "critical")]
