"""Wait for a turn and follow a cell to its end, showing what comes. In the thread that runs the cell.

Both waits are over at once when the user interrupts: the first gives up, the second tells the coordinator.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from quarterdeck.errors import RunInterrupted, UsageError
from quarterdeck.kernel.coordinator_process import Call, Coordinator, Refusal
from quarterdeck.kernel.interruptible import Interruptible
from quarterdeck.kernel.pulse import Pulse
from quarterdeck.protocol.channel import Frame
from quarterdeck.protocol.kernel import Accepted, Answer, Ask, Finished, Notice, Turn, Waiting
from quarterdeck.protocol.parts import Message
from quarterdeck.protocol.worker import Output
from quarterdeck.views.cell.cell import CellView

SLOW_START_S = 0.4
RESTART_REPLACES = "`%workers restart` replaces it; all workers and their variables are lost then."
_AGAIN_ENDS = "Interrupt again to end it; all workers and their variables are lost then."
STARTING = "Starting: torch is being imported for the workers."


def answer(call: Call) -> Message:
    """The next message; see `next_frame`."""
    return next_frame(call).message


def next_frame(call: Call) -> Frame:
    """The next message with its descriptors; a refusal is the user's to mend. UsageError, WorkersLost, and
    RunInterrupted where the user had wanted its end.
    """
    try:
        return call.receive()
    except Refusal as refusal:
        if refusal.cancelled:
            raise RunInterrupted("stopped by you before it began: nothing was run") from None
        raise UsageError(str(refusal)) from None


def await_frame(call: Call, on_silence: Callable[[Call], None]) -> Frame:
    """As `next_frame`, where nothing is shown meanwhile; RunInterrupted as soon as the user gives up.
    `on_silence`: when the coordinator does not answer anything.
    """
    with Interruptible() as interrupts, Pulse(call) as pulse:
        while True:
            ready, interrupted = interrupts.wait(call.channel, pulse.due_in())
            if interrupted:
                raise RunInterrupted("stopped by you while it waited for the workers")
            if ready:
                return next_frame(call)
            if pulse.silent():
                on_silence(call)


def refuse_silent(call: Call) -> None:
    """Nobody should wait for it. UsageError."""
    raise UsageError(call.coordinator.silent_words(), RESTART_REPLACES)


def ask(process: Coordinator, question: Ask) -> Answer:
    """The answer. Raises UsageError if it does not come, WorkersLost."""
    with process.call(question) as call:
        told = await_frame(call, refuse_silent).message
        assert isinstance(told, Answer)
        return told


def note_silence(view: CellView) -> Callable[[Call], None]:
    """The reader is told, and goes on waiting."""

    def note(call: Call) -> None:
        text = f"{call.coordinator.silent_words()} {RESTART_REPLACES}"
        view.notice(text, level="warning", key="silence")
        view.flush()

    return note


def await_turn(call: Call, view: CellView) -> Turn:
    """Raises RunInterrupted when the user gives up: nothing was run then."""
    began_s = time.monotonic()
    words = ""
    try:
        turn = _until_turn(call, view)
        if turn.started:
            words = _started_words(turn, time.monotonic() - began_s)
    finally:
        view.notice(words, key="waiting")
        view.notice("", key="silence")
    return turn


def follow(call: Call, view: CellView, on_accepted: Callable[[Accepted], None] = lambda _: None) -> Finished:
    """Show what the ranks send until the cell is over. An interrupt goes to the coordinator."""
    with Interruptible() as interrupts, Pulse(call) as pulse:
        while True:
            limits = [view.next_flush_in(), pulse.due_in() if interrupts.count else None]
            limit_s = min((limit for limit in limits if limit is not None), default=None)
            ready, interrupted = interrupts.wait(call.channel, limit_s)
            silent = interrupts.count and pulse.silent()
            if interrupted and silent:
                raise call.coordinator.end("did not answer, and was ended by your interrupt")
            if interrupted:
                call.cancel()
            if interrupts.count:
                text = f"{call.coordinator.silent_words()} {_AGAIN_ENDS}" if silent else ""
                view.notice(text, level="warning", key="silence")
            if ready:
                message = answer(call)
                if isinstance(message, Finished):
                    return message
                if isinstance(message, Accepted):
                    on_accepted(message)
                show(message, view)
            view.flush()


def _until_turn(call: Call, view: CellView) -> Turn:
    """What it waits for is shown only if it takes a moment: a repair after a fault, for one, does not."""
    reason = STARTING
    deadline_s = time.monotonic() + SLOW_START_S
    with Interruptible() as interrupts, Pulse(call) as pulse:
        while True:
            limit_s = min(pulse.due_in(), max(0.0, deadline_s - time.monotonic()))
            ready, interrupted = interrupts.wait(call.channel, limit_s)
            if interrupted:
                raise RunInterrupted("stopped by you while it waited: nothing was run")
            if pulse.silent():
                note_silence(view)(call)
            if not ready and time.monotonic() >= deadline_s:
                view.notice(reason, key="waiting")
                deadline_s = float("inf")
            elif ready:
                message = answer(call)
                if isinstance(message, Turn):
                    return message
                if isinstance(message, Waiting):
                    reason = f"Waiting for {message.behind}."
                show(message, view)
            view.flush()


def show(message: Message, view: CellView) -> None:
    """What is meant for the reader."""
    match message:
        case Output() as output:
            view.feed(output)
        case Notice(text=text, level=level, key=key):
            view.notice(text, level=level, key=key)


def _started_words(turn: Turn, took_s: float) -> str:
    n = turn.world_size
    return f"{n} worker{'s' if n > 1 else ''} started in {took_s:.2f} s ({turn.backend}, {turn.device_type})."
