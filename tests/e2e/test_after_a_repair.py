"""Whatever broke the process group: what torch had named before still resolves, and so does what is new."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from support.notebook import Notebook

THINGS = """%%distributed
import functools, time, types, warnings
warnings.simplefilter("ignore")
import torch, torch.distributed as dist, torch.distributed.nn.functional as D
import torch.distributed._functional_collectives as functional
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel, RowwiseParallel, SequenceParallel, parallelize_module)

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))

def step(model, clip=False):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model(torch.ones(4, 8)).sum().backward()
    if clip:
        assert float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)) > 0
    optimizer.step()

def summed(value):
    assert float(value) == world_size, value

def a_mesh(**names):
    mesh = init_device_mesh("cpu", (world_size,), **names)
    tensor = distribute_tensor(torch.arange(8.0), mesh, [Shard(0)])
    def use():
        assert float(tensor.full_tensor().sum()) == 28
        assert float(tensor.redistribute(mesh, [Replicate()]).to_local().sum()) == 28
        assert float((tensor + 1).sum().full_tensor()) == 36
        summed(dist_sum(mesh.get_group()))
    return use

def dist_sum(group=None):
    ones = torch.ones(1)
    dist.all_reduce(ones, group=group)
    return ones

def a_named_mesh():
    return a_mesh(mesh_dim_names=("dp",))

