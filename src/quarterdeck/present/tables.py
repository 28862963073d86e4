"""Tables: text, and HTML that follows the notebook's theme. Pure. (A deck has a style sheet of its own, and
its tables with it: see `decks.render.html`.)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape

from quarterdeck.present.palette import FAINT

_CELL = "padding:4px 16px 4px 0;vertical-align:top;text-align:"


class Raw(str):
    """HTML, where text is expected."""


def html_table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Cells are escaped unless they are Raw. `right`: the columns of numbers."""
    head = _row("th", heads, right, f";font-weight:500;{FAINT}") if heads else ""
    body = "".join(_row("td", row, right, "") for row in rows)
    return (
        '<table style="border-collapse:collapse;margin:4px 0;font-size:12px;'
        f'font-variant-numeric:tabular-nums">{head}{body}</table>'
    )


def _row(tag: str, cells: Sequence[str], right: Collection[int], style: str) -> str:
    return f"<tr>{''.join(_cell(tag, text, at in right, style) for at, text in enumerate(cells))}</tr>"


def _cell(tag: str, text: str, is_number: bool, style: str) -> str:
    wrap = ";white-space:pre-wrap" if "\n" in text else ""
    shown = text if isinstance(text, Raw) else escape(text)
    return f'<{tag} style="{_CELL}{"right" if is_number else "left"}{wrap}{style}">{shown}</{tag}>'


def faint(text: str) -> str:
    """HTML of words that step back."""
    return f'<span style="font-weight:400;{FAINT}">{escape(text)}</span>'


def text_table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Its lines; none without rows."""
    if not rows:
        return []
    lines = [heads, *rows] if heads else [*rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    return [
        "  ".join(
            text.rjust(width) if at in right else text.ljust(width)
            for at, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
