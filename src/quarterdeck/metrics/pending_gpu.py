"""CUDA scalars, read late: `float(loss)` would stall the training loop until the GPU has come so far. In
every process that runs user code; used by `log`.

A copy into pinned memory is queued behind the work that computes the value; the values of a call are written
when their copies have arrived, by a later call, with the time and step of their own. A process that is killed
loses what has not arrived.

Never run on a GPU: tests put a stand-in in the place of `copy_to_host`, the only function that calls torch.
"""

from __future__ import annotations

import atexit
import sys
from collections import deque
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple, Protocol

from quarterdeck.metrics.scalars import OnGpu
from quarterdeck.metrics.writer import Writer

KEPT = 256
"""Calls that may wait. One more waits for the oldest: a loop that only logs must not fill the memory."""
DRAINED = 8
"""Calls that one later call writes at most: none is to take long."""


class Arrival(Protocol):
    """A `torch.cuda.Event`."""

    def query(self) -> bool: ...
    def synchronize(self) -> None: ...


class _Call(NamedTuple):
    writer: Writer
    time: int
    step: int
    names: tuple[str, ...]
    values: list[Any]
    """Numbers, and host tensors that hold one when all has arrived."""
    arrivals: list[Arrival]

    def ready(self) -> bool:
        return all(arrival.query() for arrival in self.arrivals)

    def write(self) -> None:
        for arrival in self.arrivals:
            arrival.synchronize()
        self.writer.put(self.names, self.time, self.step, [float(value) for value in self.values])


waiting: deque[_Call] = deque()
"""Oldest first."""


def keep(writer: Writer, time: int, step: int, values: Mapping[str, float | OnGpu]) -> None:
    """Start the copies of what is on a GPU, and remember the call."""
    _flush_at_exit()
    call = _Call(writer, time, step, tuple(values), [], [])
    for value in values.values():
        if isinstance(value, OnGpu):
            host, arrival = copy_to_host(value.tensor)
            call.values.append(host)
            call.arrivals.append(arrival)
        else:
            call.values.append(value)
    waiting.append(call)
    if len(waiting) > KEPT:
        _write_oldest()


def drain() -> None:
    """Write the calls whose values have arrived, but not many."""
    for _ in range(DRAINED):
        try:
            call = waiting.popleft()
        except IndexError:  # another thread was faster
            return
        if not call.ready():
            waiting.appendleft(call)
            return
        call.write()


def flush() -> None:
    """Write all that are waiting now, when their values have arrived."""
    for _ in range(len(waiting)):
        _write_oldest()


def _write_oldest() -> None:
    try:
        call = waiting.popleft()
    except IndexError:
        return
    call.write()


def copy_to_host(tensor: Any) -> tuple[Any, Arrival]:
    """A tensor in pinned memory, and when it will hold the value."""
    torch = sys.modules["torch"]
    source = tensor.detach().reshape(())
    host = torch.empty((), dtype=source.dtype, device="cpu", pin_memory=True)
    host.copy_(source, non_blocking=True)
    return host, torch.cuda.current_stream(tensor.device).record_event()


@cache
def _flush_at_exit() -> None:
    """For scripts; a worker's cells end with a flush."""
    atexit.register(flush)
