"""Checkpoints behind an fsspec URL ("s3://bucket/run"): see `storage`. fsspec is loaded here only.

Object stores have no rename. Each save writes its files into a subfolder of its own, then the manifest that
names it, in one request; what the manifest before named is removed after that.
"""

from __future__ import annotations

import errno
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from quarterdeck.checkpointing.checksum_writer import Sink
from quarterdeck.checkpointing.local import READ_BYTES
from quarterdeck.checkpointing.manifest import MANIFEST, PINNED, File
from quarterdeck.checkpointing.paths import is_listed
from quarterdeck.errors import UsageError


class RemoteContents:
    """The files of the subfolder that the manifest names, and the manifest itself."""

    def __init__(self, place: RemotePlace, name: str) -> None:
        self._place = place
        self._name = name
        self._found: dict[str, int] | None = None

    @property
    def path(self) -> str:
        return f"{self._place.path}/{self._name}"

    def read(self, name: str) -> bytes:
        """Raises OSError, also if it is larger than what is read at once."""
        path, end = f"{self._root}/{name}", READ_BYTES + 1
        data: bytes = self._place.guarded(lambda fs: fs.cat_file(path, start=0, end=end))
        if len(data) > READ_BYTES:
            text = f"it has more than {READ_BYTES:,} bytes"
            raise OSError(errno.EFBIG, text, f"{self.path}/{name}")
        return data

    def size(self, name: str) -> int | None:
        return self._sizes().get(name)

    @contextmanager
    def local(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="quarterdeck-checkpoint-") as folder:
            for name in self._sizes():
                target = Path(folder, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                self._download(name, target)
            yield Path(folder)

    def mark(self, name: str, marked: bool) -> None:
        path = f"{self._root}/{name}"
        if marked:
            self._place.guarded(lambda fs: fs.pipe_file(path, b""))
        elif name in self._sizes():
            self._place.guarded(lambda fs: fs.rm_file(path))
        self._found = None

    def put(self, name: str, data: bytes) -> None:
        self._place.guarded(lambda fs: fs.pipe_file(f"{self._root}/{name}", data))
        self._found = None

    def _download(self, name: str, target: Path) -> None:
        self._place.guarded(lambda fs: fs.get_file(f"{self._root}/{name}", str(target)))

    @property
    def _root(self) -> str:
        return f"{self._place.root}/{self._name}"

    def _sizes(self) -> dict[str, int]:
        """Relative paths; one request, asked once. A store's keys are any text: one that would lead out of
        the folder that it is copied to is none of a checkpoint's.
        """
        if self._found is None:
            found = self._place.guarded(lambda fs: fs.find(self._root, detail=True))
            start = len(self._root.lstrip("/")) + 1
            sizes = {path.lstrip("/")[start:]: int(info["size"] or 0) for path, info in found.items()}
            self._found = {name: size for name, size in sizes.items() if _stays_below(name)}
        return self._found


class RemoteDraft:
    def __init__(self, place: RemotePlace, name: str, key: str) -> None:
        self._place = place
        self._root = f"{place.root}/{name}"
        self.data = f"data-{key or uuid.uuid4().hex[:12]}"

    def write(self, name: str, fill: Callable[[Sink], object]) -> File:
        file: File = self._place.guarded(lambda fs: self._write(fs, name, fill))
        return file

    def _write(self, fs: Any, name: str, fill: Callable[[Sink], object]) -> File:
        file = fs.open(f"{self._root}/{self.data}/{name}", "wb")
        sink = Sink(lambda piece: file.write(piece))
        try:
            fill(sink)
        except BaseException:
            _discard(file)
            raise
        file.close()
        return sink.file

    def commit(self, manifest: bytes) -> None:
        self._place.guarded(lambda fs: fs.pipe_file(f"{self._root}/{MANIFEST}", manifest))
        with suppress(OSError):
            self._place.guarded(self._remove_older)

    def abandon(self) -> None:
        with suppress(OSError):
            self._place.guarded(lambda fs: fs.rm(f"{self._root}/{self.data}", recursive=True))

    def leave(self) -> None:
        pass

    def _remove_older(self, fs: Any) -> None:
        for path in _folders(fs, self._root):
            if path.rpartition("/")[2] not in (self.data, PINNED):
                fs.rm(path, recursive=True)


class RemotePlace:
    def __init__(self, url: str) -> None:
        """Raises UsageError if fsspec, or its part for this kind of URL, is not installed."""
        self.path = url.rstrip("/")
        try:
            self._fs, root = import_module("fsspec.core").url_to_fs(self.path)
        except (ImportError, ValueError) as error:
            scheme = url.partition("://")[0]
            raise UsageError(
                f"Checkpoints cannot be kept at {url}: {error}",
                f"Install what fsspec needs for {scheme}:// (for s3://: pip install s3fs).",
            ) from None
        self.root = str(root).rstrip("/")

    def guarded(self, call: Callable[[Any], Any]) -> Any:
        """Store libraries raise errors of their own kinds; here all of them are an OSError."""
        try:
            return call(self._fs)
        except OSError:
            raise
        except Exception as error:
            raise OSError(f"{self.path}: {type(error).__name__}: {error}") from error

    def names(self) -> list[str]:
        try:
            folders = self.guarded(lambda fs: _folders(fs, self.root))
        except FileNotFoundError:
            return []
        return sorted(name for path in folders if is_listed(name := path.rpartition("/")[2]))

    def contents(self, name: str) -> RemoteContents:
        return RemoteContents(self, name)

    def draft(self, name: str, key: str) -> RemoteDraft:
        return RemoteDraft(self, name, key)

    def remove(self, name: str) -> None:
        """The manifest first: without it the rest counts for nothing."""
        self.guarded(lambda fs: fs.rm_file(f"{self.root}/{name}/{MANIFEST}"))
        self.guarded(lambda fs: fs.rm(f"{self.root}/{name}", recursive=True))

    def in_the_making(self) -> set[str]:
        return set()


def _stays_below(name: str) -> bool:
    return not {"", ".", ".."} & set(name.split("/"))


def _folders(fs: Any, root: str) -> list[str]:
    fs.invalidate_cache()
    return [entry["name"].rstrip("/") for entry in fs.ls(root, detail=True) if entry["type"] == "directory"]


def _discard(file: Any) -> None:
    """An upload that is closed would be complete."""
    with suppress(Exception):
        file.discard() if hasattr(file, "discard") else None
    file.closed = True
