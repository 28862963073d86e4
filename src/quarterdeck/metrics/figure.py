"""The figure itself: white in any theme, 684 pixels wide and twice as sharp. In the kernel; imports
matplotlib and numpy, so only `plot` imports this. pyplot and its global state are never touched.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from quarterdeck.metrics.records import ByStep, Ints, by_step, not_finite
from quarterdeck.metrics.series import Series
from quarterdeck.metrics.thinning import envelope, smoothed, thinned
from quarterdeck.present import palette
from quarterdeck.present.words import metric

RANKS = palette.LIGHT_RANKS
"""The light palette, as the other colours here; ranks from 4 on are dashed."""
_MEAN, _TEXT, _FAINT, _GRID, _AXIS, _ERROR = (
    palette.LIGHT[name] for name in ("mean", "mean", "fg2", "soft", "ctl", "err")
)
_WIDTH_PX, _ROW_PX, _DPI = 684, 212, 100
_POINT = 72 / _DPI
"""The points of a pixel: matplotlib counts lines and type in points."""
_LINES = 8
_UNITS = ((3 * 3600, "hours", 3600), (180, "minutes", 60), (0, "seconds", 1))

Array = NDArray[np.float64]


@dataclass
class Style:
    by_time: bool = False
    smoothing: float = 0.0
    log_scale: bool = False


class RunFigure(Figure):
    """Shows itself in a notebook, also where no pyplot was imported."""

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=2 * _DPI)
        width, height = (round(float(inches) * _DPI) for inches in self.get_size_inches())
        return {"image/png": buffer.getvalue()}, {"image/png": {"width": width, "height": height}}


def draw(metrics: Sequence[Series], title: str, note: str, style: Style) -> RunFigure:
    """A chart for each, two in a row; one alone takes the whole width."""
    columns = min(2, max(1, len(metrics)))
    rows = -(-len(metrics) // columns) or 1
    height = (_ROW_PX if len(metrics) > 1 else 280) * rows + 40
    spaces = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06, wspace=0.03, hspace=0.03)
    size = (_WIDTH_PX / _DPI, height / _DPI)
    figure = RunFigure(figsize=size, dpi=_DPI, facecolor="white", layout=spaces)
    began = min((int(one.times[0]) for series in metrics for one in series.by_rank.values()), default=0)
    for place, series in enumerate(metrics, 1):
        axes = figure.add_subplot(rows, columns, place)
        _chart(axes, series, style, began, _WIDTH_PX * 2 // columns)
    _legend(figure, metrics, title)
    if note:
        figure.supxlabel(note, size=11 * _POINT, color=_FAINT)
    return figure


def _chart(axes: Axes, series: Series, style: Style, began: int, columns: int) -> None:
    _frame(axes, series, style)
    unit = _time_unit(series, began) if style.by_time else ("step", 1.0)
    axis = _Axis(style.by_time, began, unit[1] * 1e9)
    marks: dict[int | None, tuple[Array, Array]] = {}
    together = by_step(series.by_rank.values())
    mean = axis.of(together.steps, np.maximum.accumulate(together.times())), together.mean()
    if len(series.ranks) > _LINES:
        _band(axes, mean[0], together, columns)
        marks[None] = mean
    else:
        width = 1.5 if len(series.ranks) == 1 else 1
        for rank, (steps, times, values) in series.by_rank.items():
            marks[rank] = axis.of(steps, times), values
            _line(axes, *marks[rank], style, columns, RANKS[rank % _LINES], width, dashed=rank % _LINES > 3)
    if len(series.ranks) > 1:
        _line(axes, *mean, style, columns, _MEAN, 2)
    _limits(axes, series, style)
    for whose, (x, y) in marks.items():
        _mark(axes, x, y, _MEAN if whose is None else RANKS[whose % _LINES], columns)
    axes.set_xlabel(unit[0], size=11 * _POINT, color=_FAINT, labelpad=2)
    _say_what_is_not_finite(axes, series)


class _Axis(NamedTuple):
    """Where points stand: their step, or the time since the run's first value."""

    by_time: bool
    began: int
    unit_ns: float

    def of(self, steps: Ints, times: Ints) -> Array:
        return (times - self.began) / self.unit_ns if self.by_time else steps.astype(float)


def _line(
    axes: Axes,
    x: Array,
    y: Array,
    style: Style,
    columns: int,
    colour: str,
    width: float,
    dashed: bool = False,
) -> None:
    """A line of `width` pixels, smoothed, over itself as it was. A value with no neighbour is a point."""
    y = np.where(np.isfinite(y), y, np.nan)
    look: dict[str, Any] = {"color": colour, "solid_capstyle": "round", "solid_joinstyle": "round"}
    if dashed:
        look["dashes"] = (4, 3)
    alpha = 0.8 if width < 2 else 1.0
    z = 3 if width >= 2 else 2
    if style.smoothing:
        raw = thinned(x, y, columns)
        axes.plot(*raw, linewidth=_POINT, alpha=0.22, zorder=1, **look)
        y = smoothed(y, style.smoothing)
    axes.plot(*thinned(x, y, columns), linewidth=width * _POINT, alpha=alpha, zorder=z, **look)
    here = np.isfinite(y)
    alone = here & ~np.append(here[1:], False) & ~np.append(False, here[:-1])
    if alone.any():
        places = np.flatnonzero(alone)[:columns]
        axes.plot(x[places], y[places], "o", color=colour, markersize=(2 + width) * _POINT, zorder=z)


