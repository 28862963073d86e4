"""What a rank does about a step beside writing it: it offers the step to the others, compares what it has
with what they have, adds its metrics, waits, and tidies up. Used by `saver`; one rank alone has nothing to do
here but to tidy up.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from quarterdeck.checkpointing import answers, marks, means, outline, retention
from quarterdeck.checkpointing.attempt import Attempt
from quarterdeck.checkpointing.checkpoint import Checkpoint
from quarterdeck.checkpointing.errors import CheckpointError
from quarterdeck.checkpointing.manifest import Manifest
from quarterdeck.checkpointing.offers import Offer, Offers
from quarterdeck.checkpointing.paths import step_name, step_of
from quarterdeck.checkpointing.rank_rendezvous import JOIN_LIMIT_S, Joint
from quarterdeck.checkpointing.storage import Place


@dataclass(frozen=True)
class Order:
    """What is to be saved where; everything but the state."""

    place: Place
    step: int
    manifest: Manifest
    """Without its files and its model; the metrics are this rank's."""
    rank: int = 0
    world_size: int = 1
    attempt: Attempt | None = None
    """None for one rank alone."""
    ranks: Sequence[int] = ()
    """Those that have to take part, since each holds something of its own; empty: any one rank will do."""
    outline: outline.Outline = field(default_factory=dict)
    met: int = 0
    """How many collectives all ranks have been in."""
    keep_last: int | None = None
    keep_best: str | None = None

    @property
    def name(self) -> str:
        return step_name(self.step)

    @property
    def offers(self) -> Offers | None:
        return None if self.attempt is None else self.attempt.offers(self.step)

    @property
    def joint_key(self) -> str:
        """The key of the draft that all ranks write into."""
        return "" if self.attempt is None else self.attempt.folder.name

    def joint(self) -> Joint | None:
        if len(self.ranks) < 2 or self.attempt is None:
            return None
        return Joint(self.attempt.folder / f"{self.name}.all", self.step, self.rank, self.ranks)


def offer(order: Order) -> None:
    """Raises CheckpointError if another rank has offered another state as this step; OSError."""
    if order.attempt is None or order.offers is None:
        return
    digest = outline.digest(order.outline)
    order.attempt.enter(order.step, order.met)
    order.attempt.describe(digest, order.outline)
    order.attempt.keep(order.keep_last, order.keep_best)
    order.offers.put(order.rank, Offer(digest, order.manifest.metrics))
    check(order)


def check(order: Order) -> None:
    """Raises CheckpointError if the ranks hold different states: no checkpoint of the step counts then."""
    offers, attempt = order.offers, order.attempt
    if offers is None or attempt is None:
        return
    other = offers.unlike(outline.digest(order.outline))
    if other is None:
        return
    rank, digest = other
    mine, theirs = f"rank {order.rank}", "it" if rank < 0 else f"rank {rank}"
    found = outline.difference(order.outline, mine, attempt.outline(digest), theirs)
    text = (
        f"rank {order.rank} saves another state as step {order.step} than {theirs}"
        f"{' did before' if rank < 0 else ''}: {found}.\n"
        "A checkpoint holds one state, so none was saved of this step. Give each of them (each stage of a "
        "pipeline made by hand) a directory= of its own, or save on one rank alone, under `if rank == 0:`. "
        "Of a model sharded by fully_shard every rank writes its part by itself."
    )
    offers.fail(text, release=False)
    _retract(order, offers)
    raise CheckpointError(text)


def claim(order: Order) -> bool:
    """Whether it is this rank that writes. Raises OSError."""
    return order.offers is None or order.offers.claim(order.rank, order.met)


def fail(order: Order, reason: str) -> None:
    """This rank could not write it, and another one may. Never raises."""
    if order.offers is not None:
        order.offers.fail(reason, release=True)


def give_up(order: Order, reason: str) -> None:
    """As `fail`, if it is this rank that was to write it, and has not. Never raises."""
    offers = order.offers
    with suppress(OSError):
        if offers is not None and offers.writer() == order.rank and offers.done() is None:
            offers.fail(reason, release=True)


def manifest_of(order: Order) -> Manifest:
    """With the metrics of all that have called by now."""
    if order.offers is None:
        return order.manifest
    return means.with_mean(order.manifest, order.offers.metrics())


def complete(order: Order, created_unix_ns: int) -> None:
    """The checkpoint is there. Raises CheckpointError if meanwhile it turned out not to be one state."""
    if order.offers is not None:
        order.offers.complete(created_unix_ns)
        check(order)


def follow_up(order: Order) -> None:
    """After the checkpoint is complete. Raises OSError."""
    add_metrics(order)
    tidy_up(order)


def add_metrics(order: Order) -> None:
    """Adds the metrics of ranks that have called since the checkpoint is complete. Raises OSError."""
    if order.offers is not None and order.attempt is not None:
        with marks.alone(order.attempt.folder / "lock"):
            checkpoint = Checkpoint(order.place, order.name)
            if checkpoint.valid and checkpoint.created_unix_ns == order.offers.done():
                means.add(checkpoint.manifest, checkpoint.contents, order.offers.metrics())


def tidy_up(order: Order) -> None:
    """Remove what is not to stay, of what all ranks have passed. Raises OSError."""
    spared: set[int] = set()
    if (attempt := order.attempt) is not None:
        names = answers.about_to_be_loaded(attempt.answers, order.place.path, attempt.is_open)
        spared = attempt.unpassed() | {step for name in names if (step := step_of(name)) is not None}
        attempt.clear()
    retention.prune(order.place, order.step, order.keep_last, order.keep_best, spared)


def wait(offers: Offers, attempt: Attempt) -> None:
    """Returns when another rank has written the step. Raises CheckpointError if it failed or died."""
    polls = marks.Polls()
    while not (reason := offers.failure()):
        if offers.done() is not None:
            return
        writer = offers.writer()
        if writer == attempt.rank:
            return
        if not _is_written(writer, attempt, polls) and offers.done() is None and not offers.failure():
            who = "the rank that wrote it" if writer is None else f"rank {writer}"
            raise CheckpointError(
                f"The checkpoint of step {offers.step} was not saved: {who} ended while it was writing."
            )
        polls.pause()
    raise CheckpointError(f"The checkpoint of step {offers.step} was not saved: {reason}")


def wait_for_all(attempt: Attempt) -> None:
    """Returns when what other ranks are writing now is complete, or came to nothing."""
    for offers in attempt.in_the_making():
        with suppress(CheckpointError):
            wait(offers, attempt)


def _is_written(writer: int | None, attempt: Attempt, polls: marks.Polls) -> bool:
    return polls.elapsed_s < JOIN_LIMIT_S if writer is None else attempt.lives(writer)


def _retract(order: Order, offers: Offers) -> None:
    """It was complete before another rank came with another state."""
    created = offers.done()
    if created is not None:
        with suppress(OSError):
            if Checkpoint(order.place, order.name).created_unix_ns == created:
                order.place.remove(order.name)
