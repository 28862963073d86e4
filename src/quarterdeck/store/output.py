"""`output.bin`, the order of the text in a run's logs, so that what all ranks wrote can be shown merged and
timed. Written by the recorder, in the coordinator; read by views, in any process, also while it grows.

A record of 16 bytes, little-endian, for each append to a log:

    time i64, ns since 1970; length u32, bytes; rank u16; stream u8: 0 stdout, 1 stderr, 2 result; 0 u8

A log's bytes, from its first on, belong to the records of its rank in their order. A record that does not end
in 0 is what a failed write left; it is passed over, and its bytes are in the next record of the rank.
"""

from __future__ import annotations

import codecs
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from quarterdeck import files
from quarterdeck.store.layout import OUTPUT, log_name, rank_of_log
from quarterdeck.store.records import Framing, RecordReader, RecordWriter

Stream = Literal["stdout", "stderr", "result"]
_STREAMS: tuple[Stream, ...] = ("stdout", "stderr", "result")
_RECORD = struct.Struct("<qIHBB")
_FRAMING = Framing(_RECORD.size)
_LONGEST = (1 << 32) - 1
_WHOLE_BYTES = 4 << 20
"""An index up to this size is read from its beginning."""
_TAIL_BYTES = 4 << 20
_BLOCK_BYTES = 1 << 20
_BACK_BYTES = _RECORD.size << 10
_MOST_BACK_BYTES = 16 << 20
"""The most of an index that is looked at for where to begin."""
_AT_ONCE_BYTES = 64 << 20
"""The most text that one `read` takes; the next one goes on there."""
_OPEN_LOGS = 256


class OutputIndex:
    """The writer. `wrote` raises OSError as a RecordWriter does; nothing is lost by that but the time of a
    piece of text.
    """

    def __init__(self, folder: Path) -> None:
        self._file = RecordWriter(folder / OUTPUT, _FRAMING)
        self._waiting: dict[int, int] = {}

    def wrote(self, rank: int, kind: str, time_unix_ns: int, size_bytes: int) -> None:
        """So many bytes are at the end of the rank's log, since the last call."""
        size_bytes += self._waiting.get(rank, 0)
        if not size_bytes:
            return
        self._waiting[rank] = size_bytes
        stream = _STREAMS.index(kind) if kind in _STREAMS else 0
        self._file.append(_RECORD.pack(time_unix_ns, min(size_bytes, _LONGEST), rank, stream, 0))
        self._waiting[rank] = 0

    def close(self) -> None:
        self._file.close()


class Piece(NamedTuple):
    """Text that a rank wrote at once; any chunk, it need not end with a line."""

    rank: int
    stream: Stream
    time_ns: int
    """Since 1970; 0 if it is not known."""
    text: str


