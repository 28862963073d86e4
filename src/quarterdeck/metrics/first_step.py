"""When a rank's second step was over: used by the worker, to tell how long the first ones took."""

from __future__ import annotations

from quarterdeck import files
from quarterdeck.context import Context
from quarterdeck.metrics.progress import second_item_unix_ns
from quarterdeck.metrics.reader import MetricFile
from quarterdeck.metrics.writer import path_of

_LOOKED_AT_BYTES = 4 << 20


def second_step_unix_ns(context: Context) -> int | None:
    """When it logged a second step, or a loop with progress began one, whichever was earlier; None before."""
    found = [ns for ns in (_second_logged(context), second_item_unix_ns(context)) if ns is not None]
    return min(found, default=None)


def _second_logged(context: Context) -> int | None:
    """The first value whose step is another one than the first's. A long file has had its second step long
    before: it is not read.
    """
    path = path_of(context)
    if (files.size_of(path.parent, path.name) or 0) > _LOOKED_AT_BYTES:
        return None
    file = MetricFile(path)
    file.refresh()
    parts = file.columns
    rows = sorted(row for part in parts for row in zip(part.times.tolist(), part.steps.tolist(), strict=True))
    return next((time for time, step in rows if step != rows[0][1]), None)
