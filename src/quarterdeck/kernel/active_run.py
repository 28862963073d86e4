"""A run of this kernel on its way, followed to its end by a thread of its own, whoever waits for it."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from typing import Any

from quarterdeck.errors import RunFailed, RunInterrupted, UsageError
from quarterdeck.kernel import notebook as notebooks
from quarterdeck.kernel.await_cell import (
    SLOW_START_S,
    STARTING,
    answer,
    ask,
    next_frame,
    show,
)
from quarterdeck.kernel.coordinator_process import Call
from quarterdeck.kernel.pulse import Pulse
from quarterdeck.present.failure import failure
from quarterdeck.protocol.channel import Frame
from quarterdeck.protocol.kernel import Accepted, Answer, Ask, Begun, Finished
from quarterdeck.protocol.worker import Outcome
from quarterdeck.store.format import RunState
from quarterdeck.transfer.shared_buffers import map_buffers
from quarterdeck.views.cell.cell import CellView

_LOOK_S = 1.0
"""Somebody may have asked for its end meanwhile."""
_AGAIN = "Stop it again to end that as well; all workers and their variables are lost then."
Value = tuple[bytes, list[memoryview]]
"""A rank's pickled value: stream and buffers."""


class ActiveRun:
    """Made when the run is on record; `start` once. The thread calls `settle(finished)` at the end.

    Args:
        timeout_s: its time-out, for the sentence about it.
        closed: it has a group of its own, whose variables end with it.
        awaited: the cell that started it waits, and raises its failure; otherwise the view shows it.
    """

    def __init__(
        self,
        call: Call,
        view: CellView,
        accepted: Accepted,
        settle: Callable[[Finished | None], None] = lambda finished: None,
        *,
        timeout_s: float | None = None,
        closed: bool = True,
        awaited: bool = False,
    ) -> None:
        self.run_id = accepted.run_id
        self.folder = accepted.folder
        self.state: RunState = "starting"
        self.world_size = 0
        self.values: dict[int, Value] = {}
        self.ended: Future[Finished] = Future()
        """Also an exception: UsageError if it could not start, WorkersLost if the coordinator vanished."""
        self._call = call
        self._view = view
        self._settle = settle
        self._timeout_s = timeout_s
        self._closed = closed
        self._awaited = awaited
        self._pulse = Pulse(call)
        self._stopping = False
        self._silent = False
        self._slow_from_s = time.monotonic() + SLOW_START_S
        view.stoppable(self.stop)

    def start(self) -> None:
        """In a copy of the caller's context: what it shows belongs to the cell that runs now."""
        context = contextvars.copy_context()
        name = f"quarterdeck-{self.run_id}"
        threading.Thread(target=context.run, args=(self._follow,), name=name, daemon=True).start()

    def stop(self) -> None:
        """Ask for its end; asked again, a step of the ladder is skipped. Returns at once. Of a coordinator
        that does not answer, the view tells, and the next `stop` ends that.
        """
        self._stopping = True
        self._call.cancel()
        if self._silent:
            self._call.coordinator.end("did not answer, and was ended by your stop")

    def stacks(self) -> Answer:
        """Where its ranks are. Raises UsageError if nobody answers, WorkersLost."""
        return ask(self._call.coordinator, Ask(what="stacks", run_id=self.run_id))

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether it is over within that time. A KeyboardInterrupt ends only the waiting."""
        return bool(wait_for([self.ended], timeout_s).done)

    def failure(self, finished: Finished) -> RunFailed | None:
        """What is to be raised for a run that ended so."""
        has = notebooks.current().namespace.__contains__
        return failure(finished, has, self._timeout_s, self.world_size, self._closed)

    # ---- in the thread

    def _follow(self) -> None:
        finished: Finished | None = None
        problem: BaseException | None = None
        try:
            while finished is None:
                finished = self._next()
            self.state = state_of(finished)
        except BaseException as error:
            self.state = _state_after(error)
            problem = error
        self._end(finished, problem)

    def _next(self) -> Finished | None:
        ready = self._call.channel.poll(self._look_again_in_s())
        if self._stopping:
            self._silent = self._pulse.silent()
            words = f"{self._call.coordinator.silent_words()} {_AGAIN}" if self._silent else ""
            self._view.notice(words, level="warning", key="silence")
        if ready:
            frame = next_frame(self._call)
            if isinstance(frame.message, Finished):
                return frame.message
            self._take(frame)
        self._view.flush()
        return None

    def _look_again_in_s(self) -> float:
        """Until there is something to do here."""
        due_s = self._due_in_s()
        return _LOOK_S if due_s is None else min(due_s, _LOOK_S)

    def _due_in_s(self) -> float | None:
        """Until the view has something to show; a start that takes its time is something."""
        due_s = self._view.next_flush_in()
        if self.state != "starting" or self._slow_from_s == float("inf"):
            return due_s
        left_s = self._slow_from_s - time.monotonic()
        if left_s <= 0:
            self._view.notice(STARTING, key="waiting")
            self._slow_from_s = float("inf")
            return self._view.next_flush_in()
        return left_s if due_s is None else min(left_s, due_s)

    def _take(self, frame: Frame) -> None:
        match frame.message:
            case Begun(world_size=world_size, attempt=attempt):
                self.state, self.world_size = "running", world_size
                if not attempt:
                    self._view.notice("", key="waiting")
                    self._view.begin(world_size, self.folder)
            case Outcome() as outcome:
                if outcome.value.data:
                    buffers = map_buffers(frame.blob, outcome.value.spans)
                    self.values[outcome.rank] = outcome.value.data, buffers
                if outcome.unpicklable:
                    text = f"The value of rank {outcome.rank} stays there: {outcome.unpicklable}."
                    self._view.notice(text, level="warning")
            case message:
                show(message, self._view)

    def _end(self, finished: Finished | None, problem: BaseException | None) -> None:
        """Everything is shown, and nothing is held any more, before anybody hears that it is over."""
        try:
            self._settle(finished)
            self._view.notice("", key="waiting")
            self._view.finish()
            if not self._awaited:
                self._show_failure(finished, problem)
        except BaseException as error:  # an answer of our own making is better than one that never comes
            problem = problem or error
        self._pulse.close()
        self._call.close()
        if finished is not None:  # what could not be shown changes nothing about it
            self.ended.set_result(finished)
        else:
            self.ended.set_exception(problem or RuntimeError("the run ended without saying how"))

    def _show_failure(self, finished: Finished | None, problem: BaseException | None) -> None:
        """Nobody may ever ask for its result."""
        failed = self.failure(finished) if finished is not None else None
        if failed is not None:
            self._view.error(failed.lines)
        elif problem is not None:
            self._view.error([f"{type(problem).__name__}: {problem}"])


def _state_after(error: BaseException) -> RunState:
    """The state of a run that has no end of its own."""
    if isinstance(error, RunInterrupted):
        return "stopped"
    return "failed" if isinstance(error, UsageError) else "lost"


def state_of(finished: Finished) -> RunState:
    if finished.stopped == "interrupt":
        return "stopped"
    return "failed" if finished.stopped or finished.root_cause is not None else "succeeded"


def accept(call: Call, on_other: Callable[[Any], None]) -> Accepted:
    """Wait until the run is on record. Raises UsageError if it is refused, WorkersLost."""
    while True:
        message = answer(call)
        if isinstance(message, Accepted):
            return message
        on_other(message)
