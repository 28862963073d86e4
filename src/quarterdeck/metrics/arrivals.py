"""`arrivals-attempt-A-rank-R.bin`: when this rank came to each collective, from torch's flight recorder.
Written by the worker once a second, read by `pace` in the kernel.

A ring of fixed size. The head, little-endian: "qdarr", 1, 2 bytes of 0; number of records ever written i64;
the ranks' clock until which all is there, and since when nothing is missing, i64 ns each; world size i64; ~number
i64. Record i is at place i modulo CAPACITY: i, time i64 ns, sequence number i64, hash of the process group
i64, ~time. The head is written after the records that it counts.
"""

from __future__ import annotations

import os
import re
import struct
import sys
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from quarterdeck.context import Context

MARK = b"qdarr\x01\0\0"
CAPACITY = 16_384
_FIRST_READ = 4_096
"""Records that a reader who begins late looks at."""
_HEAD = struct.Struct("<8sqqqqq")
_RECORD = struct.Struct("<qqqqq")
_START = 64
_FILE = re.compile(r"arrivals-attempt-(\d+)-rank-(\d+)\.bin")


class Entry(msgspec.Struct):
    """A collective, in the recorder's words."""

    time_created_ns: int
    collective_seq_id: int
    process_group: list[str]
    is_p2p: bool = False


class _Dump(msgspec.Struct):
    entries: list[Entry] = []


class Recorded(NamedTuple):
    until_ns: int
    """All that was begun before is in it."""
    entries: list[Entry]


def recorded() -> Recorded | None:
    """What torch's flight recorder holds: of the collectives of this process, the last 2,000. None if this
    torch has none. Costs about 30 microseconds each.
    """
    torch = sys.modules.get("torch")
    c10d: Any = getattr(getattr(torch, "_C", None), "_distributed_c10d", None)
    dump = getattr(c10d, "_dump_fr_trace_json", None)
    if dump is None:
        return None
    until_ns = time.time_ns()
    try:
        return Recorded(until_ns, msgspec.json.decode(dump(True, False), type=_Dump).entries)
    except (msgspec.DecodeError, RuntimeError, TypeError):
        return None


class ArrivalFile:
    """Writes. Methods raise OSError."""

    def __init__(self, context: Context, since_ns: int) -> None:
        """What was begun before `since_ns` belongs to other runs."""
        self._world_size = context.world_size
        self._last_ns = self._since_ns = since_ns
        self._count = 0
        path = context.run_dir / arrivals_name(context.attempt, context.rank)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def take(self, found: Recorded) -> None:
        new = [e for e in found.entries if e.time_created_ns > self._last_ns and not e.is_p2p]
        new.sort(key=lambda entry: entry.time_created_ns)
        if new and len(new) == len(found.entries) and self._count:
            self._since_ns = new[0].time_created_ns  # the recorder has forgotten some that we have not seen
        for entry in new[-CAPACITY:]:
            self._put(entry)
        if new:
            self._last_ns = new[-1].time_created_ns
        head = _HEAD.pack(
            MARK, self._count, found.until_ns, self._since_ns, self._world_size, ~self._count
        )
        os.pwrite(self._descriptor, head, 0)

    def _put(self, entry: Entry) -> None:
        ns, group = entry.time_created_ns, zlib.crc32("\0".join(entry.process_group).encode())
        record = _RECORD.pack(self._count, ns, entry.collective_seq_id, group, ~ns)
        os.pwrite(self._descriptor, record, _START + self._count % CAPACITY * _RECORD.size)
        self._count += 1


def arrivals_name(attempt: int, rank: int) -> str:
    return f"arrivals-attempt-{attempt}-rank-{rank}.bin"


def attempt_and_rank(name: str) -> tuple[int, int] | None:
    """None for another kind of file."""
    found = _FILE.fullmatch(name)
    return (int(found[1]), int(found[2])) if found else None


class Arrival(NamedTuple):
    time_ns: int
    seq: int
    group: int


class ArrivalReader:
    """One rank's file, as of the last `refresh`, which never raises OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.until_ns = 0
        self.since_ns = 0
        self.world_size = 0
        self._read = 0

    def refresh(self) -> list[Arrival]:
        """What came since."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return []
        try:
            return self._new(descriptor)
        except OSError:
            return []
        finally:
            os.close(descriptor)

    def _new(self, descriptor: int) -> list[Arrival]:
        head = os.pread(descriptor, _HEAD.size, 0)
        if len(head) < _HEAD.size:
            return []
        mark, count, until_ns, since_ns, world_size, check = _HEAD.unpack(head)
        if mark != MARK or count != ~check or until_ns == self.until_ns:
            return []
        self.until_ns, self.since_ns, self.world_size = until_ns, since_ns, world_size
        if count < self._read:  # not the file that it was
            self._read = 0
        first = max(self._read, count - (CAPACITY if self._read else _FIRST_READ))
        found = []
        for start, end in _stretches(first, count):
            at = _START + start % CAPACITY * _RECORD.size
            data = os.pread(descriptor, (end - start) * _RECORD.size, at)
            found += _arrivals(data, start)
        self._read = count
        return found


def _stretches(first: int, end: int) -> list[tuple[int, int]]:
    """The records from `first` to `end`, as they lie one after another in the ring."""
    turn = (first // CAPACITY + 1) * CAPACITY
    return [(first, end)] if end <= turn else [(first, turn), (turn, end)]


def _arrivals(data: bytes, start: int) -> list[Arrival]:
    """Without those that were overwritten meanwhile."""
    whole = data[: len(data) // _RECORD.size * _RECORD.size]
    return [
        Arrival(ns, seq, group)
        for place, (index, ns, seq, group, check) in enumerate(_RECORD.iter_unpack(whole), start)
        if index == place and ns == ~check
    ]
