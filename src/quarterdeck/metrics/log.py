"""`qd.log`: metrics of this rank into the run store. In every process that runs user code, in any thread,
also in children that it forks. Needs neither torch nor numpy.

Each call is one append to the file that `format` describes. There is no buffer: what a call has written
before it returned survives the death of the process, by whatever signal. CUDA scalars are the exception: see
`pending_gpu`.
"""

from __future__ import annotations

import os
import struct
import threading
from operator import index
from time import time_ns
from typing import Any

from quarterdeck.context import Context, current
from quarterdeck.metrics import pending_gpu
from quarterdeck.metrics.scalars import OnGpu, flat, plain_types
from quarterdeck.metrics.writer import Writer, path_of
from quarterdeck.public import public

__all__ = ["flush", "log"]

_writer: Writer | None = None
_lock = threading.RLock()


@public
def log(step: int | None = None, **metrics: Any) -> None:
    """Keep numbers of this step: `qd.log(loss=loss, acc=acc, step=step)`, or `qd.log(step, loss=loss)`.

    What was logged is in the run store when the call returns, but for values on a GPU: they are not waited
    for, and are written by a later call that logs tensors, or at the end of the cell. If the store cannot be
    written, one line on stderr says so, and the run goes on without.

    Args:
        step: a whole number within 64 bits; None: one more than that of this process's last call, from 0 on.
            A forked child counts on from its parent. When a step has several values, the last one is shown.
        metrics: numbers by name: int, float, bool, numpy scalars, tensors and arrays of one element and of
            any shape, kept as float64, NaN and inf too. A dict of them gives `name/key`. A name that is not
            an identifier: `qd.log(**{"top-1": x})`.

    Raises:
        TypeError: a value or the step is anything else.
    """
    context, writer = current(), _writer
    if writer is None or writer.context is not context or writer.attempt != context.attempt:
        writer = _writer_for(context)
    counted = step is None
    if counted:
        step = writer.next_step()
    layout, values = writer.layouts.get((*metrics,)), metrics.values()
    if layout is None or type(step) is not int:
        return _log(writer, step, metrics)
    for value in values:  # faster than any expression that says the same
        if type(value) not in plain_types:
            return _log(writer, step, metrics)
    now = time_ns()
    try:
        record = layout.pack(layout.id, now, step, *values, ~now)
    except (struct.error, OverflowError):
        return _log(writer, step, metrics)
    if not counted:
        writer.step = step
    try:
        if writer.append(record) != layout.size_bytes:
            writer.lost()
    except OSError as error:
        writer.lost(error)
    return None


def flush() -> None:
    """Waits for the values that are still on a GPU, and writes them. Called at the end of a cell."""
    pending_gpu.flush()


def _log(writer: Writer, step: object, metrics: dict[str, Any]) -> None:
    """The first call with these names, or one with anything but plain numbers."""
    if pending_gpu.waiting:
        pending_gpu.drain()
    whole = _whole(step)
    values = flat(metrics)
    writer.step = whole
    if not values:
        return
    if any(type(value) is OnGpu for value in values.values()):
        pending_gpu.keep(writer, time_ns(), whole, values)
    else:
        writer.put(tuple(values), time_ns(), whole, list(values.values()))  # type: ignore[arg-type]


def _whole(step: object) -> int:
    try:
        number = index(step)  # type: ignore[arg-type]
    except TypeError:
        hint = "; write qd.log(**metrics)" if isinstance(step, dict) else ""
        raise TypeError(f"the step is a whole number, not {step!r:.80}{hint}") from None
    if not -(1 << 63) <= number < 1 << 63:
        raise TypeError(f"the step {number:.3g} does not fit into 64 bits")
    return number


def _writer_for(context: Context) -> Writer:
    """The same one where only the context is another: `spawn_helper` makes its own for the same run."""
    global _writer
    with _lock:
        if _writer is None or _writer.path != path_of(context):
            _writer = Writer(context)
        _writer.context = context
        return _writer


def _in_child() -> None:
    """Nothing of the parent's that its threads may have held, nothing that it is about to write itself."""
    global _writer, _lock
    _lock = threading.RLock()
    pending_gpu.waiting.clear()
    if _writer is not None:
        _writer = Writer(_writer.context, _writer.step)


os.register_at_fork(after_in_child=_in_child)
