"""A run's decks as its folder has them, at any time: while they are written, after a crash, years later. Used
by the kernel's half of the view, and by `run.decks`.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from quarterdeck import files
from quarterdeck.decks import automatic
from quarterdeck.decks.environment import environment, has_source, source
from quarterdeck.decks.file import SUFFIX, Body, Label, read_body, read_label
from quarterdeck.decks.page import merged, page, whole
from quarterdeck.decks.phases import read_phases
from quarterdeck.decks.render.html import note
from quarterdeck.decks.timeline import drawn
from quarterdeck.store.layout import DECKS, EVENTS, HEADER, SPANS, attempt_of, rank_of

_MOST = 20_000
"""Files of a run's decks."""


Names = tuple[str, ...]


@dataclass(frozen=True)
class Head:
    """What there is, without its content."""

    name: str
    automatic: bool
    ranks: list[int]
    """That have written it; empty for one of the whole run."""
    version: int
    """Grows with every change that this reader sees, and with time."""
    size_bytes: int


@dataclass(frozen=True)
class _File:
    names: Names
    """Its path in the run's folder."""
    label: Label
    stamp: tuple[int, int, int]
    """Changes with the content: time of the last write (ns), size, inode."""


class StoredDecks:
    """Nothing here raises OSError: what cannot be read is not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._labels: dict[Names, Label] = {}
        self._versions: dict[str, tuple[object, int]] = {}
        self._source_known = False

    def heads(self, attempt: int | None = None) -> list[Head]:
        """In the order in which they are shown. None: of each rank's deck the latest attempt that has it.
        Costs a look into each rank's folder, and opens only files that it has not seen.
        """
        by_name: dict[str, dict[int, _File]] = {}
        for (name, rank), file in self._files(attempt).items():
            by_name.setdefault(name, {})[rank] = file
        kept = [self._head(name, files) for name, files in _in_order(by_name)]
        made = [self._made(name) for name in automatic.kept_fields(self.folder) if name not in by_name]
        first = [head for head in made if head is not None and head.name == automatic.TIMELINE]
        rest = [head for head in made if head is not None and head.name != automatic.TIMELINE]
        users = [head for head in kept if not head.automatic]
        return [*first, *users, *rest, *(head for head in kept if head.automatic)]

    def page(self, name: str, rank: int | None = None) -> str:
        """A whole page; None: of all ranks. One without the deck says so."""
        found = {of: file for (of_name, of), file in self._files(None).items() if of_name == name}
        if not found:
            return self._page_of_run(name)
        if rank is None:
            return merged(name, {of: self._body(file) for of, file in sorted(found.items())})
        if rank in found:
            return page(name, self._body(found[rank]))
        return whole(name, note(f"Rank {rank} has not written this deck."))

    def body(self, name: str, rank: int) -> Body | None:
        file = self._files(None).get((name, rank))
        return self._body(file) if file is not None else None

    def names(self, rank: int) -> list[str]:
        """The decks that a rank has written: the user's as they were created, then the automatic ones."""
        found = [(file.label, name) for (name, of), file in self._files(None).items() if of == rank]
        return [name for _, name in sorted(found, key=lambda one: _order(one[0]))]

    def ranks(self) -> list[int]:
        return sorted({rank for _, rank in self._files(None)})

    # ---- the files of ranks

    def _files(self, attempt: int | None) -> dict[tuple[str, int], _File]:
        """By name and rank; of several attempts the latest."""
        found: dict[tuple[str, int], _File] = {}
        for rank, file in islice(self._all(attempt), _MOST):
            found.setdefault((file.label.name, rank), file)
        return found

    def _all(self, attempt: int | None) -> Iterator[tuple[int, _File]]:
        """The latest attempt's first."""
        for number, one in reversed(self._numbered((DECKS,), attempt_of)):
            if attempt is None or number == attempt:
                for rank, place in self._numbered(one, rank_of):
                    yield from ((rank, file) for file in self._in(place))

    def _numbered(self, place: Names, number: Callable[[str], int | None]) -> list[tuple[int, Names]]:
        known = ((number(name), name) for name in files.names_in(self.folder, *place))
        return sorted((at, (*place, name)) for at, name in known if at is not None)

    def _in(self, place: Names) -> Iterator[_File]:
        for name, status in files.regular_in(self.folder, *place):
            if not name.endswith(SUFFIX) or name.startswith("."):
                continue
            names = (*place, name)
            try:
                label = self._labels.get(names) or read_label(self.folder, *names)
            except OSError:
                continue
            if label is not None:
                self._labels[names] = label
                yield _File(names, label, (status.st_mtime_ns, status.st_size, status.st_ino))

    def _body(self, file: _File) -> Body:
        try:
            return read_body(self.folder, *file.names)
        except OSError:
            return Body()

    def _head(self, name: str, files: dict[int, _File]) -> Head:
        stamps = {rank: file.stamp for rank, file in sorted(files.items())}
        size_bytes = sum(size for _, size, _ in stamps.values())
        automatic = all(file.label.automatic for file in files.values())
        version = self._version(name, stamps, max(time for time, _, _ in stamps.values()))
        return Head(name, automatic, sorted(files), version, size_bytes)

    def _version(self, name: str, seen: object, time_ns: int) -> int:
        """In ms, which a browser's numbers can hold; one more where that would not be more."""
        before, version = self._versions.get(name, (None, 0))
        if seen != before:
            version = max(version + 1, time_ns // 1_000_000)
            self._versions[name] = seen, version
        return version

    # ---- what the run's own files tell

    def _made(self, name: str) -> Head | None:
        """The head of a deck that is made when it is asked for; None if there is nothing to make it of."""
        if name in (automatic.INPUT, automatic.OUTPUT):
            return None
        names = [HEADER]
        if name == automatic.TIMELINE:
            names = [EVENTS, *(path.name for _, _, path in SPANS.all_in(self.folder))]
        stamps = [stamp for name in names if (stamp := self._stamp(name)) is not None]
        if not stamps or (name == automatic.SOURCE and not self._has_source()):
            return None
        size_bytes = sum(size for _, size in stamps)
        return Head(name, True, [], self._version(name, stamps, max(stamps)[0]), size_bytes)

    def _stamp(self, name: str) -> tuple[int, int] | None:
        try:
            found = files.status(self.folder, name)
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size) if stat.S_ISREG(found.st_mode) else None

    def _has_source(self) -> bool:
        """A header does not change."""
        self._source_known = self._source_known or has_source(self.folder)
        return self._source_known

    def _page_of_run(self, name: str) -> str:
        match name if name in automatic.kept_fields(self.folder) else "":
            case automatic.TIMELINE:
                return whole(name, drawn(read_phases(self.folder)))
            case automatic.SOURCE:
                return whole(name, source(self.folder) or note("The source is not known."))
            case automatic.ENVIRONMENT:
                return whole(name, environment(self.folder))
        return whole(name, note("No rank has written this deck."))


def _in_order(by_name: dict[str, dict[int, _File]]) -> list[tuple[str, dict[int, _File]]]:
    return sorted(by_name.items(), key=lambda item: min(_order(file.label) for file in item[1].values()))


def _order(label: Label) -> tuple[bool, int, str]:
    if label.automatic:
        return True, automatic.FIELDS.index(label.name) if label.name in automatic.FIELDS else 0, label.name
    return False, label.created_unix_ns, label.name
