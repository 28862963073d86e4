"""Checkpoints in a local folder: see `storage`. A draft is a hidden folder beside them, renamed when it is
complete; each file, the folder and its parent are synced, so that a power cut leaves the one before or the
new one.

Who works on a draft holds a lock on its folder, which ends with the process: what nobody holds is swept away
by the next save.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from quarterdeck import files
from quarterdeck.checkpointing.checksum_writer import Sink
from quarterdeck.checkpointing.manifest import MANIFEST, PINNED, File
from quarterdeck.checkpointing.paths import DELETED, OLD, TMP, is_listed, replaced

_YOUNG_S = 60.0
"""A draft of this age may be about to be locked."""
_OLD_S = 86_400.0
"""Nobody writes on a file for so long."""
READ_BYTES = 256 << 20
"""The most that is read of a manifest, and of an index of tensors."""


class LocalContents:
    """Nothing in it is a link, nor what it says are its files: see `files`."""

    def __init__(self, place: Path, name: str) -> None:
        self._place = place
        self._name = name

    @property
    def path(self) -> str:
        return f"{self._place}/{self._name}"

    def read(self, name: str) -> bytes:
        return files.read(self._place, self._name, *name.split("/"), limit_bytes=READ_BYTES)

    def size(self, name: str) -> int | None:
        return files.size_of(self._place, self._name, *name.split("/"))

    @contextmanager
    def local(self) -> Iterator[Path]:
        yield Path(self.path)

    def mark(self, name: str, marked: bool) -> None:
        if marked and self.size(name) is None:
            os.close(files.open_own(self._place, self._name, name, flags=os.O_WRONLY))
        elif not marked:
            with suppress(FileNotFoundError):
                files.unlink(self._place, self._name, name)

    def put(self, name: str, data: bytes) -> None:
        files.write(self._place, self._name, name, content=data)
        os.utime(self._place)


class LocalDraft:
    data = ""

    def __init__(self, final: Path, key: str) -> None:
        self._final = final
        self._folder = final.with_name(f".{final.name}.{key or uuid.uuid4().hex[:12]}{TMP}")
        files.make_folders(self._folder.parent)
        files.make_folder(self._folder.parent, self._folder.name)
        self._lock = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        _locks.add(self._lock)
        with suppress(OSError):  # some network file systems
            fcntl.flock(self._lock, fcntl.LOCK_SH)

    def write(self, name: str, fill: Callable[[Sink], object]) -> File:
        descriptor = files.create(self._folder, name)
        try:
            sink = Sink(lambda piece: os.write(descriptor, piece))
            fill(sink)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return sink.file

    def commit(self, manifest: bytes) -> None:
        self.write(MANIFEST, lambda sink: sink.write(manifest))
        if os.path.lexists(self._final):
            self._replace()
        else:
            files.sync(self._folder)
            os.rename(self._folder, self._final)
        files.sync(self._final.parent)
        self.leave()
        shutil.rmtree(_aside(self._final), ignore_errors=True)

    def _replace(self) -> None:
        """Between the two renames the old one is read under its other name; see `paths`."""
        if files.size_of(self._final, PINNED) is not None:
            os.close(files.create(self._folder, PINNED))
        files.sync(self._folder)
        shutil.rmtree(_aside(self._final), ignore_errors=True)
        os.rename(self._final, _aside(self._final))
        os.rename(self._folder, self._final)

    def abandon(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self.leave()

    def leave(self) -> None:
        if self._lock >= 0:
            with suppress(OSError):
                fcntl.flock(self._lock, fcntl.LOCK_UN)  # a process forked meanwhile may have it, too
            _locks.discard(self._lock)
            os.close(self._lock)
            self._lock = -1


class LocalPlace:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def path(self) -> str:
        return str(self._folder)

    def names(self) -> list[str]:
        entries = self._entries()
        there = {entry for entry in entries if is_listed(entry)}
        return sorted(there | {name for entry in entries if (name := replaced(entry)) and name not in there})

    def contents(self, name: str) -> LocalContents:
        old = _aside(self._folder / name).name
        aside = not files.is_folder(self._folder, name) and files.is_folder(self._folder, old)
        return LocalContents(self._folder, old if aside else name)

    def draft(self, name: str, key: str) -> LocalDraft:
        draft = LocalDraft(self._folder / name, key)
        self._sweep()
        return draft

    def remove(self, name: str) -> None:
        gone = self._folder / f".{name}.{uuid.uuid4().hex[:12]}{DELETED}"
        os.rename(self.contents(name).path, gone)
        shutil.rmtree(gone, ignore_errors=True)

    def in_the_making(self) -> set[str]:
        drafts = [entry for entry in self._entries() if entry.endswith(TMP)]
        return {entry for entry in drafts if _is_held(self._folder / entry)}

    def _entries(self) -> list[str]:
        try:
            with os.scandir(self._folder) as entries:
                return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            return []

    def _sweep(self) -> None:
        """What processes that died have left."""
        for entry in self._entries():
            folder = self._folder / entry
            name = replaced(entry)
            if name is not None:
                _take_up(folder, self._folder / name)
            elif entry.endswith(DELETED) or (entry.endswith(TMP) and _is_left(folder)):
                shutil.rmtree(folder, ignore_errors=True)


def _take_up(aside: Path, final: Path) -> None:
    """Not if somebody may just be between the two renames; readers find it where it is."""
    with suppress(OSError):
        if files.is_folder(final.parent, final.name):
            shutil.rmtree(aside, ignore_errors=True)
        elif time.time() - aside.stat().st_ctime > _YOUNG_S:
            os.rename(aside, final)


def _aside(final: Path) -> Path:
    return final.with_name(f".{final.name}{OLD}")


def _is_left(draft: Path) -> bool:
    try:
        age_s = time.time() - draft.stat().st_mtime
    except OSError:
        return False
    return age_s > _YOUNG_S and not _is_held(draft, otherwise=age_s < _OLD_S)


def _is_held(draft: Path, otherwise: bool = False) -> bool:
    """`otherwise`: on a file system without locks."""
    try:
        descriptor = os.open(draft, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return otherwise
    finally:
        os.close(descriptor)


_locks: set[int] = set()
"""The locks on this process's drafts."""


def _in_child() -> None:
    """A lock ends with the process that took it, not with loaders of data that it has forked meanwhile."""
    for descriptor in _locks:
        with suppress(OSError):
            os.close(descriptor)
    _locks.clear()


os.register_at_fork(after_in_child=_in_child)
