"""Figures of matplotlib and plotly. Imported when one is shown, with the package that it is of."""

from __future__ import annotations

import base64
from html import escape
from io import BytesIO
from typing import Any

from quarterdeck.decks.render.html import escaped

_SCALE = 2
"""Pixels of the picture for one on the page: sharp on dense screens."""


def matplotlib(figure: Any) -> str:
    """A PNG, on the figure's own ground: a picture cannot follow the theme."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=_SCALE * figure.dpi, bbox_inches="tight")
    image = picture(buffer.getvalue(), _alt(figure), _width(buffer.getvalue()) / _SCALE)
    return f'<div class="qd-card">{image}</div>'


def axes(value: Any) -> str:
    return matplotlib(value.get_figure(root=True) if hasattr(value, "get_figure") else value.figure)


def plotly(figure: Any) -> str:
    """Only what is to be drawn: the page that shows it holds plotly.js, once."""
    return f'<div class="qd-plotly" data-figure="{escape(figure.to_json(), quote=True)}"></div>'


def picture(data: bytes, alt: str, width: float | None = None, kind: str = "png") -> str:
    source = base64.b64encode(data).decode()
    wide = f' width="{width:.0f}"' if width else ""
    return f'<img class="qd-img" alt="{escaped(alt, 300)}"{wide} src="data:image/{kind};base64,{source}">'


def _width(png: bytes) -> int:
    """In pixels; a PNG begins with it."""
    return int.from_bytes(png[16:20], "big")


def _alt(figure: Any) -> str:
    titles = [figure.get_suptitle(), *(part.get_title() for part in figure.axes)]
    named = [title for title in titles if title]
    return "Figure: " + "; ".join(named) if named else "Figure"
