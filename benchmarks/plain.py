"""What torch does by itself, in a fresh process: the other side of the ratios."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

LIMIT_S = 120.0


def measured(what: str) -> float:
    """Seconds that `what` took in a process of its own."""
    if what == "import":
        began_s = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True, timeout=LIMIT_S)
        return time.perf_counter() - began_s
    return float(_in_a_process(what))


def elastic(start_method: str, monitor_interval_s: float, launches: int) -> tuple[list[float], list[float]]:
    """Seconds from the call of `elastic_launch` to rank 0's first line, and to its end, of each launch."""
    found = _in_a_process("elastic", start_method, str(monitor_interval_s), str(launches))
    return [first for first, _ in found], [whole for _, whole in found]


def _in_a_process(*words: str) -> Any:
    command = [sys.executable, "-m", "benchmarks.plain", *words]
    done = subprocess.run(command, check=True, timeout=LIMIT_S, capture_output=True, text=True)
    return json.loads(done.stdout)


def spawn() -> float:
    """`torch.multiprocessing.spawn` of two ranks to the end of an all_reduce; torch is imported already."""
    from torch.multiprocessing.spawn import spawn as spawn_ranks

    began_s = time.perf_counter()
    spawn_ranks(rank_of_spawn, nprocs=2)  # type: ignore[no-untyped-call]
    return time.perf_counter() - began_s


def rank_of_spawn(rank: int) -> None:
    import torch
    import torch.distributed as dist

    init(rank, 2)
    dist.all_reduce(torch.ones(1))
    dist.destroy_process_group()


def ddp() -> float:
    """The first `DDP(model)` of a process, with its process group up."""
    import torch
    from torch.nn.parallel import DistributedDataParallel

    init(0, 1)
    model = torch.nn.Linear(10, 1)
    began_s = time.perf_counter()
    DistributedDataParallel(model)
    return time.perf_counter() - began_s


def launches(start_method: str, monitor_interval_s: str, count: str) -> list[tuple[float, float]]:
    """A function without work on 2 ranks, as Flyte's elastic task launches it; torch is imported already."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    found = []
    for _ in range(int(count)):
        config = LaunchConfig(
            run_id="benchmark",
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=2,
            start_method=start_method,
            monitor_interval=float(monitor_interval_s),
            max_restarts=0,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            rdzv_configs={"timeout": 900, "join_timeout": 900},
        )
        began_ns = time.time_ns()
        values = elastic_launch(config, rank_of_elastic)()
        end_ns = time.time_ns()
        found.append(((values[0] - began_ns) / 1e9, (end_ns - began_ns) / 1e9))
    return found


def rank_of_elastic() -> int:
    return time.time_ns()


def init(rank: int, world_size: int) -> None:
    import torch.distributed as dist

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=os.environ.get("MASTER_PORT", "29611"))
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", rank=rank, world_size=world_size)


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    measure: Any = {"spawn": spawn, "ddp": ddp, "elastic": launches}[what]
    print(json.dumps(measure(*arguments)))
