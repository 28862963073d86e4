"""A run's metrics as a small table: text, and HTML that follows the notebook's theme."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from quarterdeck.present.tables import html_table, text_table
from quarterdeck.present.words import metric

if TYPE_CHECKING:
    from quarterdeck.metrics.series import Metrics

EMPTY = "No metrics yet. qd.log(loss=loss, step=step) draws them here."
_HEADS = ("name", "last", "min", "max", "steps")
_NUMBERS = range(1, len(_HEADS))


def plain(metrics: Metrics) -> str:
    return "\n".join(text_table(_HEADS, [*_rows(metrics)], _NUMBERS)) if metrics.names else EMPTY


def html(metrics: Metrics) -> str:
    if not metrics.names:
        return f"<div>{escape(EMPTY)}</div>"
    return html_table(_HEADS, [*_rows(metrics)], _NUMBERS)


def _rows(metrics: Metrics) -> Iterator[tuple[str, ...]]:
    """Least and greatest of any rank's values that are numbers."""
    import numpy as np

    for name in metrics.names:
        series = metrics[name]
        parts = series.by_rank.values()
        low = np.fmin.reduce([np.fmin.reduce(part.values) for part in parts])
        high = np.fmax.reduce([np.fmax.reduce(part.values) for part in parts])
        steps = max(len(part.steps) for part in parts)
        yield name, metric(series.last()), metric(float(low)), metric(float(high)), f"{steps:,}"
