"""`qd.log`: what it takes, and that what it took is in the file, whatever happens to its process."""

from __future__ import annotations

import errno
import math
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quarterdeck.context import Context, working_for
from quarterdeck.metrics import pending_gpu
from quarterdeck.metrics.log import flush, log
from quarterdeck.metrics.series import Metrics
from support.notebook import in_child
from support.waiting import until

log_module = sys.modules["quarterdeck.metrics.log"]
KILLS = 20
WRITERS = 8
CALLS_PER_S = 10_000


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Context]:
    """The context of rank 1, whose run has no folder yet."""
    with working_for(Context(rank=1, world_size=2, run_dir=tmp_path / "runs" / "r")) as context:
        yield context


def _read(context: Context) -> Metrics:
    return Metrics.read(context.run_dir)


def _column(context: Context, name: str) -> dict[int, float]:
    series = _read(context)[name]
    return dict(zip(series.steps(context.rank), series.values(context.rank), strict=True))


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0),
        (True, 1.0),
        (-0.25, -0.25),
        (10**18 + 1, 1e18),
        (Fraction(1, 4), 0.25),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7.0),
        (np.bool_(True), 1.0),
        (np.array(2.5), 2.5),
        (np.array([[3.0]]), 3.0),
        (torch.tensor(0.5), 0.5),
        (torch.tensor([4]), 4.0),
        (torch.tensor(1.5, dtype=torch.bfloat16), 1.5),
        (torch.nn.Parameter(torch.tensor([[8.0]])), 8.0),
        (math.inf, math.inf),
        (-math.inf, -math.inf),
    ],
)
@pytest.mark.filterwarnings("error")
def test_numbers_of_all_kinds(here: Context, value: Any, number: float) -> None:
    for step in range(3):
        log(x=value, step=step)
    assert _column(here, "x") == {0: number, 1: number, 2: number}


def test_nan_is_kept(here: Context) -> None:
    log(x=math.nan)
    log(x=torch.tensor(math.nan))
    assert all(math.isnan(value) for value in _column(here, "x").values())


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        ({"x": "3"}, "'x' is a str: '3'"),
        ({"x": None}, "'x' is None"),
        ({"x": [1.0]}, "'x' is a list"),
        ({"x": torch.ones(2, 3)}, "'x' is a Tensor of 2 x 3. Log its .mean()"),
        ({"x": np.ones(2)}, "'x' is a ndarray of 2"),
        ({"x": 1j}, "'x' is a complex"),
        ({"x": np.complex64(1j)}, "'x' is a complex64"),
        ({"x": torch.tensor(1j)}, "'x' is a Tensor"),
        ({"x": 10**400}, "'x' is too large"),
        ({"x": {"y": {}}}, "'x/y' is a dict in a dict"),
        ({"x": {"y": "3"}}, "'x/y' is a str"),
    ],
)
def test_what_is_no_number_is_named(here: Context, metrics: dict[str, Any], text: str) -> None:
    log(x=1.0)
    with pytest.raises(TypeError) as caught:
        log(**metrics)
    assert text in str(caught.value)
    assert _column(here, "x") == {0: 1.0}


@pytest.mark.parametrize("step", ["1", 1.5, {"loss": 1}, 1 << 63, torch.tensor(0.5)])
def test_a_step_is_a_whole_number(here: Context, step: Any) -> None:
    log(x=1.0, step=3)
    with pytest.raises(TypeError, match="step"):
        log(step, x=1.0)
    log(x=2.0)
    assert _column(here, "x") == {3: 1.0, 4: 2.0}


def test_steps_given_and_counted(here: Context) -> None:
    for _ in range(3):
        log(x=1.0)
    log(10, x=2.0)
    log(x=3.0)
    log(x=4.0, step=np.int64(20))
    log(x=5.0, step=torch.tensor(30))
    log(x=6.0)
    assert list(_column(here, "x")) == [0, 1, 2, 10, 11, 20, 30, 31]


def test_names_of_all_kinds(here: Context) -> None:
    names = ["train/loss", "", "a b", "\u03bb", "x\n\0", "\ud800", "n" * 100_000]
    log(**{name: float(place) for place, name in enumerate(names)}, step=0)
    log(train={"loss": 7.0, 3: torch.tensor(1)}, step=1)
    metrics = _read(here)
    assert set(metrics) == {*names, "train/3"}
    assert list(metrics["train/loss"].values(1)) == [0.0, 7.0]


def test_nothing_writes_nothing(here: Context) -> None:
    log()
    log(step=3)
    assert not here.run_dir.exists()
    log(x=1.0)
    assert _column(here, "x") == {4: 1.0}


