"""The context of a piece of work: where a rank is, what it continues, and its own checkpoint in Flyte's form.
Called by `serve`, in the worker.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from quarterdeck.context import Context, Resumption
from quarterdeck.protocol.parts import RunPlace
from quarterdeck.protocol.worker import CallFunction, RunCell
from quarterdeck.store.folder_checkpoint import FolderCheckpoint, holds_some
from quarterdeck.store.layout import attempts_in, own_checkpoints, rank_name


def context_of(work: RunCell | CallFunction, rank: int, world_size: int) -> Context:
    """What `qd.current()` is while user code runs."""
    place = work.place
    resumption = _resumption(place)
    return Context(
        run_id=place.run_id,
        name=place.name or work.name,
        rank=rank,
        local_rank=rank,
        world_size=world_size,
        attempt=place.attempt,
        run_dir=Path(place.folder),
        checkpoint=_checkpoint(place, rank, resumption) if place.closed else None,
        resumption=resumption,
    )


def _resumption(place: RunPlace) -> Resumption | None:
    if not place.resume:
        return None
    return Resumption(Path(place.resume), Path(place.parent) if place.parent else None)


def _checkpoint(place: RunPlace, rank: int, resumption: Resumption | None) -> FolderCheckpoint:
    """It reads what this rank saved last before this attempt: in this run, else in the one it continues. If
    all that it was to continue is gone, reading says so.
    """
    folder = Path(place.folder)
    target = own_checkpoints(folder, place.attempt, rank)
    sources = [own_checkpoints(folder, attempt, rank) for attempt in reversed(range(place.attempt))]
    if resumption is None:
        return FolderCheckpoint(target, next(filter(holds_some, sources), None))
    sources += _inherited(resumption.source, rank_name(rank))
    gone = None if resumption.source.exists() else resumption.source
    checkpoint = FolderCheckpoint(target, next(filter(holds_some, sources), gone))
    checkpoint.on_restore = lambda: resumption.loaded(-1)
    return checkpoint


def _inherited(resume: Path, own: str) -> Iterator[Path]:
    """Where a rank's own may lie if `resume` is a folder of all, of one attempt's, or of one rank's."""
    for attempt in attempts_in(resume):
        yield attempt / own
    yield resume / own
    if resume.name == own:
        yield resume
