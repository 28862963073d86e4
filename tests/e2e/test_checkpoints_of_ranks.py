"""Checkpoints that several ranks of a notebook's cell save, each in its own time."""

from __future__ import annotations

import pytest

from support.notebook import Notebook

# What a rank has just saved is found, and all load the same.
FOUND = """%%distributed -n 2
import time, torch, quarterdeck as qd, torch.distributed as dist
torch.manual_seed(rank)
model, other = torch.nn.Linear(300, 300), torch.nn.Linear(300, 300)
missed = older = 0
for step in range(15):
    {barrier}
    time.sleep({delay})
    qd.save_checkpoint(model, step=step, metrics={{"loss": 1 / (1 + step % 4) + rank}}, wait=True)
    latest = qd.load_checkpoint("latest")
    older += latest is None or latest.step < step
    try:
        qd.load_checkpoint(step)
    except qd.UsageError:
        missed += 1
    qd.load_checkpoint("best:loss", into=other)
    {barrier}
sums = [torch.zeros(1, dtype=torch.double) for _ in range(2)]
dist.all_gather(sums, other.weight.double().sum().view(1))
(older, missed, bool(sums[0] == sums[1]))"""

MEAN = """%%distributed -n 2 --name {name}
import time, torch, quarterdeck as qd
model = torch.nn.Linear(2, 2)
for step in range(6):
    if {who}:
        if rank == step % 2:
            time.sleep(0.05)
        loss = abs(step - 2) + rank * 2
        qd.save_checkpoint(model, step=step, metrics={{"loss": loss}}, keep_best="loss")
"""

STAGES = """%%distributed -n 2
import torch, quarterdeck as qd
model = torch.nn.Sequential()
model.add_module(f"stage{{rank}}", torch.nn.Linear(4, 4))
qd.save_checkpoint(model, step=1, wait=True{more})
"""


@pytest.fixture(scope="module", autouse=True)
def prepared(notebook: Notebook) -> None:
    notebook.deadline_s = 60
    notebook.ok("import quarterdeck as qd")


@pytest.mark.parametrize(
    ("barrier", "delay"), [("dist.barrier()", "0"), ("pass", "0"), ("pass", "0.01 * rank")]
)
def test_what_a_rank_has_saved_it_finds_and_all_load_the_same(
    notebook: Notebook, barrier: str, delay: str
) -> None:
    ran = notebook.ok(FOUND.format(barrier=barrier, delay=delay))
    assert "(0, 0, True)" in ran.text, ran.text


def test_metrics_are_the_mean_and_the_best_by_it_stays(notebook: Notebook) -> None:
    notebook.ok(MEAN.format(name="mean", who="True"))
    found = notebook.ok("print([(c.step, c.metrics['loss']) for c in qd.runs()['mean'].checkpoints])")
    assert found.text.strip() == "[(2, 1.0), (5, 4.0)]"


def test_rank_0_alone_may_save_and_only_what_is_to_stay_is_left(notebook: Notebook) -> None:
    notebook.ok(MEAN.format(name="alone", who="rank == 0"))
    found = notebook.ok("found = qd.runs()['alone'].checkpoints; print([c.step for c in found], found[0])")
    assert found.text.startswith("[2, 5] ")
    assert "loss=0 (of 1 of 2 ranks)" in found.text


def test_stages_made_by_hand_are_told_what_to_do(notebook: Notebook) -> None:
    ran = notebook.fails(STAGES.format(more=""))
    assert "saves another state as step 1 than rank" in ran.traceback
    assert "stage1.weight (4, 4) float32" in ran.traceback
    assert "a directory= of its own" in ran.traceback
    notebook.ok(STAGES.format(more=', directory=f"stages/{rank}"'))
    assert (
        notebook.ok("print([len(qd.checkpoints(f'stages/{at}')) for at in (0, 1)])").text.strip() == "[1, 1]"
    )
