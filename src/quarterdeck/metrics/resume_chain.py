"""The files of metrics of a run and of those that it continues, as they grow, and which of their steps count:
of each run those below the first one of every run after it. Used by `thinned`, in the kernel.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from quarterdeck.metrics.reader import MetricFile
from quarterdeck.store.layout import METRICS

_ALL = 1 << 63


class Link:
    """One run of the chain. `end`: steps from there on are a later run's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.first_step = self.end = _ALL
        self.files: dict[str, MetricFile] = {}
        self._sizes: dict[str, int] = {}

    def grown(self) -> Iterator[MetricFile]:
        """Files that are not as long as they were. Without any it costs a few calls of stat."""
        try:
            entries = [entry for entry in os.scandir(self.folder) if METRICS.read(entry.name)]
            sizes = {entry.name: entry.stat(follow_symlinks=False).st_size for entry in entries}
        except OSError:
            return
        for name, size in sizes.items():
            if size != self._sizes.get(name, 0):
                self._sizes[name] = size
                if name not in self.files:
                    self.files[name] = MetricFile(self.folder / name)
                yield self.files[name]


class Chain:
    """`links`: the run itself first, then the one that it continues, and so on."""

    def __init__(self, folder: Path) -> None:
        self.links = [Link(folder)]

    def follow(self, ancestors: Iterable[Path]) -> None:
        """The runs that it continues, the latest first. What is known of them stays known."""
        self.links += [Link(folder) for folder in list(ancestors)[len(self.links) - 1 :]]
        self._set_ends()

    def grown(self) -> list[tuple[Link, MetricFile]]:
        return [(link, file) for link in self.links for file in link.grown()]

    def all(self) -> list[tuple[Link, MetricFile]]:
        """The oldest run's first, and of each run attempt by attempt."""
        return [
            (link, file)
            for link in reversed(self.links)
            for file in sorted(link.files.values(), key=lambda file: (file.attempt, file.rank))
        ]

    def begins(self, firsts: Sequence[tuple[Link, int]]) -> bool:
        """Steps that these runs have logged, too. True if a run that is continued ends earlier by them."""
        before = [link.end for link in self.links]
        for link, step in firsts:
            link.first_step = min(link.first_step, step)
        self._set_ends()
        return before != [link.end for link in self.links]

    def forget(self) -> None:
        """Where the runs begin: their files were replaced."""
        for link in self.links:
            link.first_step = link.end = _ALL

    def _set_ends(self) -> None:
        end = _ALL
        for link in self.links:
            link.end = end
            end = min(end, link.first_step)
