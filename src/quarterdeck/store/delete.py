"""Deleting runs. Used by readers; nothing that is not a finished run in a `runs` folder is ever touched."""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from quarterdeck.store.format import RunState
from quarterdeck.store.layout import HEADER

_DELETED = ".deleted-"


class _Run(Protocol):
    folder: Path

    @property
    def state(self) -> RunState: ...
    @property
    def terminal(self) -> bool: ...
    def refresh(self) -> None: ...


def delete(run: _Run) -> None:
    """Remove the run's folder. Raises ValueError if the run has not ended or the folder is not one of a run,
    and OSError if it cannot be moved; the run is whole then.

    Renamed first: readers never see half a run. What a crash leaves of it goes with the next deletion.
    """
    run.refresh()
    if not run.terminal:
        raise ValueError(f"it is still {run.state}: stop it first")
    _check(run.folder)
    os.rename(run.folder, run.folder.with_name(f"{_DELETED}{uuid.uuid4().hex}"))
    for leftover in run.folder.parent.glob(f"{_DELETED}*"):
        with suppress(RecursionError):  # somebody's folders, a thousand deep
            shutil.rmtree(leftover, ignore_errors=True)  # removes links, does not follow them


def folder_bytes(path: Path) -> int:
    """The bytes of all files in it; what vanishes meanwhile counts nothing, links are not followed."""
    total = 0
    folders = [os.fspath(path)]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
    return total


def _check(folder: Path) -> None:
    """`runs` itself may be a link to another disk, if that folder has the name, too."""
    runs = os.path.basename(os.path.realpath(folder.parent))
    try:
        real = stat.S_ISDIR(os.lstat(folder).st_mode) and stat.S_ISREG(os.lstat(folder / HEADER).st_mode)
    except OSError:
        real = False
    if runs != "runs" or folder.name in ("", ".", "..") or not real:
        raise ValueError(f"{folder} is not the folder of a run: it was left alone")
