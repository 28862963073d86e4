"""A checkpoint of 500 MB beside what else one may call: how long the training loop stands still, and when all
is on the disk. In one process of its own, interleaved. `python -m benchmarks.checkpoints` prints the lines.
"""

from __future__ import annotations

import gc
import os
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import alone
from benchmarks.table import Line, spread, times

LIMIT_S = 900.0
TENSORS, TENSOR_BYTES = 50, 10 << 20


def checkpoints(repeats: int) -> list[Line]:
    """Stall and total, each against one copy of the state into memory that was written before."""
    found: dict[str, list[list[float]]] = alone.measured("benchmarks.checkpoints", repeats, LIMIT_S)
    copy = [stall for stall, _ in found.pop("copy")]
    lines = []
    for what, at, target in (("the loop stands still", 0, "<= 1.2 x"), ("on the disk", 1, "")):
        for name, pairs in found.items():
            mine = [pair[at] for pair in pairs]
            ratio = times([value / base for value, base in zip(mine, copy, strict=True)])
            beside = f"a copy into touched pages: {spread(copy, 'ms')}"
            ours = target if name == "save_checkpoint" else ""
            lines.append(
                Line(f"500 MB, `{name}`: {what}", spread(mine, "ms"), beside, ratio, ours, str(repeats))
            )
    return lines


def measure(repeats: int) -> dict[str, list[list[float]]]:
    """Milliseconds until the call returned, and until all is on the disk. The first round is not counted."""
    calls = _calls()
    found: dict[str, list[list[float]]] = {name: [] for name in calls}
    for at in range(repeats + 1):
        for name, call in calls.items():
            gc.collect()
            os.sync()
            began_s = time.perf_counter()
            wait = call(at)
            returned_s = time.perf_counter()
            wait()
            took = [(moment - began_s) * 1e3 for moment in (returned_s, time.perf_counter())]
            if at:
                found[name].append(took)
            for left in ("ours/checkpoints", "dcp", "async"):
                shutil.rmtree(left, ignore_errors=True)
    return found


def _calls() -> dict[str, Callable[[int], Callable[[], Any]]]:
    """Each starts its work and returns what waits for its end."""
    import torch
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp

    from quarterdeck.checkpointing.save import flush, save_checkpoint

    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    state = {f"layer{at}.weight": torch.randn(TENSOR_BYTES // 4) for at in range(TENSORS)}
    touched = {name: tensor.clone() for name, tensor in state.items()}

    def copy(_: int) -> Callable[[], Any]:
        for name, tensor in state.items():
            touched[name].copy_(tensor)
        return lambda: None

    def ours(at: int) -> Callable[[], Any]:
        save_checkpoint(state, step=at, directory="ours/checkpoints")
        return flush

    def torch_save(_: int) -> Callable[[], Any]:
        torch.save(state, "plain.pt")
        return lambda: _synced(Path("plain.pt"))

    def dcp_save(_: int) -> Callable[[], Any]:
        dcp.save(state, checkpoint_id="dcp")
        return lambda: None

    def dcp_async(_: int) -> Callable[[], Any]:
        return dcp.async_save(state, checkpoint_id="async").result  # type: ignore[union-attr]

    return {
        "copy": copy,
        "save_checkpoint": ours,
        "torch.save": torch_save,
        "dcp.save": dcp_save,
        "dcp.async_save": dcp_async,
    }


def _synced(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


if __name__ == "__main__":
    alone.main(measure, lambda: checkpoints(7))
