"""Runs that are stopped, refused or cut off at a bad moment: each ends, nothing stays, the next one works."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from support.notebook import Notebook
from support.waiting import until

PREPARE = """
import os, signal, threading, time
import quarterdeck as qd
from quarterdeck.kernel import coordinator_process as coordinator
two = qd.Elastic(nproc_per_node=2)

@qd.distributed(two)
def works(x):
    import torch, torch.distributed as dist
    ones = torch.ones(1)
    dist.all_reduce(ones)
    return int(ones) + x

@qd.distributed(qd.Elastic(nproc_per_node=2, max_restarts=1))
def dies(rank, after_s):
    if int(os.environ["RANK"]) == rank:
        time.sleep(after_s)
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)

def descriptors():
    return len(os.listdir(f"/proc/{coordinator.current().process.pid}/fd"))

def settled(before):
    deadline = time.monotonic() + 3
    while (now := descriptors()) > before and time.monotonic() < deadline:
        time.sleep(0.02)
    return now
"""


@pytest.fixture(scope="module", autouse=True)
def prepared(notebook: Notebook) -> None:
    notebook.deadline_s = 20
    notebook.ok(PREPARE)


@pytest.fixture(autouse=True)
def the_next_one_works(notebook: Notebook) -> Iterator[None]:
    yield
    assert notebook.ok("works(40)").text == "42"
    assert notebook.ok("%%distributed\nworld_size").lines() == ["[0\u20131] 2"]


def test_stops_at_any_moment_leave_nothing(notebook: Notebook) -> None:
    """Also several, which must not cut the end of a starting group short."""
    ran = notebook.ok("""
import random
rng, runs = random.Random(7), []
before = descriptors()
for i in range(16):
    run = dies.submit(rng.choice([0, 1, 5]), rng.random() * 0.1)
    runs.append(run)
    time.sleep(i * 0.012)
    for _ in range(1 + i % 3):
        run.stop()
        time.sleep(0.002)
assert all(run.wait(15) for run in runs)
assert {run.status for run in runs} <= {"stopped", "succeeded"}
assert all(run._fresh().state == run.status for run in runs)
assert settled(before) <= before, (settled(before), before)
errors = coordinator.current().last_errors()
assert "Traceback" not in errors, errors
""")
    assert ran.status == "ok"


def test_a_message_that_cannot_be_read_is_refused(notebook: Notebook) -> None:
    notebook.ok("""
from quarterdeck.kernel.coordinator_process import Refusal
from quarterdeck.protocol.kernel import Ask
with coordinator.current().call(Ask(what=7, session=3)) as call:
    assert call.channel.poll(5)
    try:
        call.receive()
    except Refusal as refusal:
        print(refusal)
""")
    assert "could not be read" in notebook.screen.ran.text


def test_a_refused_run_leaves_no_descriptors(notebook: Notebook) -> None:
    notebook.ok("import numpy as np\nbig = np.zeros(100_000)")
    notebook.ok("%%distributed --setup\ntotal = big.sum()")
    notebook.ok("""
@qd.distributed(qd.Elastic(nproc_per_node=1), backend="nccl")
def impossible():
    pass
works(1)
before = settled(0)
for _ in range(5):
    try:
        impossible()
    except qd.UsageError:
        pass
    else:
        before = None  # this machine has a GPU
        break
assert before is None or settled(before) <= before, (settled(before), before)
""")


def test_a_forked_child_that_returns_answers_nothing(notebook: Notebook) -> None:
    """The run's value is that of the process that the worker is."""
    notebook.ok("""
@qd.distributed(two)
def forks():
    if os.fork() == 0:
        return "the child"
    time.sleep(0.3)
    return "the worker"
""")
    assert notebook.ok("forks()").text == "'the worker'"
    ran = notebook.ok("%%distributed\nimport os, time\nif os.fork(): time.sleep(0.3); print('last')")
    assert ran.lines() == ["[0\u20131] last"]


def test_a_hanging_replay_of_a_setup_cell_can_be_interrupted(notebook: Notebook) -> None:
    notebook.ok("""
%%distributed --setup
import os, time
if os.path.exists('hang'):
    open('hangs', 'w').close()
    time.sleep(60)
""")
    notebook.ok("open('hang', 'w').close()")
    os.kill(notebook.worker_pids()[1], signal.SIGKILL)
    until((notebook.folder / "hangs").exists)  # before that, the interrupt ends the rank's start
    assert "Interrupting" in notebook.ok("%workers interrupt").text
    ran = notebook.ok("%%distributed\nworld_size", deadline_s=10)
    assert "it was interrupted" in ran.text

    os.kill(notebook.worker_pids()[0], signal.SIGKILL)
    os.remove(notebook.folder / "hang")
    notebook.ok("%workers stop")
    notebook.ok("%workers start -n 2")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["%%distributed\nprint('next')", "works(1)"])
def test_a_replay_of_a_setup_cell_that_hangs_is_named_with_its_line(notebook: Notebook, where: str) -> None:
    notebook.ok(
        "%%distributed --setup\nimport os, time\nwhile os.path.exists('hang'): time.sleep(0.1)  # here"
    )
    notebook.ok("open('hang', 'w').close()")
    if where.startswith("%%"):
        os.kill(notebook.worker_pids()[1], signal.SIGKILL)
        time.sleep(1)  # its death is known, and the replay has begun
    cell = notebook.start(where)
    try:
        notebook.until("not finished a --setup cell after 10 s", deadline_s=25)
        assert "line 3" in notebook.screen.ran.text
    finally:
        os.remove(notebook.folder / "hang")
    assert notebook.finish(cell, deadline_s=40).status == "ok"
    notebook.ok("%workers stop")
    notebook.ok("%workers start -n 2")


def test_a_run_stopped_in_its_setup_cell_ends(notebook: Notebook) -> None:
    (notebook.folder / "hangs").unlink(missing_ok=True)
    notebook.ok(
        "%%distributed --setup\nimport os, time\nif os.path.exists('hang'):\n"
        "    open('hangs', 'w').close()\n    time.sleep(60)"
    )
    ran = notebook.ok("""
open("hang", "w").close()
run = works.submit(1)
while run.status != "running" or not os.path.exists("hangs"):
    time.sleep(0.01)
run.stop()
assert run.wait(3), run
os.remove("hang")
""")
    assert ran.status == "ok"
    assert notebook.ok("run.status").text == "'stopped'"
    notebook.ok("%workers stop")
    notebook.ok("%workers start -n 2")


def test_a_chart_that_cannot_be_drawn_is_a_notice(notebook: Notebook) -> None:
    notebook.ok("""
import quarterdeck.metrics.plot as module
kept = module.plot
def broken(*_, **__):
    raise RuntimeError("no such style")
module.plot = broken
""")
    ran = notebook.ok("%%distributed\nimport quarterdeck as qd\nqd.log(loss=1.0)\nrank")
    assert ran.text.count("The run cannot be drawn: RuntimeError: no such style") == 1
    notebook.ok("module.plot = kept")


def test_two_threads_may_ask_at_once(notebook: Notebook) -> None:
    notebook.ok("""
from concurrent.futures import ThreadPoolExecutor
run = works.submit(1)
with ThreadPoolExecutor(8) as pool:
    answers = list(pool.map(lambda i: (run.result(15), run.stop(), run.wait(1), run.attempt), range(32)))
assert set(answers) == {(3, None, True, 0)}, answers
""")
