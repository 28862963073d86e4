"""A file of metrics as columns, read as it grows; its last values, from its end. Pure: no numpy. In the
kernel and the coordinator, at any time, also while the file is written.
"""

from __future__ import annotations

import mmap
import os
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from quarterdeck.metrics.format import MARK, NAMES, WORD, Layout, attempt_and_rank, read_definition

_CHUNK_BYTES = 8 << 20
_NOT = bytes(range(255, -1, -1))
_PIECE_BYTES = 32 << 10
_BLOCK = 128
"""Records that are looked at together, if they all have one layout."""
_TAIL_BYTES = 64 << 10


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
        known = attempt_and_rank(path.name)
        if known is None:
            raise ValueError(f"{path} is not a file of metrics")
        self.path = path
        self.attempt, self.rank = known
        self.skipped_bytes = 0
        """Of torn records."""
        self._columns: dict[int, Columns] = {}
        self._offset = 0

    @property
    def columns(self) -> list[Columns]:
        return list(self._columns.values())

    def refresh(self) -> bool:
        """Reads what was appended since; True if there was something."""
        before, size = self._offset, _CHUNK_BYTES
        try:
            with self.path.open("rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size < before:  # not the file that it was
                    self.__init__(self.path)  # type: ignore[misc]
                while data := os.pread(file.fileno(), size, self._offset):
                    done = self._parse(data)
                    self._offset += done
                    if len(data) < size:
                        break
                    size = _CHUNK_BYTES if done else 2 * size  # a record of more than a chunk
        except OSError:
            pass
        return self._offset != before

    def _parse(self, data: bytes) -> int:
        """How many bytes are done with: up to a record that may still be in the making."""
        place = 0
        while place < len(data):
            taken = self._take(data, place)
            if taken <= 0:
                found, waits = self._next_whole(data, place, maybe=taken == 0)
                self.skipped_bytes += found - place
                if waits:
                    return found
                place = found
            place += max(taken, 0)
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
        places: dict[int, list[int]] = {id: [] for id in self._columns}
        while at < len(words) and (columns := self._columns.get(words[at])) is not None:
            after = at + columns.layout.size_bytes // WORD
            if after > len(words) or words[at + 1] != ~words[after - 1]:
                break
            places[words[at]].append(at)
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
            return 0 if len(start) < WORD and start[: len(MARK)] == MARK[: len(start)] else -1
        try:
            found = read_definition(data, place)
        except (ValueError, KeyError, TypeError):
            return -1
        if found is None:
            return 0
        self._columns.setdefault(found.layout.id, Columns(found.layout))
        return found.size_bytes

    def _next_whole(self, data: bytes, place: int, maybe: bool) -> tuple[int, bool]:
        """Where the next whole record begins; else where one begins that may become whole, and True.

        What looks unfinished, but is followed by a whole record, was torn: a record is one write.
        """
        unfinished = place if maybe else -1
        at = data.find(MARK, place + 1)
        while at >= 0:
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
        return size if time == ~end else -1


class Last(NamedTuple):
    time: int
    value: float


def last_values(path: Path) -> dict[str, Last]:
    """The last value of each name, from the end of the file: some milliseconds, however long it is.

    Names that are new to the file after its first 64 KiB, and that its last 64 KiB do not have, are missed.
    """
    found: dict[str, Last] = {}
    with _mapped(path) as data:
        for layout in _layouts(data):
            record = _last_record(data, layout)
            for name, value in zip(layout.names, record[3:-1], strict=False):
                if name not in found or record[1] >= found[name].time:
                    found[name] = Last(record[1], value)
    return found


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap | bytes]:
    """b"" for what is empty or cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    except (OSError, ValueError):
        yield b""
        return
    with data:
        yield data


def _layouts(data: mmap.mmap | bytes) -> list[Layout]:
    """Of the records at both ends of a file."""
    ids = {word for part in (data[:_TAIL_BYTES], data[-_TAIL_BYTES:]) for word in _marked(part)}
    found = (_layout(data, id) for id in ids)
    return [layout for layout in found if layout is not None]


def _marked(part: bytes) -> Iterator[bytes]:
    place = part.find(MARK)
    while place >= 0:
        word = part[place : place + WORD]
        yield part[place + WORD : place + 2 * WORD] if word == NAMES else word
        place = part.find(MARK, place + 1)


def _layout(data: mmap.mmap | bytes, id: bytes) -> Layout | None:
    place = data.find(NAMES + id)
    while place >= 0:
        try:
            found = read_definition(data[place : place + _TAIL_BYTES], 0)
        except (ValueError, KeyError, TypeError):
            found = None
        if found is not None:
            return found.layout
        place = data.find(NAMES + id, place + 1)
    return None


def _last_record(data: mmap.mmap | bytes, layout: Layout) -> tuple[int, ...]:
    """() if it has none that is whole."""
    id = layout.id.to_bytes(WORD, "little", signed=True)
    place = data.rfind(id)
    while place >= 0:
        if place + layout.size_bytes <= len(data):
            record = layout.unpack_from(data, place)
            if record[1] == ~record[-1]:
                return record
        place = data.rfind(id, 0, place)
    return ()
