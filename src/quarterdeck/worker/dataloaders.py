"""The processes of DataLoaders, when the loop over one was cut off.

torch waits 5 s for each of them that hangs, and a traceback that holds the iterator keeps them alive. This
works on the attributes of torch's iterators; where those are missing, all is left to torch.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_HURRIED_S = 0.1
_JOIN_S = 1.0
_patience_s: float | None = None
"""torch's own, while it is hurried."""


def end(candidates: Iterable[object]) -> None:
    """Kill the processes of those that are iterators. A loader that keeps its processes
    (`persistent_workers`) starts new ones when it is iterated over again.
    """
    for one in candidates:
        if hasattr(type(one), "_shutdown_workers") and not getattr(one, "_shutdown", True):
            _end(one)


def _end(iterator: Any) -> None:
    """Not by its own `_shutdown_workers`: that needs locks which a process that hangs may hold."""
    iterator._shutdown = True
    if getattr(iterator, "_worker_pids_set", False):  # else torch's handler of SIGCHLD raises
        sys.modules["torch.utils.data._utils"].signal_handling._remove_worker_pids(id(iterator))
        iterator._worker_pids_set = False
    if hasattr(iterator, "_pin_memory_thread_done_event"):
        iterator._pin_memory_thread_done_event.set()
    processes = getattr(iterator, "_workers", [])
    for process in processes:
        process.kill()
    for process in processes:
        process.join(_JOIN_S)
    for queue in getattr(iterator, "_index_queues", []):
        queue.cancel_join_thread()
        queue.close()
    if getattr(iterator, "_persistent_workers", False):
        _take_from_loader(iterator)


def _take_from_loader(iterator: object) -> None:
    for holder in gc.get_referrers(iterator):
        variables = holder if isinstance(holder, dict) else getattr(holder, "__dict__", {})
        if variables.get("_iterator") is iterator:
            variables["_iterator"] = None


@contextmanager
def hurried() -> Iterator[None]:
    """torch does not wait long inside for the processes of iterators that go."""
    hurry()
    try:
        yield
    finally:
        calm()


def hurry() -> None:
    """From here on, until `calm`. Called by a signal handler, too."""
    global _patience_s
    utils: Any = sys.modules.get("torch.utils.data._utils")
    if utils is not None and _patience_s is None:
        _patience_s, utils.MP_STATUS_CHECK_INTERVAL = utils.MP_STATUS_CHECK_INTERVAL, _HURRIED_S


def calm() -> None:
    global _patience_s
    if _patience_s is not None:
        utils: Any = sys.modules["torch.utils.data._utils"]
        utils.MP_STATUS_CHECK_INTERVAL, _patience_s = _patience_s, None
