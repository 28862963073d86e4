"""Which folders a browser shows: those of all runs of a store, of one run, or one that somebody names. Made
by `qd.checkpoints`, `run.checkpoints` and `%checkpoints`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from quarterdeck import files
from quarterdeck.checkpointing.manifest import MANIFEST
from quarterdeck.checkpointing.paths import step_of
from quarterdeck.checkpointing.storage import is_url
from quarterdeck.errors import UsageError
from quarterdeck.store.layout import CHECKPOINTS, HEADER
from quarterdeck.store.reader import StoredRun, list_runs

"""In a run's folder."""


class Place(NamedTuple):
    path: str
    """The path of a folder of checkpoints, or its URL."""
    run_folder: Path | None = None
    only: str = ""
    """The one that is wanted of it; "": all."""


class Location(NamedTuple):
    where: str
    """In words, for the head of the list."""
    places: Callable[[], list[Place]]
    """As of now; cheap enough to be asked every second."""


def of_store(homes: Sequence[Path]) -> Location:
    """All runs that have saved something."""
    folder = os.path.relpath(homes[0]) if homes else "the run store"
    where = str(homes[0]) if folder.startswith("..") else folder
    return Location(f"all runs in {where}", lambda: list(_in_homes(homes)))


def of_run(folder: Path, name: str) -> Location:
    """There may be nothing yet."""
    place = Place(str(folder / CHECKPOINTS), folder)
    return Location(name, lambda: [] if os.path.islink(place.path) else [place])


def of_folder(path: str | os.PathLike[str]) -> Location:
    """A folder of checkpoints, a checkpoint, a run's folder, a run store, or a URL. UsageError if it is no
    folder.
    """
    text = os.fspath(path)
    if is_url(text):
        return Location(text, lambda: [Place(text.rstrip("/"))])
    folder = Path(os.path.abspath(os.path.expanduser(text.removeprefix("file://"))))
    if not folder.is_dir():
        what = "is a file: give the folder" if folder.exists() else "is not there"
        raise UsageError(f"{folder} {what}.", "`%checkpoints` alone lists those of all runs.")
    if (folder / HEADER).is_file():
        return of_run(folder, folder.name)
    if (folder / "runs").is_dir():
        return of_store([folder])
    if (folder / MANIFEST).is_file() or step_of(folder.name) is not None:
        return Location(str(folder), lambda: [Place(str(folder.parent), _above(folder.parent), folder.name)])
    inside = folder / CHECKPOINTS
    there = inside if inside.is_dir() else folder
    return Location(str(there), lambda: [Place(str(there), _above(there))])


def named(text: str, homes: Sequence[Path]) -> Location:
    """A run by its id, name or title, the newest first; else a path. UsageError if it is neither."""
    found = next((run for run in list_runs(homes) if text in _names(run)), None)
    if found is not None:
        return of_run(found.folder, found.header.name or found.header.title)
    try:
        return of_folder(text)
    except UsageError:
        raise UsageError(f"There is no run and no folder {text!r}.", "`qd.runs()` lists the runs.") from None


def _names(run: StoredRun) -> tuple[str, ...]:
    return run.run_id, run.header.name, run.header.title


def _in_homes(homes: Sequence[Path]) -> Iterator[Place]:
    for home in homes:
        try:
            entries = [entry.path for entry in os.scandir(home / "runs") if not entry.name.startswith(".")]
        except OSError:
            continue
        for entry in entries:
            if not os.path.islink(entry) and files.is_folder(entry, CHECKPOINTS):
                yield Place(f"{entry}/{CHECKPOINTS}", Path(entry))


def _above(folder: Path) -> Path | None:
    """The run that a folder of checkpoints belongs to."""
    return folder.parent if folder.name == CHECKPOINTS and (folder.parent / HEADER).is_file() else None
