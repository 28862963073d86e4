"""Rows about cells on warm workers: a trivial one, prints, big tensors, memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from benchmarks.notebook import Notebook, Ran
from benchmarks.table import Line, median_and_p95, spread, times

MIB = 2**20
DDP_STEP = """
import torch
from torch.nn.parallel import DistributedDataParallel
model = DistributedDataParallel(torch.nn.Linear(1000, 100))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
model(torch.randn(8, 1000)).square().mean().backward()
optimizer.step()
"""
CLONE = "import time\n_t = time.perf_counter(); _c = big.clone(); print(time.perf_counter() - _t); del _c"
_SENT = {
    "first": "to 2 ranks by `%push`",
    "used": "used by the next cell, nothing is sent",
    "again": "`%push` again, unchanged",
    "rebound": "name rebound to the same memory, next cell",
    "restart": "after `%workers restart`, next cell",
}


def trivial(notebook: Notebook, cells: int, repeats: int) -> list[Line]:
    """`x = rank` on 2 ranks and `x = 1` in the notebook, in turn."""
    notebook.run("%workers restart -n 2")
    ours_ms: list[float] = []
    ordinary_ms: list[float] = []
    ratios = []
    for _ in range(repeats):
        ours, ordinary = [], []
        for _ in range(cells):
            ours.append(1000 * notebook.run("%%distributed\nx = rank").took_s)
            ordinary.append(1000 * notebook.run("y = 1").took_s)
        ratios.append(median(ours) / median(ordinary))
        ours_ms += ours
        ordinary_ms += ordinary
    beside, n = f"ordinary cell: {_p95(ordinary_ms)}", f"{repeats} x {cells}"
    return [Line("trivial cell on 2 warm ranks", _p95(ours_ms), beside, times(ratios), "<= 1.3 x", n)]


def _p95(values: Sequence[float]) -> str:
    return median_and_p95(values, "ms")


def prints(notebook: Notebook, lines: int) -> list[Line]:
    """From `print` on a worker to the first message that holds the line."""
    found = []
    for words, pause in (("one rank at a time", "0.05 * rank"), ("both ranks at the same moment", "0")):
        latency_ms = _print_latencies_ms(notebook, lines, pause)
        what = f"a worker's `print` to the client, {words}"
        found.append(Line(what, _p95(latency_ms), target="<= 10 ms", n=f"{len(latency_ms)}"))
    return found


def _print_latencies_ms(notebook: Notebook, lines: int, pause: str) -> list[float]:
    """Every line is different, so none is folded; ranks start together, `pause` apart."""
    code = (
        "import time, torch.distributed as dist\ndist.barrier()\n"
        f"began_s = time.monotonic() + {pause}\n"
        f"for i in range({lines}):\n"
        "    time.sleep(max(0, began_s + 0.1 * i - time.monotonic()))\n"
        "    print(f'T{rank}:{time.time_ns()}.')"
    )
    ran = notebook.run(f"%%distributed\n{code}")
    first: dict[str, int] = {}
    for arrived_ns, _, text in ran.texts:
        for token in re.findall(r"T\d:(\d+)\.", text):
            first.setdefault(token, arrived_ns)
    if len(first) != 2 * lines:
        raise RuntimeError(f"{len(first)} of {2 * lines} lines arrived")
    return [(arrived_ns - int(printed_ns)) / 1e6 for printed_ns, arrived_ns in first.items()]


def tensors(notebook: Notebook, repeats: int) -> list[Line]:
    """A tensor from the notebook to 2 ranks, beside one clone() of it in the notebook."""
    notebook.run("%workers restart -n 2")
    notebook.run("import torch")
    return [line for mib in (256, 1024) for line in _tensor(notebook, mib, repeats)]


def _tensor(notebook: Notebook, mib: int, repeats: int) -> list[Line]:
    took_ms: dict[str, list[float]] = {key: [] for key in _SENT}
    clone_ms: list[float] = []
    ratios: dict[str, list[float]] = {key: [] for key in took_ms}

    def timed(key: str, run: Callable[[], Ran]) -> None:
        ms = 1000 * run().took_s
        took_ms[key].append(ms)
        ratios[key].append(ms / clone_ms[-1])

    for i in range(repeats):
        check = f"%%distributed\nassert big.numel() == {mib * MIB // 4} and big[0] == big[-1] == {i}"
        notebook.run(f"big = torch.full(({mib * MIB // 4},), {i}.0)")
        clone_ms.append(1000 * median(float(notebook.run(CLONE).text) for _ in range(3)))
        timed("first", lambda: notebook.run("%push big"))
        timed("used", lambda check=check: notebook.run(check))  # type: ignore[misc]
        timed("again", lambda: notebook.run("%push big"))
        notebook.run("big = big.view(-1)")
        timed("rebound", lambda check=check: notebook.run(check))  # type: ignore[misc]
        notebook.run("%workers restart")
        timed("restart", lambda check=check: notebook.run(check))  # type: ignore[misc]
    notebook.run("del big")
    notebook.run("%workers restart")
    targets = {"first": "<= 1.2 x", "used": "10 ms", "again": "10 ms"} if mib == 1024 else {}
    beside = f"`clone()`: {spread(clone_ms, 'ms')}"
    return [
        Line(f"{mib} MiB tensor, {text}", spread(took_ms[key], "ms"), beside, times(ratios[key]),
             targets.get(key, ""), f"{repeats}")
        for key, text in _SENT.items()
    ]  # fmt: skip


def memory(notebook: Notebook, groups: int) -> list[Line]:
    """Private memory of every worker, as the system counts it."""
    first: list[float] = []
    after: dict[str, list[float]] = {"ddp": [], "raise": []}
    for _ in range(groups):
        for key, cell, status in (("ddp", DDP_STEP, "ok"), ("raise", "1 / 0", "error")):
            notebook.run("%workers restart -n 2")
            notebook.run("%%distributed\nx = rank")
            pids = notebook.workers()
            first += map(private_mb, pids)
            notebook.run(f"%%distributed\n{cell}", expect=status)
            after[key] += map(private_mb, pids)
    what = "private memory per worker, after"
    return [
        Line(f"{what} its first cell", spread(first, "MB"), target="<= 15 MB", n=f"{len(first)}"),
        Line(f"{what} its first DDP step", spread(after["ddp"], "MB"), n=f"{len(after['ddp'])}"),
        Line(
            f"{what} a traceback", spread(after["raise"], "MB"), target="<= 35 MB", n=f"{len(after['raise'])}"
        ),
    ]


def private_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024 / 1e6
