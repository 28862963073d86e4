"""Saving behind the training loop: one writer per process. Used by `checkpointing.save`, in every process
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
from collections.abc import Callable
from functools import partial

import msgspec

from quarterdeck.checkpointing import offering
from quarterdeck.checkpointing.attempt import attempts, forget_attempts
from quarterdeck.checkpointing.capture import Captured
from quarterdeck.checkpointing.errors import CheckpointError
from quarterdeck.checkpointing.manifest import seal
from quarterdeck.checkpointing.offering import Order
from quarterdeck.checkpointing.offers import Offers
from quarterdeck.checkpointing.rank_rendezvous import Joint
from quarterdeck.checkpointing.snapshot import Part, Snapshot, take
from quarterdeck.checkpointing.staging import Staging
from quarterdeck.checkpointing.storage import Draft

__all__ = ["Order", "Saver", "finish", "flush", "saver"]


class Saver:
    """What saves for one process. Calls from several threads follow each other."""

    def __init__(self) -> None:
        self._staging = Staging()
        self._lock = threading.RLock()
        self._is_saving = False
        self._writer: threading.Thread | None = None
        self._error: CheckpointError | None = None
        self._completed: Offers | None = None
        self._orders: dict[str, Order] = {}

    def save(self, order: Order, capture: Callable[[], Captured], wait: bool = False) -> None:
        """Copy what `capture` gives, and write it behind. Returns at once if another rank has taken the step.

        Raises what the save before could not write (this one is not begun then), UsageError of `capture`, and
        CheckpointError for ranks that do not join or hold another state. With `wait` it returns when the
        checkpoint is complete, whoever writes it.
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
                self._wait(order)

    def _save(self, order: Order, capture: Callable[[], Captured]) -> None:
        self.flush()
        self._offer(order)
        joint = order.joint()
        if joint is None:
            self._save_alone(order, capture)
        else:
            self._save_jointly(order, joint, capture)

    def _wait(self, order: Order) -> None:
        self.flush()
        if order.offers is not None and order.attempt is not None:
            offering.wait(order.offers, order.attempt)
            self._told(order, partial(offering.add_metrics, order))
            self.flush()

    def _offer(self, order: Order) -> None:
        if order.attempt is not None:  # one rank alone leaves nothing for the end
            self._orders[order.place.path] = order
        try:
            offering.offer(order)
        except OSError as error:
            raise _not_written(order, error) from error

    def flush(self) -> None:
        """Returns when nothing is being written. Raises CheckpointError if the last save failed, once; also
        if it was complete when another rank came with another state.
        """
        with self._lock:
            if self._writer is not None:
                self._writer.join()
                self._writer = None
            self._look_back()
            error, self._error = self._error, None
            if error is not None:
                raise error

    def _look_back(self) -> None:
        completed = self._completed
        if completed is not None and (reason := completed.failure()):
            self._completed = None
            self._error = CheckpointError(f"The checkpoint of step {completed.step} was removed: {reason}")

    def finish(self) -> None:
        """This process saves no more in this attempt. Raises as `flush`."""
        try:
            self.flush()
        except BaseException:
            self._end()
            self._error = None
            raise
        self._end()
        self.flush()

    def _end(self) -> None:
        """And do what had to wait for this rank."""
        self._completed = None
        for attempt in attempts():
            attempt.end()
        forget_attempts()
        orders, self._orders = self._orders, {}
        for order in orders.values():
            self._told(order, partial(offering.tidy_up, order))

    def release(self) -> None:
        """Give back the memory of the copies, which is otherwise kept for the next save."""
        with self._lock:
            if self._writer is not None:
                self._writer.join()
            self._staging = Staging()

    def _save_alone(self, order: Order, capture: Callable[[], Captured]) -> None:
        try:
            if not _claimed(order):
                if order.offers is not None and order.offers.done() is not None:
                    self._start(partial(self._told, order, partial(offering.follow_up, order)))
                return
            snapshot = take(self._staging, capture(), order.rank, leads=True)
            draft = order.place.draft(order.name, "")
            self._start(partial(self._write, order, draft, snapshot, None))
        except BaseException as error:  # at any moment, from the claim on: others may wait for this rank
            offering.give_up(order, _reason(error))
            if isinstance(error, OSError):
                raise _not_written(order, error) from error
            raise

    def _save_jointly(self, order: Order, joint: Joint, capture: Callable[[], Captured]) -> None:
        if joint.is_done():
            return
        try:
            captured = capture()
            joint.join(partial(offering.check, order))
            if joint.leads:
                offering.claim(order)
            snapshot = take(self._staging, captured, order.rank, joint.leads)
            draft = order.place.draft(order.name, order.joint_key)
            self._start(partial(self._write, order, draft, snapshot, joint))
        except BaseException as error:
            joint.fail(_reason(error))
            offering.fail(order, _reason(error))
            if isinstance(error, OSError):
                raise _not_written(order, error) from error
            raise

    def _start(self, work: Callable[[], None]) -> None:
        """Not a daemon: the interpreter waits for it when it ends."""
        self._writer = threading.Thread(target=work, name="quarterdeck checkpoint", daemon=False)
        _report_at_exit()
        self._writer.start()

    def _write(self, order: Order, draft: Draft, snapshot: Snapshot, joint: Joint | None) -> None:
        try:
            _write(order, draft, snapshot, joint)
        except BaseException as error:  # torch has BaseExceptions of its own; all go to the next save
            self._error = _not_written(order, error)
            return
        if snapshot.leads:
            self._completed = order.offers
            self._told(order, partial(offering.follow_up, order))

    def _told(self, order: Order, work: Callable[[], None]) -> None:
        """Work beside the checkpoint, which is there; an error of it goes to the next save."""
        try:
            work()
        except OSError as error:
            self._error = CheckpointError(
                f"The checkpoint of step {order.step} is saved, but not all that goes with it: {error}"
            )

    def report(self) -> None:
        """At the interpreter's end: an error that no call could raise any more."""
        try:
            self.finish()
        except CheckpointError as error:
            print(f"quarterdeck: {error}", file=sys.stderr)


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
        if snapshot.leads:
            offering.fail(order, _reason(error))
            draft.abandon()
        else:
            draft.leave()
        raise


def _complete(order: Order, draft: Draft, snapshot: Snapshot, parts: list[Part]) -> None:
    files = snapshot.write_index(draft, parts)
    created_unix_ns = time.time_ns()
    offering.check(order)
    manifest = msgspec.structs.replace(
        offering.manifest_of(order),
        step=order.step,
        created_unix_ns=created_unix_ns,
        files=files,
        sharded=snapshot.is_sharded,
        model=snapshot.summary,
        data=draft.data,
    )
    draft.commit(seal(manifest))
    offering.complete(order, created_unix_ns)


def _claimed(order: Order) -> bool:
    try:
        return offering.claim(order)
    except OSError as error:
        raise _not_written(order, error) from error


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


def finish() -> None:
    """As `flush`, at the end of a run: this process saves no more in it."""
    saver.finish()


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
