"""Waiting for what a test wants to see: an event, with a deadline, in the place of a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")


def until(
    look: Callable[[], _T], within_s: float = 20.0, otherwise: Callable[[], object] | None = None
) -> _T:
    """The first true value of `look`. Past the deadline a failure, with what `otherwise` gives."""
    deadline_s = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline_s, otherwise() if otherwise else f"not so within {within_s} s"
        time.sleep(0.005)
    return found


def is_gone(pid: int) -> bool:
    """Also if its parent has not taken note of it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def seconds_until_gone(pids: Iterable[int], within_s: float) -> float:
    """Wait until none of these processes lives; a failure names those that do."""
    began_s, pids = time.monotonic(), set(pids)
    until(
        lambda: all(map(is_gone, pids)),
        within_s,
        lambda: {pid: command(pid) for pid in pids if not is_gone(pid)},
    )
    return time.monotonic() - began_s


def command(pid: int) -> str:
    """Its command line, or nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[:100]
    except OSError:
        return ""
