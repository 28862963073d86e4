"""Sharded state: saved by every rank a part, loaded on any number of ranks; FSDP2 on gloo, in real
processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

LIMIT_S = 180

RANKS = """
import json, os, sys, time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from quarterdeck.checkpointing import rank_rendezvous as joining
from quarterdeck.context import Context, working_for
from quarterdeck.checkpointing.save import Checkpoints, flush, load_checkpoint, save_checkpoint

if __name__ == "__main__":
    os.environ.update(GLOO_SOCKET_IFNAME="lo", TORCH_CPP_LOG_LEVEL="ERROR", OMP_NUM_THREADS="1")


class Net(torch.nn.Module):
    # 7 rows on 4 ranks: one of them has none of `narrow`.
    def __init__(self):
        super().__init__()
        self.wide = torch.nn.Linear(6, 8)
        self.narrow = torch.nn.Linear(8, 3)
        self.register_buffer("scale", torch.arange(3.0))

    def forward(self, x):
        return self.narrow(self.wide(x).relu()) * self.scale


def made(seed, sharded, mesh=None):
    torch.manual_seed(seed)
    model = Net()
    if sharded:
        from torch.distributed.fsdp import fully_shard

        for part in (model.wide, model.narrow, model):
            fully_shard(part, mesh=mesh)
    decay = [model.wide.weight, model.narrow.weight]
    rest = [model.wide.bias, model.narrow.bias]
    return model, torch.optim.AdamW([{"params": decay, "weight_decay": 0.3}, {"params": rest}], lr=0.01)


def train(model, optimizer, seed=5):
    torch.manual_seed(seed)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 6)).square().sum().backward()
        optimizer.step()


def full(value):
    return value.full_tensor().tolist() if hasattr(value, "full_tensor") else value.tolist()


def contents(model, optimizer):
    state = optimizer.state_dict()
    moments = {str(at): {key: full(it) for key, it in items.items()} for at, items in state["state"].items()}
    groups = [[group["weight_decay"], group["params"]] for group in state["param_groups"]]
    return {"model": {name: full(value) for name, value in model.state_dict().items()}, "state": moments,
            "groups": groups}


def entry(rank, world, work, out):
    torch.set_num_threads(1)
    store = dist.FileStore(f"{out}.store", world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=60))
    with working_for(Context(run_id="r", rank=rank, world_size=world, run_dir=Path("run").absolute())):
        try:
            found = WORK[work](rank, world)
            flush()
        except BaseException as error:
            found = f"{type(error).__name__}: {error}"
    Path(f"{out}.{rank}").write_text(json.dumps(found))
    limit_s = time.monotonic() + 60  # who leaves first breaks the connections of one that is still joining
    while time.monotonic() < limit_s and not all(Path(f"{out}.{one}").exists() for one in range(world)):
        time.sleep(0.01)
    os._exit(0)


def save_fsdp(rank, world):
    model, optimizer = made(1, True)
    train(model, optimizer)
    path = save_checkpoint(model, optimizer, step=3, metrics={"loss": 1.0}, extra={"note": "x"}, rng=True)
    before = contents(model, optimizer)
    train(model, optimizer, 6)  # while it is written
    flush()
    return [path, before]


def save_mesh(rank, world):
    # Two replicas of two shards each.
    from torch.distributed.device_mesh import init_device_mesh

    model, optimizer = made(1, True, init_device_mesh("cpu", (2, 2), mesh_dim_names=("replica", "shard")))
    train(model, optimizer)
    save_checkpoint(model, optimizer, step=3, wait=True)
    return [None, contents(model, optimizer)]


def load_fsdp(rank, world):
    model, optimizer = made(2, True)
    at = load_checkpoint(into=(model, optimizer))
    return [[at.step, at.extra], contents(model, optimizer)]


def load_alone(rank, world):
    # Without any collective: one rank loads, the others do not.
    if rank == 0:
        model, optimizer = made(2, False)
        load_checkpoint("best:loss", into=(optimizer, model))
        return [None, contents(model, optimizer)]


def missing(rank, world):
    joining.JOIN_LIMIT_S = 1.0
    model, optimizer = made(1, True)
    if rank != 1:
        save_checkpoint(model, optimizer, step=4)


def save_plain(rank, world):
    model, optimizer = made(1, False)
    train(model, optimizer)
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    save_checkpoint(wrapped, optimizer, step=3, metrics={"loss": 1.0}, extra={"note": "x"}, wait=True)
    return [None, contents(model, optimizer)]


WORK = {work.__name__: work for work in (save_fsdp, save_mesh, load_fsdp, load_alone, missing, save_plain)}


def run(work, world):
    out = str(Path(f"{work}-{world}").absolute())
    mp.start_processes(entry, (world, work, out), nprocs=world, start_method="fork")
    os.remove(f"{out}.store")
    return [json.loads(Path(f"{out}.{rank}").read_text()) for rank in range(world)]


