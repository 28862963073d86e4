"""A file of metrics as columns, read as it grows; its last values, from its end. In the kernel and in
workers, also while the file is written. numpy only inside functions: loading the extension imports this.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from quarterdeck import files
from quarterdeck.metrics.format import (
    MARK,
    NAMES,
    WORD,
    Layout,
    length_of_names,
    read_definition,
)
from quarterdeck.store.layout import METRICS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

Bytes = mmap.mmap | bytes

_CHUNK_BYTES = 8 << 20
NEVER = 1 << 63
"""Beyond all steps."""
_PIECE_BYTES = 64 << 10
"""Looked at together: also where each record is followed by a torn one, that must not take too long."""
_TAIL_BYTES = 64 << 10
_TORN_BYTES = 64 << 20
"""In a row. A file that has more of it without a whole record was not written here: it is not read on."""
_EFFORT_BYTES = 4 << 30
_LEAST_EFFORT_BYTES = 1 << 10
"""What looks like a record, and is none, costs its checksum, and the look."""
_LAYOUTS = 100_000
"""The most layouts of a file."""
_MARK_BITS = (1 << 8 * len(MARK)) - 1
_MARK_WORD = int.from_bytes(MARK, "little")


class Columns:
    """All records of one layout, in the file's order. What it gave stays as it is while it grows."""

    def __init__(self, layout: Layout) -> None:
        import numpy as np

        self.layout = layout
        self.first_step = NEVER
        """The least of all steps."""
        self._rows: Ints = np.empty((2 + len(layout.names), 0), np.int64)
        """Times, steps and a row per name, with room at their ends."""
        self._count = 0

    @property
    def times(self) -> Ints:
        """ns since 1970."""
        return self._rows[0, : self._count]

    @property
    def steps(self) -> Ints:
        return self._rows[1, : self._count]

    @property
    def values(self) -> Floats:
        """A row per name."""
        return self._rows[2:, : self._count].view("<f8")

    def take(self, records: Ints) -> None:
        """Whole ones, a row each."""
        start, end = self._count, self._count + len(records)
        if end > self._rows.shape[1]:
            self._make_room(end + end // 4)
        self._rows[:, start:end] = records[:, 1:-1].T
        self.first_step = min(self.first_step, int(records[:, 2].min()))
        self._count = end

    def forget(self) -> None:
        """For a reader that needs each record once."""
        self._rows, self._count = self._rows[:, :0], 0

    def _make_room(self, count: int) -> None:
        import numpy as np

        rows = np.empty((len(self._rows), count), np.int64)
        rows[:, : self._count] = self._rows[:, : self._count]
        self._rows = rows


class MetricFile:
    """One rank's metrics of one attempt, as of the last `refresh`. ValueError for a file of another name."""

    def __init__(self, path: Path) -> None:
        known = METRICS.read(path.name)
        if known is None:
            raise ValueError(f"{path} is not a file of metrics")
        self.path = path
        self.attempt, self.rank = known
        self.size_bytes = 0
        """At the last `refresh`."""
        self.skipped_bytes = 0
        """The bytes of torn records."""
        self._columns: dict[int, Columns] = {}
        self._offset = 0
        self._torn_bytes = 0
        """In a row, up to the offset."""
        self._effort = Effort(_EFFORT_BYTES)

    @property
    def columns(self) -> list[Columns]:
        return list(self._columns.values())

    def refresh(self) -> bool:
        """Reads what was appended since; True if there was something."""
        before, is_another = self._offset, False
        with suppress(OSError):
            descriptor = files.open_file(self.path.parent, self.path.name)
            try:
                size_bytes = os.fstat(descriptor).st_size
                is_another = size_bytes < before  # not the file that it was
                if is_another:
                    self.__init__(self.path)  # type: ignore[misc]
                self.size_bytes = size_bytes
                self._read(descriptor)
            finally:
                os.close(descriptor)
        return is_another or self._offset != before

    def _read(self, descriptor: int) -> None:
        size = _CHUNK_BYTES
        while self._is_one and (data := os.pread(descriptor, size, self._offset)):
            done = self._parse(data)
            self._offset += done
            if len(data) < size:
                break
            size = _CHUNK_BYTES if done else 2 * size  # a record of more than a chunk

    @property
    def _is_one(self) -> bool:
        return self._torn_bytes < _TORN_BYTES and self._effort.left

    def _parse(self, data: bytes) -> int:
        """How many bytes are done with: up to a record that may still be in the making."""
        place = 0
        while place < len(data) and self._is_one:
            taken = self._take(data, place)
            if taken > 0:
                place += taken
                self._torn_bytes = 0
                continue
            found, waits = self._next_whole(data, place, maybe=taken == 0)
            self.skipped_bytes += found - place
            self._torn_bytes += found - place
            place = found
            if waits:
                break
        return place

    def _take(self, data: bytes, place: int) -> int:
        """Bytes of the records that begin there; 0 if one begins that is not there to its end, -1 if none."""
        columns = self._columns_at(data, place)
        if columns is None:
            return self._take_names(data, place)
        size = columns.layout.size_bytes
        if len(data) - place < size:
            return 0
        return self._take_records(data[place : place + max(size, _PIECE_BYTES)]) or -1

    def _take_records(self, piece: bytes) -> int:
        """Take the records of known layouts that it begins with, in a row; how many bytes they have."""
        import numpy as np

        words = np.frombuffer(piece, np.int64, len(piece) // WORD)
        starts = np.flatnonzero((words & _MARK_BITS) == _MARK_WORD)
        ids, kinds = np.unique(words[starts], return_inverse=True)
        known = [self._columns.get(id) for id in ids.tolist()]
        sizes = np.array([columns.layout.size_bytes // WORD if columns else 0 for columns in known])
        whole = _one_after_another(words, starts, starts + sizes[kinds])
        starts, kinds = starts[whole], kinds[whole]
        for kind, columns in enumerate(known):
            places = starts[kinds == kind, None]
            if columns and len(places):
                columns.take(words[places + np.arange(sizes[kind])])
        return int(starts[-1] + sizes[kinds[-1]]) * WORD if len(starts) else 0

    def _columns_at(self, data: bytes, place: int) -> Columns | None:
        return self._columns.get(int.from_bytes(data[place : place + WORD], "little", signed=True))

    def _take_names(self, data: bytes, place: int) -> int:
        start = data[place : place + WORD]
        if not NAMES.startswith(start):
            self._effort.spend(0)
            return 0 if len(start) < WORD and start[: len(MARK)] == MARK[: len(start)] else -1
        try:
            found = read_definition(data, place)
        except ValueError:
            self._effort.spend(length_of_names(data, place))
            return -1
        if found is None:
            return 0
        if len(self._columns) < _LAYOUTS:
            self._columns.setdefault(found.layout.id, Columns(found.layout))
        return found.size_bytes

    def _next_whole(self, data: bytes, place: int, maybe: bool) -> tuple[int, bool]:
        """Where the next whole record begins; else where one begins that may become whole, and True.

        What looks unfinished, but is followed by a whole record, was torn: a record is one write.
        """
        unfinished = place if maybe else -1
        at = data.find(MARK, place + 1)
        while at >= 0 and self._effort.left:
            state = self._looks(data, at)
            if state > 0:
                return at, False
            if state == 0 and unfinished < 0:
                unfinished = at
            at = data.find(MARK, at + 1)
        if unfinished >= 0:
            return unfinished, True
        return max(place + 1, len(data) - len(MARK) + 1), True

    def _looks(self, data: bytes, place: int) -> int:
        """As `_take`, but takes nothing of values."""
        columns = self._columns_at(data, place)
        if columns is None:
            return self._take_names(data, place)
        size = columns.layout.size_bytes
        if len(data) - place < size:
            return 0
        _, time, *_, end = columns.layout.unpack_from(data, place)
        if time == ~end:
            return size
        self._effort.spend(size)
        return -1


def _one_after_another(words: Ints, starts: Ints, ends: Ints) -> Ints:
    """Which of these are whole records that follow each other from word 0 on, without a gap. What looks like
    one may be among the values of another.
    """
    import numpy as np

    places: Ints = np.flatnonzero((ends > starts) & (ends <= len(words)))
    places = places[words[starts[places] + 1] == ~words[ends[places] - 1]]
    starts, ends = starts[places], ends[places]
    if len(starts) and starts[0] == 0 and bool((starts[1:] == ends[:-1]).all()):
        return places
    at, found = 0, []
    for place, start, end in zip(places.tolist(), starts.tolist(), ends.tolist(), strict=True):
        if start == at:
            found.append(place)
            at = end
    return np.array(found, np.int64)


def by_prefix(name: str) -> tuple[str, str]:
    """A key to sort names: those without a prefix first, then prefix by prefix."""
    return name.rpartition("/")[0], name


class Effort:
    """How much more is looked for in files that may be a stranger's."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes

    @property
    def left(self) -> bool:
        return self._size_bytes > 0

    def spend(self, size_bytes: int) -> None:
        self._size_bytes -= max(size_bytes, _LEAST_EFFORT_BYTES)

    def find(self, data: Bytes, what: bytes, start: int) -> int:
        end = min(len(data), start + max(0, self._size_bytes))
        place = data.find(what, start, end)
        self.spend((end if place < 0 else place) - start)
        return place

    def rfind(self, data: Bytes, what: bytes, end: int) -> int:
        start = max(0, end - max(0, self._size_bytes))
        place = data.rfind(what, start, end)
        self.spend(end - (start if place < 0 else place))
        return place


class Last(NamedTuple):
    time: int
    value: float


def last_values(path: Path, effort: Effort | None = None) -> dict[str, Last]:
    """The last value of each name, from the end of the file: some milliseconds, however long it is.

    Names that are new to the file after its first 64 KiB, and that its last 64 KiB do not have, are missed;
    so is what takes more than the effort to find.
    """
    effort = effort or Effort(_EFFORT_BYTES)
    found: dict[str, Last] = {}
    with _mapped(path) as data:
        for layout in _layouts(data, effort):
            record = _last_record(data, layout, effort)
            for name, value in zip(layout.names, record[3:-1], strict=False):
                if name not in found or record[1] >= found[name].time:
                    found[name] = Last(record[1], value)
    return found


@contextmanager
def _mapped(path: Path) -> Iterator[Bytes]:
    """b"" for what is empty or cannot be read."""
    try:
        descriptor = files.open_file(path.parent, path.name)
        try:
            data = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)
    except (OSError, ValueError):
        yield b""
        return
    with data:
        yield data


def _layouts(data: Bytes, effort: Effort) -> list[Layout]:
    """The layouts of the records at both ends of a file."""
    ids = {word for part in (data[:_TAIL_BYTES], data[-_TAIL_BYTES:]) for word in _marked(part)}
    found = (_layout(data, id, effort) for id in ids)
    return [layout for layout in found if layout is not None]


def _marked(part: bytes) -> Iterator[bytes]:
    place = part.find(MARK)
    while place >= 0:
        word = part[place : place + WORD]
        yield part[place + WORD : place + 2 * WORD] if word == NAMES else word
        place = part.find(MARK, place + 1)


def _layout(data: Bytes, id: bytes, effort: Effort) -> Layout | None:
    place = effort.find(data, NAMES + id, 0)
    while place >= 0:
        with suppress(ValueError):
            found = read_definition(data[place : place + _TAIL_BYTES], 0)
            if found is not None:
                return found.layout
        effort.spend(_TAIL_BYTES)
        place = effort.find(data, NAMES + id, place + 1)
    return None


def _last_record(data: Bytes, layout: Layout, effort: Effort) -> tuple[int, ...]:
    """() if it has none that is whole."""
    id = layout.id.to_bytes(WORD, "little", signed=True)
    place = effort.rfind(data, id, len(data))
    while place >= 0:
        if place + layout.size_bytes <= len(data):
            record = layout.unpack_from(data, place)
            if record[1] == ~record[-1]:
                return record
        place = effort.rfind(data, id, place)
    return ()