def test_attempts_and_contexts_have_files_of_their_own(here: Context, tmp_path: Path) -> None:
    log(x=1.0)
    here.attempt = 1
    log(x=2.0)
    with working_for(Context(run_dir=tmp_path / "other")):
        log(x=3.0)
    log(x=4.0)
    assert sorted(os.listdir(here.run_dir)) == [
        "metrics-attempt-0-rank-1.bin",
        "metrics-attempt-1-rank-1.bin",
    ]
    assert os.listdir(tmp_path / "other") == ["metrics-attempt-0-rank-0.bin"]
    assert sorted(_read(here).to_pandas()["value"]) == [1.0, 2.0, 4.0]


def test_a_run_is_announced_before_the_first_value_is_kept(here: Context) -> None:
    told: list[int] = []
    here.announce = lambda: told.append(sum(path.stat().st_size for path in here.run_dir.iterdir()))
    assert not told
    for _ in range(3):
        log(x=1.0)
        log(y=1.0)
    assert told == [0]
    with working_for(Context(rank=1, run_dir=here.run_dir)):  # as `spawn_helper` makes one
        log(x=2.0)
    assert told == [0]
    assert list(_column(here, "x")) == [0, 2, 4, 6]


def test_threads(here: Context) -> None:
    def work(number: int) -> None:
        for _ in range(2000):
            log(**{f"t{number}": 1.0})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    metrics = _read(here)
    steps = [step for name in metrics for step in metrics[name].steps(1)]
    assert sorted(steps) == list(range(12_000))
    assert metrics.skipped_bytes == 0


def test_forked_children_write_into_the_same_file(here: Context) -> None:
    log(x=0.0)

    def child() -> None:
        log(x=1.0)
        log(child=1.0, step=7)
        in_child(lambda: log(x=2.0, step=9))

    in_child(child)
    log(x=3.0, step=2)
    assert _column(here, "x") == {0: 0.0, 1: 1.0, 2: 3.0, 9: 2.0}
    assert _column(here, "child") == {7: 1.0}


def test_a_child_forked_while_threads_log(here: Context) -> None:
    end = threading.Event()

    def work() -> None:
        while not end.is_set():
            log(x=1.0)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(10):
        in_child(lambda number=number: log(child=float(number), step=number))  # type: ignore[misc]
    end.set()
    for thread in threads:
        thread.join()
    assert list(_column(here, "child")) == list(range(10))


class _Rows(torch.utils.data.Dataset[int]):
    def __len__(self) -> int:
        return 40

    def __getitem__(self, row: int) -> int:
        log(row=float(row), step=row)
        return row


def test_dataloader_workers(here: Context) -> None:
    log(x=1.0)
    for _ in torch.utils.data.DataLoader(_Rows(), num_workers=2, multiprocessing_context="fork"):
        pass
    assert _column(here, "row") == {row: float(row) for row in range(40)}


# ---- places that cannot be written


def test_a_folder_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    with working_for(Context(run_dir=tmp_path / "file" / "run", rank=3)):
        for _ in range(3):
            log(x=1.0)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith("qd.log: metrics of rank 3 are lost: Not a directory: ")


