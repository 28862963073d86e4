"""Sockets of detached runs, in a private folder of this user: the coordinator listens, a later kernel
connects.

A path comes out of a run's folder, which may be a stranger's. It is used only where nobody else could have
put a socket, and only with the process at its other end that the run names. One is removed only from our own
folders, and only that of the run's own process, when that is gone.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from quarterdeck.store.owner import RunOwner
from quarterdeck.store.paths import check_private

_NAME = re.compile(r"detached-\d+-\d+\.sock")
_PATH_BYTES = 100
"""A socket's path has room for 107, and is bound under a longer name."""
_PEER = struct.Struct("3i")


def listen(keeper: RunOwner) -> tuple[socket.socket, str]:
    """A listening socket and its path. Raises OSError if there is no folder that is private."""
    for folder in (*_folders(), *_folders()):  # another's end may have taken an empty one away
        try:
            _make(folder)
            _sweep(folder)
            return _listen(folder / _name(keeper))
        except OSError as error:
            problem = error
    raise problem


def connect(keeper: RunOwner) -> socket.socket:
    """To the coordinator of a detached run. Raises OSError if it is not there, or is another one."""
    _check(keeper)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(keeper.socket)
        if peer(connection) != (keeper.pid, os.getuid()):
            raise PermissionError(errno.EPERM, "another process listens there", keeper.socket)
    except BaseException as error:
        connection.close()
        if isinstance(error, ConnectionRefusedError):
            remove(keeper)
        raise
    return connection


def peer(connection: socket.socket) -> tuple[int, int]:
    """Process and user at the other end, as the system has noted them when it connected, or listened."""
    pid, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return pid, uid


def remove(keeper: RunOwner) -> None:
    """The socket of a process that is gone, or that is this one, and its folder if it was the last there.
    Nothing anywhere else. Never raises.
    """
    if keeper.socket not in {str(folder / _name(keeper)) for folder in _known_folders()}:
        return
    if keeper.gone() or keeper.pid == os.getpid():
        with suppress(OSError):
            _check(keeper)
            os.unlink(keeper.socket)
            os.rmdir(os.path.dirname(keeper.socket))


def _folders() -> Iterator[Path]:
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(given) and os.path.isdir(given) and len(os.fsencode(given)) < _PATH_BYTES // 2:
        yield Path(given) / "quarterdeck"
    yield Path(f"/tmp/quarterdeck-{os.getuid()}")


def _known_folders() -> Iterator[Path]:
    """Also that of a login session, where this process belongs to none."""
    yield from _folders()
    yield Path(f"/run/user/{os.getuid()}/quarterdeck")


def _name(keeper: RunOwner) -> str:
    return f"detached-{keeper.pid}-{keeper.start_ticks}.sock"


def _make(folder: Path) -> None:
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    check_private(folder)


def _listen(path: Path) -> tuple[socket.socket, str]:
    """Nobody finds it under its name before it listens: who is refused there takes it to be dead."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    unfinished = path.with_suffix(".new")
    try:
        listener.bind(str(unfinished))
        listener.listen(8)
        os.rename(unfinished, path)
    except BaseException:
        listener.close()
        raise
    return listener, str(path)


def _sweep(folder: Path) -> None:
    """Sockets of processes that were killed."""
    for name in os.listdir(folder):
        if not _NAME.fullmatch(name):
            continue
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(folder / name))
            except ConnectionRefusedError:
                with suppress(OSError):
                    os.unlink(folder / name)
            except OSError:
                continue


def _check(keeper: RunOwner) -> None:
    """Raises OSError unless it is the keeper's own, and only this user can have put it there."""
    path = Path(keeper.socket)
    if not path.is_absolute() or "\0" in keeper.socket or path.name != _name(keeper):
        raise PermissionError(errno.EPERM, "it is not the socket of a detached run", keeper.socket)
    check_private(path.parent)
