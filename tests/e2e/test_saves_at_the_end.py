"""A checkpoint that a rank has saved is there, also when the run ends before it is written."""

from __future__ import annotations

import pytest

from support.notebook import Notebook

WRITES_S = 7
"""More than a rank has to end after another one failed: 6 s, as it is stuck in a collective or is not."""

PREPARE = f"""
import os, threading, time, warnings
import torch
import quarterdeck as qd
two = qd.Elastic(nproc_per_node=2, max_restarts=1)

def write_slowly():
    real = os.fsync
    def slow(descriptor):
        os.fsync = real
        time.sleep({WRITES_S})
        real(descriptor)
    os.fsync = slow

@qd.distributed(two)
def restarted():
    context = qd.current()
    if context.attempt:
        return qd.load_checkpoint("latest").step
    if context.rank == 0:
        write_slowly()
        qd.save_checkpoint({{"x": torch.ones(2)}}, step=7)
        time.sleep(60)
    time.sleep(0.5)
    raise qd.RecoverableError("after the save")

@qd.distributed(two)
def both_fail():
    if qd.current().rank == 0:
        write_slowly()
        qd.save_checkpoint({{"x": torch.ones(2)}}, step=7)
        raise ValueError("of rank 0")
    time.sleep(1)
    raise KeyError("of rank 1")
"""


@pytest.fixture(scope="module", autouse=True)
def prepared(notebook: Notebook) -> None:
    notebook.deadline_s = 60
    notebook.ok(PREPARE)
    notebook.wait_until_warm()  # else a rank imports what saves first, and there is nothing to wait for yet


def test_the_next_attempt_finds_what_was_being_written_when_another_rank_failed(notebook: Notebook) -> None:
    ran = notebook.ok("restarted()")
    assert ran.lines()[-1] == "7"
    assert "a checkpoint is being written" in ran.text
    assert "SIGTERM" not in ran.text


def test_who_failed_while_its_checkpoint_is_written_is_told_with_its_own_error(notebook: Notebook) -> None:
    notebook.ok("run = both_fail.submit(); run.wait(60)")
    found = notebook.ok(
        "[(o.state, o.ename) for o in run.outcomes], [c.step for c in run.checkpoints if c.valid]"
    )
    assert found.text == "([('error', 'ValueError'), ('error', 'KeyError')], [7])"
