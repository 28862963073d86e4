"""A run's metrics as thinned lines, read as they grow: for live views, in the kernel. See `buckets`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from quarterdeck.metrics.buckets import Grid, Part, Records, between
from quarterdeck.metrics.reader import Columns, MetricFile
from quarterdeck.metrics.resume_chain import Chain, Link

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
    """The metrics of a run, as of the last `refresh`; joined as `Metrics` joins them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.grids: dict[str, Grid] = {}
        self.not_finite: dict[tuple[str, int], NotFinite] = {}
        """By metric and rank; what this run itself has logged."""
        self.last_steps: dict[int, int] = {}
        """By rank, of what it logged last in this run."""
        self.began_unix_ns = 0
        """The time of the first value, also if a run that this one continues has it; 0 without one."""
        self.renewed = False
        """Everything was read anew, as files were not those that they had been; the caller sets it back."""
        self._chain = Chain(folder)
        self._taken: dict[tuple[Path, int], tuple[Columns, int]] = {}
        """By file and layout: how many of its records are in the grids, or are a later run's."""

    @property
    def names(self) -> list[str]:
        """In the order of `Metrics.names`."""
        return sorted(self.grids, key=lambda name: (name.rpartition("/")[0], name))

    def follow(self, ancestors: Iterable[Path]) -> None:
        """The folders of the runs that this one continues, the latest first (`resume_chain.ancestors`)."""
        self._chain.follow(ancestors)

    def refresh(self) -> bool:
        """True if there was something new."""
        new = [(link, file) for link, file in self._chain.grown() if file.refresh()]
        if not new:
            return False
        if any(self._is_another(file) for _, file in new):
            self._chain.forget()
            new = self._start_over()
        if self._chain.begins(list(self._first_steps(new))) and self._taken:
            new = self._start_over()
        for link, file in sorted(new, key=lambda pair: (pair[1].rank, pair[1].attempt)):
            self._take(link, file)
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

    def _is_another(self, file: MetricFile) -> bool:
        now = {columns.layout.id: columns for columns in file.columns}
        return any(
            path == file.path and now.get(id) is not columns
            for (path, id), (columns, _) in self._taken.items()
        )

    def _start_over(self) -> list[tuple[Link, MetricFile]]:
        self.grids, self._taken = {}, {}
        self.not_finite, self.last_steps = {}, {}
        self.began_unix_ns = 0
        self.renewed = True
        return self._chain.all()

    def _untaken(self, file: MetricFile) -> Iterator[tuple[Columns, int]]:
        """Columns with records that are new, and where those begin."""
        for columns in file.columns:
            _, start = self._taken.get((file.path, columns.layout.id), (columns, 0))
            if start < len(columns.steps):
                yield columns, start

    def _first_steps(self, new: Iterable[tuple[Link, MetricFile]]) -> Iterator[tuple[Link, int]]:
        for link, file in new:
            for columns, start in self._untaken(file):
                yield link, int(_ints(columns.steps, start, len(columns.steps)).min())

    def _take(self, link: Link, file: MetricFile) -> None:
        own = link.folder == self.folder
        parts: dict[str, list[Records]] = {}
        for columns, start in self._untaken(file):
            end = len(columns.steps)
            self._taken[file.path, columns.layout.id] = columns, end
            for name, records in _counting(link, columns, columns.layout.names, start, end):
                if own:
                    self.last_steps[file.rank] = int(records.steps[-1])
                first = int(records.times[0])
                self.began_unix_ns = min(self.began_unix_ns or first, first)
                parts.setdefault(name, []).append(records)
        for name, several in parts.items():
            records = _by_time(several)
            if own:
                self._look(name, file.rank, records)
            self._put(name, file.rank, records)

    def _put(self, name: str, rank: int, records: Records) -> None:
        grid = self.grids.setdefault(name, Grid())
        grid.take(rank, records, lambda first, last: between(self._all(name, rank), first, last))

    def _all(self, name: str, rank: int) -> Iterator[Records]:
        """Run by run, attempt by attempt. The columns must not grow while one of these is held: they are
        views.
        """
        for link, file in self._chain.all():
            if file.rank == rank:
                found = [
                    records
                    for columns in file.columns
                    if name in columns.layout.names and len(columns.steps)
                    for _, records in _counting(link, columns, [name])
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


def _counting(
    link: Link, columns: Columns, names: Iterable[str], start: int | None = None, end: int | None = None
) -> Iterator[tuple[str, Records]]:
    """Those records, of a part or of all, that are not a later run's; nothing if there are none."""
    steps, times = _ints(columns.steps, start, end), _ints(columns.times, start, end)
    here = slice(None) if int(steps.max()) < link.end else steps < link.end
    steps, times = steps[here], times[here]
    if len(steps):
        for name in names:
            values = columns.values[columns.layout.names.index(name)]
            yield name, Records(steps, times, _floats(values, start, end)[here])


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
