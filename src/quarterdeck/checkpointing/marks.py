"""Small files by which processes tell each other something, in a folder that they share. Used by `attempt`,
`offers`, `answers` and `joining`.

A lock ends with the process that holds it, and so tells one that died from one that is slow.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_POLL_S = (0.0005, 0.02)


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
    tmp = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    tmp.write_bytes(data)
    os.replace(tmp, path)


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
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    _held.add(descriptor)
    with suppress(OSError):  # some network file systems have no locks
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


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
