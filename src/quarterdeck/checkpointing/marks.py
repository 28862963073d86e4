"""Small files by which processes tell each other something, in a folder that they share. Used by `attempt`,
`offers`, `answers` and `rank_rendezvous`.

A lock ends with the process that holds it, and so tells one that died from one that is slow.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from quarterdeck import files

_POLL_S = (0.0005, 0.02)
_ASKING_S = 2.0


class Polls:
    """Pauses that grow, between looks at a file."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._pause_s = _POLL_S[0]

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    def pause(self) -> None:
        time.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 1.5, _POLL_S[1])


def put(path: Path, data: bytes) -> None:
    """Whole or not at all, for every reader."""
    files.write(path.parent, path.name, content=data)


def read(path: Path) -> bytes | None:
    """None if it is not there."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def hold(path: Path, wait: bool = False) -> int:
    """A descriptor of the file, locked for this process; a child that it forks does not hold it. Without
    `wait` another process that holds it already does so for both.
    """
    descriptor = files.create(path.parent, path.name, flags=os.O_RDWR)
    _held.add(descriptor)
    with suppress(OSError):  # some network file systems have no locks
        if wait:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        else:
            _hold_soon(descriptor)
    return descriptor


def _hold_soon(descriptor: int) -> None:
    """Who asks whether it is held has it for a moment, which on a busy machine may be long."""
    polls = Polls()
    while polls.elapsed_s < _ASKING_S:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            polls.pause()


def let_go(descriptor: int) -> None:
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a process forked meanwhile may have it, too
    _held.discard(descriptor)
    with suppress(OSError):
        os.close(descriptor)


def is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return True  # no locks on this file system: nothing is known, so it is waited for
    finally:
        os.close(descriptor)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """One at a time of all processes, and threads, that name this file. Raises OSError."""
    with _threads:
        if path in _inside:  # a signal handler, in the middle of it
            yield
            return
        descriptor = hold(path, wait=True)
        _inside.add(path)
        try:
            yield
        finally:
            _inside.discard(path)
            let_go(descriptor)


_held: set[int] = set()
_inside: set[Path] = set()
_threads = threading.RLock()


def _in_child() -> None:
    global _threads
    _threads = threading.RLock()
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()
    _inside.clear()


os.register_at_fork(after_in_child=_in_child)
