"""Uses the built view as a reader does, in headless Chromium, and says what does not work.

For whoever changes the view: `npm run build && python dev/check.py`.
"""

from __future__ import annotations

from playwright.sync_api import Page
from shots import FEED, opened


def begun(page: Page, scene: str) -> None:
    page.evaluate("() => { window.unmount = window.mount() }")
    page.evaluate(FEED, scene)
    page.wait_for_selector(".qd-plot canvas")


def sent(page: Page) -> list[dict[str, object]]:
    found: list[dict[str, object]] = page.evaluate("window.sent.splice(0)")
    return found


def focused(page: Page) -> str:
    words: str = page.evaluate(
        "(e => e.getAttribute('aria-label') || e.textContent || e.className)(document.activeElement)"
    )
    return words


def keyboard(page: Page) -> None:
    """Tab goes through Stop, toolbar, charts and tabs, and every control has a name."""
    begun(page, "running")
    assert sent(page) == [{"kind": "sync"}]
    seen = []
    for _ in range(18):
        page.keyboard.press("Tab")
        seen.append(focused(page))
    print("   Tab order:", " > ".join(word.split(",")[0] for word in seen))
    assert "Stop" in seen[0]
    assert any(word.startswith("Output") for word in seen)
    nameless = page.evaluate(
        "[...document.querySelectorAll('.qd-view button, .qd-view input, .qd-view select')]"
        ".filter(e => e.offsetParent && "
        "!e.getAttribute('aria-label') && !e.textContent.trim() && !e.closest('label')?.textContent.trim())"
        ".map(e => e.outerHTML)"
    )
    assert nameless == [], nameless


def crosshair(page: Page) -> None:
    """Arrow keys move one cross-hair through all charts, and say the values; Escape takes it away."""
    begun(page, "running")
    page.locator(".qd-chart").first.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowLeft")
    assert page.locator(".qd-cross:visible").count() == 2
    assert page.locator(".qd-chart .qd-sr").first.inner_text().startswith("step 1,080: mean 0.")
    page.keyboard.press("Escape")
    assert page.locator(".qd-cross:visible").count() == 0


def legend(page: Page) -> None:
    """A click hides, Alt isolates, a digit isolates, a double click resets."""
    begun(page, "running")
    chips = "[...document.querySelectorAll('.qd-legend button')]"
    pressed = chips + ".map(b => b.getAttribute('aria-pressed') === 'true')"
    chip = page.locator(".qd-legend button")
    chip.nth(1).click()
    assert page.evaluate(pressed) == [True, False, True, True, True]
    page.wait_for_timeout(600)
    chip.nth(2).click(modifiers=["Alt"])
    assert page.evaluate(pressed) == [False, False, True, False, False]
    page.wait_for_timeout(600)
    chip.nth(0).dblclick()
    assert page.evaluate(pressed) == [True] * 5
    page.keyboard.press("3")
    assert page.evaluate(pressed) == [False, False, False, True, False]


def zoom(page: Page) -> None:
    """Dragging asks for finer points of each thinned metric; a double click shows all."""
    begun(page, "eight")
    sent(page)
    box = page.locator(".u-over").first.bounding_box()
    assert box
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 100, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, middle, steps=4)
    page.mouse.up()
    page.get_by_role("button", name="Show all").wait_for()
    page.wait_for_timeout(400)
    asked = sent(page)
    assert {str(message["name"]) for message in asked} == {"train/loss", "val/loss"}, asked
    first = asked[0]
    series = [{"name": first["name"], "rank": 0, "start": 0, "count": 2}]
    detail = {**first, "kind": "detail", "series": series}
    page.evaluate("m => window.feed(m, new Float64Array([400,401, 4,5, 1,2, 1,2, 1,2, 1,2]))", detail)
    page.wait_for_timeout(100)
    page.mouse.dblclick(box["x"] + 150, middle)
    page.get_by_role("button", name="Show all").wait_for(state="hidden")


def stop(page: Page) -> None:
    """Stop answers at once, tells how far it has come, and becomes Kill."""
    begun(page, "running")
    sent(page)
    page.get_by_role("button", name="Stop").click()
    assert sent(page) == [{"kind": "stop"}]
    assert page.get_by_role("button", name="Stopping").is_disabled()
    asked = "asked, waiting for rank 2"
    page.evaluate("w => { const [[m]] = scenes.running(); m.run.stopping = w; window.feed(m) }", asked)
    page.get_by_text(asked).wait_for(timeout=3000)
    page.get_by_role("button", name="Kill").wait_for(timeout=7000)
    page.get_by_role("button", name="Kill").click()
    assert sent(page)[0] == {"kind": "stop"}


def theme(page: Page) -> None:
    """The view follows the page's theme while it is shown."""
    begun(page, "running")
    ink = "document.querySelector('.qd-plot canvas').toDataURL()"
    light = page.evaluate(ink)
    page.evaluate("document.body.setAttribute('data-jp-theme-light', 'false')")
    page.wait_for_selector(".qd-view[data-theme=dark]")
    page.wait_for_timeout(200)
    assert page.evaluate(ink) != light


def gap(page: Page) -> None:
    """Missing points are asked for again; unknown messages are passed over."""
    begun(page, "running")
    sent(page)
    page.evaluate("window.feed({ kind: 'from the future' })")
    series = [{"name": "train/loss", "rank": 0, "start": 5000, "count": 1}]
    curves = {"kind": "curves", "run_id": "r1", "names": ["train/loss"], "whole": False, "series": series}
    page.evaluate("m => window.feed(m, new Float64Array(6))", curves)
    assert sent(page) == [{"kind": "sync"}]


def end(page: Page) -> None:
    """A view that is taken away leaves nothing, and another one works."""
    begun(page, "running")
    page.evaluate("window.unmount()")
    assert page.locator(".qd-view").count() == 0
    page.evaluate(FEED, "running")
    page.evaluate("window.mount(); window.mount(); undefined")
    page.evaluate(FEED, "running")
    page.wait_for_timeout(300)
    assert page.locator(".qd-view").count() == 2
    assert page.locator(".qd-plot canvas").count() == 4


def main() -> None:
    for action in (keyboard, crosshair, legend, zoom, stop, theme, gap, end):
        with opened() as page:
            action(page)
        print("ok", action.__name__)


if __name__ == "__main__":
    main()
