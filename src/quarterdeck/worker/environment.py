"""What a new worker takes over from the kernel, and what is done for each rank without asking. Main thread of
the worker.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from quarterdeck.protocol.worker import Join
from quarterdeck.worker.group import torchrun_environment


def take_over(join: Join) -> None:
    """Environment, working directory, import path, threads and seeds of a worker that has just started."""
    os.environ.clear()
    os.environ.update(join.whole_environ)
    os.environ.setdefault("TORCH_DISTRIBUTED_DEBUG", "INFO")  # DDP's errors name parameters
    torch.distributed.set_debug_level_from_env()  # type: ignore[attr-defined]
    if os.path.isdir(join.cwd):
        os.chdir(join.cwd)
    sys.path[:] = join.sys_path
    seed_everything(int.from_bytes(os.urandom(7), "little"), join.rank)


def export_rank(join: Join) -> None:
    """torchrun's variables, new in every incarnation, and this rank's share of the cores unless the user
    chose.
    """
    os.environ.update(torchrun_environment(join))
    if join.threads is not None:
        torch.set_num_threads(join.threads)
        os.environ["OMP_NUM_THREADS"] = str(join.threads)


def seed_everything(seed: int, rank: int) -> None:
    """Seed Python's, numpy's and torch's generators from (seed, rank): same seed, same run; every rank its
    own stream.
    """

    def derived(generator: str, bits: int) -> int:
        digest = hashlib.sha256(f"{seed}:{generator}:{rank}".encode()).digest()
        return int.from_bytes(digest[:8], "little") >> (64 - bits)

    random.seed(derived("python", 64))
    torch.manual_seed(derived("torch", 63))
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(derived("numpy", 32))


def select_device(name: str) -> torch.device:
    """This rank's device, made current if it is a GPU; before the process group is made, as NCCL wants it."""
    device = torch.device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


@contextmanager
def environment(changes: dict[str, str]) -> Iterator[None]:
    """`--env` of one cell: set for its duration."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
