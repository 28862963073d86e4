"""The user's key, by which a result file is known to come from this user's own quarterdeck. Used by whoever
writes or reads results.
"""

from __future__ import annotations

import functools
import os
import secrets
import stat
import uuid
from contextlib import suppress
from pathlib import Path

_KEY_BYTES = 32
_OWN = secrets.token_bytes(_KEY_BYTES)


def key() -> bytes:
    """The same in all processes of the user; where it cannot be kept (a read-only home) one of this process,
    so that its results load only here.
    """
    try:
        return _kept(_path())
    except OSError:
        return _OWN


def _path() -> Path:
    """QUARTERDECK_KEY_FILE, else in the XDG state folder. Raises OSError if the user has no home."""
    if chosen := os.environ.get("QUARTERDECK_KEY_FILE"):
        return Path(chosen)
    state = os.environ.get("XDG_STATE_HOME", "")
    place = state if os.path.isabs(state) else os.path.expanduser("~/.local/state")
    if not os.path.isabs(place):
        raise FileNotFoundError("this user has no home folder")
    return Path(place) / "quarterdeck" / "key"


@functools.cache
def _kept(path: Path) -> bytes:
    try:
        return _read(path)
    except FileNotFoundError:
        _create(path)
        return _read(path)


def _read(path: Path) -> bytes:
    """Raises OSError also for a key that another user could have read or written."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise PermissionError(f"{path} is not a private file of this user")
        content = os.read(descriptor, _KEY_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) != _KEY_BYTES:
        raise OSError(f"{path} does not hold a key")
    return content


def _create(path: Path) -> None:
    """Make a key. If several processes come here at once, the first one's stays, whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, secrets.token_bytes(_KEY_BYTES))
        os.fsync(descriptor)
        with suppress(FileExistsError):
            os.link(unfinished, path)
    finally:
        os.close(descriptor)
        os.unlink(unfinished)
