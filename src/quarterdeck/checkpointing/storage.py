"""Where checkpoints are kept: `place_of(folder)` gives a local folder or one behind an fsspec URL. Pure; used
by saving, listing and loading, in every process.

A place has checkpoints by name, begins drafts (`Draft`: files that become a checkpoint all at once, or not at
all), and opens what is there (`Contents`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from quarterdeck.checkpointing.checksum_writer import Sink
from quarterdeck.checkpointing.manifest import File

__all__ = ["Contents", "Draft", "Place", "is_url", "place_of"]


class Contents(Protocol):
    """The files of one checkpoint, or of what stands in its place."""

    @property
    def path(self) -> str:
        """As a user writes it: a path or a URL."""

    def read(self, name: str) -> bytes:
        """Raises OSError."""

    def size(self, name: str) -> int | None:
        """None if there is no such file."""

    def local(self) -> AbstractContextManager[Path]:
        """The files as a local folder, for the time of the block; downloaded where that is needed."""

    def mark(self, name: str, marked: bool) -> None:
        """Make an empty file, or remove it. Raises OSError."""

    def put(self, name: str, data: bytes) -> None:
        """A small file, whole or not at all; what looks for changes sees it. Raises OSError."""


class Draft(Protocol):
    """A checkpoint in the making. Nothing of it counts before `commit` has returned; then all of it does."""

    @property
    def data(self) -> str:
        """For the manifest: see there."""

    def write(self, name: str, fill: Callable[[Sink], object]) -> File:
        """On return the file is on the disk. Raises OSError."""

    def commit(self, manifest: bytes) -> None:
        """Takes the place of a checkpoint of the same name. Raises OSError."""

    def abandon(self) -> None:
        """Leave nothing behind. Never raises."""

    def leave(self) -> None:
        """Another rank commits. Never raises."""


class Place(Protocol):
    @property
    def path(self) -> str: ...

    def names(self) -> list[str]:
        """The names of all folders that may be checkpoints; empty if the place is not there."""

    def contents(self, name: str) -> Contents: ...

    def draft(self, name: str, key: str) -> Draft:
        """Ranks that give the same key work on the same one. Raises OSError."""

    def remove(self, name: str) -> None:
        """At once for readers. Raises OSError."""

    def in_the_making(self) -> set[str]:
        """Names of drafts here on which a process that lives is working."""


def is_url(folder: str | os.PathLike[str]) -> bool:
    text = os.fspath(folder)
    return "://" in text and not text.startswith("file://")


def place_of(folder: str | os.PathLike[str]) -> Place:
    if is_url(folder):
        from quarterdeck.checkpointing.remote import RemotePlace

        return RemotePlace(os.fspath(folder))
    from quarterdeck.checkpointing.local import LocalPlace

    return LocalPlace(Path(os.path.abspath(os.path.expanduser(os.fspath(folder).removeprefix("file://")))))