class _FullDisk:
    """Takes so many bytes, and then no more, as a file system does: the last record is cut."""

    def __init__(self, path: Path, room: int) -> None:
        self._file, self.room = FileIO(path, "a"), room

    def write(self, record: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = self._file.write(record[: self.room])
        self.room -= taken
        return taken


@pytest.mark.parametrize("names", [{"x": 1.0}, {"x": 1.0, "y": 2.0, "z": 3.0}])
@pytest.mark.parametrize("room", [1, 7, 8, 20, 47, 131])
def test_a_full_disk(
    here: Context, capsys: pytest.CaptureFixture[str], room: int, names: dict[str, float]
) -> None:
    for step in range(3):
        log(x=float(step), step=step)
    writer = log_module._writer
    disk = _FullDisk(writer.path, room)
    file, writer.append = writer.append, disk.write
    for step in range(3, 10):
        log(**names, step=step)
    disk.room = 1 << 20
    log(x=10.0, step=10)
    writer.append = file
    log(**names, step=11)
    metrics = _read(here)
    found = _column(here, "x")
    assert [found[step] for step in (0, 1, 2, 10, 11)] == [0.0, 1.0, 2.0, 10.0, 1.0]
    assert len(found) == 5 + (room // 40 if len(names) == 1 else 0)
    assert metrics.skipped_bytes > 0
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert "rank 1 are lost: " in told[0]


# ---- values on a GPU: only with a stand-in


class _Gpu:
    """A tensor on a GPU that has not come so far."""

    is_cuda = True
    arrived = False

    def __init__(self, value: float, size: int = 1) -> None:
        self.value, self.size, self.waited = value, size, 0
        self.shape = (size,)

    def numel(self) -> int:
        return self.size

    def is_complex(self) -> bool:
        return False

    def __float__(self) -> float:
        assert self.arrived, "this would have stalled the stream"
        return self.value

    item = __float__

    def query(self) -> bool:
        return self.arrived

    def synchronize(self) -> None:
        self.waited += not self.arrived
        self.arrived = True


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(pending_gpu, "copy_to_host", lambda tensor: (tensor, tensor))
    yield
    pending_gpu.waiting.clear()


@pytest.mark.usefixtures("gpu")
def test_gpu_values_are_read_late(here: Context, tmp_path: Path) -> None:
    values = [_Gpu(float(number)) for number in range(20)]
    for step, value in enumerate(values):
        log(x=value, y=step, step=step)
    log(z=1.0)
    assert list(_read(here)) == ["z"]
    assert not any(value.waited for value in values)
    for value in values[:10]:
        value.arrived = True
    log(z=torch.tensor(1.0))
    assert len(_column(here, "x")) == pending_gpu.DRAINED
    with working_for(Context(run_dir=tmp_path / "other")):
        flush()
        log(z=2.0)
    assert _column(here, "x") == _column(here, "y") == {step: float(step) for step in range(20)}
    assert list(Metrics.read(tmp_path / "other")) == ["z"]
    assert sum(value.waited for value in values) == 10


@pytest.mark.usefixtures("gpu")
def test_only_so_many_wait(here: Context) -> None:
    for step in range(pending_gpu.KEPT + 5):
        log(x=_Gpu(1.0), step=step)
    assert len(pending_gpu.waiting) == pending_gpu.KEPT
    assert list(_column(here, "x")) == list(range(5))


@pytest.mark.usefixtures("gpu")
def test_a_child_leaves_its_parents_gpu_values_alone(here: Context) -> None:
    log(x=_Gpu(1.0))
    in_child(flush)
    assert not here.run_dir.exists()
    with pytest.raises(TypeError, match="'x' is a _Gpu of 2"):
        log(x=_Gpu(1.0, size=2))


# ---- what it costs, and what it survives


def test_neither_torch_nor_numpy(tmp_path: Path) -> None:
    code = (
        "import sys; from quarterdeck.metrics.log import log; log(x=1);"
        "from quarterdeck.metrics.series import *;"
        "from quarterdeck.metrics.plot import plot; from pathlib import Path;"
        "from quarterdeck.metrics.series import last_of_run;"
        "assert last_of_run(Path('.quarterdeck/local')) == {'x': 1.0};"
        "sys.exit(bool({'torch', 'numpy', 'matplotlib', 'pandas'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert Metrics.read(tmp_path / ".quarterdeck" / "local")["x"].last() == 1.0


WRITER = """
import mmap, os, struct, sys, time
from pathlib import Path
from quarterdeck.context import Context, working_for
from quarterdeck.metrics.log import log
folder, per_s, writers = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
shared = mmap.mmap(os.open(folder / "counts", os.O_RDWR), 8 * writers)
counts = memoryview(shared).cast("q")
def write(number):
    began, done = time.monotonic(), 0
    while True:
        for done in range(done + 1, done + 1 + per_s // 100):
            log(step=done, **{f"w{number}": done, "other": 0.5})
            counts[number] = done
        time.sleep(max(0, began + done / per_s - time.monotonic()))
for number in range(writers):
    if number % 2 == 0 and os.fork() == 0:  # a rank, and a child that it forks, into one file
        with working_for(Context(rank=number // 2, run_dir=folder)):
            log(ready=1, step=0)
            write(number + (os.fork() == 0))
time.sleep(60)
"""


def test_every_call_that_returned_survives_a_kill(tmp_path: Path) -> None:
    """20 times 8 writers, 10,000 calls/s each as far as the machine gives them, killed at once."""
    total = 0
    for kill in range(KILLS):
        folder = tmp_path / str(kill)
        folder.mkdir()
        (folder / "counts").write_bytes(bytes(8 * WRITERS))
        command = [sys.executable, "-c", WRITER, str(folder), str(CALLS_PER_S), str(WRITERS)]
        process = subprocess.Popen(command, start_new_session=True)
        counts = _counts(folder / "counts")
        try:
            until(lambda counts=counts: all(counts()))  # type: ignore[misc]
            time.sleep(random.uniform(0.05, 0.15))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        until(lambda folder=folder: not _writers(folder))  # type: ignore[misc]
        total += sum(counts())
        _check_all_there(folder, counts())
    print(f"{total:,} calls, none lost")


def _counts(path: Path) -> Callable[[], tuple[int, ...]]:
    with path.open("rb") as file:
        shared = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    return lambda: struct.unpack(f"{WRITERS}q", shared[:])


def _writers(folder: Path) -> list[str]:
    """Processes that still have the counts mapped: killed, but not gone yet."""
    found = []
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            if maps.parent.name != str(os.getpid()) and f"{folder}/counts" in maps.read_text():
                found.append(maps.parent.name)
        except OSError:
            continue
    return found


def _check_all_there(folder: Path, counts: tuple[int, ...]) -> None:
    metrics = Metrics.read(folder)
    for number, count in enumerate(counts):
        series = metrics[f"w{number}"]
        steps = series.steps(number // 2)
        assert list(steps[:count]) == list(range(1, count + 1))
        assert len(steps) <= count + 1
        assert list(series.values(number // 2)) == list(map(float, steps))
