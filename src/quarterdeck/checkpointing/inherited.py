"""Loading in a run that continues an earlier one (`--resume`): its own checkpoints come first, then those
that it began with. Used by `quarterdeck.saving`.
"""

from __future__ import annotations

import os
from pathlib import Path

from quarterdeck.checkpointing.listing import Checkpoint, Checkpoints
from quarterdeck.checkpointing.loading import Loaded, Request, load
from quarterdeck.checkpointing.manifest import MANIFEST
from quarterdeck.checkpointing.paths import is_listed, step_of
from quarterdeck.checkpointing.places import Place, place_of


def load_first(
    which: str | int | os.PathLike[str] | Checkpoint, own: Place, resume: Path | None, request: Request
) -> Loaded | None:
    """As `load`. `resume`: a folder of checkpoints, or the one that the run began with."""
    if resume is None or not _is_looked_for(which) or _has(own, which):
        return load(which, own, request)
    if _holds_many(resume):
        return load(which, place_of(resume), request)
    return load(which, place_of(resume.parent), request) if type(which) is int else load(resume, own, request)


def _is_looked_for(which: object) -> bool:
    """Not a place of its own."""
    if isinstance(which, str):
        return which in ("latest", "best") or which.startswith("best:")
    return type(which) is int


def _has(own: Place, which: object) -> bool:
    found = Checkpoints(own).valid
    return any(checkpoint.step == which for checkpoint in found) if type(which) is int else bool(found)


def _holds_many(resume: Path) -> bool:
    """It is a folder of checkpoints, not one, ours or another program's."""
    names = os.listdir(resume) if resume.is_dir() else [MANIFEST]
    return MANIFEST not in names and _all_ours(names)


def _all_ours(names: list[str]) -> bool:
    return any(step_of(name) is not None for name in names) or not any(map(is_listed, names))
