"""A run's metrics as thinned lines, as they grow: for live views, in the kernel. See `buckets`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

import numpy as np

from quarterdeck.metrics.buckets import Grid, Part
from quarterdeck.metrics.history import History, Source
from quarterdeck.metrics.reader import Columns, MetricFile, by_prefix
from quarterdeck.metrics.records import NotFinite, Records, between, by_time, not_finite


class ThinnedMetrics:
    """The metrics of a run, as of the last `refresh`; joined as `Metrics` joins them."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.renewed = False
        """Everything was taken anew, as it is not what it was; the caller sets it back."""
        self._version = 0
        self._ends: tuple[int, ...] = ()
        self._begin()

    def _begin(self) -> None:
        self.grids: dict[str, Grid] = {}
        self.not_finite: dict[tuple[str, int], NotFinite] = {}
        """By metric and rank; what this run itself has logged."""
        self.last_steps: dict[int, int] = {}
        """By rank, of what it logged last in this run."""
        self.began_unix_ns = 0
        """The time of the first value, also if a run that this one continues has it; 0 without one."""
        self._taken: dict[Columns, int] = {}
        """How many of their records are in the grids, or are a later run's."""

    @property
    def names(self) -> list[str]:
        """In the order of `Metrics.names`."""
        return sorted(self.grids, key=by_prefix)

    def refresh(self) -> bool:
        """True if there was something new."""
        self.history.refresh()
        before, self._version = self._version, self.history.version
        if before == self._version:
            return False
        sources = list(self.history.sources())
        if self._taken and self._is_another(sources):
            self._begin()
            self.renewed = True
        self._ends = self.history.ends
        for (file, name), parts in self._new(sources).items():
            self._take(file, name, by_time(parts))
        return True

    def zoom(self, name: str, first: float, last: float) -> Grid | None:
        """One metric between two steps, as fine as can be. None: nobody has logged it."""
        if name not in self.grids:
            return None
        grid = Grid()
        edges = math.floor(_step(first)), math.ceil(_step(last))
        for rank in sorted(self.grids[name].lines):
            records = between(self.history.records(name, rank), *edges)
            grid.take(rank, records, partial(between, [records]))
        return grid

    # ---- taking

    def _is_another(self, sources: Iterable[Source]) -> bool:
        """A file was replaced, or a run that is continued ends earlier."""
        return self.history.ends != self._ends or not self._taken.keys() <= {s.columns for s in sources}

    def _new(self, sources: Iterable[Source]) -> dict[tuple[MetricFile, str], list[Records]]:
        """What is not taken yet and counts."""
        found: dict[tuple[MetricFile, str], list[Records]] = {}
        for source in sources:
            columns, start = source.columns, self._taken.get(source.columns, 0)
            self._taken[columns] = len(columns.steps)
            for name in columns.layout.names if start < len(columns.steps) else ():
                records = source.records(name, start)
                if len(records.steps):
                    found.setdefault((source.file, name), []).append(records)
        return found

    def _take(self, file: MetricFile, name: str, records: Records) -> None:
        first, rank = int(records.times[0]), file.rank
        self.began_unix_ns = min(self.began_unix_ns or first, first)
        if file in self.history.own.files:
            self.last_steps[rank] = int(records.steps[-1])
            self._look(name, rank, records)
        grid = self.grids.setdefault(name, Grid())
        grid.take(rank, records, lambda *edges: between(self.history.records(name, rank), *edges))

    def _look(self, name: str, rank: int, records: Records) -> None:
        found, known = not_finite(records), self.not_finite.get((name, rank))
        if known is not None and (found is None or not found.lasts):
            self.not_finite[name, rank] = known._replace(lasts=False)
        elif found is not None and not (known is not None and known.lasts and _none_is_finite(records)):
            self.not_finite[name, rank] = found


def _none_is_finite(records: Records) -> bool:
    return not np.isfinite(records.values).any()


def packed(part: Part, began_unix_ns: int) -> bytes:
    """Six columns of float64, little-endian: step, ms since `began_unix_ns`, least, greatest, mean, last."""
    steps, times, *values = part.columns
    ms = np.maximum(times - began_unix_ns, 0) / 1e6
    return np.concatenate([steps, ms, *values], dtype="<f8").tobytes()


def _step(step: float) -> float:
    """One that a browser sent: may be anything."""
    limit = float(1 << 62)
    return 0.0 if math.isnan(step) else max(-limit, min(limit, step))
