"""A deck as a whole page that needs nothing else. Called in the kernel by `reader`, and by `Deck.save`.

What is in a deck is the user's own HTML, as it is: the page forbids every resource from elsewhere, and is to
be shown in a frame with `sandbox="allow-scripts"` and nothing more. The HTML lies in a frame of that page:
its rules hold for where its frames go, and not for where it goes itself.

The page tells the frame's owner its height by `postMessage({quarterdeck: "height", px: number})`. It is light
or dark as the browser prefers, as its `<html data-theme="dark">` says, or as it is told by
`{quarterdeck: "theme", theme: "dark"}`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

from quarterdeck.decks.file import LIMIT_BYTES, Body
from quarterdeck.decks.render.html import note
from quarterdeck.decks.style import sheet
from quarterdeck.present.words import size
from quarterdeck.public import public

CSP = (
    "default-src 'none'; img-src data: blob:; media-src data:; font-src data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
SANDBOX = "allow-scripts"
MERGED_BYTES = 20_000_000
"""The most that decks take on a page of all ranks: it has to reach a browser in one piece."""
_FAR = (
    *("<script", "<style", "<base", "<iframe", "<link", "<meta", "<object", "<embed", "javascript:"),
    *("<!--", "<template", "<textarea", "<xmp", "<plaintext", "<noscript"),
    *("</section", "</main", "</body", "</html"),
)
"""Markup that reaches beyond its place: it acts on the whole page, or swallows what follows."""
_HANDLER = re.compile(r"on[a-z]+\s*=")
_HEIGHT_PX = 320
"""The height of a frame in a notebook until its page has told its own, or where scripts do not run."""

_AROUND = "body{margin:0}iframe{display:block;width:100%;height:100vh;border:0}"
"""The style of a page that only holds another one; it has no height to tell before it knows that one's."""

_SCRIPT = """
(()=>{let last=0;const tell=()=>{const held=document.querySelector("body.qd-rank>iframe");
if(held&&!held.style.height)return;const px=Math.ceil(document.body.getBoundingClientRect().height);
if(px!==last&&parent!==window){last=px;parent.postMessage({quarterdeck:"height",px},"*")}};
const theme=frame=>{const name=document.documentElement.dataset.theme;
if(name)frame.contentWindow.postMessage({quarterdeck:"theme",theme:name},"*")};
for(const frame of document.querySelectorAll("iframe"))frame.addEventListener("load",()=>theme(frame));
new ResizeObserver(tell).observe(document.body);tell();
addEventListener("message",event=>{const said=event.data||{};
if(event.source===parent&&parent!==window&&said.quarterdeck==="theme"&&/^(light|dark)$/.test(said.theme)){
document.documentElement.dataset.theme=said.theme;document.querySelectorAll("iframe").forEach(theme)}
if(said.quarterdeck==="height"&&said.px>0)for(const frame of document.querySelectorAll(".qd-rank>iframe"))
if(frame.contentWindow===event.source)frame.style.height=Math.min(said.px,1e5)+"px"})})();
"""
_PLOT_SCRIPT = """
for(const place of document.querySelectorAll(".qd-plotly")){const figure=JSON.parse(place.dataset.figure);
place.style.height=(figure.layout.height||400)+"px";Plotly.newPlot(place,figure.data,figure.layout,{responsive:true,displaylogo:false,showLink:false,
plotlyServerURL:""})}
"""


@public
class DeckPage:
    """A deck's page, shown in the notebook in a frame of its own.

    Attributes:
        name: what the deck is called.
        html: the whole page, which needs nothing else.
    """

    def __init__(self, name: str, html: str) -> None:
        self.name = name
        self.html = html

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it to a file.

        Returns:
            The path.

        Raises:
            OSError: the file cannot be written.
        """
        place = Path(path)
        place.write_text(self.html, encoding="utf-8", errors="replace")
        return place

    def _repr_html_(self) -> str:
        return framed(self.name, self.html)

    def __repr__(self) -> str:
        return f"<page of deck {self.name!r}, {size(len(self.html))}>"


def page(name: str, body: Body) -> str:
    return _held(name, _page(name, _inside(body), _plots([body])))


def merged(name: str, bodies: Mapping[int, Body]) -> str:
    """One section per rank, by rank; ranks that hold the same share one."""
    if len(bodies) == 1:
        return page(name, next(iter(bodies.values())))
    several = len(set(bodies.values())) > 1
    sections: list[str] = []
    plain: list[Body] = []
    room = MERGED_BYTES
    for body, ranks in _by_content(bodies):
        room -= sum(map(len, body.parts))
        if room < 0:
            inside: str = note(
                f"Left out: a page of all ranks holds {size(MERGED_BYTES)}. Look at it by itself."
            )
        elif several and _may_meet(body):
            inside = _frame(name, _page(name, _inside(body), _plots([body])), "")
        else:
            inside = _inside(body)
            plain.append(body)
        sections.append(f'<section class="qd-rank">{chips(ranks)}{inside}</section>')
    return _held(name, _page(name, "".join(sections), _plots(plain)))


def whole(name: str, html: str) -> str:
    """A page of our own making."""
    return _page(name, html, "")


def framed(name: str, html: str) -> str:
    """For a notebook's output: two of them on one page can neither meet nor touch the notebook."""
    frame = _frame(name, html, f"display:block;width:100%;height:{_HEIGHT_PX}px;border:0")
    return (
        f"<div>{frame}<script>(()=>{{const frame=document.currentScript&&document.currentScript."
        "previousElementSibling;if(!frame)return;const take=event=>{if(!frame.isConnected)"
        'return removeEventListener("message",take);if(event.source===frame.contentWindow&&event.data&&'
        'event.data.quarterdeck==="height"&&event.data.px>0)frame.style.height='
        'Math.min(event.data.px,4000)+"px"};addEventListener("message",take)})()</script></div>'
    )


