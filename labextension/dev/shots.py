"""Draws the built run view in headless Chromium, fed by hand, and takes pictures of it.

For whoever changes the view: `npm run build && python dev/shots.py [OUT] [SCENE...]`.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
BUNDLE = HERE.parents[1] / "src" / "quarterdeck" / "views" / "static" / "run_view.js"
TIMEOUT_MS = 10_000
FEED = "name => window.scenes[name]().forEach(([m, floats]) => window.feed(m, floats))"


class Files(SimpleHTTPRequestHandler):
    """The bundle and this folder."""

    def translate_path(self, path: str) -> str:
        return str(BUNDLE if path == "/run_view.js" else HERE.parent / path.lstrip("/"))

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(HERE)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/dev/page.html"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def opened(width: int = 924, height: int = 1000, scale: float = 1.0) -> Iterator[Page]:
    """A page with the harness, whose errors fail the caller."""
    with served() as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=scale)
        page.set_default_timeout(TIMEOUT_MS)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(f"{error}\n{error.stack}"))
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        page.goto(address)
        page.wait_for_function("window.ready")
        yield page
        browser.close()
        assert not errors, errors


def hover(page: Page) -> None:
    box = page.locator(".u-over").first.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.49, box["y"] + box["height"] / 2)


def compare(page: Page) -> None:
    page.get_by_label("Compare with an earlier run").click()
    page.evaluate(FEED, "compare")
    for row in (0, 1):
        page.locator(".qd-compare-row input").nth(row).check()
    page.evaluate(FEED, "compared")
    page.wait_for_timeout(200)
    hover(page)


def options(page: Page) -> None:
    page.locator(".qd-smooth input").fill("60")
    page.get_by_label("Logarithmic values").click()
    page.get_by_role("button", name="time", exact=True).click()


def output(page: Page) -> None:
    page.get_by_role("button", name="Output").click()


def later(page: Page) -> None:
    page.wait_for_timeout(2500)


def focus(page: Page) -> None:
    page.locator(".qd-chart").first.focus()
    for _ in range(3):
        page.keyboard.press("Shift+ArrowLeft")


SHOTS = {
    "running-light": ("running", 924, "true", [output, hover]),
    "running-dark": ("running", 924, "false", [output, hover]),
    "running-narrow": ("running", 452, "true", [output]),
    "running-middle": ("running", 680, "true", []),
    "eight": ("eight", 924, "true", [hover]),
    "eight-dark": ("eight", 924, "false", []),
    "sixteen": ("sixteen", 924, "true", [hover]),
    "single": ("single", 924, "true", []),
    "many": ("many", 924, "true", []),
    "failed": ("failed", 924, "true", []),
    "decks-only": ("decksOnly", 924, "true", [later]),
    "failed-dark": ("failed", 924, "false", []),
    "failed-narrow": ("failed", 452, "true", []),
    "succeeded": ("succeeded", 924, "true", []),
    "starting": ("starting", 924, "true", []),
    "nan": ("nan", 924, "true", []),
    "compare": ("compare", 924, "true", [compare]),
    "options": ("running", 924, "true", [options]),
    "focus": ("running", 924, "true", [focus]),
}


Begin = Callable[[Page, str], None]
"""Mounts the view and feeds it a scene."""


def begun(page: Page, scene: str) -> None:
    page.evaluate("void window.mount()")
    page.evaluate(FEED, scene)


def shoot(picture: Path, shot: tuple[str, int, str, Sequence[Callable[[Page], None]]], begin: Begin) -> None:
    scene, width, light, actions = shot
    with opened(width) as page:
        page.evaluate("light => document.body.setAttribute('data-jp-theme-light', light)", light)
        begin(page, scene)
        page.wait_for_timeout(300)
        for action in actions:
            action(page)
            page.wait_for_timeout(250)
        page.screenshot(path=picture, full_page=True)


def take(shots: Mapping[str, Any], folder: str, begin: Begin) -> None:
    """Those that the command line names, or all."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.gettempdir()) / folder
    out.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or shots:
        shoot(out / f"{name}.png", shots[name], begin)
    print(out)


if __name__ == "__main__":
    take(SHOTS, "run-view", begun)
