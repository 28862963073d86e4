"""A checkpoint that is a folder: Flyte's form of it (`SyncCheckpoint`), for state in any format.

Two folders: `checkpoint_dest` gets what this attempt saves, `checkpoint_src` holds what an earlier one saved.
On disk `checkpoint_dest` always is the last complete save, also if the process is killed within one:

    a file      written as `.qd-tmp-*` in the folder, then renamed
    a folder    built as `.<folder>.qd-tmp-*` beside the folder, which then is renamed to `.<folder>.qd-old`;
                the new one takes its place, the old one is removed. A process that died between the two
                renames leaves only `.qd-old`: it is read, and the next save takes it up again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from quarterdeck import files
from quarterdeck.public import public

_NAMELESS = "_dst_cp"  # the file that `write` makes, as in Flyte


@public
class FolderCheckpoint:
    """Saves to one folder, restores from another, as flytekit's `SyncCheckpoint`. Local folders only; they
    are made when something is saved.

    Every method may be called from any thread. Saves of several processes to one folder follow each other and
    the last one wins: ranks with state of their own need a folder each.

    Args:
        checkpoint_dest: the folder that this attempt saves to.
        checkpoint_src: the folder that an earlier one saved to. None or "", or a folder without files, means
            that there is no earlier checkpoint. One that is named and not there is an error, as soon as it is
            asked for.

    Raises:
        ValueError: a folder is a URL of somewhere else.
    """

    def __init__(self, checkpoint_dest: str | Path, checkpoint_src: str | Path | None = None) -> None:
        self._dest = _local(checkpoint_dest)
        self._src = _local(checkpoint_src) if checkpoint_src else None
        self._lock = threading.RLock()
        self._is_saving = False
        self._restored: Path | None = None
        self._own: tempfile.TemporaryDirectory[str] | None = None
        self.on_restore: Callable[[], None] = lambda: None
        """Called when something of the earlier checkpoint was given out."""

    def prev_exists(self) -> bool:
        """Whether there is something to restore. (In flytekit: whether a source is named, even an empty one.)

        Raises:
            FileNotFoundError: the named source is not there.
        """
        return bool(self._previous())

    def restore(self, path: str | Path | None = None) -> Path | None:
        """Copy the earlier checkpoint into a directory.

        As in flytekit it is copied once: later calls return the first directory.

        Args:
            path: a directory, which must exist; None: a temporary one, removed with this object.

        Returns:
            The directory; None if there is no earlier checkpoint.

        Raises:
            ValueError: `path` is not a directory.
            FileNotFoundError: the named source is not there.
        """
        with self._lock:
            if self._restored is None and (entries := self._previous()):
                target = self._own_folder() if path is None else Path(path)
                if not target.is_dir():
                    raise ValueError(f"A checkpoint is restored into a directory, and {target} is not one.")
                for entry in entries:
                    _copy(entry, target / entry.name)
                self._restored = target
                self.on_restore()
            return self._restored

    def save(self, cp: str | Path | BinaryIO) -> None:
        """Add to the new checkpoint. What has the same name is replaced, the rest stays, as in flytekit. On
        return it is on disk.

        Args:
            cp: the path of a file, which keeps its name, or of a directory, of which all is added; or an open
                binary file, which is read from its position on.

        Raises:
            ValueError: it is anything else, or an open file at its end.
            FileNotFoundError: nothing is at the path.
            OSError: it cannot be written.
        """
        if isinstance(cp, bytes | bytearray | memoryview):
            raise ValueError("save() takes a path or an open binary file; for bytes there is write().")
        if isinstance(cp, str | os.PathLike):
            self._save_path(Path(cp))
            return
        if not _reads_bytes(cp):
            raise ValueError(f'save() takes a path or a file opened with "rb", not {cp!r}.')
        self._put(_NAMELESS, lambda file: _drain(cp, file))

    def read(self) -> bytes | None:
        """The one file of the *earlier* checkpoint.

        What `write` wrote in this attempt is not read back (as in flytekit): it is the next attempt's.

        Returns:
            Its bytes; None if there is no earlier checkpoint.

        Raises:
            ValueError: there are several files or a directory; those are for `restore`.
            FileNotFoundError: the named source is not there.
        """
        entries = self._previous()
        if len(entries) > 1 or any(not entry.is_file() for entry in entries):
            found = ", ".join(entry.name for entry in entries[:5])
            raise ValueError(
                f"read() needs exactly one checkpoint file, not {len(entries)} ({found}): use restore(path)."
            )
        if not entries:
            return None
        content = entries[0].read_bytes()
        self.on_restore()
        return content

    def write(self, b: bytes) -> None:
        """Replace what an earlier `write` of this attempt wrote. On return it is on disk.

        Raises:
            TypeError: it is anything but bytes.
            OSError: it cannot be written.
        """
        if not isinstance(b, bytes | bytearray | memoryview):
            raise TypeError(f"write() takes bytes, not {type(b).__name__}.")
        self._put(_NAMELESS, lambda file: file.write(b))

    def _previous(self) -> list[Path]:
        if self._src is None:
            return []
        folder = _latest(self._src)
        if folder is None:
            raise FileNotFoundError(
                errno.ENOENT, "The checkpoint that was to be continued is not there", str(self._src)
            )
        return _entries(folder)

    def _own_folder(self) -> Path:
        self._own = self._own or tempfile.TemporaryDirectory(prefix="quarterdeck-restored-")
        return Path(self._own.name)

    def _save_path(self, path: Path) -> None:
        if path.is_dir():
            self._put_folder(path)
        elif path.exists():
            with path.open("rb") as source:
                self._put(path.name, lambda file: shutil.copyfileobj(source, file))
        else:
            raise FileNotFoundError(errno.ENOENT, "There is nothing to save", str(path))

    def _put(self, name: str, fill: Callable[[BinaryIO], Any]) -> None:
        with self._alone():
            files.make_folder(self._dest.parent, self._dest.name)
            with files.atomic_write(self._dest, name, synced=True) as file:
                fill(file)

    def _put_folder(self, path: Path) -> None:
        if self._dest != path.resolve() and self._dest.is_relative_to(path.resolve()):
            raise ValueError(f"{path} contains the folder that it would be saved to, {self._dest}.")
        with self._alone():
            tmp = self._dest.with_name(f".{self._dest.name}{files.UNFINISHED}{uuid.uuid4().hex}")
            try:
                _copy(path, tmp)
                if self._dest.is_dir():
                    _copy(self._dest, tmp, _link_unless_there)
                _sync_tree(tmp)
                self._switch(tmp)
            finally:
                shutil.rmtree(tmp, ignore_errors=True)

    def _switch(self, tmp: Path) -> None:
        aside = _aside(self._dest)
        if self._dest.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(self._dest, aside)
        os.rename(tmp, self._dest)
        files.sync(self._dest.parent)
        shutil.rmtree(aside, ignore_errors=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One save at a time, over all threads and (where the file system has flock) processes."""
        parent = self._dest.parent
        files.make_folders(parent)
        with self._lock:
            if self._is_saving:  # a signal handler that saves, in the middle of a save
                yield
                return
            self._is_saving = True
            fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                _flock(fd, fcntl.LOCK_EX)
                self._take_up()
                yield
            finally:
                _flock(fd, fcntl.LOCK_UN)  # a process forked meanwhile has the descriptor, too
                os.close(fd)
                self._is_saving = False

    def _take_up(self) -> None:
        if not self._dest.exists() and _aside(self._dest).is_dir():
            os.rename(_aside(self._dest), self._dest)


