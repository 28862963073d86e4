"""What the ranks of a run use of the machine, once a second into its folder. In the coordinator, in a thread
of its own: neither /proc nor the driver may hold the loop that serves cells. Not in one that others wait for:
a driver that has lost its device may never answer.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from quarterdeck.agent import gpus, processes
from quarterdeck.store.vitals import Vitals, write_vitals

PERIOD_S = 1.0
_FIRST_S = 0.3
"""Before that most cells are over."""


class Record(Protocol):
    """A `RunRecord`."""

    @property
    def opened(self) -> bool: ...
    @property
    def folder(self) -> os.PathLike[str]: ...


class Rank(Protocol):
    """A `Worker`."""

    rank: int
    pid: int
    device: str


@contextmanager
def sampled(
    record: Record | None, ranks: Sequence[Rank], environ: dict[str, str] | None = None
) -> Iterator[None]:
    """Inside the block `record`'s folder has the vitals of these ranks, from the moment that it is there.

    `environ` is the workers': it says which GPU each number is. Never fails a run.
    """
    if record is None:
        yield
        return
    ended = threading.Event()
    sampler = Sampler(ranks, environ or {})
    thread = threading.Thread(
        target=_sample, args=(record, sampler, ended), name="quarterdeck-vitals", daemon=True
    )
    begin = asyncio.get_running_loop().call_later(_FIRST_S, thread.start)
    try:
        yield
    finally:
        begin.cancel()
        ended.set()


def _sample(record: Record, sampler: Sampler, ended: threading.Event) -> None:
    while not ended.is_set():
        if record.opened:
            sampler.sample(os.fspath(record.folder))
        ended.wait(PERIOD_S)


class _Cpu(NamedTuple):
    at_s: float
    seconds: dict[int, float]
    """By process."""


class Sampler:
    """`sample` from any one thread at a time; it never raises."""

    def __init__(self, ranks: Sequence[Rank], environ: dict[str, str]) -> None:
        self._ranks = list(ranks)
        self._visible = environ.get("CUDA_VISIBLE_DEVICES")
        self._before: dict[int, _Cpu] = {}

    def sample(self, folder: str) -> list[Vitals]:
        """Also writes them. A folder that is gone is not made again."""
        limit_bytes = processes.memory_limit_bytes()
        found = [self._of(rank, limit_bytes) for rank in self._ranks]
        with suppress(OSError, ValueError):
            write_vitals(Path(folder), found)
        return found

    def _of(self, rank: Rank, limit_bytes: int | None) -> Vitals:
        used = processes.usage(rank.pid)
        gpu = gpus.usage(rank.device, self._visible)
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