if __name__ == "__main__":
    # What they all need late, once, before they are forked.
    import torch._dynamo
    import torch.distributed.checkpoint
    import torch.distributed.fsdp

    orders = [order.split(":") for order in sys.argv[1:]]
    print(json.dumps([run(work, int(world)) for work, world in orders]))
"""


def ranks(folder: Path, *orders: str) -> list[list[Any]]:
    """What the ranks of each order, "work:number of ranks", returned."""
    (folder / "ranks.py").write_text(RANKS)
    command = [sys.executable, "ranks.py", *orders]
    ran = subprocess.run(command, cwd=folder, timeout=LIMIT_S, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found: list[list[Any]] = json.loads(ran.stdout.splitlines()[-1])
    return found


def plain() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    scope: dict[str, Any] = {"__name__": "ranks"}
    exec(RANKS, scope)
    made: tuple[torch.nn.Module, torch.optim.Optimizer] = scope["made"](2, False)
    return made


def test_saved_on_4_ranks_loaded_on_2_and_on_1(tmp_path: Path) -> None:
    saved, on_2, on_1, alone = ranks(tmp_path, "save_fsdp:4", "load_fsdp:2", "load_fsdp:1", "load_alone:2")
    path, state = saved[0]
    assert all(other == [path, state] for other in saved)
    names = set(os.listdir(path))
    assert {".metadata", "__0_0.distcp", "__3_0.distcp", "optimizer.pt", "rank-00003.pt"} <= names
    for loaded in (*on_2, *on_1):
        assert loaded == [[3, {"note": "x"}], state]
    assert alone[0][1] == state
    _read_here(tmp_path, path, state)
    _read_by_torch(tmp_path, path, state)


def _read_here(folder: Path, path: str, state: dict[str, Any]) -> None:
    """In a notebook: listed without a tensor, loaded into a plain model, exported."""
    from quarterdeck.checkpointing.save import Checkpoints, load_checkpoint

    (checkpoint,) = Checkpoints(folder / "run" / "checkpoints")
    assert checkpoint.valid
    assert checkpoint.manifest.sharded
    assert checkpoint.manifest.world_size == 4
    shapes = {info.name: info.shape for info in checkpoint.tensors if info.part == "model"}
    assert shapes == {
        "wide.weight": (8, 6), "wide.bias": (8,), "narrow.weight": (3, 8), "narrow.bias": (3,), "scale": (3,),
    }  # fmt: skip
    assert any(info.name == "state.wide.weight.exp_avg" for info in checkpoint.tensors)
    model, optimizer = plain()
    load_checkpoint(path, into=(model, optimizer), verify=True)
    assert {name: value.tolist() for name, value in model.state_dict().items()} == state["model"]
    moments = optimizer.state_dict()["state"]
    for at, items in state["state"].items():
        assert {key: value.tolist() for key, value in moments[int(at)].items()} == items
    model, optimizer = plain()
    load_checkpoint(checkpoint.export(folder / "whole.pt"), into=(model, optimizer))
    assert model.state_dict()["narrow.weight"].tolist() == state["model"]["narrow.weight"]
    assert optimizer.state_dict()["state"][1]["exp_avg"].tolist() == state["state"]["1"]["exp_avg"]
    model, _ = plain()
    load_checkpoint(checkpoint.export(folder / "whole.safetensors"), into=model)
    assert model.state_dict()["narrow.weight"].tolist() == state["model"]["narrow.weight"]


def _read_by_torch(folder: Path, path: str, state: dict[str, Any]) -> None:
    """torch.distributed.checkpoint's own readers take it for one of theirs."""
    from torch.distributed import checkpoint as dcp
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    model, _ = plain()
    wanted = {"model": model.state_dict()}
    dcp.load(wanted, checkpoint_id=path, no_dist=True)
    assert {name: value.tolist() for name, value in wanted["model"].items()} == state["model"]
    dcp_to_torch_save(path, folder / "torch.pt")
    whole = torch.load(folder / "torch.pt", weights_only=True)
    moments = whole["optimizer"]["state"]["narrow.bias"]
    assert moments["exp_avg"].tolist() == state["state"]["3"]["exp_avg"]


def test_replicas_of_shards_are_saved_once(tmp_path: Path) -> None:
    saved, loaded = ranks(tmp_path, "save_mesh:4", "load_fsdp:2")
    assert len(list((tmp_path / "run/checkpoints/step-00000003").glob("*.distcp"))) == 2
    assert loaded[1][1] == saved[0][1]


def test_a_plain_checkpoint_loads_into_a_sharded_model(tmp_path: Path) -> None:
    saved, loaded = ranks(tmp_path, "save_plain:2", "load_fsdp:2")
    assert loaded == [[[3, {"note": "x"}], saved[0][1]]] * 2


def test_a_rank_that_does_not_join_is_an_error_that_names_it(tmp_path: Path) -> None:
    _, texts, loaded = ranks(tmp_path, "save_fsdp:3", "missing:3", "load_fsdp:2")
    assert "rank 1 has not joined the save of step 4" in texts[0]
    assert "rank 1 has not joined the save of step 4" in texts[2]
    assert texts[1] is None
    assert loaded[0][0][0] == 3
