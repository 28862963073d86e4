"""Files in folders that may be a stranger's: a run's, a checkpoint's. What stands in such a folder is data.
Pure; used by everything that reads a run, and by everything that writes one.

`folder` is where somebody pointed us; how it is reached, through links or not, is that one's own doing. Of
the names below it no one may be a link, and only regular files are opened: nothing waits for the writer of a
FIFO, nothing outside of the folder is read or written. (A hard link cannot be told from a file.)

What is made is as open as the folder that it is made in, as far as the umask allows; one that is open to its
group, and to nobody else, hands that on whatever the umask. A store's own folders are for their user alone,
or, with QUARTERDECK_SHARE=group, for the group to read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

Folder = Path | str
UNFINISHED = ".qd-tmp-"
"""How the name of a file begins that is being written to take another's place; a killed process leaves it."""

_GROUP_READS = 0o050
_OTHERS = 0o007
_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


# ---- reading


def open_file(folder: Folder, *names: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a regular file. Raises OSError, also for whatever else is there."""
    if len(names) == 1:  # nearly always: a list of a thousand runs opens two thousand files
        return _opened(None, f"{folder}/{_plain(names[0])}", flags)
    with _entered(folder, names) as (parent, name):
        return _opened(parent, name, flags)


def read(folder: Folder, *names: str, limit_bytes: int) -> bytes:
    """All of it. Raises OSError, also if it is larger."""
    descriptor = open_file(folder, *names)
    try:
        size_bytes = os.fstat(descriptor).st_size
        if size_bytes > limit_bytes:
            text = f"it has {size_bytes:,} bytes, and is read up to {limit_bytes:,}"
            raise OSError(errno.EFBIG, text, f"{folder}/{'/'.join(names)}")
        return os.pread(descriptor, size_bytes, 0)
    finally:
        os.close(descriptor)


def read_end(folder: Folder, *names: str, limit_bytes: int) -> tuple[bytes, int]:
    """The last of it, and how many bytes come before. Raises OSError."""
    descriptor = open_file(folder, *names)
    try:
        before = max(0, os.fstat(descriptor).st_size - limit_bytes)
        return os.pread(descriptor, limit_bytes, before), before
    finally:
        os.close(descriptor)


def status(folder: Folder, *names: str) -> os.stat_result:
    """The status of what is there itself, link or not. Raises OSError."""
    with _entered(folder, names) as (parent, name):
        return os.stat(name, dir_fd=parent, follow_symlinks=False)


def size_of(folder: Folder, *names: str) -> int | None:
    """None for what is not there, and for all but a regular file."""
    try:
        found = status(folder, *names)
    except (OSError, ValueError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def is_folder(folder: Folder, *names: str) -> bool:
    try:
        return stat.S_ISDIR(status(folder, *names).st_mode)
    except (OSError, ValueError):
        return False


def names_in(folder: Folder, *names: str) -> list[str]:
    """In no order; none of what is not there, or is no folder. Never raises OSError."""
    with suppress(OSError), _listed(folder, names) as descriptor:
        return os.listdir(descriptor)
    return []


def regular_in(folder: Folder, *names: str) -> Iterator[tuple[str, os.stat_result]]:
    """The same of regular files, with what is known of each."""
    with suppress(OSError), _listed(folder, names) as descriptor:
        for name in os.listdir(descriptor):
            with suppress(OSError):
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    yield name, found


# ---- writing


def create(folder: Folder, *names: str, flags: int = os.O_WRONLY | os.O_TRUNC) -> int:
    """A descriptor of a file that is made if it is not there. Raises OSError."""
    with _entered(folder, names) as (parent, name):
        return _made(parent, name, flags)


def open_own(folder: Folder, *names: str, flags: int) -> int:
    """As `create`, for a reader who adds to what somebody else has made: only if the file is this user's, and
    has no other name. Raises OSError.
    """
    descriptor = create(folder, *names, flags=flags)
    found = os.fstat(descriptor)
    if found.st_uid == os.geteuid() and found.st_nlink == 1:
        return descriptor
    os.close(descriptor)
    raise PermissionError(errno.EPERM, "it is not this user's alone", f"{folder}/{'/'.join(names)}")


@contextmanager
def atomic_write(
    folder: Folder, *names: str, synced: bool = False, mode: int | None = None
) -> Iterator[BinaryIO]:
    """A new file, to be written and read, which takes the named one's place when the block ends: every reader
    at any moment finds the one or the other, whole. After an error in the block nothing has changed.

    `synced`: on the disk when this returns, so that a power cut leaves one of them, too. `mode`: before the
    umask, for a file that users keep where they like; None: as open as the folder. Raises OSError.
    """
    with _entered(folder, names) as (parent, name):
        above = os.path.dirname(name)
        unfinished = os.path.join(above, f"{UNFINISHED}{os.urandom(8).hex()}")
        try:
            with open(_made(parent, unfinished, os.O_RDWR | os.O_EXCL, mode), "w+b") as file:
                yield file
                file.flush()
                if synced:
                    os.fsync(file.fileno())
            os.replace(unfinished, name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            with suppress(OSError):
                os.unlink(unfinished, dir_fd=parent)
            raise
        if synced:
            sync(above) if parent is None else os.fsync(parent)


def write(folder: Folder, *names: str, content: bytes) -> int:
    """All of it or nothing, see `atomic_write`; the file's inode. Raises OSError."""
    with atomic_write(folder, *names) as file:
        write_all(file.fileno(), content)  # past its buffer, which a process forked meanwhile would have, too
        return os.fstat(file.fileno()).st_ino


def write_all(descriptor: int, content: bytes) -> None:
    """However many writes it takes. Raises OSError."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def sync(path: Folder) -> None:
    """A file, or which names a folder has, to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unlink(folder: Folder, *names: str) -> None:
    """A link goes, what it points to stays. Raises OSError."""
    with _entered(folder, names) as (parent, name):
        os.unlink(name, dir_fd=parent)


def make_folder(folder: Folder, *names: str) -> None:
    """Below `folder`, which is there, whichever of these are missing. Raises OSError."""
    for count in range(1, len(names) + 1):
        with _entered(folder, names[:count]) as (parent, name):
            above = _mode_above(parent, name)
            with suppress(FileExistsError):
                os.mkdir(name, 0o700 | above & 0o777, dir_fd=parent)
            descriptor = os.open(name, _ENTER, dir_fd=parent)
            try:
                if _hands_on(above):
                    _share(descriptor, _GROUP_READS)
            finally:
                os.close(descriptor)


def make_folders(path: Folder) -> None:
    """The same for all of a path. Raises OSError."""
    above, missing = os.fspath(path), list[str]()
    while not os.path.exists(above):
        above, name = os.path.split(above)
        missing.insert(0, name)
    make_folder(above, *missing)


def make_private(folder: Folder, environ: Mapping[str, str] = os.environ) -> bool:
    """A folder of a store, and those above it that are missing; False if it is there. Raises OSError."""
    path = os.fspath(folder)
    shared = environ.get("QUARTERDECK_SHARE") == "group"
    if not os.path.lexists(os.path.dirname(path) or "."):
        make_private(os.path.dirname(path), environ)
    try:
        os.mkdir(path, 0o700)
        made = True
    except FileExistsError:
        if not os.path.isdir(path):
            raise
        made = False
    if shared:  # also what was made before the user has asked for it
        _share(path, _GROUP_READS)
    return made


def _made(parent: int | None, name: str, flags: int, mode: int | None = None) -> int:
    above = _mode_above(parent, name)
    as_open = 0o600 | above & 0o666
    descriptor = _opened(parent, name, flags | os.O_CREAT, as_open if mode is None else mode)
    if mode is None and _hands_on(above):
        _share(descriptor, 0o040)
    return descriptor


def _hands_on(above: int) -> bool:
    return above & _GROUP_READS == _GROUP_READS and not above & _OTHERS


def _share(what: int | str, mode: int) -> None:
    """Its other bits stay, also that by which a folder hands its group on."""
    found = os.stat(what)
    if found.st_uid == os.geteuid() and found.st_mode & mode != mode:
        os.chmod(what, stat.S_IMODE(found.st_mode) | mode)


# ---- names


@contextmanager
def _listed(folder: Folder, names: Sequence[str]) -> Iterator[int]:
    if not names:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    else:
        with _entered(folder, names) as (parent, name):
            descriptor = os.open(name, _ENTER, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _entered(folder: Folder, names: Sequence[str]) -> Iterator[tuple[int | None, str]]:
    """The last name, and a descriptor of the folder that it is in; None where that is part of the name."""
    if len(names) == 1:
        yield None, f"{folder}/{_plain(names[0])}"
        return
    parent = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names[:-1]:
            below = os.open(_plain(name), _ENTER, dir_fd=parent)
            os.close(parent)
            parent = below
        yield parent, _plain(names[-1])
    finally:
        os.close(parent)


def _plain(name: str) -> str:
    if "/" in name or name in ("", ".", ".."):
        raise PermissionError(errno.EPERM, "it is not a plain name", name)
    return name


def _mode_above(parent: int | None, name: str) -> int:
    return os.stat(os.path.dirname(name) if parent is None else parent).st_mode


def _opened(parent: int | None, name: str, flags: int, mode: int = 0o600) -> int:
    try:
        descriptor = os.open(name, flags | _OPEN, mode, dir_fd=parent)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link", name) from None
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is not a regular file", name)
