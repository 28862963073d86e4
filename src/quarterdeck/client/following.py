"""Wait for a turn and follow a cell to its end, showing what comes. In the thread that runs the cell.

Both waits are over at once when the user interrupts: the first gives up, the second tells the coordinator.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from quarterdeck.client.coordinator import Call, Refusal
from quarterdeck.client.interruptible import Interruptible
from quarterdeck.client.view import CellView
from quarterdeck.errors import RunInterrupted, UsageError
from quarterdeck.protocol.channel import Frame
from quarterdeck.protocol.messages import Accepted, Finished, Message, Notice, Output, Turn, Waiting

SLOW_START_S = 0.4
_GIVE_UP_S = 20.0
"""A coordinator that says nothing for so long after a third interrupt is taken to be lost."""
STARTING = "Starting: torch is being imported for the workers."


def answer(call: Call) -> Message:
    """The next message; see `next_frame`."""
    return next_frame(call).message


def next_frame(call: Call) -> Frame:
    """The next message with its descriptors; a refusal is the user's to mend. UsageError, WorkersLost."""
    try:
        return call.receive()
    except Refusal as refusal:
        raise UsageError(str(refusal)) from None


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
    return turn


def follow(call: Call, view: CellView, on_accepted: Callable[[Accepted], None] = lambda _: None) -> Finished:
    """Show what the ranks send until the cell is over. An interrupt goes to the coordinator."""
    with Interruptible() as interrupts:
        heard_s = time.monotonic()
        while True:
            ready, interrupted = interrupts.wait(call.channel, view.next_flush_in())
            if interrupted:
                _interrupt(call, interrupts.count, heard_s)
            if ready:
                heard_s = time.monotonic()
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
    with Interruptible() as interrupts:
        while True:
            ready, interrupted = interrupts.wait(call.channel, max(0.0, deadline_s - time.monotonic()))
            if interrupted:
                raise RunInterrupted("stopped by you while it waited: nothing was run")
            if not ready:
                view.notice(reason, key="waiting")
                deadline_s = float("inf")
            else:
                message = answer(call)
                if isinstance(message, Turn):
                    return message
                if isinstance(message, Waiting):
                    reason = f"Waiting for {message.behind}."
                show(message, view)
            view.flush()


def _interrupt(call: Call, count: int, heard_s: float) -> None:
    call.cancel()
    if count >= 3 and time.monotonic() - heard_s > _GIVE_UP_S:
        raise call.give_up()


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
