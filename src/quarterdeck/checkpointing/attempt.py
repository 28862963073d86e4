"""How far each rank of one attempt of a run is with its saves. Small files, no collectives: nobody waits for
a rank that does not call. Used by `offering` in the processes that run user code.

    KEY/rank-R        where rank R is: held under a lock until it ends
    KEY/step-N/       what the ranks have said of a step: see `offers`
    KEY/outline-D     what a state of that digest is made of
    KEY/kept          which checkpoints are to stay: for who tidies up when all ranks have ended

A rank has passed a step when it has offered a later one, or has ended. One that has never called has passed
it, too, when the ranks have met in a collective since, or half a minute after the first call of another one:
it is none of those that save.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from quarterdeck import files
from quarterdeck.checkpointing import marks
from quarterdeck.checkpointing.offers import Offers
from quarterdeck.checkpointing.paths import step_name, step_of
from quarterdeck.store.layout import rank_name

NEWCOMERS_S = 30.0
_WIDTH = 160
"""The bytes of a rank's file, which is written over in one piece."""


class Position(msgspec.Struct):
    """How far a rank is."""

    step: int
    """The last that it has offered."""
    met: int
    """How many collectives all ranks had been in by then; 0 if nobody knows."""
    began_unix_ns: int
    """When it called for the first time."""
    ended: bool = False


class Kept(msgspec.Struct):
    """As `retention.prune` takes it."""

    keep_last: int | None
    keep_best: str | None


class Attempt:
    """This rank's view of it. From any thread."""

    def __init__(self, folder: Path, answers: Path, rank: int, world_size: int) -> None:
        self.folder = folder
        self.answers = answers
        self.rank = rank
        self.world_size = world_size
        self._own: Position | None = None
        self._lock = -1
        self._known: set[str] = set()
        self._kept: Kept | None = None
        self._asked: set[str] = set()

    # ---- this rank

    @property
    def step(self) -> int | None:
        """The last that this rank has offered."""
        return None if self._own is None else self._own.step

    def enter(self, step: int, met: int) -> None:
        """Before this rank says anything of the step. Raises OSError."""
        if self._own is None:
            files.make_folders(self.folder)
            self._lock = marks.hold(self._of(self.rank))
            self._own = Position(step, met, time.time_ns())
        self._own.step, self._own.met = step, met
        self._write()

    def end(self) -> None:
        """It saves no more, though its process may live on."""
        if self._own is not None:
            self._own.ended = True
            with suppress(OSError):
                self._write()
            marks.let_go(self._lock)
            self._own = None

    def describe(self, digest: str, outline: Mapping[str, str]) -> None:
        if digest not in self._known:
            self._known.add(digest)
            path = self.folder / f"outline-{digest}"
            if not path.exists():
                marks.put(path, msgspec.json.encode(outline))

    def keep(self, keep_last: int | None, keep_best: str | None) -> None:
        now = Kept(keep_last, keep_best)
        if now != self._kept:
            self._kept = now
            marks.put(self.folder / "kept", msgspec.json.encode(now))

    def place_of(self, question: str, met: int) -> str:
        """In the program, of a rank that asks: the same on all ranks that ask between the same two saves of
        their own. "" where nobody knows: later in the life of a rank that does not save.
        """
        if self._own is not None:
            return str(self._own.step)
        is_first = question not in self._asked
        self._asked.add(question)
        return f"start-{met}" if is_first else ""

    # ---- all of them

    def outline(self, digest: str) -> dict[str, str]:
        data = marks.read(self.folder / f"outline-{digest}")
        return {} if data is None else msgspec.json.decode(data, type=dict[str, str])

    def offers(self, step: int) -> Offers:
        return Offers(self.folder / step_name(step), step)

    def lives(self, rank: int) -> bool:
        position = self._position(rank)
        return position is not None and not position.ended and marks.is_held(self._of(rank))

    def is_open(self, step: int) -> bool:
        """Some rank has yet to pass it."""
        known = self._positions()  # once: a rank that comes meanwhile is a newcomer, or has passed nothing
        passed = all(self._has_passed(rank, position, step) for rank, position in known.items())
        return not passed or not self._newcomers_have(step, known)

    def unpassed(self) -> set[int]:
        """Those of the steps that were offered which not all ranks have passed."""
        return set(filter(self.is_open, self._steps()))

    def clear(self) -> None:
        """Forget what was said of steps that all ranks have passed."""
        for step in list(self._steps()):
            if not self.is_open(step):
                shutil.rmtree(self.folder / step_name(step), ignore_errors=True)

    def in_the_making(self) -> list[Offers]:
        """Steps that a rank other than this one is writing."""
        found = [self.offers(step) for step in self._steps()]
        return [offers for offers in found if offers.open() and offers.writer() != self.rank]

    def _has_passed(self, rank: int, position: Position, step: int) -> bool:
        return position.ended or position.step > step or not self._is_held(rank)

    def _is_held(self, rank: int) -> bool:
        return rank == self.rank or marks.is_held(self._of(rank))

    def _newcomers_have(self, step: int, known: Mapping[int, Position]) -> bool:
        """Those who have not called yet, and by now would have."""
        if len(known) == self.world_size:
            return True
        began_ns = min((position.began_unix_ns for position in known.values()), default=time.time_ns())
        since = max((position.met for position in known.values()), default=0)
        return since > self.offers(step).met() or time.time_ns() - began_ns > NEWCOMERS_S * 1e9

    def _steps(self) -> Iterator[int]:
        with suppress(FileNotFoundError):
            for name in os.listdir(self.folder):
                if (step := step_of(name)) is not None:
                    yield step

    def _positions(self) -> dict[int, Position]:
        """How far the ranks are that have called."""
        found = ((rank, self._position(rank)) for rank in range(self.world_size))
        return {rank: position for rank, position in found if position is not None}

    def _position(self, rank: int) -> Position | None:
        data = marks.read(self._of(rank))
        try:
            return msgspec.json.decode(data, type=Position) if data else None
        except msgspec.MsgspecError:  # it is just being written
            return None if data is None else Position(-1, 0, time.time_ns())

    def _write(self) -> None:
        os.pwrite(self._lock, msgspec.json.encode(self._own).ljust(_WIDTH), 0)

    def _of(self, rank: int) -> Path:
        return self.folder / rank_name(rank)


def attempt_in(folder: Path, answers: Path, rank: int, world_size: int) -> Attempt:
    """The one of this process."""
    found = _attempts.get(folder)
    if found is None:
        found = _attempts[folder] = Attempt(folder, answers, rank, world_size)
    return found


def attempts() -> list[Attempt]:
    """All that this process has to do with."""
    return list(_attempts.values())


def forget_attempts() -> None:
    _attempts.clear()


_attempts: dict[Path, Attempt] = {}
os.register_at_fork(after_in_child=forget_attempts)
