"""Saving behind the training loop: one writer per process. Used by `quarterdeck.saving`, in every process
that runs user code; a worker calls `flush` at the end of a run.

The loop waits for the copy of its state, and for the save before if that is still being written: saves do not
pile up. An error of the writing is raised by the next save, or by `flush`. A process that ends waits for its
writer.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from quarterdeck.checkpointing import joining, keeping
from quarterdeck.checkpointing.capture import Captured
from quarterdeck.checkpointing.joining import Joint
from quarterdeck.checkpointing.manifest import Manifest, seal
from quarterdeck.checkpointing.paths import step_name
from quarterdeck.checkpointing.places import Draft, Place
from quarterdeck.checkpointing.problems import CheckpointError
from quarterdeck.checkpointing.snapshot import Part, Snapshot, take
from quarterdeck.checkpointing.staging import Staging

__all__ = ["Order", "Saver", "flush", "saver"]


@dataclass(frozen=True)
class Order:
    """What is to be saved where; everything but the state."""

    place: Place
    step: int
    manifest: Manifest
    """Without its files and its model."""
    rank: int = 0
    world_size: int = 1
    key: str = ""
    """The same on all ranks of an attempt, and nowhere else: a step is then written once. "": by whoever
    asks.
    """
    saves: Path | None = None
    """The folder in which the ranks find each other; needed with a key."""
    ranks: Sequence[int] = ()
    """Those that have to take part, since each holds something of its own; empty: any one rank will do."""
    keep_last: int | None = None
    keep_best: str | None = None

    @property
    def name(self) -> str:
        return step_name(self.step)

    @property
    def shared_name(self) -> str:
        return f"{self.key}-{self.name}"

    def joint(self) -> Joint | None:
        if len(self.ranks) < 2 or self.saves is None:
            return None
        return Joint(self.saves / f"{self.shared_name}.all", self.step, self.rank, self.ranks)


class Saver:
    """Of one process. Calls from several threads follow each other."""

    def __init__(self) -> None:
        self._staging = Staging()
        self._lock = threading.RLock()
        self._is_saving = False
        self._writer: threading.Thread | None = None
        self._error: CheckpointError | None = None

    def save(self, order: Order, capture: Callable[[], Captured], wait: bool = False) -> None:
        """Copy what `capture` gives, and write it behind. Returns at once if another rank has taken the step.

        Raises what the save before could not write (this one is not begun then), UsageError of `capture`, and
        CheckpointError for ranks that do not join. With `wait` it returns when the checkpoint is complete.
        """
        with self._lock:
            if self._is_saving:  # a signal handler, in the middle of a save: with memory of its own
                Saver().save(order, capture, wait=True)
                return
            self._is_saving = True
            try:
                self._save(order, capture)
            finally:
                self._is_saving = False
            if wait:
                self.flush()

    def _save(self, order: Order, capture: Callable[[], Captured]) -> None:
        self.flush()
        joint = order.joint()
        if joint is None:
            self._save_alone(order, capture)
        else:
            self._save_jointly(order, joint, capture)

    def flush(self) -> None:
        """Returns when nothing is being written. Raises CheckpointError if the last save failed, once."""
        with self._lock:
            if self._writer is not None:
                self._writer.join()
                self._writer = None
            error, self._error = self._error, None
            if error is not None:
                raise error

    def release(self) -> None:
        """Give back the memory of the copies, which is otherwise kept for the next save."""
        with self._lock:
            if self._writer is not None:
                self._writer.join()
            self._staging = Staging()

    def _save_alone(self, order: Order, capture: Callable[[], Captured]) -> None:
        if not _claimed(order):
            return
        try:
            snapshot = take(self._staging, capture(), order.rank, leads=True)
            draft = order.place.draft(order.name, "")
            self._start(order, draft, snapshot, None)
        except BaseException as error:
            _give_up(order)
            if isinstance(error, OSError):
                raise _not_written(order, error) from error
            raise

    def _save_jointly(self, order: Order, joint: Joint, capture: Callable[[], Captured]) -> None:
        if joint.is_done():
            return
        try:
            captured = capture()
            joint.join()
            snapshot = take(self._staging, captured, order.rank, joint.leads)
            draft = order.place.draft(order.name, order.key)
            self._start(order, draft, snapshot, joint)
        except BaseException as error:
            joint.fail(_reason(error))
            if isinstance(error, OSError):
                raise _not_written(order, error) from error
            raise

    def _start(self, order: Order, draft: Draft, snapshot: Snapshot, joint: Joint | None) -> None:
        """Not a daemon: the interpreter waits for it when it ends."""
        self._writer = threading.Thread(
            target=self._write,
            args=(order, draft, snapshot, joint),
            name="quarterdeck checkpoint",
            daemon=False,
        )
        _report_at_exit()
        self._writer.start()

    def _write(self, order: Order, draft: Draft, snapshot: Snapshot, joint: Joint | None) -> None:
        try:
            _write(order, draft, snapshot, joint)
        except BaseException as error:  # torch has BaseExceptions of its own; all go to the next save
            self._error = _not_written(order, error)
            return
        try:
            if snapshot.leads:
                keeping.prune(order.place, order.step, order.keep_last, order.keep_best)
        except OSError as error:
            self._error = CheckpointError(
                f"The checkpoint of step {order.step} is saved, but older ones could not be removed: {error}"
            )

    def report(self) -> None:
        """At the interpreter's end: an error that no call could raise any more."""
        if self._error is not None:
            print(f"quarterdeck: {self._error}", file=sys.stderr)


