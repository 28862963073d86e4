"""A run's metrics as thinned lines, read as they grow: for live views, in the kernel. See `buckets`."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from quarterdeck.metrics.buckets import Grid, Part, Records, between
from quarterdeck.metrics.format import attempt_and_rank
from quarterdeck.metrics.reader import Columns, MetricFile

if TYPE_CHECKING:
    from array import array

    import numpy as np
    from numpy.typing import NDArray


class NotFinite(NamedTuple):
    """What is wrong with the values of one metric on one rank."""

    value: float
    """nan, inf or -inf, the first one of the row."""
    step: int
    lasts: bool
    """All values since that step are so."""


class ThinnedMetrics:
    """The metrics of a run, as of the last `refresh`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.grids: dict[str, Grid] = {}
        self.not_finite: dict[tuple[str, int], NotFinite] = {}
        """By metric and rank."""
        self.last_steps: dict[int, int] = {}
        """By rank, of what it logged last."""
        self.began_unix_ns = 0
        """Of the first value; 0 without one."""
        self.renewed = False
        """Everything was read anew, as files were not those that they had been; the caller sets it back."""
        self._files: dict[str, MetricFile] = {}
        self._sizes: dict[str, int] = {}
        self._taken: dict[tuple[str, int], tuple[Columns, int]] = {}
        """By file and layout: how many of its records are in the grids."""

    @property
    def names(self) -> list[str]:
        """In the order of `Metrics.names`."""
        return sorted(self.grids, key=lambda name: (name.rpartition("/")[0], name))

    def refresh(self) -> bool:
        """True if there was something new."""
        new = [file for file in self._grown() if file.refresh()]
        if not new:
            return False
        if any(self._is_another(file) for file in new):
            self._start_over()
            new = list(self._files.values())
        for file in sorted(new, key=lambda file: (file.rank, file.attempt)):
            self._take(file)
        return True

    def zoom(self, name: str, first: float, last: float) -> Grid | None:
        """One metric between two steps, as fine as can be. None: nobody has logged it."""
        if name not in self.grids:
            return None
        grid = Grid()
        edges = math.floor(_step(first)), math.ceil(_step(last))
        for rank in sorted(self.grids[name].lines):
            records = between(self._all(name, rank), *edges)
            grid.take(rank, records, partial(between, [records]))
        return grid

    # ---- reading

    def _grown(self) -> Iterator[MetricFile]:
        try:
            entries = [e for e in os.scandir(self.folder) if attempt_and_rank(e.name)]
            sizes = {entry.name: entry.stat().st_size for entry in entries}
        except OSError:
            return
        for name, size in sizes.items():
            if size != self._sizes.get(name, 0):
                self._sizes[name] = size
                if name not in self._files:
                    self._files[name] = MetricFile(self.folder / name)
                yield self._files[name]

    def _is_another(self, file: MetricFile) -> bool:
        now = {columns.layout.id: columns for columns in file.columns}
        return any(
            name == file.path.name and now.get(id) is not columns
            for (name, id), (columns, _) in self._taken.items()
        )

    def _start_over(self) -> None:
        self.grids, self._taken = {}, {}
        self.not_finite, self.last_steps = {}, {}
        self.renewed = True

    def _take(self, file: MetricFile) -> None:
        parts: dict[str, list[Records]] = {}
        for columns in file.columns:
            key = file.path.name, columns.layout.id
            _, start = self._taken.get(key, (columns, 0))
            end = len(columns.steps)
            self._taken[key] = columns, end
            if end > start:
                self._taken_part(file.rank, columns, start, end, parts)
        for name, records in parts.items():
            self._put(name, file.rank, _by_time(records))

    def _taken_part(
        self, rank: int, columns: Columns, start: int, end: int, parts: dict[str, list[Records]]
    ) -> None:
        steps, times = _ints(columns.steps, start, end), _ints(columns.times, start, end)
        self.last_steps[rank] = int(steps[-1])
        self.began_unix_ns = min(self.began_unix_ns or int(times[0]), int(times[0]))
        for name, values in zip(columns.layout.names, columns.values, strict=True):
            parts.setdefault(name, []).append(Records(steps, times, _floats(values, start, end)))

    def _put(self, name: str, rank: int, records: Records) -> None:
        self._look(name, rank, records)
        grid = self.grids.setdefault(name, Grid())
        grid.take(rank, records, lambda first, last: between(self._all(name, rank), first, last))

    def _all(self, name: str, rank: int) -> Iterator[Records]:
        """Attempt by attempt. The columns must not grow while one of these is held: they are views."""
        files = sorted(self._files.values(), key=lambda file: file.attempt)
        for file in files:
            if file.rank == rank:
                found = [
                    Records(_ints(c.steps), _ints(c.times), _floats(c.values[c.layout.names.index(name)]))
                    for c in file.columns
                    if name in c.layout.names and len(c.steps)
                ]
                if found:
                    yield _by_time(found)

    def _look(self, name: str, rank: int, records: Records) -> None:
        import numpy as np

        finite = np.isfinite(records.values)
        known = self.not_finite.get((name, rank))
        if finite.all():
            if known is not None and known.lasts:
                self.not_finite[name, rank] = known._replace(lasts=False)
            return
        good = np.flatnonzero(finite)
        lasts = not finite[-1]
        if known is not None and known.lasts and not len(good):
            return
        if not lasts and known is not None:
            self.not_finite[name, rank] = known._replace(lasts=False)
            return
        place = (int(good[-1]) + 1 if len(good) else 0) if lasts else int(np.flatnonzero(~finite)[0])
        found = NotFinite(float(records.values[place]), int(records.steps[place]), lasts)
        self.not_finite[name, rank] = found


def packed(part: Part, began_unix_ns: int) -> bytes:
    """Six columns of float64, little-endian: step, ms since `began_unix_ns`, least, greatest, mean, last."""
    import numpy as np

    steps, times, *values = part.columns
    ms = np.maximum(times - began_unix_ns, 0) / 1e6
    return np.concatenate([steps, ms, *values], dtype="<f8").tobytes()


def _by_time(parts: Sequence[Records]) -> Records:
    """The same name under several layouts: one column, as it was logged."""
    import numpy as np

    if len(parts) == 1:
        return parts[0]
    every = Records._make(map(np.concatenate, zip(*parts, strict=True)))
    order = np.argsort(every.times, kind="stable")
    return Records._make(column[order] for column in every)


def _ints(column: array[int], start: int | None = None, end: int | None = None) -> NDArray[np.int64]:
    """A copy of a part; a view of the whole."""
    import numpy as np

    return np.frombuffer(column if start is None else column[start:end], np.int64)


def _floats(column: array[float], start: int | None = None, end: int | None = None) -> NDArray[np.float64]:
    import numpy as np

    return np.frombuffer(column if start is None else column[start:end], np.float64)


def _step(step: float) -> float:
    """One that a browser sent: may be anything."""
    limit = float(1 << 62)
    return 0.0 if math.isnan(step) else max(-limit, min(limit, step))
