"""What a failed cell left: its exceptions, and the frames that they hold, with all their variables.

They are kept until the next cell begins, for whoever wants to look at them, and are gone before its first
line.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING

from quarterdeck.errors import text_of
from quarterdeck.worker import dataloaders

if TYPE_CHECKING:
    from quarterdeck.worker.shell import WorkerShell


def chain(error: BaseException | None) -> list[BaseException]:
    """It and what it came from or consists of, each once: `raise error from error` makes a ring."""
    found: dict[int, BaseException] = {}
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in found:
            found[id(one)] = one
            waiting += [one.__context__, one.__cause__]
            if isinstance(one, BaseExceptionGroup):
                waiting += one.exceptions
    return list(found.values())


def give_back(shell: WorkerShell, error: BaseException | None, keep_frames: bool) -> None:
    """At the end of a cell: the processes of loaders that it was iterating over, and the frames unless they
    are to be kept. What did not fit into memory is not kept: the next attempt needs the room.
    """
    if error is None:
        return
    with suppress(Exception):  # torch's inner parts, a user's mapping for the body of a class: no matter
        dataloaders.end(_variables(error))
    shell.failure = error
    if not keep_frames or any(map(_is_out_of_memory, chain(error))):
        forget(shell)


def forget(shell: WorkerShell) -> None:
    """What the last failed cell left, if it is still there. Runs user code, in the `__del__` of what goes."""
    error, shell.failure = shell.failure, None
    if error is None:
        return
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        if hasattr(sys, name):
            setattr(sys, name, None)
    shell.last_execution_result = shell.InteractiveTB.tb = None
    with dataloaders.hurried():
        for one in chain(error):
            one.__traceback__ = None
        del error, one
        gc.collect()  # rings hold the frames: of IPython's result, and of what renders a traceback


def _variables(error: BaseException) -> Iterator[object]:
    """Variables of the functions that it went through; those of the cell itself are the user's, and stay."""
    for frame in _frames(error):
        if frame.f_locals is not frame.f_globals:
            yield from list(frame.f_locals.values())


def _frames(error: BaseException) -> Iterator[FrameType]:
    for one in chain(error):
        traceback = one.__traceback__
        while traceback is not None:
            yield traceback.tb_frame
            traceback = traceback.tb_next


def _is_out_of_memory(error: BaseException) -> bool:
    """On a GPU torch has a class of its own; on the CPU its allocator raises a RuntimeError that says so."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return type(error) is RuntimeError and "DefaultCPUAllocator: can't allocate memory" in text_of(error)
