"""What workers use of their node, once a second. In the agent, in a thread of its own: neither /proc nor the
driver may hold the loop that serves cells. Not in one that others wait for: a driver that has lost its device
may never answer.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from quarterdeck.agent import gpus, processes
from quarterdeck.protocol.agent import Vitals

PERIOD_S = 1.0
_FIRST_S = 0.3
"""Before that most cells are over."""


class Process(Protocol):
    """A `WorkerProcess`."""

    rank: int
    pid: int
    device: str

    @property
    def visible_gpus(self) -> str | None: ...


def watched(ranks: Sequence[Process], told: Callable[[list[Vitals]], None]) -> Callable[[], None]:
    """`told` hears of these, in the loop, until the function that this returns is called."""
    loop = asyncio.get_running_loop()
    ended = threading.Event()
    sampler = Sampler(ranks)

    def tell(vitals: list[Vitals]) -> None:
        if not ended.is_set():
            told(vitals)

    def sample() -> None:
        while not ended.is_set():
            with suppress(RuntimeError):  # the loop has ended, with its process
                loop.call_soon_threadsafe(tell, sampler.sample())
            ended.wait(PERIOD_S)

    thread = threading.Thread(target=sample, name="quarterdeck-vitals", daemon=True)
    begin = loop.call_later(_FIRST_S, thread.start)

    def end() -> None:
        begin.cancel()
        ended.set()

    return end


class _Cpu(NamedTuple):
    at_s: float
    seconds: dict[int, float]
    """By process."""


class Sampler:
    """`sample` from any one thread at a time; it never raises."""

    def __init__(self, ranks: Sequence[Process]) -> None:
        self._ranks = list(ranks)
        self._before: dict[int, _Cpu] = {}

    def sample(self) -> list[Vitals]:
        limit_bytes = processes.memory_limit_bytes()
        return [self._of(rank, limit_bytes) for rank in self._ranks]

    def _of(self, rank: Process, limit_bytes: int | None) -> Vitals:
        used = processes.usage(rank.pid)
        gpu = gpus.usage(rank.device, rank.visible_gpus)
        return Vitals(
            rank=rank.rank,
            time_unix_ns=time.time_ns(),
            cpu_percent=self._cpu_percent(rank.rank, used.cpu_s),
            memory_bytes=used.memory_bytes,
            memory_limit_bytes=limit_bytes,
            gpu_percent=gpu.percent,
            gpu_memory_bytes=gpu.memory_bytes,
            gpu_memory_limit_bytes=gpu.memory_limit_bytes,
        )

    def _cpu_percent(self, rank: int, seconds: dict[int, float]) -> float | None:
        """Since the last sample, of the processes that were there then."""
        now = _Cpu(time.monotonic(), seconds)
        before, self._before[rank] = self._before.get(rank), now
        if before is None or now.at_s <= before.at_s:
            return None
        spent = sum(max(0.0, used - before.seconds.get(pid, 0.0)) for pid, used in seconds.items())
        return round(100 * spent / (now.at_s - before.at_s), 1)