def _band(axes: Axes, x: Array, together: ByStep, columns: int) -> None:
    """Least to greatest of the ranks, NaN left out."""
    values = together.rows.values
    values = np.where(np.isfinite(values), values, np.nan)
    low, high = (choose.reduceat(values, together.starts) for choose in (np.fmin, np.fmax))
    axes.fill_between(*envelope(x, low, high, columns), color=_MEAN, alpha=0.16, linewidth=0, zorder=1)


def _mark(axes: Axes, x: Array, y: Array, colour: str, columns: int) -> None:
    """Hollow triangles on the axis where it is NaN or -inf, at the top where it is inf."""
    for found, height, shape in ((np.isnan(y) | np.isneginf(y), 0.0, "^"), (np.isposinf(y), 1.0, "v")):
        places = x[found]
        if not len(places):
            continue
        span = max(float(x[-1] - x[0]), 1e-12)
        cells = np.unique(np.floor((places - places[0]) / span * columns / 20), return_index=True)[1]
        axes.plot(
            places[cells], np.full(len(cells), height), shape, transform=axes.get_xaxis_transform(),
            markersize=7 * _POINT, markerfacecolor="white", markeredgecolor=colour, markeredgewidth=_POINT,
            clip_on=False, zorder=5,
        )  # fmt: skip


def _say_what_is_not_finite(axes: Axes, series: Series) -> None:
    """ "nan since step 812 on rank 1", or "inf at step 600 on rank 0": what lasts first, then what began
    first.
    """
    found = [(bad, rank) for rank, one in series.by_rank.items() if (bad := not_finite(one)) is not None]
    if found:
        bad, rank = min(found, key=lambda item: (not item[0].lasts, item[0].step, item[1]))
        text = f"{bad.value} {'since' if bad.lasts else 'at'} step {bad.step:,} on rank {rank}"
        axes.set_title(text, loc="right", size=11 * _POINT, color=_ERROR, pad=6)


def _limits(axes: Axes, series: Series, style: Style) -> None:
    if style.log_scale and any((one.values > 0).any() for one in series.by_rank.values()):
        axes.set_yscale("log", nonpositive="mask")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, min_n_ticks=3))
    axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    axes.margins(x=0.01, y=0.08)
    axes.autoscale_view()


def _tick(value: float, _: object = None) -> str:
    return f"{value:,.6g}" if abs(value) < 1e6 and (value == 0 or abs(value) >= 1e-4) else metric(value)


def _time_unit(series: Series, began: int) -> tuple[str, float]:
    span_s = (max(int(one.times.max()) for one in series.by_rank.values()) - began) / 1e9
    return next((name, float(unit)) for least, name, unit in _UNITS if span_s >= least)


def _frame(axes: Axes, series: Series, style: Style) -> None:
    """No box, horizontal grid only, the name at the top left with its last value."""
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set(color=_AXIS, linewidth=_POINT)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=_GRID, linewidth=_POINT)
    axes.tick_params(axis="both", labelsize=11 * _POINT, labelcolor=_FAINT, length=0, pad=4)
    axes.tick_params(axis="x", length=3, color=_AXIS, width=_POINT)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=not style.by_time))
    whole = FuncFormatter(
        lambda value, _: f"{value:,.0f}" if abs(value) < 1e7 else EngFormatter(sep="")(value)
    )
    axes.xaxis.set_major_formatter(FuncFormatter(_tick) if style.by_time else whole)
    axes.set_title(series.name, loc="left", size=12 * _POINT, weight="bold", color=_TEXT, pad=6)


def _legend(figure: Figure, metrics: Sequence[Series], title: str) -> None:
    """Ranks and mean once, above all charts and under the title; without them where there is one line."""
    ranks = sorted({rank for series in metrics for rank in series.ranks})
    if len(ranks) < 2:
        if title:
            figure.suptitle(title, x=0.012, ha="left", size=15 * _POINT, weight="bold", color=_TEXT)
        return
    mean = Line2D([], [], color=_MEAN, linewidth=2 * _POINT)
    band = Line2D([], [], color=_MEAN, alpha=0.16, linewidth=7 * _POINT)
    if len(ranks) > _LINES:
        entries = {"mean": mean, f"least to greatest of {len(ranks)} ranks": band}
    else:
        entries = {**{f"rank {rank}": _sample(rank) for rank in ranks}, "mean": mean}
    legend = figure.legend(
        list(entries.values()), list(entries), loc="outside upper left", ncols=len(entries), frameon=False,
        fontsize=11 * _POINT, labelcolor=_FAINT, handlelength=1.4, handletextpad=0.5, columnspacing=1.4,
        title=title or None, alignment="left", borderpad=0, borderaxespad=0.8,
    )  # fmt: skip
    legend.get_title().set(size=15 * _POINT, weight="bold", color=_TEXT)


def _sample(rank: int) -> Line2D:
    line = Line2D([], [], color=RANKS[rank % _LINES], linewidth=1.5 * _POINT)
    if rank % _LINES > 3:
        line.set_dashes((4, 3))
    return line
