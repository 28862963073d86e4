"""Rows about functions in a group of their own: their start, their end, a big value, the history of runs."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from statistics import median

from benchmarks import plain
from benchmarks.cells import CLONE
from benchmarks.notebook import Notebook
from benchmarks.table import Line, spread, times

DEFINE = """
import time
import quarterdeck as qd

@qd.distributed(qd.Elastic(nproc_per_node=2))
def noop():
    return time.time_ns()

def _timed(call):
    began_ns = time.time_ns()
    value = call()
    return began_ns, value, time.time_ns()
"""
CALL = """
_began, _first, _end = _timed(noop)
print((_first - _began) / 1e9, (_end - _began) / 1e9)
"""
DEFINE_BIG = """
import torch

@qd.distributed(qd.Elastic(nproc_per_node=2))
def make():
    value = torch.ones(50_000_000) if qd.current().rank == 0 else None
    return value, time.time_ns()
"""
CALL_BIG = """
_, (big, _returned), _end = _timed(make)
assert big.numel() == 50_000_000 and big[0] == big[-1] == 1
print((_end - _returned) / 1e9)
"""
LIST = """
_t = time.perf_counter(); _runs = qd.runs(home="many"); _took = time.perf_counter() - _t
print(len(_runs), _took)
"""
START_METHODS = ("fork", "spawn")
FLYTE_INTERVAL_S = 5.0


def calls(notebook: Notebook, repeats: int, launches: int) -> list[Line]:
    """A function without work on 2 ranks, beside the same under torch's elastic agent."""
    notebook.run("%workers stop")
    notebook.run(DEFINE)
    notebook.run(CALL)
    first_ms, whole_ms = [], []
    for _ in range(repeats):
        time.sleep(0.3)
        first_s, whole_s = map(float, notebook.run(CALL).text.split())
        first_ms.append(1000 * first_s)
        whole_ms.append(1000 * whole_s)
    lines = []
    what = "no-op function on 2 ranks, call to value"
    for method in START_METHODS:
        firsts, wholes = plain.elastic(method, 0.1, launches)
        lines.append(
            _beside("function on 2 ranks, call to its first line in rank 0", first_ms, method, firsts)
        )
        lines.append(_beside(what, whole_ms, f"{method}, `monitor_interval` 0.1 s", wholes))
    for method in START_METHODS:
        _, wholes = plain.elastic(method, FLYTE_INTERVAL_S, launches)
        lines.append(
            _beside(what, whole_ms, f"{method}, `monitor_interval` {FLYTE_INTERVAL_S:.0f} s", wholes)
        )
    return sorted(lines, key=lambda line: line.what)


def _beside(what: str, ours_ms: list[float], how: str, theirs_s: list[float]) -> Line:
    theirs_ms = [1000 * value for value in theirs_s]
    ratio = f"1/{median(theirs_ms) / median(ours_ms):.0f}"
    beside = f"`elastic_launch`, {how}: {spread(theirs_ms, 'ms')}"
    return Line(what, spread(ours_ms, "ms"), beside, ratio, "", f"{len(ours_ms)}, {len(theirs_ms)}")


def history(notebook: Notebook, runs: int, repeats: int) -> list[Line]:
    """`qd.runs()` on copies of a run of a function on 2 ranks."""
    notebook.run(DEFINE)
    notebook.run("noop()")
    many = notebook.folder / "many"
    copy_run(next((notebook.folder / ".quarterdeck" / "runs").glob("*-noop")), many, runs)
    took_ms = []
    for _ in range(repeats):
        listed, took_s = notebook.run(LIST).text.split()
        if int(listed) != runs:
            raise RuntimeError(f"{listed} of {runs} runs were listed")
        took_ms.append(1000 * float(took_s))
    return [Line(f"`qd.runs()` with {runs:,} runs", spread(took_ms, "ms"), n=f"{repeats}")]


def copy_run(run: Path, home: Path, copies: int) -> None:
    """So many runs in another store, all like this one, each with an id of its own."""
    header = json.loads((run / "run.json").read_text())
    for i in range(copies):
        run_id = f"{run.name}-{i}"
        folder = home / "runs" / run_id
        shutil.copytree(run, folder)
        (folder / "run.json").write_text(json.dumps(header | {"run_id": run_id}))


def results(notebook: Notebook, repeats: int) -> list[Line]:
    """200 MB from rank 0 to the notebook, beside one clone() of it there."""
    notebook.run("%workers stop")
    notebook.run(DEFINE)
    notebook.run(DEFINE_BIG)
    notebook.run(CALL_BIG)
    took_ms, clone_ms = [], []
    for _ in range(repeats):
        took_ms.append(1000 * float(notebook.run(CALL_BIG).text))
        clone_ms.append(1000 * median(float(notebook.run(CLONE).text) for _ in range(3)))
    notebook.run("del big")
    ratios = [took / clone for took, clone in zip(took_ms, clone_ms, strict=True)]
    what = "200 MB tensor returned by rank 0, to its value in the notebook"
    beside = f"`clone()`: {spread(clone_ms, 'ms')}"
    return [Line(what, spread(took_ms, "ms"), beside, times(ratios), "", f"{repeats}")]
