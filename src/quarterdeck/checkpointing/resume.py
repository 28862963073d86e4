"""Loading in a run that continues an earlier one (`--resume`): its own checkpoints come first, then those
that it began with. Used by `quarterdeck.checkpointing.save`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from quarterdeck.checkpointing.answers import Answer, Asked
from quarterdeck.checkpointing.checkpoint import Checkpoint, Checkpoints
from quarterdeck.checkpointing.load import Loaded, Request, find, folder_of_many, load, load_found
from quarterdeck.checkpointing.manifest import MANIFEST
from quarterdeck.checkpointing.paths import is_listed, step_of
from quarterdeck.checkpointing.storage import Place, place_of
from quarterdeck.errors import UsageError


def load_first(
    which: str | int | os.PathLike[str] | Checkpoint,
    own: Place,
    resume: Path | None,
    request: Request,
    asked: Callable[[Place, str], Asked],
) -> Loaded | None:
    """`resume`: a folder of checkpoints, or the one that the run began with. `asked` tells where the rank is
    when it asks a question at a place.
    """
    named = None if resume is None else str(resume)
    question = which if isinstance(which, str) and _is_asked(which) else ""
    if not question and (many := folder_of_many(which)) is not None:
        question, own, resume, named = "latest", many, None, many.path
    if question:
        answer = asked(own, question).once(question, lambda: _found(question, own, resume))
        if answer.foreign:
            return load(answer.foreign, own, request)
        loaded = load_found(question, answer, request)
        if loaded is None and named is not None:
            raise UsageError(_nothing_at(named, Checkpoints(place_of(named))))
        return loaded
    if resume is not None and type(which) is int and not _has(own, which):
        return load(which, place_of(resume if _holds_many(resume) else resume.parent), request)
    return load(which, own, request)


def _found(question: str, own: Place, resume: Path | None) -> Answer:
    if resume is None or Checkpoints(own).valid:
        return find(question, own)
    if _holds_many(resume):
        return find(question, place_of(resume))
    return Answer([], foreign=str(resume))


def _nothing_at(path: str, found: Checkpoints) -> str:
    """A place that was named is never passed over in silence: the training would begin at its start."""
    problem = f" The newest, {found.invalid[-1].path}: {found.invalid[-1].problem}." if found.invalid else ""
    return f"There is no checkpoint at {path} that could be loaded.{problem}"


def _is_asked(which: str) -> bool:
    return which in ("latest", "best") or which.startswith("best:")


def _has(own: Place, step: int) -> bool:
    return any(checkpoint.step == step for checkpoint in Checkpoints(own).valid)


def _holds_many(resume: Path) -> bool:
    """It is a folder of checkpoints, not one, ours or another program's."""
    names = os.listdir(resume) if resume.is_dir() else [MANIFEST]
    return MANIFEST not in names and _all_ours(names)


def _all_ours(names: list[str]) -> bool:
    return any(step_of(name) is not None for name in names) or not any(map(is_listed, names))