def tensor_parallel():
    mesh = init_device_mesh("cpu", (world_size,))
    model = parallelize_module(net(), mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    return lambda: step(model)

def sequence_parallel():
    mesh = init_device_mesh("cpu", (world_size,))
    model = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    plan = {"0": SequenceParallel(), "1": ColwiseParallel(input_layouts=Shard(1)),
            "3": RowwiseParallel(output_layouts=Shard(1))}
    model = parallelize_module(model, mesh, plan)
    def use():
        x = distribute_tensor(torch.ones(2, 4, 8), mesh, [Shard(1)])
        model(x).sum().backward()
    return use

def fsdp2():
    model = net()
    for layer in (model[0], model[2], model):
        fully_shard(layer)
    def use():
        step(model, clip=True)
        assert model[0].weight.full_tensor().shape == (8, 8)
        full = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
        assert rank or full["0.weight"].shape == (8, 8)
    return use

def a_kept_group_name():
    name = dist.group.WORLD.group_name
    return lambda: summed(functional.all_reduce(torch.ones(1), "sum", name))

def nn_functional():
    return lambda: summed(D.all_reduce(torch.ones(1)))

def a_default_argument():
    def reduce(value, group=dist.group.WORLD, *, also=dist.group.WORLD):
        dist.all_reduce(value, group=group)
        assert also is group
        return value
    return lambda: summed(reduce(torch.ones(1)))

def a_closure():
    group = dist.group.WORLD
    return lambda: summed(dist_sum(group))

class Holder:
    group = None

class Slotted:
    __slots__ = ("group",)

def holders():
    world, slotted = dist.group.WORLD, Slotted()
    Holder.group = slotted.group = world
    bound = functools.partial(dist_sum, world)
    held = [{"a": world}, (1, (world, 2)), {world: 3}, {world}, [world], types.SimpleNamespace(group=world)]
    del world
    def use():
        by_name, (_, (in_tuple, _)), as_key, in_set, in_list, space = held
        found = [by_name["a"], in_tuple, *as_key, *in_set, *in_list, space.group, Holder.group, slotted.group]
        assert all(group is dist.group.WORLD for group in found), found
        summed(bound())
    return use

def new_group():
    group = dist.new_group([0, 1])
    return lambda: summed(dist_sum(group))

def ddp():
    model = nn.parallel.DistributedDataParallel(net())
    return lambda: step(model)

def fsdp1():
    model = FullyShardedDataParallel(net(), device_id=torch.device("cpu"))
    return lambda: step(model)

def pipeline():
    module = nn.Linear(8, 8)
    stage = PipelineStage(module, rank, world_size, torch.device("cpu"))
    schedule = ScheduleGPipe(stage, 2, loss_fn=lambda out, target: (out - target).sum())
    def use():
        if rank == 0:
            schedule.step(torch.ones(4, 8))
        else:
            schedule.step(target=torch.ones(4, 8))
    return use

def compiled():
    torch._dynamo.reset()
    mesh = init_device_mesh("cpu", (world_size,))
    @torch.compile(backend="aot_eager")
    def reduce(value):
        return functional.all_reduce(functional.all_reduce(value, "sum", mesh), "sum", dist.group.WORLD)
    return lambda: summed(reduce(torch.ones(1)) / world_size)

MAKERS = [a_mesh, a_named_mesh, tensor_parallel, sequence_parallel, fsdp2, a_kept_group_name, nn_functional,
          a_default_argument, a_closure, holders, new_group, ddp, fsdp1, pipeline, compiled]

def checked(things, when, without=()):
    for name, use in things.items():
        if name not in without:
            try:
                use()
            except Exception as error:
                print(f"{when} {name}: {type(error).__name__}: {str(error)[:200]}")

def made():
    return {maker.__name__: maker() for maker in MAKERS}
"""

USE = """%%distributed
checked(kept, "kept", without={without})
new = made()
checked(new, "new")
checked(kept, "kept, beside new ones", without={without})"""


@pytest.fixture(scope="module", autouse=True)
def things(notebook: Notebook) -> None:
    notebook.ok(THINGS)


def an_error(notebook: Notebook) -> None:
    notebook.fails("%%distributed\nif rank == 0: raise ValueError('boom')\ndist.barrier()")


def a_stop(notebook: Notebook) -> None:
    cell = notebook.start("%%distributed\nprint('begun')\nif rank == 0: dist.barrier()\ntime.sleep(100)")
    notebook.until("begun")
    time.sleep(0.2)
    notebook.interrupt()
    assert notebook.finish(cell).ename == "RunInterrupted"


def a_time_out(notebook: Notebook) -> None:
    notebook.fails("%%distributed --timeout 0.5\nif rank == 0: dist.barrier()\ntime.sleep(100)")


def a_destroy(notebook: Notebook) -> None:
    notebook.ok("%%distributed\nsummed(dist_sum())\ndist.destroy_process_group()")


def a_group_of_ones_own(notebook: Notebook) -> None:
    notebook.ok(
        "%%distributed\ndist.init_process_group('gloo')\ndist.new_group([1, 0])\n"
        "summed(dist_sum())\ndist.destroy_process_group()"
    )


def a_group_that_one_rank_made(notebook: Notebook) -> None:
    notebook.fails("%%distributed\nif rank == 0: dist.new_group([0, 1])\nraise ValueError('boom')")


@pytest.mark.parametrize(
    ("fault", "destroyed"),
    [
        pytest.param(an_error, [], id="an error"),
        pytest.param(a_stop, [], id="a stop", marks=pytest.mark.slow),
        pytest.param(a_time_out, [], id="a time-out", marks=pytest.mark.slow),
        pytest.param(
            a_group_that_one_rank_made, [], id="a group that one rank made alone", marks=pytest.mark.slow
        ),
        pytest.param(a_destroy, ["new_group"], id="destroy_process_group"),
        pytest.param(
            a_group_of_ones_own, ["new_group"], id="init and destroy_process_group", marks=pytest.mark.slow
        ),
    ],
)
def test_what_torch_named_resolves_after(
    notebook: Notebook, fault: Callable[[Notebook], None], destroyed: list[str]
) -> None:
    assert notebook.ok("%%distributed\nkept = made()\nchecked(kept, 'before')").text == ""
    for faults in (1, 2):
        for _ in range(faults):
            fault(notebook)
        assert notebook.ok(USE.format(without=destroyed)).text == ""
