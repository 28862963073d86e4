"""`arrivals-attempt-A-rank-R.bin`: when this rank came to each collective, from torch's flight recorder.
Written by the worker once a second, read by `step_timing` in the kernel.

A ring of fixed size; all is little-endian, numbers are i64. The head: "qdarr", 1, 2 bytes of 0; how many
records were ever written; the time, ns since 1970, until which all is there, and that since when nothing is
missing; the world size; ~number of records. Record i, at place i modulo CAPACITY: i, time, key, ~time; the
key is a hash of the process group in 24 bits, and the sequence number below. The head is written after the
records that it counts.
"""

from __future__ import annotations

import os
import pickle
import struct
import sys
import time
import zlib
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from quarterdeck import files
from quarterdeck.context import Context
from quarterdeck.store.layout import ARRIVALS

MARK = b"qdarr\x01\0\0"
CAPACITY = 16_384
_FIRST_READ = 4_096
"""Records that a reader who begins late looks at."""
_HEAD = struct.Struct("<8sqqqqq")
_RECORD = struct.Struct("<qqqq")
_WORDS = _RECORD.size // 8
_NOT = bytes(range(255, -1, -1))
_START = 64
_SEQ_BITS = 39


class Entry(NamedTuple):
    """A collective, in the recorder's words."""

    time_created_ns: int
    collective_seq_id: int
    process_group: Sequence[str]
    is_p2p: bool = False


class Recorded(NamedTuple):
    until_ns: int
    """All that was begun before is in it."""
    entries: list[Entry]


def recorded() -> Recorded | None:
    """What torch's flight recorder holds: of the collectives of this process, the last 512. None if this
    torch has none.

    Costs about 20 microseconds each, in which no other thread of this process runs Python. (The recorder's
    JSON takes twice as long.)
    """
    torch = sys.modules.get("torch")
    c10d: Any = getattr(getattr(torch, "_C", None), "_distributed_c10d", None)
    dump = getattr(c10d, "_dump_fr_trace", None)
    if dump is None:
        return None
    until_ns = time.time_ns()
    try:
        found = pickle.loads(dump(True, False, False))["entries"]
        entries = [Entry(*(entry[name] for name in Entry._fields)) for entry in found]
    except (KeyError, RuntimeError, TypeError):  # a torch whose recorder has other words
        return None
    return Recorded(until_ns, entries)


class ArrivalFile:
    """Writes. Methods raise OSError."""

    def __init__(self, context: Context, since_ns: int) -> None:
        """What was begun before `since_ns` belongs to other runs."""
        self._world_size = context.world_size
        self._last_ns = self._since_ns = since_ns
        self._count = 0
        self._descriptor = files.create(context.run_dir, ARRIVALS.name(context.attempt, context.rank))

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def take(self, found: Recorded) -> None:
        new = [e for e in found.entries if e.time_created_ns > self._last_ns and not e.is_p2p]
        new.sort(key=lambda entry: entry.time_created_ns)
        if new and len(new) == len(found.entries) and self._count:
            self._since_ns = new[0].time_created_ns  # the recorder has forgotten some that we have not seen
        self._put(new[-CAPACITY:])
        if new:
            self._last_ns = new[-1].time_created_ns
        head = _HEAD.pack(MARK, self._count, found.until_ns, self._since_ns, self._world_size, ~self._count)
        os.pwrite(self._descriptor, head, 0)

    def _put(self, entries: Sequence[Entry]) -> None:
        first, end = self._count, self._count + len(entries)
        records = [
            _RECORD.pack(number, entry.time_created_ns, key_of(entry), ~entry.time_created_ns)
            for number, entry in enumerate(entries, first)
        ]
        for start, stop in _stretches(first, end):
            at = _START + start % CAPACITY * _RECORD.size
            os.pwrite(self._descriptor, b"".join(records[start - first : stop - first]), at)
        self._count = end


def key_of(entry: Entry) -> int:
    group = zlib.crc32("\0".join(entry.process_group).encode()) & 0xFFFFFF
    return group << _SEQ_BITS | entry.collective_seq_id & (1 << _SEQ_BITS) - 1


class Arrivals:
    """Columns of equal length. A key names a collective: the same on all ranks that take part."""

    def __init__(self) -> None:
        self.keys = array("q")
        self.times_ns = array("q")

    def __len__(self) -> int:
        return len(self.keys)

    def forget(self, count: int) -> None:
        """The oldest ones."""
        del self.keys[:count], self.times_ns[:count]

    def take(self, data: bytes, first: int) -> None:
        """The records from number `first` on, without those that were overwritten meanwhile."""
        words = array("q", data[: len(data) // _RECORD.size * _RECORD.size])
        indices, times, keys, checks = words[::_WORDS], words[1::_WORDS], words[2::_WORDS], words[3::_WORDS]
        count = len(indices)
        if indices != array(
            "q", range(first, first + count)
        ) or times.tobytes() != checks.tobytes().translate(_NOT):
            whole = [i for i in range(count) if indices[i] == first + i and times[i] == ~checks[i]]
            times, keys = array("q", (times[i] for i in whole)), array("q", (keys[i] for i in whole))
        self.keys += keys
        self.times_ns += times


class ArrivalReader:
    """One rank's file, as of the last `refresh`, which never raises OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.until_ns = 0
        self.since_ns = 0
        self.world_size = 0
        self.arrivals = Arrivals()
        """At least the last 8,192 that were read."""
        self._read = 0

    def refresh(self) -> None:
        try:
            descriptor = files.open_file(self.path.parent, self.path.name)
        except OSError:
            return
        try:
            self._take_new(descriptor)
        except OSError:
            pass
        finally:
            os.close(descriptor)
        if len(self.arrivals) > CAPACITY:
            self.arrivals.forget(len(self.arrivals) - CAPACITY // 2)

    def _take_new(self, descriptor: int) -> None:
        head = os.pread(descriptor, _HEAD.size, 0)
        if len(head) < _HEAD.size:
            return
        mark, count, until_ns, since_ns, world_size, check = _HEAD.unpack(head)
        if mark != MARK or count != ~check or count < 0 or until_ns == self.until_ns:
            return
        self.until_ns, self.since_ns, self.world_size = until_ns, since_ns, world_size
        if count < self._read:  # not the file that it was
            self._read = 0
        first = max(self._read, count - (CAPACITY if self._read else _FIRST_READ))
        for start, end in _stretches(first, count):
            at = _START + start % CAPACITY * _RECORD.size
            self.arrivals.take(os.pread(descriptor, (end - start) * _RECORD.size, at), start)
        self._read = count


def _stretches(first: int, end: int) -> list[tuple[int, int]]:
    """The records from `first` to `end`, as they lie one after another in the ring."""
    turn = (first // CAPACITY + 1) * CAPACITY
    return [(first, end)] if end <= turn else [(first, turn), (turn, end)]
