"""What ranks use of the machine, as the coordinator samples it and the kernel reads it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from quarterdeck.agent import gpus, processes
from quarterdeck.agent.vitals import Sampler, watched
from quarterdeck.coordinator.vitals import sampled
from quarterdeck.protocol.agent import Vitals
from quarterdeck.store.layout import VITALS
from quarterdeck.store.vitals import read_vitals, write_vitals
from support.waiting import until


@dataclass
class Rank:
    rank: int
    pid: int
    device: str = "cpu"
    visible_gpus: str | None = None


@dataclass
class Record:
    folder: Path
    opened: bool = True


class Node:
    """An agent that watches these processes."""

    def __init__(self, *ranks: Rank) -> None:
        self.ranks = {str(rank.rank): rank for rank in ranks}

    def watch(self, lives: Any, told: Any) -> Any:
        return watched([self.ranks[life] for life in lives], told)


def workers(*ranks: Rank) -> Any:
    """As the coordinator has them."""
    node = Node(*ranks)
    return [SimpleNamespace(agent=node, life=str(rank.rank)) for rank in ranks]


BUSY = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"
FORKING = (
    "import os, threading, time\n"
    "data = bytearray(os.urandom(1 << 20) * 50)\n"
    "def fork():\n"
    "    if not os.fork(): data[::4096] = bytes(len(data[::4096])); time.sleep(60)\n"
    "    time.sleep(60)\n"
    "fork() if not os.fork() else None\n"  # a grandchild
    "threading.Thread(target=fork).start()\n"  # a thread's child
    "print(flush=True); time.sleep(60)"
)


@pytest.fixture
def started() -> Iterator[Any]:
    """Starts Pythons, in groups of their own, which end with the test."""
    running: list[subprocess.Popen[bytes]] = []

    def start(code: str) -> subprocess.Popen[bytes]:
        running.append(
            subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
        )
        return running[-1]

    yield start
    for process in running:
        try:
            os.killpg(process.pid, 9)
        except ProcessLookupError:
            pass
        process.communicate(timeout=20)


@pytest.fixture
def no_nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    gpus._nvml.cache_clear()
    yield
    gpus._nvml.cache_clear()


def test_written_and_read(tmp_path: Path) -> None:
    several = [
        Vitals(3, 5, 99.5, 1 << 40, 1 << 41, 50.0, 7, 8),
        Vitals(0, 4),
    ]
    write_vitals(tmp_path, several)
    assert read_vitals(tmp_path) == {0: several[1], 3: several[0]}
    assert list(read_vitals(tmp_path)) == [0, 3]
    write_vitals(tmp_path, [Vitals(0, 6, 1.0)])
    assert read_vitals(tmp_path)[0] == Vitals(0, 6, 1.0)


def test_nothing_and_rubbish_are_no_vitals(tmp_path: Path) -> None:
    assert read_vitals(tmp_path / "none") == {}
    (tmp_path / VITALS).write_bytes(os.urandom(3000))
    assert read_vitals(tmp_path) == {}


def test_a_busy_rank_and_an_idle_one(started: Any) -> None:
    busy, idle = started(BUSY), started("import time; time.sleep(60)")
    sampler = Sampler([Rank(0, busy.pid), Rank(1, idle.pid)])
    assert [one.cpu_percent for one in sampler.sample()] == [None, None]
    until(lambda: sum(processes.usage(busy.pid).cpu_s.values()) > 0.5)
    found = {one.rank: one for one in sampler.sample()}
    assert found[0].cpu_percent is not None
    assert found[0].cpu_percent > 10  # of a machine that others use, too
    assert found[1].cpu_percent is not None
    assert found[1].cpu_percent < 10
    for one in found.values():
        assert one.memory_bytes is not None
        assert one.memory_limit_bytes is not None
        assert 1 << 20 < one.memory_bytes < one.memory_limit_bytes
        assert one.gpu_percent is one.gpu_memory_bytes is one.gpu_memory_limit_bytes is None


def test_children_count(started: Any) -> None:
    parent = started(FORKING)
    parent.stdout.readline()
    until(lambda: len(processes.usage(parent.pid).cpu_s) >= 4)
    used = processes.usage(parent.pid)
    assert len(used.cpu_s) == 4
    assert used.memory_bytes is not None
    assert used.memory_bytes > 4 * 50 << 20


def test_a_rank_that_has_ended_is_not_known(started: Any) -> None:
    ended = started("")
    ended.wait(20)
    [one] = Sampler([Rank(0, ended.pid)]).sample()
    assert (one.memory_bytes, one.cpu_percent) in ((None, None), (0, None))
    [none] = Sampler([Rank(0, 0)]).sample()
    assert none.memory_bytes is None


def test_a_folder_that_was_deleted_stays_so(tmp_path: Path) -> None:
    async def run() -> None:
        told = asyncio.Event()

        class Watched(Node):
            def watch(self, lives: Any, write: Any) -> Any:
                return super().watch(lives, lambda vitals: (write(vitals), told.set()))

        worker: Any = SimpleNamespace(agent=Watched(Rank(0, os.getpid())), life="0")
        with sampled(Record(tmp_path / "gone"), [worker]):
            await told.wait()

    asyncio.run(asyncio.wait_for(run(), 20))
    assert not (tmp_path / "gone").exists()


# ---- GPUs


class Nvml:
    """A driver with two GPUs, the second of which is a part of one, without a load of its own."""

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return range(2)[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        return {"GPU-a": 0, "GPU-b": 1}[uuid]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=100 + handle, total=1000)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        if handle:
            raise RuntimeError("not supported")
        return SimpleNamespace(gpu=75)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch, no_nvml: None) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml())


@pytest.mark.parametrize(
    ("device", "visible", "known"),
    [
        ("cuda:0", None, (75.0, 100, 1000)),
        ("cuda", None, (75.0, 100, 1000)),
        ("cuda:1", None, (None, 101, 1000)),
        ("cuda:0", "1", (None, 101, 1000)),
        ("cuda:1", "1, 0", (75.0, 100, 1000)),
        ("cuda:0", "GPU-b", (None, 101, 1000)),
        ("cuda:0", "MIG-unheard-of", (None, None, None)),
        ("cuda:5", None, (None, None, None)),
        ("cuda:5", "0", (None, None, None)),
        ("cpu", None, (None, None, None)),
        ("", None, (None, None, None)),
    ],
)
@pytest.mark.usefixtures("nvml")
def test_a_rank_s_gpu_is_the_one_it_sees(device: str, visible: str | None, known: Any) -> None:
    assert gpus.usage(device, visible) == known


@pytest.mark.usefixtures("nvml")
def test_a_gpu_is_in_the_vitals() -> None:
    [one] = Sampler([Rank(0, os.getpid(), "cuda:0", visible_gpus="0,1")]).sample()
    assert (one.gpu_percent, one.gpu_memory_bytes, one.gpu_memory_limit_bytes) == (75.0, 100, 1000)


@pytest.mark.parametrize("problem", [ImportError, OSError, RuntimeError])
def test_without_a_driver_gpus_are_not_known(
    monkeypatch: pytest.MonkeyPatch, no_nvml: None, problem: type[Exception]
) -> None:
    class Broken(Nvml):
        def nvmlInit(self) -> None:
            raise problem("no driver")

    monkeypatch.setitem(sys.modules, "pynvml", None if problem is ImportError else Broken())
    assert gpus.usage("cuda:0", None) == (None, None, None)


# ---- beside a run


def test_a_run_is_sampled_from_when_it_is_on_record_to_its_end(tmp_path: Path) -> None:
    async def run() -> None:
        record = Record(tmp_path, opened=False)
        with sampled(record, workers(Rank(0, os.getpid()))):
            await asyncio.sleep(0.6)
            assert not (tmp_path / VITALS).exists()
            record.opened = True
            while not (tmp_path / VITALS).exists():
                await asyncio.sleep(0.05)
        until(lambda: all(thread.name != "quarterdeck-vitals" for thread in threading.enumerate()))

    asyncio.run(asyncio.wait_for(run(), 20))


def test_a_short_run_is_not_sampled(tmp_path: Path) -> None:
    async def run() -> None:
        with sampled(Record(tmp_path), workers(Rank(0, os.getpid()))):
            await asyncio.sleep(0.01)
        with sampled(None, []):
            pass

    asyncio.run(run())
    assert not list(tmp_path.iterdir())


def test_the_loop_does_not_wait_for_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for a driver that takes a second to answer."""
    monkeypatch.setattr(gpus, "usage", lambda *_: time.sleep(0.5) or gpus.GpuUsage())

    async def run() -> float:
        longest_s, last_s = 0.0, time.monotonic()
        with sampled(Record(tmp_path), workers(Rank(0, os.getpid()))):
            while not (tmp_path / VITALS).exists():
                await asyncio.sleep(0.001)
                now_s = time.monotonic()
                longest_s, last_s = max(longest_s, now_s - last_s), now_s
        return longest_s

    assert asyncio.run(asyncio.wait_for(run(), 20)) < 0.3


def test_nobody_waits_for_a_driver_that_never_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer = threading.Event(), threading.Event()

    def usage(*_: object) -> gpus.GpuUsage:
        asked.set()
        answer.wait(20)
        return gpus.GpuUsage()

    monkeypatch.setattr(gpus, "usage", usage)

    async def run() -> None:
        with sampled(Record(tmp_path), workers(Rank(0, os.getpid()))):
            while not asked.is_set():
                await asyncio.sleep(0.01)

    began_s = time.monotonic()
    asyncio.run(asyncio.wait_for(run(), 10))
    assert time.monotonic() - began_s < 5
    answer.set()


def test_the_coordinator_loads_neither_psutil_nor_nvml() -> None:
    code = (
        "import sys, quarterdeck.start\n"
        "print(sorted({'psutil', 'pynvml', 'torch', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
