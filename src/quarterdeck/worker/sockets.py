"""Free ranks that are stuck in gloo or in a store: shut the sockets of their own process groups. Runs in the
worker.

Nothing in torch interrupts a blocked gloo collective (abort() returns at once and unblocks nothing). Shutting
the connected sockets does, within milliseconds. Only sockets that appeared while a group or its store was
made are touched, never the user's; listening ones are left, since gloo aborts the process when it loses one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from quarterdeck.errors import text_of

_SECONDARY = (
    "connection closed by peer",
    "connection reset by peer",
    "connection refused",
    "connection was likely closed",
    "remote process has exited",
    "socket closed",
    "broken pipe",
)
_ours: dict[int, str] = {}
_before: list[dict[int, str]] = []


def _open_sockets() -> dict[int, str]:
    """Descriptor -> "socket:[inode]" of every socket of this process."""
    found = {}
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:  # no descriptor is left to list them with
        names = [str(fd) for fd in _ours]
    for name in names:
        try:
            link = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if link.startswith("socket:"):
            found[int(name)] = link
    return found


def _new_since(before: dict[int, str]) -> dict[int, str]:
    return {fd: link for fd, link in _open_sockets().items() if before.get(fd) != link}


@contextmanager
def tracked() -> Iterator[None]:
    """Sockets that appear inside belong to a process group. Also while still inside, for one that hangs half
    made.
    """
    before = _open_sockets()
    _before.append(before)
    try:
        yield
    finally:
        _before.remove(before)
        _ours.update(_new_since(before))


def forget() -> None:
    """The groups are gone, and their descriptors may be reused by others."""
    _ours.clear()


def release() -> int:
    """Shut what is tracked; returns how many. From a service thread, while the main thread is stuck.

    Afterwards no group of this process is usable: every rank must join a new incarnation.
    """
    candidates = dict(_ours)
    for before in list(_before):
        candidates.update(_new_since(before))
    return sum(_shut(fd, link) for fd, link in candidates.items())


def _shut(fd: int, link: str) -> bool:
    try:
        copy = os.dup(fd)  # gloo closes sockets from its own thread: copy first, then look at what was copied
    except OSError:
        return False
    with socket.socket(fileno=copy) as sock:
        try:
            if os.readlink(f"/proc/self/fd/{copy}") != link or sock.family not in (
                socket.AF_INET,
                socket.AF_INET6,
            ):
                return False
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return False
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return False
    return True


def is_secondary(error: BaseException) -> bool:
    """An error that another rank's end or a released socket causes, not user code."""
    if not isinstance(error, (RuntimeError, OSError)):
        return False
    text = text_of(error).lower()
    return any(words in text for words in _SECONDARY)