def chips(ranks: Sequence[int]) -> str:
    """Numbers in the ranks' colours; neighbours as a span, with an en dash."""
    several = "ranks" if len(ranks) > 1 else "rank"
    shown = "".join(_chip(first, last) for first, last in _spans(sorted(ranks)))
    return f'<div class="qd-chips"><i>{several} </i>{shown}</div>'


def _chip(first: int, last: int) -> str:
    return f'<b class="r{first % 8}">{first}</b>' if first == last else f'<b class="rall">{first}–{last}</b>'


def _page(name: str, inside: str, plots: str) -> str:
    return _document(name, sheet(), f"<body><main>{inside}</main>{plots}")


def _held(name: str, html: str) -> str:
    """A page whose only content is the frame of another one."""
    return _document(name, _AROUND, f'<body class="qd-rank">{_frame(name, html, "")}')


def _document(name: str, style: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{CSP}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(name)}</title><style>{style}</style></head>"
        f"{body}<script>{_SCRIPT}</script></body></html>"
    )


def _inside(body: Body) -> str:
    if not body.parts and not body.cut:
        return note("This deck is empty.")
    if not body.cut:
        return body.html
    more = f"{body.cut:,} more part{'s' * (body.cut != 1)}"
    return body.html + note(f"This deck is cut at {size(LIMIT_BYTES)}: {more}.", "warn")


def _may_meet(body: Body) -> bool:
    """Whether what it holds could disturb another rank's on the same page."""
    return any(
        _HANDLER.search(text) or any(mark in text for mark in _FAR) for text in map(str.lower, body.parts)
    )


def _frame(name: str, html: str, style: str) -> str:
    styled = f' style="{style}"' if style else ""
    return (
        f'<iframe title="deck {escape(name)}" sandbox="{SANDBOX}" referrerpolicy="no-referrer"{styled} '
        f"srcdoc={_quoted(html)}></iframe>"
    )


def _quoted(html: str) -> str:
    """As an attribute, in the quotes that it holds less of: `escape` makes pages of scripts much larger."""
    text = html.replace("&", "&amp;")
    if text.count("'") < text.count('"'):
        return "'" + text.replace("'", "&#39;") + "'"
    return '"' + text.replace('"', "&quot;") + '"'


def _plots(bodies: Sequence[Body]) -> str:
    """plotly.js, once, if there is something to draw."""
    if not any('class="qd-plotly"' in part for body in bodies for part in body.parts):
        return ""
    if find_spec("plotly") is None:
        words = "Figures of plotly are not drawn: plotly is not installed where this page was made."
        return note(words, "warn")
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    library: Any = get_plotlyjs()
    weight = note(f"{size(len(library))} of this page are plotly.js, which draws its figures.")
    return f"<script>{library}</script><script>{_PLOT_SCRIPT}</script><main>{weight}</main>"


def _by_content(bodies: Mapping[int, Body]) -> list[tuple[Body, list[int]]]:
    found: dict[Body, list[int]] = {}
    for rank in sorted(bodies):
        found.setdefault(bodies[rank], []).append(rank)
    return list(found.items())


def _spans(ranks: Sequence[int]) -> list[tuple[int, int]]:
    """[0, 1, 2, 5] -> (0, 2), (5, 5)."""
    runs = [[rank for _, rank in run] for _, run in groupby(enumerate(ranks), lambda pair: pair[1] - pair[0])]
    return [(run[0], run[-1]) for run in runs]
