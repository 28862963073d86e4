"""A run's metrics: all files of all ranks and attempts together. For users and views, in the kernel:
`run.metrics`. Importing it imports neither numpy nor pandas, as loading the extension does.
"""

from __future__ import annotations

import difflib
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from quarterdeck.errors import UsageError
from quarterdeck.metrics import table
from quarterdeck.metrics.reader import NEVER, Effort, Last, by_prefix, last_values
from quarterdeck.public import public
from quarterdeck.store.format import RunHeader
from quarterdeck.store.layout import METRICS
from quarterdeck.store.resume_chain import ancestors

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]

    from quarterdeck.metrics.records import ByStep, Records

__all__ = ["Metrics", "Points", "Series", "last_of_run"]

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

    def __init__(self, name: str, by_rank: dict[int, Records]) -> None:
        self.name = name
        self.by_rank = by_rank
        """Ranks ascend, and steps."""

    @property
    def ranks(self) -> list[int]:
        """Ranks that have logged it, ascending."""
        return sorted(self.by_rank)

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
        steps, times, values = (column.tobytes() for column in self._of(rank))
        return Points(array("q", steps), array("q", times), array("d", values))

    def mean(self) -> OverRanks:
        """By step, the mean over the ranks that have it. A NaN among them gives NaN, here and in `min` and
        `max`.
        """
        found = self._by_step()
        return OverRanks(found.steps.tolist(), found.mean().tolist())

    def min(self) -> OverRanks:
        """By step, the least over the ranks that have it."""
        found = self._by_step()
        return OverRanks(found.steps.tolist(), found.least().tolist())

    def max(self) -> OverRanks:
        """By step, the greatest over the ranks that have it."""
        found = self._by_step()
        return OverRanks(found.steps.tolist(), found.greatest().tolist())

    def last(self, rank: int | None = None) -> float:
        """The value logged last, which need not be that of the greatest step.

        Args:
            rank: whose; None: the mean of all ranks' last values.

        Raises:
            UsageError: that rank has not logged it.
        """
        if rank is None:
            return sum(map(self.last, self.ranks)) / len(self.ranks)
        records = self._of(rank)
        return float(records.values[records.times.argmax()])

    def over_ranks(self, combine: Callable[[Sequence[float]], float], column: str = "values") -> OverRanks:
        """By step, one value made of those of the ranks that have it.

        Args:
            combine: takes the ranks' values of one step, a sequence of floats, and gives one.
            column: "values", or "times" in ns since 1970.
        """
        found = self._by_step()
        return OverRanks(found.steps.tolist(), found.combined(combine, column))

    def _of(self, rank: int) -> Records:
        if rank not in self.by_rank:
            raise UsageError(f"Rank {rank} has logged no {self.name!r}.", f"Ranks that have: {self.ranks}.")
        return self.by_rank[rank]

    def _by_step(self) -> ByStep:
        from quarterdeck.metrics.records import by_step

        return by_step(self.by_rank[rank] for rank in self.ranks)

    def __repr__(self) -> str:
        steps = max(len(records.steps) for records in self.by_rank.values())
        return f"<{self.name}: {steps:,} steps, ranks {self.ranks}>"


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
        from quarterdeck.metrics.history import History

        self.folder = folder
        self.world_size = world_size
        self.parent = parent
        before = parent._history.runs if parent is not None else ()
        self._history: History = History(folder, before)
        self._version = 0
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
        alone._history.runs = self._history.runs[:1]
        return alone

    def refresh(self) -> bool:
        """Read what was logged since.

        Returns:
            Whether there was something new.
        """
        self._history.refresh()
        before, self._version = self._version, self._history.version
        if before != self._version:
            self._series.clear()
        return before != self._version

    @property
    def first_step(self) -> int | None:
        """The least that this run itself has logged; None while it has logged nothing."""
        step = self._history.own.first_step
        return step if step != NEVER else None

    @property
    def names(self) -> list[str]:
        """Sorted; those without a prefix first, then prefix by prefix."""
        found = {name for source in self._history.sources() for name in source.columns.layout.names}
        return sorted(found, key=by_prefix)

    @property
    def ranks(self) -> list[int]:
        """Ranks that have logged something, ascending."""
        return sorted({source.file.rank for source in self._history.sources()})

    @property
    def skipped_bytes(self) -> int:
        """How many bytes were records that a full disk or a crash has torn."""
        return sum(file.skipped_bytes for file in self._history.own.files)

    def __getitem__(self, name: str) -> Series:
        if name not in self._series:
            by_rank = self._history.by_rank(name)
            if not by_rank:
                raise KeyError(self._unknown(name))
            self._series[name] = Series(name, by_rank)
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
            import pandas as pd
        except ImportError:
            raise UsageError("to_pandas() needs pandas.", "%pip install pandas") from None
        parts = []
        for source in self._history.sources():
            for name in source.columns.layout.names:
                records = source.records(name)
                run = {"run": source.run.folder.name} if self.parent is not None else {}
                who = {"rank": source.file.rank, "attempt": source.file.attempt, "step": records.steps}
                time = pd.to_datetime(records.times, unit="ns", utc=True)
                parts.append(
                    pd.DataFrame({**run, **who, "time": time, "name": name, "value": records.values})
                )
        if not parts:
            return pd.DataFrame(columns=["rank", "attempt", "step", "time", "name", "value"])
        return pd.concat(parts, ignore_index=True).sort_values("time", kind="stable", ignore_index=True)

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.names, n=1, cutoff=0.5)
        return f"no metric is called {name!r}" + (f"; {near[0]!r} is there" if near else "")

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
    for _, rank, path in METRICS.all_in(folder)[-_LOOKED_AT:]:
        latest |= {(name, rank): last for name, last in last_values(path, effort).items()}
    by_name: dict[str, list[float]] = {}
    for (name, _), last in sorted(latest.items()):
        by_name.setdefault(name, []).append(last.value)
    return {name: sum(values) / len(values) for name, values in by_name.items()}
