"""A run's metrics: all files of all ranks and attempts together. Pure: neither numpy nor pandas until they
are asked for. For users and views, in the kernel: `run.metrics`.
"""

from __future__ import annotations

import difflib
import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from operator import lt
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from quarterdeck import files
from quarterdeck.errors import UsageError
from quarterdeck.metrics import table
from quarterdeck.metrics.reader import Columns, Effort, Last, MetricFile, last_values
from quarterdeck.metrics.thinning import or_nan
from quarterdeck.public import public
from quarterdeck.store.format import RunHeader
from quarterdeck.store.layout import METRICS
from quarterdeck.store.resume_chain import ancestors

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]

__all__ = ["MetricFile", "Metrics", "Points", "Series", "last_of_run"]

_LOOKED_AT = 4_096
"""Files, those of the last attempts, and of them so many bytes: for a row in a table of many runs."""
_LOOKED_AT_BYTES = 1 << 30


@public
class Points(NamedTuple):
    """One rank's values of a metric: columns of equal length, by ascending step.

    Attributes:
        steps: int64.
        times: when each was logged, in ns since 1970.
        values: float64.
    """

    steps: array[int]
    times: array[int]
    values: array[float]


@public
class OverRanks(NamedTuple):
    """One value per step, made of those of all ranks.

    Attributes:
        steps: ascending; every step that some rank has.
        values: as many, one for each step.
    """

    steps: list[int]
    values: list[float]


@public
class Series:
    """One metric: a column per rank, and what they give together. As of when it was got.

    When a step has several values, the latest attempt's counts, and in it the last one. Methods that take a
    rank raise UsageError if that rank has not logged the metric.
    """

    def __init__(self, name: str, by_rank: dict[int, Points]) -> None:
        self.name = name
        self._by_rank = by_rank

    @property
    def ranks(self) -> list[int]:
        """Ranks that have logged it, ascending."""
        return sorted(self._by_rank)

    def steps(self, rank: int) -> array[int]:
        """The rank's steps, ascending."""
        return self.points(rank).steps

    def values(self, rank: int) -> array[float]:
        """The rank's values, one for each of its steps."""
        return self.points(rank).values

    def times(self, rank: int) -> array[int]:
        """When each of the rank's values was logged, in ns since 1970."""
        return self.points(rank).times

    def points(self, rank: int) -> Points:
        """All three columns of a rank.

        Raises:
            UsageError: that rank has not logged it.
        """
        if rank not in self._by_rank:
            raise UsageError(f"Rank {rank} has logged no {self.name!r}.", f"Ranks that have: {self.ranks}.")
        return self._by_rank[rank]

    def mean(self) -> OverRanks:
        """By step, the mean over the ranks that have it. A NaN among them gives NaN, here and in `min` and
        `max`.
        """
        return self.over_ranks(lambda values: sum(values) / len(values))

    def min(self) -> OverRanks:
        """By step, the least over the ranks that have it."""
        return self.over_ranks(or_nan(min))

    def max(self) -> OverRanks:
        """By step, the greatest over the ranks that have it."""
        return self.over_ranks(or_nan(max))

    def last(self, rank: int | None = None) -> float:
        """The value logged last, which need not be that of the greatest step.

        Args:
            rank: whose; None: the mean of all ranks' last values.

        Raises:
            UsageError: that rank has not logged it.
        """
        if rank is None:
            return sum(map(self.last, self.ranks)) / len(self.ranks)
        points = self.points(rank)
        return points.values[points.times.index(max(points.times))]

    def over_ranks(self, combine: Callable[[Sequence[float]], float], column: str = "values") -> OverRanks:
        """By step, one value made of those of the ranks that have it.

        Args:
            combine: takes the ranks' values of one step, a sequence of floats, and gives one.
            column: "values", or "times" in ns since 1970.
        """
        parts = [self._by_rank[rank] for rank in self.ranks]
        first = parts[0].steps
        if all(part.steps == first for part in parts):
            rows = zip(*(getattr(part, column) for part in parts), strict=True)
            return OverRanks(first.tolist(), [combine(row) for row in rows])
        by_step: dict[int, list[float]] = {}
        for part in parts:
            for step, value in zip(part.steps, getattr(part, column), strict=True):
                by_step.setdefault(step, []).append(value)
        steps = sorted(by_step)
        return OverRanks(steps, [combine(by_step[step]) for step in steps])

    def __repr__(self) -> str:
        return (
            f"<{self.name}: {max(len(p.steps) for p in self._by_rank.values()):,} steps, ranks {self.ranks}>"
        )


