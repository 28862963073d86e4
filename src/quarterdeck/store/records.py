"""Files that only grow, by whole records, and are read while they grow. Used by everything that appends to a
run but `qd.log` (see `metrics.format`). How one record is told from the next differs, and is data here:

    TEXT        it is not                      rank-N.log
    LINES       each ends with a newline       events.jsonl, spans-attempt-A-rank-R.jsonl
    Framing(n)  each has n bytes               output.bin
    checked     length, CRC-32, content        decks; also what is in a slot of `slot_file`

A record that is not whole was torn, by a crash or a full disk, or is in the making. A reader waits for its
end. A writer that goes on fills it up, so that the next one is read.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from quarterdeck import files

CHECK_BYTES = 8
"""Before the content of a checked record."""

_CHECK = struct.Struct("<II")
_LONGEST_BYTES = 64 << 20
"""A longer line is passed over."""
_BLOCK_BYTES = 4 << 20


class Framing(NamedTuple):
    size_bytes: int
    """The length of each record; 0: each ends with a newline."""
    limit_bytes: float = math.inf
    limit_records: float = math.inf
    """The most bytes of a file that is read."""

    @property
    def end(self) -> bytes:
        return b"" if self.size_bytes else b"\n"

    def fill(self, torn_bytes: int) -> bytes:
        """What stands between the beginning of a torn record and the next one."""
        if self.size_bytes:
            return b"\xff" * (-torn_bytes % self.size_bytes)
        return b"\n" if torn_bytes else b""

    def whole(self, data: bytes) -> list[bytes]:
        """The records that `data` begins with, as far as they are there."""
        if not self.size_bytes:
            return data.split(b"\n")[:-1]
        end = len(data) // self.size_bytes * self.size_bytes
        return [data[start : start + self.size_bytes] for start in range(0, end, self.size_bytes)]


LINES = Framing(0, limit_bytes=256 << 20, limit_records=1_000_000)
"""A thousand attempts of 256 ranks write a quarter of either limit."""
TEXT = Framing(1)


class RecordWriter:
    """Opened by the first `append`, again by one after `close`. There is no buffer, so a SIGKILL costs
    nothing that was written.
    """

    def __init__(self, path: Path, framing: Framing) -> None:
        self.size_bytes = 0
        """What it has written, also of writes that failed in the middle."""
        self._path = path
        self._framing = framing
        self._whole_bytes = 0
        """Up to the end of the last whole record."""
        self._descriptor = -1

    def append(self, record: bytes) -> None:
        """One write, if the system takes it at once. Raises OSError if not all of it is in the file; what a
        failed one left behind never swallows the next.
        """
        torn_bytes = self.size_bytes - self._whole_bytes
        self._write(self._framing.fill(torn_bytes) + record + self._framing.end)
        self._whole_bytes = self.size_bytes

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, data: bytes) -> None:
        if self._descriptor < 0:
            flags = os.O_WRONLY | os.O_APPEND
            self._descriptor = files.create(self._path.parent, self._path.name, flags=flags)
        rest = memoryview(data)
        while rest:
            written = os.write(self._descriptor, rest)
            self.size_bytes += written
            rest = rest[written:]


class TooLong(ValueError):
    """The file is none that was written here; nothing, or not all, was read of it."""


class RecordReader:
    """`new` gives each record once."""

    def __init__(self, folder: Path, name: str, framing: Framing) -> None:
        self.offset = 0
        """Where the next record begins."""
        self._folder = folder
        self._name = name
        self._framing = framing
        self._count = 0
        self._passing_over = False

    def new(self, with_rest: bool = False) -> Iterator[bytes]:
        """A record after which no more is asked for comes again. `with_rest`: also a last one that is not
        whole, as far as it is there; its writer is gone. Raises OSError, TooLong.
        """
        with open(files.open_file(self._folder, self._name), "rb", buffering=0) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes > self._framing.limit_bytes:
                raise TooLong(f"its {self._name} has {size_bytes:,} bytes")
            yield from self._whole(file.fileno(), size_bytes)
            rest_bytes = size_bytes - self.offset
            if with_rest and 0 < rest_bytes <= _LONGEST_BYTES and not self._passing_over:
                yield os.pread(file.fileno(), rest_bytes, self.offset)

    def _whole(self, descriptor: int, size_bytes: int) -> Iterator[bytes]:
        block = _BLOCK_BYTES
        while self.offset < size_bytes:
            data = os.pread(descriptor, min(block, size_bytes - self.offset), self.offset)
            records = self._framing.whole(data)
            yield from self._counted(records)
            if records:
                block = _BLOCK_BYTES
            elif len(data) >= _LONGEST_BYTES:
                self._passing_over = True
                self.offset += len(data)
            elif len(data) < block:
                return
            else:
                block *= 2

    def _counted(self, records: list[bytes]) -> Iterator[bytes]:
        end_bytes = len(self._framing.end)
        for record in records:
            if self._count >= self._framing.limit_records:
                raise TooLong(f"its {self._name} has more than {self._count:,} lines")
            if not self._passing_over:
                yield record
            self._passing_over = False
            self._count += 1
            self.offset += len(record) + end_bytes


# ---- records that prove that they are whole


def checked(content: bytes) -> bytes:
    return _CHECK.pack(len(content), zlib.crc32(content)) + content


def length_at(data: bytes, place: int) -> int:
    """The length of the content of the checked record there, as it says; 0 if that cannot be read."""
    length: int = _CHECK.unpack_from(data, place)[0] if len(data) - place >= CHECK_BYTES else 0
    return length


def content_at(data: bytes, place: int = 0) -> bytes | None:
    """The content of the checked record there; None if that is not whole."""
    if len(data) - place < CHECK_BYTES:
        return None
    length, crc = _CHECK.unpack_from(data, place)
    content = data[place + CHECK_BYTES : place + CHECK_BYTES + length]
    return content if len(content) == length and zlib.crc32(content) == crc else None
