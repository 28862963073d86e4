"""How long a worker's start and its joining took: phases of the run that comes next. Used by `serve`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from quarterdeck.store.spans import Span


class Phases:
    def __init__(self) -> None:
        self._spans: list[Span] = []

    @contextmanager
    def joining(self, fresh: bool) -> Iterator[None]:
        """Around the joining of a process group; `fresh`: this process began for it."""
        began_ns = time.time_ns()
        yield
        joined_ns = time.time_ns()
        start = [Span("start-up", _process_began_ns(), joined_ns, 0)] if fresh else []
        self._spans = [*start, Span("rendezvous", began_ns, joined_ns, len(start))]

    def take(self) -> list[Span]:
        """Each once."""
        spans, self._spans = self._spans, []
        return spans


def _process_began_ns() -> int:
    """To a hundredth of a second; now where there is no /proc."""
    now_ns = time.time_ns()
    with suppress(OSError, ValueError, IndexError):
        after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        began_s = int(after_name[19]) / os.sysconf("SC_CLK_TCK")
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - began_s
        return now_ns - max(0, int(age_s * 1e9))
    return now_ns
