"""Draws the built checkpoint browser in headless Chromium, fed by hand, and takes pictures of it.

For whoever changes it: `npm run build && python dev/shelf_shots.py [OUT] [SHOT...]`.
"""

from __future__ import annotations

from playwright.sync_api import Page
from shots import take

FEED = "name => window.shelf[name]().forEach((message) => window.feed(message))"


def begun(page: Page, scene: str) -> None:
    """Mounted and fed; what the browser asks is answered."""
    page.evaluate("() => { window.unmount = window.mount(false, 'checkpoints') }")
    page.evaluate(FEED, scene)


def second(page: Page) -> None:
    page.get_by_role("treeitem", name="Step 1,200").click()


def tensor(page: Page) -> None:
    second(page)
    page.wait_for_timeout(250)
    page.get_by_role("treeitem").filter(has_text="blocks").click()
    page.locator("[data-node='.blocks.0']").click()
    page.locator("[data-node='blocks.0.attn.qkv.weight']").click()


def untrusted(page: Page) -> None:
    page.get_by_role("treeitem", name="Step 1,100").click()


def damaged(page: Page) -> None:
    page.get_by_role("treeitem", name="Step 400").first.click()


def compare(page: Page) -> None:
    page.get_by_role("button", name="Compare").click()


def resume(page: Page) -> None:
    page.get_by_role("button", name="Resume from here").click()


def confirm(page: Page) -> None:
    page.get_by_role("treeitem", name="Step 1,000").click()
    page.get_by_role("button", name="Delete, with undo").click()


def filtered(page: Page) -> None:
    page.get_by_label("Filter checkpoints").fill("accuracy > 0.9, best")


SHOTS = {
    "light": ("shelf", 924, "true", [tensor]),
    "dark": ("shelf", 924, "false", [tensor]),
    "narrow": ("shelf", 452, "true", [second]),
    "middle": ("shelf", 680, "true", [tensor]),
    "many": ("shelfMany", 924, "true", []),
    "empty": ("shelfEmpty", 924, "true", []),
    "deleted": ("shelfDeleted", 924, "true", []),
    "trouble": ("shelfTrouble", 924, "true", [resume]),
    "untrusted": ("shelf", 924, "true", [untrusted]),
    "damaged": ("shelf", 924, "true", [damaged]),
    "confirm": ("shelf", 924, "true", [confirm]),
    "filtered": ("shelf", 924, "true", [filtered]),
    "compare": ("shelf", 924, "true", [compare]),
    "compare-dark": ("shelf", 924, "false", [compare]),
    "compare-narrow": ("shelf", 452, "true", [compare]),
}


if __name__ == "__main__":
    take(SHOTS, "checkpoint-browser", begun)
