"""A training that was killed, and continued from its last checkpoint, ends as if nothing had happened: every
bit of its weights, of its optimizer and of its curves is that of a run which nobody disturbed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import fresh_notebook
from support.notebook import Notebook

LOAD = "%load_ext quarterdeck\nimport quarterdeck as qd"

# 18 steps, 6 to an epoch; a checkpoint after every fourth: step 7 is inside an epoch, step 11 ends one.
TRAINING = """
import os, signal, time
import torch
from quarterdeck.checkpointing.checkpoint import Checkpoints
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, Sampler, TensorDataset


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 1))


class Shuffled(Sampler):
    '''Every epoch in another order, of which each rank has its share. Knows how far it is.'''

    def __init__(self, count, rank, world_size):
        self.count, self.rank, self.world_size = count, rank, world_size
        self.epoch = self.position = 0

    def __iter__(self):
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(self.epoch))
        for item in order[self.rank :: self.world_size].tolist()[self.position :]:
            self.position += 1
            yield item
        self.epoch, self.position = self.epoch + 1, 0

    def __len__(self):
        return self.count // self.world_size

    def state_dict(self):
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state):
        self.epoch, self.position = state["epoch"], state["position"]


def examples():
    x = torch.randn(96, 16, generator=torch.Generator().manual_seed(7))
    return TensorDataset(x, x.square().sum(dim=1, keepdim=True).sin())


def die_once_saved(step):
    saved = qd.current().run_dir / "checkpoints"
    limit_s = time.monotonic() + 20
    while (latest := Checkpoints(saved).latest) is None or latest.step < step:
        assert time.monotonic() < limit_s, f"the checkpoint of step {step} is not complete after 20 s"
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


