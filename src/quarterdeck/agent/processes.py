"""What /proc says of a process: CPU time and memory with all its children (for `vitals`), its state.

Not by psutil: it would look at every process of the machine to find the children of one.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from typing import NamedTuple

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_UTIME, _STIME, _RSS = 11, 12, 21
"""Places in /proc/PID/stat, after the name."""
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_MOST = 256
"""Processes of one worker that are looked at."""


class Usage(NamedTuple):
    cpu_s: dict[int, float]
    """By process id; since each began."""
    memory_bytes: int | None
    """Resident, of all together; None if there is no such process."""


def usage(pid: int) -> Usage:
    """What this process uses, with those that it, or its children, have started. Never raises."""
    seconds: dict[int, float] = {}
    memory_bytes, left = None, [pid] if pid else []
    while left and len(seconds) < _MOST:
        one = left.pop()
        fields = _read(f"/proc/{one}/stat").rpartition(")")[2].split()
        if one in seconds or len(fields) <= _RSS:
            continue
        seconds[one] = (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS_PER_S
        memory_bytes = (memory_bytes or 0) + int(fields[_RSS]) * _PAGE_BYTES
        left += _children(one)
    return Usage(seconds, memory_bytes)


def state(pid: int) -> str:
    """ "R", "S", "D", "T", "Z" as in proc(5); empty for none."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].strip()[:1] if pid else ""


def waits_in(pid: int) -> str:
    """Function of the system's kernel that it waits in; empty where that is not told."""
    where = _read(f"/proc/{pid}/wchan").strip() if pid else ""
    return "" if where == "0" else where


def catches(pid: int, number: int) -> bool:
    """Whether it has a handler for this signal, which would end it otherwise."""
    mask = _read(f"/proc/{pid}/status").partition("SigCgt:")[2].split()
    return bool(mask) and bool(int(mask[0], 16) >> (number - 1) & 1)


def _children(pid: int) -> list[int]:
    """The children of each of its threads, as the system lists them."""
    found: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    return found


@cache
def memory_limit_bytes() -> int | None:
    """What this machine has, or this container may use; None if that is not known."""
    known = [
        _machine_bytes(),
        *(int(text) for path in _CGROUP_LIMITS if (text := _read(path).strip()).isdigit()),
    ]
    return min((size for size in known if size), default=None)


def _machine_bytes() -> int:
    with suppress(ValueError, OSError):
        return os.sysconf("SC_PHYS_PAGES") * _PAGE_BYTES
    return 0


def _read(path: str) -> str:
    """ "" for what cannot be read: processes end at any time."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, 65_536).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)
