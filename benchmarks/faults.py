"""Rows about interrupts, errors and deaths."""

from __future__ import annotations

import os
import re
import signal
import time

from tests.support.kernel import descendants

from benchmarks.notebook import Notebook, wait_for_ends
from benchmarks.startup import ALL_REDUCE
from benchmarks.table import Line, spread

HANG = f"%%distributed\nif rank == 0:\n    print('waits')\n    {ALL_REDUCE.replace(chr(10), '; ')}"
RAISE = f"""%%distributed
import time
if rank == 1:
    raise ValueError(f"at {{time.time_ns()}}.")
{ALL_REDUCE}
"""
SLEEP = "%%distributed\nprint('waits')\nimport time\ntime.sleep(60)"
LOADERS = """%%distributed -n 2
import torch
loader = torch.utils.data.DataLoader(torch.arange(1000), num_workers=2, persistent_workers=True)
batches = iter(loader)
next(batches)
"""
HOLD_THE_GIL = "%%distributed\nprint('waits')\nsum(range(10**12)) if rank == 0 else next(batches)"


def interrupts(notebook: Notebook, repeats: int) -> list[Line]:
    """From the stop button, while rank 0 waits alone in an all_reduce, to the end of an all_reduce cell."""
    targets = {2: "< 150 ms", 4: "", 8: "< 250 ms"}
    lines = []
    for n, target in targets.items():
        notebook.run(f"%workers restart -n {n}")
        notebook.run(f"%%distributed\n{ALL_REDUCE}")
        took_ms = [_interrupt_ms(notebook) for _ in range(repeats)]
        what = f"interrupt of a hung collective to the next `all_reduce` done, {n} ranks"
        lines.append(Line(what, spread(took_ms, "ms"), target=target, n=f"{repeats}"))
    return lines


def _interrupt_ms(notebook: Notebook) -> float:
    cell = notebook.start(HANG)
    time.sleep(0.4)
    began_s = time.monotonic()
    notebook.interrupt()
    if notebook.finish(cell).status != "error":
        raise RuntimeError("the hanging cell was not interrupted")
    notebook.run(f"%%distributed\n{ALL_REDUCE}")
    return 1000 * (time.monotonic() - began_s)


def errors(notebook: Notebook, repeats: int) -> list[Line]:
    """Rank 1 raises, or is killed, while rank 0 waits: to the error's arrival in the notebook."""
    notebook.run("%workers restart -n 2")
    raised_ms, killed_ms = [], []
    for _ in range(repeats):
        ran = notebook.run(RAISE, expect="error")
        raised_ns = int(re.findall(r"at (\d+)\.", ran.text)[0])
        raised_ms.append((ran.arrived_ns("error") - raised_ns) / 1e6)
        notebook.run(f"%%distributed\n{ALL_REDUCE}")
    for _ in range(repeats):
        victim = notebook.workers()[1]
        cell = notebook.start(SLEEP)
        time.sleep(0.4)
        killed_ns = time.time_ns()
        os.kill(victim, signal.SIGKILL)
        ran = notebook.finish(cell)
        killed_ms.append((ran.arrived_ns("error") - killed_ns) / 1e6)
        notebook.run(f"%%distributed\n{ALL_REDUCE}")
    n, target = f"{repeats}", "< 500 ms"
    return [
        Line("a rank raises, the other waits in a collective: error shown", spread(raised_ms, "ms"),
             target=target, n=n),
        Line("a rank is killed by SIGKILL: error shown", spread(killed_ms, "ms"), target=target, n=n),
    ]  # fmt: skip


def kernel_death(kernels: int) -> list[Line]:
    """To the end of the last process, with DataLoader workers, and one rank that holds the GIL."""
    took_ms, counts = [], []
    for _ in range(kernels):
        with Notebook() as notebook:
            notebook.run("%load_ext quarterdeck")
            notebook.run(LOADERS)
            notebook.start(HOLD_THE_GIL)
            time.sleep(0.5)
            pids = descendants(notebook.pid)
            counts.append(len(pids))
            os.kill(notebook.pid, signal.SIGKILL)
            took_s, left = wait_for_ends(pids, 10.0)
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            if left:
                raise RuntimeError(f"{len(left)} of {len(pids)} processes outlived the kernel")
            took_ms.append(1000 * took_s)
    what = f"kernel killed by SIGKILL: all of its {max(counts)} processes gone"
    return [Line(what, spread(took_ms, "ms"), target="< 200 ms", n=f"{kernels}")]
