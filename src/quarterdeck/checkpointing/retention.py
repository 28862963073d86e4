"""Which checkpoints stay: `keep_last`, `keep_best`. Used by `saver`, after a new one is complete."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from quarterdeck.checkpointing.checkpoint import Checkpoints, best_of, parse_metric
from quarterdeck.checkpointing.paths import step_name
from quarterdeck.checkpointing.storage import Place
from quarterdeck.errors import UsageError


def check(keep_last: int | None, keep_best: str | None) -> None:
    """Raises UsageError."""
    if keep_last is not None and (type(keep_last) is not int or keep_last < 1):
        raise UsageError(
            f"keep_last={keep_last!r}: how many checkpoints to keep is a whole number from 1 on."
        )
    if keep_best is not None:
        parse_metric(keep_best)


def prune(
    place: Place, newest: int, keep_last: int | None, keep_best: str | None, spared: Collection[int] = ()
) -> None:
    """Remove what neither asks for. The newest one, pinned and damaged ones stay, and what was not saved
    under its name: a copy that somebody made. Steps that are `spared` stay as well, and nothing else goes
    because of their metrics: some rank has yet to give its own. Raises OSError.
    """
    if keep_last is None and keep_best is None:
        return
    valid = Checkpoints(place).valid
    own = [checkpoint for checkpoint in valid if checkpoint.name == step_name(checkpoint.step)]
    kept = {newest, *spared} | {checkpoint.step for checkpoint in own[-(keep_last or 1) :]}
    judged = [checkpoint for checkpoint in valid if checkpoint.step not in spared]
    if keep_best is not None and (best := best_of(judged, keep_best)) is not None:
        kept.add(best.step)
    for checkpoint in own:
        if checkpoint.step not in kept and not checkpoint.pinned:
            with suppress(FileNotFoundError):  # another rank, or somebody in the browser, was faster
                place.remove(checkpoint.name)
