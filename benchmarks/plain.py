"""What torch does by itself, in a fresh process: the other side of the ratios."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

LIMIT_S = 120.0


def measured(what: str) -> float:
    """Seconds that `what` took in a process of its own."""
    if what == "import":
        began_s = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True, timeout=LIMIT_S)
        return time.perf_counter() - began_s
    command = [sys.executable, "-m", "benchmarks.plain", what]
    done = subprocess.run(command, check=True, timeout=LIMIT_S, capture_output=True, text=True)
    return float(json.loads(done.stdout))


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


def init(rank: int, world_size: int) -> None:
    import torch.distributed as dist

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=os.environ.get("MASTER_PORT", "29611"))
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", rank=rank, world_size=world_size)


if __name__ == "__main__":
    print({"spawn": spawn, "ddp": ddp}[sys.argv[1]]())
