"""`run.plot()`: the figure of a run's metrics. In the kernel; matplotlib is loaded by the first call."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from quarterdeck.errors import UsageError
from quarterdeck.metrics.series import Metrics
from quarterdeck.metrics.table import EMPTY

if TYPE_CHECKING:
    from quarterdeck.metrics.figure import RunFigure

SHOWN = 12
"""Metrics, if none are named."""


def plot(
    metrics: Metrics,
    names: str | Sequence[str] | None = None,
    *,
    title: str = "",
    x: Literal["step", "time"] = "step",
    smoothing: float = 0.0,
    log_scale: bool = False,
) -> RunFigure:
    """A chart for each metric, or for those named: `names` may hold "loss", or "val/" for all that begin so.

    Ranks are thin lines, their mean is a thick one; above 8 ranks a band from least to greatest. `smoothing`
    is the weight of the past, 0 to below 1; what it smoothes stays visible, faintly. `x="time"` counts from
    the first value shown. A NaN breaks its line and stands as a hollow triangle on the axis; so does -inf,
    and inf at the top.

    Returns a matplotlib figure that pyplot does not know of: it shows itself in a notebook, and has
    `savefig`. UsageError without matplotlib, or for a name that is not there.
    """
    if not 0 <= smoothing < 1:
        raise UsageError(f"smoothing={smoothing} is not from 0 to below 1.")
    if x not in ("step", "time"):
        raise UsageError(f"x={x!r} is neither 'step' nor 'time'.")
    wanted = _chosen(metrics.names, names)
    try:
        from quarterdeck.metrics import figure
    except ImportError as error:
        if (error.name or "").startswith("quarterdeck"):
            raise
        raise UsageError("plot() needs matplotlib.", "%pip install matplotlib") from None
    shown = wanted if names is not None else wanted[:SHOWN]
    rest = len(wanted) - len(shown)
    note = EMPTY if not wanted else f"and {rest} more: plot(names=[...]) shows them" if rest else ""
    style = figure.Style(by_time=x == "time", smoothing=smoothing, log_scale=log_scale)
    return figure.draw([metrics[name] for name in shown], title, note, style)


def _chosen(known: list[str], names: str | Sequence[str] | None) -> list[str]:
    if names is None:
        return known
    found: list[str] = []
    for asked in [names] if isinstance(names, str) else names:
        matches = [
            name for name in known if name == asked or (asked.endswith("/") and name.startswith(asked))
        ]
        if not matches:
            near = difflib.get_close_matches(asked, known, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(known) or 'none'}."
            raise UsageError(f"No metric is called {asked!r}.", hint)
        found += [name for name in matches if name not in found]
    return found
