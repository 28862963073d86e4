"""Rows about starting: the extension, workers, everything from cold, DDP."""

from __future__ import annotations

import re
import time
from statistics import mean, median

from benchmarks import plain
from benchmarks.notebook import LIMIT_S, Notebook
from benchmarks.table import Line, spread, times

ALL_REDUCE = "import torch, torch.distributed as dist\ndist.all_reduce(torch.ones(1))"
NOTE_TIME = "import time\nwith open(f'rank{rank}', 'w') as file: _ = file.write(str(time.time()))"
TIME_DDP = """
import time, torch
from torch.nn.parallel import DistributedDataParallel
model = torch.nn.Linear(10, 1)
began_s = time.perf_counter()
model = DistributedDataParallel(model)
print(f"DDP {time.perf_counter() - began_s:.6f}")
"""


def load_ext(kernels: int) -> list[Line]:
    """`%load_ext quarterdeck` as the first cell of a fresh kernel."""
    took_ms, with_torch = [], 0
    for _ in range(kernels):
        with Notebook() as notebook:
            took_ms.append(1000 * notebook.run("%load_ext quarterdeck").took_s)
            with_torch += "True" in notebook.run("import sys\nprint('torch' in sys.modules)").text
    torch = f"torch imported in {with_torch} of {kernels} kernels"
    return [Line("`%load_ext quarterdeck`", spread(took_ms, "ms"), torch, "", "< 150 ms", f"{kernels}")]


def first_cell(notebook: Notebook, starts: int, spawns: int) -> list[Line]:
    """A cell that starts its workers, beside an ordinary one and beside `torch.multiprocessing.spawn`."""
    over_ms: dict[int, list[float]] = {2: [], 8: []}
    for n, over in over_ms.items():
        for _ in range(starts):
            notebook.run("%workers stop")
            time.sleep(0.3)
            ordinary_s = median(notebook.run("x = 1").took_s for _ in range(3))
            over.append(1000 * (notebook.run(f"%%distributed -n {n}\n{ALL_REDUCE}").took_s - ordinary_s))
    notebook.run("%workers stop")
    spawn_ms = [1000 * plain.measured("spawn") for _ in range(spawns)]
    ratio = f"1/{median(spawn_ms) / median(over_ms[2]):.0f}"
    what = "first cell on {} fresh workers, to the end of an `all_reduce`, over an ordinary cell"
    beside = f"`mp.spawn`: {spread(spawn_ms, 'ms')}"
    return [
        Line(what.format(2), spread(over_ms[2], "ms"), beside, ratio, "<= 100 ms", f"{starts}, {spawns}"),
        Line(what.format(8), spread(over_ms[8], "ms"), n=str(starts)),
    ]


def cold(starts: int) -> list[Line]:
    """Kernel launch to the first line of user code on the last of two ranks; all cells are sent at once."""
    import_s = [plain.measured("import")]
    took_s, ratios = [], []
    for _ in range(starts):
        took_s.append(_cold_start_s())
        import_s.append(plain.measured("import"))
        ratios.append(took_s[-1] / mean(import_s[-2:]))
    what = "kernel launch to user code on 2 ranks, all cold"
    beside = f"`import torch`: {spread(import_s, 's')}"
    return [Line(what, spread(took_s, "s"), beside, times(ratios), "<= 1.2 x", f"{starts}, {starts + 1}")]


def _cold_start_s() -> float:
    began_s, end_s = time.time(), time.monotonic() + LIMIT_S
    with Notebook(ready=False) as notebook:
        notebook.start("%load_ext quarterdeck")
        message_id, _ = notebook.start(f"%%distributed -n 2\n{NOTE_TIME}\n{ALL_REDUCE}")
        if (status := notebook.reply(message_id, end_s)) != "ok":
            raise RuntimeError(f"the first cell ended with {status}")
        return max(float((notebook.folder / f"rank{rank}").read_text()) for rank in (0, 1)) - began_s


def first_ddp(notebook: Notebook, starts: int, processes: int) -> list[Line]:
    """The first `DDP(model)` of fresh workers, beside that of a plain process with one rank."""
    ours_ms: list[float] = []
    for _ in range(starts):
        notebook.run("%workers restart -n 2")
        shown = re.findall(r"DDP ([\d.]+)", notebook.run(f"%%distributed\n{TIME_DDP}").text)
        ours_ms.append(1000 * max(map(float, shown)))
    plain_ms = [1000 * plain.measured("ddp") for _ in range(processes)]
    ratio = f"1/{median(plain_ms) / median(ours_ms):.0f}"
    beside, n = f"plain process: {spread(plain_ms, 'ms')}", f"{starts}, {processes}"
    return [Line("first `DDP(model)` of a fresh worker", spread(ours_ms, "ms"), beside, ratio, "<= 20 ms", n)]
