"""The one thread that draws pictures of runs. In the kernel; used by `run_output`.

One for all: matplotlib opens its fonts anew in each thread, a kernel each thread's way to the front end, and
pictures that are drawn side by side are ready no sooner.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from queue import SimpleQueue

_jobs: SimpleQueue[tuple[Context, Callable[[], None], threading.Event]] = SimpleQueue()
_lock = threading.Lock()
_thread: threading.Thread | None = None


def draw_later(work: Callable[[], None]) -> threading.Event:
    """Does `work` after all that was asked for before; the event is set when it is over. It runs in a copy of
    the caller's context: what it shows belongs to the cell that runs now. What it raises is lost.
    """
    global _thread
    over = threading.Event()
    _jobs.put((copy_context(), work, over))
    with _lock:
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_draw, name="quarterdeck-drawing", daemon=True)
            _thread.start()
    return over


def _draw() -> None:
    while True:
        context, work, over = _jobs.get()
        with suppress(Exception):
            context.run(work)
        over.set()
        del context, work, over  # a cell's variables, until the next one
