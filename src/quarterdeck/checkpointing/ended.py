"""What is left to do in a run's folder of checkpoints when all its ranks have ended: no rank can tell that of
those that never called. Used by the coordinator.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import msgspec

from quarterdeck.checkpointing import marks, retention
from quarterdeck.checkpointing.attempt import Kept
from quarterdeck.checkpointing.paths import SAVES
from quarterdeck.checkpointing.storage import place_of


def has_traces(folder: Path) -> bool:
    return (folder / SAVES).is_dir()


def tidy_up(folder: Path) -> None:
    """Remove the checkpoints that are not to stay, as the last save asked, and what ranks told each other.
    Never raises for what the disk refuses.
    """
    with suppress(OSError, msgspec.MsgspecError):
        if any(map(marks.is_held, (folder / SAVES).glob("**/rank-*"))):
            return  # some process goes on, after all
        if kept := _kept(folder):
            retention.prune(place_of(folder), -1, kept.keep_last, kept.keep_best)
        shutil.rmtree(folder / SAVES, ignore_errors=True)
        for empty in (folder, folder.parent):  # nothing was saved: it was only asked for
            empty.rmdir()


def _kept(folder: Path) -> Kept | None:
    """What was kept of the last attempt."""
    found = sorted((folder / SAVES).glob("*/kept"), key=lambda path: path.stat().st_mtime_ns)
    data = marks.read(found[-1]) if found else None
    return None if data is None else msgspec.json.decode(data, type=Kept)
