"""A run's metrics as a small table: text, and HTML that follows the notebook's theme. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from quarterdeck.metrics.thinning import extremes
from quarterdeck.present.words import metric

if TYPE_CHECKING:
    from quarterdeck.metrics.series import Metrics

EMPTY = "No metrics yet. qd.log(loss=loss, step=step) draws them here."
_HEADS = ("name", "last", "min", "max", "steps")
_LEFT = "text-align:left"
_RIGHT = "text-align:right;font-variant-numeric:tabular-nums"


def plain(metrics: Metrics) -> str:
    if not metrics.names:
        return EMPTY
    rows = [_HEADS, *_rows(metrics)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEADS))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width) for place, (cell, width) in enumerate(pairs)
        )
        for pairs in (zip(row, widths, strict=True) for row in rows)
    )


def html(metrics: Metrics) -> str:
    if not metrics.names:
        return f"<div>{escape(EMPTY)}</div>"
    head = _row("th", _HEADS)
    body = "".join(_row("td", row) for row in _rows(metrics))
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"


def _row(tag: str, cells: tuple[str, ...]) -> str:
    styles = (_LEFT, *(_RIGHT,) * (len(cells) - 1))
    inner = (f'<{tag} style="{s}">{escape(cell)}</{tag}>' for s, cell in zip(styles, cells, strict=True))
    return f"<tr>{''.join(inner)}</tr>"


def _rows(metrics: Metrics) -> Iterator[tuple[str, ...]]:
    """Least and greatest of any rank's values that are numbers."""
    for name in metrics.names:
        series = metrics[name]
        parts = [series.points(rank) for rank in series.ranks]
        lows, highs = zip(*(extremes(part.values) for part in parts), strict=True)
        steps = max(len(part.steps) for part in parts)
        low, high = extremes(lows)[0], extremes(highs)[1]
        yield name, metric(series.last()), metric(low), metric(high), f"{steps:,}"
