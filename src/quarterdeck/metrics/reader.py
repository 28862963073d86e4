"""A file of metrics as columns, read as it grows; its last values, from its end. Pure: no numpy. In the
kernel and the coordinator, at any time, also while the file is written.
"""

from __future__ import annotations

import mmap
import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

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

Bytes = mmap.mmap | bytes

_CHUNK_BYTES = 8 << 20
_NOT = bytes(range(255, -1, -1))
_PIECE_BYTES = 32 << 10
_BLOCK = 128
"""Records that are looked at together, if they all have one layout."""
_TAIL_BYTES = 64 << 10
_TORN_BYTES = 64 << 20
"""In a row. A file that has more of it without a whole record was not written here: it is not read on."""
_EFFORT_BYTES = 4 << 30
_LEAST_EFFORT_BYTES = 1 << 10
"""What looks like a record, and is none, costs its checksum, and the look."""
_LAYOUTS = 100_000
"""The most layouts of a file."""


class Columns:
    """All records of one layout, in the file's order. `times` are ns since 1970; `values` has a column per
    name.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.steps = array("q")
        self.times = array("q")
        self.values = [array("d") for _ in layout.names]

    def take(self, words: array[int], numbers: array[float], places: list[int]) -> None:
        """The whole records that begin at these words; both arrays are of the same bytes."""
        self.times.extend([words[place + 1] for place in places])
        self.steps.extend([words[place + 2] for place in places])
        for offset, column in enumerate(self.values, 3):
            column.extend([numbers[place + offset] for place in places])

    def forget(self) -> None:
        """For readers that need each record once."""
        del self.steps[:], self.times[:]
        for column in self.values:
            del column[:]

    def take_block(self, data: bytes, start: int, count: int) -> bool:
        """`count` records at once; none, and False, if they are not all whole and of this layout."""
        words, width = array("q"), self.layout.size_bytes // WORD
        block = data[start : start + count * self.layout.size_bytes]
        words.frombytes(block)
        times, ends = words[1::width], words[width - 1 :: width]
        if words[::width].count(self.layout.id) != count or times.tobytes() != ends.tobytes().translate(_NOT):
            return False
        numbers = array("d", block)
        self.times += times
        self.steps += words[2::width]
        for place, column in enumerate(self.values, 3):
            column += numbers[place::width]
        return True


class MetricFile:
    """One rank's metrics of one attempt, as of the last `refresh`. ValueError for a file of another name."""

    def __init__(self, path: Path) -> None:
        known = METRICS.read(path.name)
        if known is None:
            raise ValueError(f"{path} is not a file of metrics")
        self.path = path
        self.attempt, self.rank = known
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
        before = self._offset
        with suppress(OSError):
            descriptor = files.open_file(self.path.parent, self.path.name)
            try:
                if os.fstat(descriptor).st_size < before:  # not the file that it was
                    self.__init__(self.path)  # type: ignore[misc]
                self._read(descriptor)
            finally:
                os.close(descriptor)
        return self._offset != before

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
        if len(data) - place >= _BLOCK * size and columns.take_block(data, place, _BLOCK):
            return _BLOCK * size
        return self._take_mixed(data, place, max(size, _PIECE_BYTES)) or -1

    def _take_mixed(self, data: bytes, place: int, piece_bytes: int) -> int:
        """Records of any known layouts, up to one that is torn, or to the end of a piece."""
        piece = data[place : place + piece_bytes]
        piece = piece[: len(piece) // WORD * WORD]
        words, at = array("q", piece), 0
        places: dict[int, list[int]] = {}
        while at < len(words) and (columns := self._columns.get(words[at])) is not None:
            after = at + columns.layout.size_bytes // WORD
            if after > len(words) or words[at + 1] != ~words[after - 1]:
                break
            places.setdefault(words[at], []).append(at)
            at = after
        numbers = array("d", piece)
        for id, found in places.items():
            self._columns[id].take(words, numbers, found)
        return at * WORD

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