def train(dies_after=(), epochs=3):
    '''What a rank does. Attempt N is killed at `dies_after[N]`.'''
    torch.set_num_threads(1)
    here = qd.current()
    torch.manual_seed(here.rank)
    model = DDP(Net())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=18)
    sampler = Shuffled(96, here.rank, here.world_size)
    loader = DataLoader(examples(), batch_size=8, sampler=sampler, generator=torch.Generator())

    at = qd.load_checkpoint("latest", into=(model, optimizer, scheduler, sampler), rng=True)
    step = first = at.step + 1 if at else 0
    while sampler.epoch < epochs:
        for x, y in loader:
            loss = (model(x) - y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            qd.log(loss=loss, step=step)
            if step % 4 == 3 or step == 17:
                qd.save_checkpoint(
                    model, optimizer, scheduler, step=step, metrics={"loss": loss}, rng=True, sampler=sampler
                )
            if here.rank == 1 and here.attempt < len(dies_after) and step == dies_after[here.attempt]:
                die_once_saved(step // 4 * 4 - 1)
            step += 1
    state = {
        "model": model.module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "next random numbers": torch.rand(8),
    }
    torch.save((first, state), f"{here.run_id}-{here.rank}.pt")


elastic = qd.distributed(qd.Elastic(nproc_per_node=2, max_restarts=2))(train)


def same(one, other):
    '''Every bit; order of keys aside.'''
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def ended(run):
    '''Of every rank: where its last attempt began, and what it had in the end; of every rank its curve.'''
    assert run.wait(90) and run.status == "succeeded", (run.status, run.reason, run.logs())
    firsts, states = zip(*(torch.load(f"{run.run_id}-{rank}.pt") for rank in (0, 1)))
    loss = run.metrics["loss"]
    return firsts, states, [(list(loss.steps(rank)), list(loss.values(rank))) for rank in (0, 1)]


def assert_as_undisturbed(run, first):
    firsts, states, curves = ended(run)
    assert set(firsts) == {first}, firsts
    for rank in (0, 1):
        for part, state in undisturbed[1][rank].items():
            assert same(state, states[rank][part]), (rank, part)
    assert curves == undisturbed[2]
"""
UNDISTURBED = """
undisturbed = ended(elastic.submit())
assert undisturbed[0] == (0, 0) and undisturbed[2][0][0] == list(range(18))
assert not same(*undisturbed[1]), "dropout is the same on both ranks"
"""


@pytest.fixture(scope="module", autouse=True)
def prepared(notebook: Notebook) -> None:
    notebook.deadline_s = 120
    notebook.ok("import quarterdeck as qd")
    notebook.ok(TRAINING)
    notebook.ok(UNDISTURBED)


def test_a_second_run_without_a_kill_is_equal_too_so_that_equal_means_something(notebook: Notebook) -> None:
    notebook.ok("assert_as_undisturbed(elastic.submit(), 0)")
    notebook.ok("""
other = ended(elastic.submit(epochs=2))
assert not same(other[1][0]["model"], undisturbed[1][0]["model"])
""")


def test_a_function_killed_inside_an_epoch_and_at_the_next_ends_bit_equal(notebook: Notebook) -> None:
    notebook.ok("""
run = elastic.submit(dies_after=(9,))
assert_as_undisturbed(run, 8)
assert run.attempt == 1
run = elastic.submit(dies_after=(9, 13))
assert_as_undisturbed(run, 12)
assert run.attempt == 2
""")


def test_so_does_a_cell(notebook: Notebook) -> None:
    ran = notebook.ok("%%distributed -n 2 --max-restarts 2 --as run\ntrain(dies_after=(9, 13))")
    assert "rank 1 was killed by SIGKILL" in ran.text
    assert "UserWarning" not in ran.text, "a loss with a gradient is a number like any other"
    notebook.ok("assert run.attempt == 2\nassert_as_undisturbed(run, 12)")


def test_a_detached_run_restarts_to_the_same_end(notebook: Notebook) -> None:
    notebook.ok("run = elastic.submit(dies_after=(9,), detach=True)\nassert_as_undisturbed(run, 8)")


def test_one_killed_before_its_first_checkpoint_begins_again(notebook: Notebook) -> None:
    code = "import os\nif qd.current().attempt == 0 and rank: os.kill(os.getpid(), 9)\ntrain()"
    notebook.ok(f"%%distributed -n 2 --max-restarts 1 --as run\n{code}")
    notebook.ok("assert run.attempt == 1\nassert_as_undisturbed(run, 0)")


@pytest.mark.parametrize("ranks", [1, 3])
def test_any_other_number_of_ranks_loads_equal_weights(notebook: Notebook, ranks: int) -> None:
    notebook.ok("ended(elastic.options(name='whole').submit())")
    notebook.ok(f"""
@qd.distributed(qd.Elastic(nproc_per_node={ranks}), resume="whole")
def weights():
    model = Net()
    optimizer = torch.optim.Adam(model.parameters())
    at = qd.load_checkpoint("latest", into=(model, optimizer))
    return at.step, model.state_dict(), optimizer.state_dict()

results = weights.submit().results
assert len(results) == {ranks}
for result in results:
    step, model, optimizer = result.return_value
    assert step == 17
    assert same(model, undisturbed[1][0]["model"])
    assert same(optimizer, undisturbed[1][0]["optimizer"])
""")


def test_the_notebook_itself_loads_equal_weights(notebook: Notebook) -> None:
    notebook.ok("""
run = elastic.submit(dies_after=(9,))
ended(run)
assert [one.step for one in run.checkpoints if one.valid] == [3, 7, 11, 15, 17]
net = Net()
assert qd.load_checkpoint(run.checkpoints.latest, into=net).step == 17
assert same(net.state_dict(), undisturbed[1][0]["model"])
""")


def test_a_save_that_a_rank_does_not_join_is_an_error_and_the_session_goes_on(notebook: Notebook) -> None:
    ran = notebook.fails("%%distributed -n 2\nif rank == 0: qd.save_checkpoint(Net(), step=1, rng=True)", 40)
    assert "CheckpointError: rank 1 has not joined the save of step 1 within 5 s" in ran.traceback
    assert notebook.ok("%%distributed\nworld_size").lines() == ["[0\u20131] 2"]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Notebook]:
    with fresh_notebook(tmp_path) as started:
        started.deadline_s = 120
        yield started


def test_a_run_continued_after_a_kernel_restart_ends_bit_equal(own: Notebook) -> None:
    own.ok(f"{LOAD}\n{TRAINING}")
    cell = "%%distributed -n 2 {options} --name train --as run\ntrain({dies})"
    ran = own.fails(cell.format(options="--fresh", dies="dies_after=(9,)"))
    assert "SIGKILL" in ran.traceback
    own.restart()
    own.ok(f"{LOAD}\n{TRAINING}\n{UNDISTURBED}")
    own.ok(cell.format(options="--resume latest", dies=""))
    own.ok("assert_as_undisturbed(run, 8)\nassert run.parent.status == 'failed'")
    own.ok("""
again = elastic.options(resume=run.parent).submit()
assert_as_undisturbed(again, 8)
""")


# ---- sharded over the ranks

SHARDED = """
from torch.distributed.fsdp import fully_shard


@qd.distributed(qd.Elastic(nproc_per_node=2, max_restarts=1), name="sharded")
def train_sharded(dies_after=None):
    torch.set_num_threads(1)
    here = qd.current()
    torch.manual_seed(0)
    model = fully_shard(nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 1)))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    at = qd.load_checkpoint("latest", into=(model, optimizer))
    first = at.step + 1 if at else 0
    for step in range(first, 8):
        x = torch.randn(6, 7, generator=torch.Generator().manual_seed(10 * step + here.rank))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        qd.save_checkpoint(model, optimizer, step=step, keep_last=2)
        if here.rank == 1 and here.attempt == 0 and step == dies_after:
            die_once_saved(step - 1)
    return first, {name: tensor.full_tensor() for name, tensor in model.state_dict().items()}


def weights(run):
    net = nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 1))
    at = qd.load_checkpoint(run.checkpoints.latest, into=net)
    return at.step, dict(net.state_dict())
"""


def test_a_sharded_model_goes_on_as_well_and_is_loaded_whole_by_the_notebook(notebook: Notebook) -> None:
    notebook.ok(SHARDED)
    notebook.ok("""
calm = train_sharded.submit()
first, expected = calm.result(50)
assert first == 0
run = train_sharded.submit(dies_after=4)
first, found = run.result(50)
assert first in (4, 5) and run.attempt == 1
assert same(found, expected)
for one in (calm, run):
    step, loaded = weights(one)
    assert step == 7 and same(loaded, expected)
""")