@public
class Metrics:
    """`run.metrics`: what a run's ranks have logged, by name. `refresh` reads on while it grows.

    `metrics["loss"]` is the `Series` of that name; KeyError, which names the nearest one, if there is none. A
    run that continues another has that one's values, too, for the steps below its own first: all of them
    until it has logged something.
    """

    def __init__(self, folder: Path, world_size: int = 0, parent: Metrics | None = None) -> None:
        """It has nothing before `refresh`.

        Args:
            folder: the run's folder.
            world_size: as far as it is known; ranks that logged nothing are told by it.
            parent: the metrics of the run that this one continues.
        """
        self.folder = folder
        self.world_size = world_size
        self.parent = parent
        self._files: dict[str, MetricFile] = {}
        self._series: dict[str, Series] = {}

    @classmethod
    def read(cls, folder: Path, world_size: int = 0, parent: Path | Metrics | None = None) -> Metrics:
        """What the files in a run's folder hold now. `parent` is the run that it continues, or its folder."""
        metrics = cls(folder, world_size, cls.read(parent) if isinstance(parent, Path) else parent)
        metrics.refresh()
        return metrics

    @classmethod
    def of_run(cls, folder: Path, header: RunHeader, world_size: int = 0) -> Metrics:
        """With those of all the runs that it continues."""
        before: Metrics | None = None
        for ancestor in reversed(list(ancestors(folder, header))):
            before = cls.read(ancestor, parent=before)
        return cls.read(folder, world_size, before)

    @property
    def own(self) -> Metrics:
        """Without those of the runs that it continues."""
        if self.parent is None:
            return self
        alone = Metrics(self.folder, self.world_size)
        alone._files = self._files
        return alone

    def refresh(self) -> bool:
        """Read what was logged since.

        Returns:
            Whether there was something new.
        """
        for path in _files(self.folder):
            self._files.setdefault(path.name, MetricFile(path))
        new = [file for file in self._files.values() if file.refresh()]
        older = self.parent is not None and self.parent.refresh()
        if new or older:
            self._series.clear()
        return bool(new) or older

    @property
    def first_step(self) -> int | None:
        """The least that this run itself has logged; None while it has logged nothing."""
        return min((min(c.steps) for file in self._ordered() for c in file.columns if c.steps), default=None)

    @property
    def names(self) -> list[str]:
        """Sorted; those without a prefix first, then prefix by prefix."""
        found = {name for _, _, columns in self._columns() for name in columns.layout.names}
        return sorted(found, key=lambda name: (*reversed(name.rpartition("/")[:2]), name)[1:])

    @property
    def ranks(self) -> list[int]:
        """Ranks that have logged something, ascending."""
        return sorted({file.rank for _, file, _ in self._columns()})

    @property
    def skipped_bytes(self) -> int:
        """How many bytes were records that a full disk or a crash has torn."""
        return sum(file.skipped_bytes for file in self._files.values())

    def __getitem__(self, name: str) -> Series:
        if name not in self._series:
            by_rank = {rank: self._points(name, rank) for rank in self.ranks}
            found = {rank: points for rank, points in by_rank.items() if points.steps}
            if not found:
                raise KeyError(self._unknown(name))
            self._series[name] = Series(name, found)
        return self._series[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def last(self) -> dict[str, float]:
        """By name: the mean over ranks of what each logged last."""
        return {name: self[name].last() for name in self.names}

    def to_pandas(self) -> pandas.DataFrame:
        """All that was logged, a row per value, by ascending time; also values that a later one of their step
        has replaced.

        Returns:
            A DataFrame with the columns rank, attempt, step, time (UTC), name and value. Where the run
            continues another, the column `run` before them says which of the two logged it, by its id.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            import numpy as np
            import pandas as pd
        except ImportError:
            raise UsageError("to_pandas() needs pandas.", "%pip install pandas") from None
        parts = [
            pd.DataFrame(
                {
                    **({"run": file.path.parent.name} if self.parent is not None else {}),
                    "rank": file.rank,
                    "attempt": file.attempt,
                    "step": np.array(columns.steps),
                    "time": pd.to_datetime(np.array(columns.times), unit="ns", utc=True),
                    "name": name,
                    "value": np.array(values),
                }
            )[np.array(columns.steps) < (math.inf if limit is None else limit)]
            for limit, file, columns in self._columns()
            for name, values in zip(columns.layout.names, columns.values, strict=True)
            if values
        ]
        if not parts:
            return pd.DataFrame(columns=["rank", "attempt", "step", "time", "name", "value"])
        return pd.concat(parts, ignore_index=True).sort_values("time", kind="stable", ignore_index=True)

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.names, n=1, cutoff=0.5)
        return f"no metric is called {name!r}" + (f"; {near[0]!r} is there" if near else "")

    def _ordered(self) -> list[MetricFile]:
        return sorted(self._files.values(), key=lambda file: (file.rank, file.attempt))

    def _columns(self, limit: int | None = None) -> Iterator[tuple[int | None, MetricFile, Columns]]:
        """With a step below the limit, which comes with them: those of the runs before end where the run
        after them begins.
        """
        for file in self._ordered():
            for columns in file.columns:
                if columns.steps and (limit is None or min(columns.steps) < limit):
                    yield limit, file, columns
        if self.parent is not None:
            limits = [step for step in (limit, self.first_step) if step is not None]
            yield from self.parent._columns(min(limits, default=None))

    def _points(self, name: str, rank: int) -> Points:
        parts: list[Points] = []
        if self.parent is not None and (before := _below(self.first_step, self.parent._points(name, rank))):
            parts.append(before)
        for file in self._ordered():
            if file.rank == rank:
                parts += _by_time(
                    [
                        Points(c.steps, c.times, c.values[c.layout.names.index(name)])
                        for c in file.columns
                        if name in c.layout.names and c.steps
                    ]
                )
        return _merged(parts)

    def __repr__(self) -> str:
        return table.plain(self)

    def _repr_html_(self) -> str:
        return table.html(self)


def last_of_run(folder: Path) -> dict[str, float]:
    """As `Metrics.last`, from the ends of the files only: for tables of many runs. See `last_values` for what
    it may miss.
    """
    latest: dict[tuple[str, int], Last] = {}
    effort = Effort(_LOOKED_AT_BYTES)
    for path in sorted(_files(folder), key=lambda path: METRICS.read(path.name) or (0, 0))[-_LOOKED_AT:]:
        _, rank = METRICS.read(path.name) or (0, 0)
        latest |= {(name, rank): last for name, last in last_values(path, effort).items()}
    by_name: dict[str, list[float]] = {}
    for (name, _), last in sorted(latest.items()):
        by_name.setdefault(name, []).append(last.value)
    return {name: sum(values) / len(values) for name, values in by_name.items()}


def _files(folder: Path) -> list[Path]:
    return [folder / name for name in files.names_in(folder) if METRICS.read(name)]


def _below(limit: int | None, points: Points) -> Points | None:
    """None if there are none."""
    end = len(points.steps) if limit is None else bisect_left(points.steps, limit)
    return Points(points.steps[:end], points.times[:end], points.values[:end]) if end else None


def _by_time(parts: list[Points]) -> list[Points]:
    """The same name under several layouts: one column, as it was logged."""
    if len(parts) < 2:
        return parts
    rows = sorted((row for part in parts for row in zip(*part, strict=True)), key=lambda row: row[1])
    steps, times, values = zip(*rows, strict=True)
    return [Points(array("q", steps), array("q", times), array("d", values))]


def _merged(parts: list[Points]) -> Points:
    """Later parts, and later values in one, replace what a step had."""
    if len(parts) == 1 and all(map(lt, parts[0].steps, parts[0].steps[1:])):
        return parts[0]
    last = {step: (time, value) for part in parts for step, time, value in zip(*part, strict=True)}
    steps = sorted(last)
    times = array("q", (last[step][0] for step in steps))
    return Points(array("q", steps), times, array("d", (last[step][1] for step in steps)))