def holds_some(folder: Path) -> bool:
    """Whether something was saved there."""
    found = _latest(folder)
    return found is not None and bool(_entries(found))


def _latest(folder: Path) -> Path | None:
    """It, or what it was, while a save puts another one into its place; None if there is neither."""
    return next((one for one in (folder, _aside(folder), folder) if one.is_dir()), None)


def _local(folder: str | Path) -> Path:
    text = os.fspath(folder).removeprefix("file://")
    if "://" in text:
        raise ValueError(f"Checkpoints are saved to local folders, and {text} is not one.")
    return Path(text).resolve()


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.qd-old")


def _entries(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith(files.UNFINISHED))


def _reads_bytes(file: Any) -> bool:
    """Also false for one opened as text, or only for writing."""
    try:
        return isinstance(file.read(0), bytes)
    except (AttributeError, TypeError, OSError, ValueError):
        return False


def _drain(source: BinaryIO, target: BinaryIO) -> None:
    shutil.copyfileobj(source, target)
    if target.tell() == 0 and source.seekable() and source.tell() > 0:
        raise ValueError("save() read nothing: the file is at its end. Call its seek(0) first.")


def _copy(source: Path, target: Path, copy_file: Callable[..., Any] = shutil.copy2) -> None:
    if source.is_dir():
        ignore = shutil.ignore_patterns(f"{files.UNFINISHED}*")
        shutil.copytree(source, target, dirs_exist_ok=True, copy_function=copy_file, ignore=ignore)
    else:
        copy_file(source, target)


def _link_unless_there(source: str, target: str) -> None:
    """Saved files are never changed in place, so the old folder and the new one may share them."""
    if os.path.lexists(target):
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _sync_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for path in (*(os.path.join(root, name) for name in names), root):
            files.sync(path)


def _flock(fd: int, operation: int) -> None:
    try:
        fcntl.flock(fd, operation)
    except OSError:  # some network file systems
        pass