def _write(order: Order, draft: Draft, snapshot: Snapshot, joint: Joint | None) -> None:
    try:
        part = snapshot.write(draft)
        parts = [part]
        if joint is not None:
            joint.offer(msgspec.json.encode(part))
            if not joint.leads:
                draft.leave()
                joint.wait_until_done()
                return
            parts = [msgspec.json.decode(data, type=Part) for data in joint.parts()]
        _complete(order, draft, snapshot, parts)
        if joint is not None:
            joint.complete()
    except BaseException as error:
        if joint is not None:
            joint.fail(_reason(error))
        else:
            _give_up(order)
        if snapshot.leads:
            draft.abandon()
        else:
            draft.leave()
        raise


def _complete(order: Order, draft: Draft, snapshot: Snapshot, parts: list[Part]) -> None:
    files = snapshot.write_index(draft, parts)
    manifest = msgspec.structs.replace(
        order.manifest,
        step=order.step,
        created_unix_ns=time.time_ns(),
        files=files,
        sharded=snapshot.is_sharded,
        model=snapshot.summary,
        data=draft.data,
    )
    draft.commit(seal(manifest))


def _claimed(order: Order) -> bool:
    try:
        return order.saves is None or joining.claim(order.saves, order.shared_name)
    except OSError as error:
        raise _not_written(order, error) from error


def _give_up(order: Order) -> None:
    if order.saves is not None:
        joining.release(order.saves, order.shared_name)


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _not_written(order: Order, error: BaseException) -> CheckpointError:
    """Which checkpoint an error of the disk has cost; other errors of a save speak for themselves."""
    what = f"rank {order.rank} could not save the checkpoint of step {order.step} to {order.place.path}"
    failed = CheckpointError(f"{what}: {_reason(error)}\nThe checkpoints before it are as they were.")
    failed.__cause__ = error
    return failed


saver = Saver()
"""This process's own."""


def flush() -> None:
    """Returns when all that this process has saved is complete. Raises CheckpointError for what failed."""
    saver.flush()


_reports = False


def _report_at_exit() -> None:
    global _reports
    if not _reports:
        _reports = True
        atexit.register(lambda: saver.report())


def _in_child() -> None:
    """The parent's writer is not here, and its memory belongs to it."""
    global saver, _reports
    saver = Saver()
    _reports = False


os.register_at_fork(after_in_child=_in_child)
