"""All that is logged in a run and in those that it continues, read as it grows. In the kernel: live curves
(`thinned`), step times (`step_timing`), `run.metrics` (`series`) and with it tables and figures stand on it.

Steps of a run count below the first one of every run after it: all of them until that has logged something.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import accumulate, groupby
from pathlib import Path
from typing import NamedTuple

from quarterdeck.metrics.reader import NEVER, Columns, MetricFile
from quarterdeck.metrics.records import Records, by_time, in_order, joined
from quarterdeck.store.layout import METRICS


class LoggedRun:
    """One run's files, as of the last `refresh`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: list[MetricFile] = []
        """Rank by rank, attempt by attempt."""
        self.first_step = NEVER
        self.version = 0

    def refresh(self) -> None:
        """Where no file is of another length it costs a few calls of stat."""
        grown = [file.refresh() for file in self._changed()]
        if any(grown):
            self.version += 1
            self.first_step = min((c.first_step for file in self.files for c in file.columns), default=NEVER)

    def _changed(self) -> list[MetricFile]:
        try:
            entries = [entry for entry in os.scandir(self.folder) if METRICS.read(entry.name)]
            sizes = {entry.name: entry.stat(follow_symlinks=False).st_size for entry in entries}
        except OSError:
            return []
        new = sizes.keys() - {file.path.name for file in self.files}
        self.files += [MetricFile(self.folder / name) for name in new]
        self.files.sort(key=lambda file: (file.rank, file.attempt))
        return [file for file in self.files if sizes.get(file.path.name, file.size_bytes) != file.size_bytes]


class Source(NamedTuple):
    """What one file has of one layout."""

    run: LoggedRun
    file: MetricFile
    columns: Columns
    end: int
    """Steps from there on are a later run's."""

    def records(self, name: str, start: int = 0) -> Records:
        """Those that count, from place `start` on."""
        columns = self.columns
        values = columns.values[columns.layout.names.index(name)]
        records = Records(columns.steps[start:], columns.times[start:], values[start:])
        return records if self.end == NEVER else records.where(records.steps < self.end)


class History:
    """`runs`: the run itself first, then the one that it continues, and so on."""

    def __init__(self, folder: Path, before: Iterable[LoggedRun] = ()) -> None:
        self.runs = [LoggedRun(folder), *before]

    def follow(self, ancestors: Iterable[Path]) -> None:
        """The runs that it continues, the latest first. What is known of them stays known."""
        self.runs += [LoggedRun(folder) for folder in list(ancestors)[len(self.runs) - 1 :]]

    @property
    def own(self) -> LoggedRun:
        return self.runs[0]

    def refresh(self) -> None:
        """Reads what was logged since."""
        for run in self.runs:
            run.refresh()

    @property
    def version(self) -> int:
        """Greater whenever something was read; 0 before."""
        return sum(run.version for run in self.runs)

    @property
    def ends(self) -> tuple[int, ...]:
        """For each run, the first step that does not count."""
        return tuple(accumulate((run.first_step for run in self.runs[:-1]), min, initial=NEVER))

    def sources(self, name: str | None = None, rank: int | None = None) -> Iterator[Source]:
        """All that hold something that counts: of the oldest run first, rank by rank, attempt by attempt."""
        for run, end in reversed(list(zip(self.runs, self.ends, strict=True))):
            for file in run.files:
                if rank is None or file.rank == rank:
                    for columns in file.columns:
                        if columns.first_step < end and (name is None or name in columns.layout.names):
                            yield Source(run, file, columns, end)

    def records(self, name: str, rank: int) -> Iterator[Records]:
        """Run by run, attempt by attempt: later ones replace earlier ones of their step."""
        for _, sources in groupby(self.sources(name, rank), key=lambda source: source.file.path):
            yield by_time([source.records(name) for source in sources])

    def by_rank(self, name: str) -> dict[int, Records]:
        """Ranks ascend, and steps: the last value of each."""
        ranks = sorted({source.file.rank for source in self.sources(name)})
        return {rank: in_order(joined(self.records(name, rank))) for rank in ranks}