class OutputReader:
    """All that a run's ranks wrote, in the order of its arrival. `read` gives what is new.

    Of a run with more than a few MB of it only the end; `skipped_bytes` tells how much was passed over.
    """

    def __init__(self, folder: Path, tail_bytes: int = _TAIL_BYTES) -> None:
        self._folder = folder
        self._tail_bytes = tail_bytes
        self._index = RecordReader(folder, OUTPUT, _FRAMING)
        self._begun = False
        self._places: dict[int, int] = {}
        """Where the next byte in a rank's log is."""
        self._decoders: dict[int, codecs.IncrementalDecoder] = {}
        self.skipped_bytes = 0

    def read(self, over: bool = False) -> list[Piece]:
        """`over`: nobody writes any more; then also text that no record speaks of, with time 0."""
        found: list[Piece] = []
        with suppress(OSError):
            if not self._begun:
                self._begin()
            found = self._new()
        if over:
            found += self._rest()
        return found

    # ---- where to begin

    def _begin(self) -> None:
        """At the first record, or at the one from which on the logs have the last `tail_bytes`."""
        with open(files.open_file(self._folder, OUTPUT), "rb", buffering=0) as file:
            self._begun = True
            self._find_tail(file.fileno())

    def _find_tail(self, index: int) -> None:
        end = os.fstat(index).st_size // _RECORD.size * _RECORD.size
        if end <= _WHOLE_BYTES and sum(self._log_sizes().values()) <= self._tail_bytes:
            return
        after: dict[int, int] = {}
        place, total = end, 0
        while place > 0 and total < self._tail_bytes and end - place < _MOST_BACK_BYTES:
            block = min(_BACK_BYTES, place)
            place -= block
            for record in reversed(list(_RECORD.iter_unpack(os.pread(index, block, place)))):
                _, length, rank, _, mark = record
                after[rank] = after.get(rank, 0) + length * (mark == 0)
                total += length * (mark == 0)
        if place == 0:
            return
        self._index.offset = place
        self._places = {rank: max(0, size - after.get(rank, 0)) for rank, size in self._log_sizes().items()}
        self.skipped_bytes = sum(self._places.values())

    # ---- what is new

    def _new(self) -> list[Piece]:
        found: list[Piece] = []
        logs = _Logs(self._folder, self._places)
        taken = 0
        try:
            for record in self._index.new():
                time_ns, length, rank, stream, mark = _RECORD.unpack(record)
                if mark or stream >= len(_STREAMS):
                    continue
                if taken and taken + length > _AT_ONCE_BYTES:
                    break
                taken += length
                text = self._text(rank, self._piece(logs.of(rank), length))
                if text:
                    found.append(Piece(rank, _STREAMS[stream], time_ns, text))
        finally:
            logs.close()
        return found

    def _piece(self, log: _Ahead, length: int) -> bytes:
        """The piece itself, or its end if it is longer than all that is taken at once."""
        left_out = max(0, length - _AT_ONCE_BYTES)
        if left_out:
            self.skipped_bytes += left_out
            log.skip(left_out)
        return log.take(length - left_out)

    def _text(self, rank: int, data: bytes) -> str:
        if rank not in self._decoders:
            self._decoders[rank] = codecs.getincrementaldecoder("utf-8")("replace")
        return self._decoders[rank].decode(data)

    def _rest(self) -> list[Piece]:
        """By rank. Of a log that is longer than the tail, its end."""
        found: list[Piece] = []
        logs = _Logs(self._folder, self._places)
        room = _AT_ONCE_BYTES
        for rank, size in sorted(self._log_sizes().items()):
            log = logs.of(rank)
            length = max(0, min(size - log.place, self._tail_bytes, room))
            left_out = max(0, size - log.place - length)
            self.skipped_bytes += left_out
            log.skip(left_out)
            text = self._text(rank, log.take(length))
            room -= length
            if text:
                found.append(Piece(rank, "stdout", 0, text))
        logs.close()
        return found

    def _log_sizes(self) -> dict[int, int]:
        sizes: dict[int, int] = {}
        try:
            for entry in os.scandir(self._folder):
                rank = rank_of_log(entry.name)
                if rank is not None and entry.is_file(follow_symlinks=False):
                    sizes[rank] = entry.stat(follow_symlinks=False).st_size
        except OSError:
            pass
        return sizes


class _Logs:
    """Some ranks' logs at a time, each from its place on: a process has not as many descriptors as a large
    run has ranks.
    """

    def __init__(self, folder: Path, places: dict[int, int]) -> None:
        """`places`: of the next byte, by rank; kept up to date by `close`."""
        self._folder = folder
        self._places = places
        self._open: dict[int, _Ahead] = {}

    def of(self, rank: int) -> _Ahead:
        if rank not in self._open:
            if len(self._open) >= _OPEN_LOGS:
                self.close()
            self._open[rank] = _Ahead(self._folder, rank, self._places.get(rank, 0))
        return self._open[rank]

    def close(self) -> None:
        for rank, log in self._open.items():
            self._places[rank] = log.place
            log.close()
        self._open.clear()


class _Ahead:
    """A log, read in blocks and handed out in pieces. What is not there is b""."""

    def __init__(self, folder: Path, rank: int, place: int) -> None:
        self.place = place
        self._data, self._at = b"", 0
        try:
            self._file = files.open_file(folder, log_name(rank))
        except OSError:
            self._file = -1

    def take(self, length: int) -> bytes:
        """Fewer bytes where the log is shorter than its index says."""
        if len(self._data) - self._at < length:
            self._fill(length)
        taken = self._data[self._at : self._at + length]
        self._at += len(taken)
        self.place += len(taken)
        return taken

    def skip(self, length: int) -> None:
        if length:
            self.place += length
            self._data, self._at = b"", 0

    def _fill(self, length: int) -> None:
        if self._file >= 0:
            self._data = os.pread(self._file, max(length, _BLOCK_BYTES), self.place)
            self._at = 0

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
