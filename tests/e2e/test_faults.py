"""Whatever goes wrong on the workers: it ends, it is named, and the next cell works."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest

from support.kernel import descendants
from support.notebook import SLOW, Notebook, Ran
from support.waiting import is_gone, seconds_until_gone, until

WORKS = """%%distributed
ones = torch.ones(1)
dist.all_reduce(ones)
print("sum", int(ones), "kept", kept)"""

BEGIN_TRAINING = """%%distributed
torch.manual_seed(rank)
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
x = torch.randn(256, 4)
y = x @ torch.tensor([1.0, 2.0, 3.0, 4.0])

def loss_of():
    return ((model(x).squeeze(1) - y) ** 2).mean()

def step():
    optimizer.zero_grad()
    loss = loss_of()
    loss.backward()
    optimizer.step()
    return loss.item()

losses = [step() for _ in range(3)]"""

TRAIN_ON = """%%distributed
losses += [step() for _ in range(5)]
weights = [torch.empty(1, 4) for _ in range(world_size)]
dist.all_gather(weights, model.module.weight.detach())
print("loss falls:", losses == sorted(losses, reverse=True), "weights equal:", torch.equal(*weights))"""


@pytest.fixture(autouse=True)
def prepared(notebook: Notebook) -> None:
    prepare(notebook)


def prepare(notebook: Notebook, magic: str = "%%distributed") -> Ran:
    return notebook.ok(f"{magic}\nimport os, sys, time\nimport torch, torch.distributed as dist\nkept = 42")


def the_next_cell_works(notebook: Notebook, n: int = 2) -> None:
    ran = notebook.ok(WORKS)
    assert ran.lines() == [f"[0\u2013{n - 1}] sum {n} kept 42"]


def live_below(pids: list[int]) -> list[int]:
    return [child for pid in pids for child in descendants(pid) if not is_gone(child)]


def kill_zygote(notebook: Notebook) -> None:
    """SIGKILL from outside, between two cells; all workers go with it."""
    pids = notebook.worker_pids()
    os.kill(doctor_pid(notebook, "forked from"), signal.SIGKILL)
    notebook.until_missed(pids)


def interrupt_ends(notebook: Notebook, code: str, shown: str = "begun") -> str:
    """Run code that would never end, press Stop: the prompt is back at once. What the notebook showed."""
    cell = notebook.start(f"%%distributed\nprint('begun')\n{code}")
    notebook.until(shown)
    time.sleep(0.3)  # until both ranks are where they hang
    pressed = time.monotonic()
    notebook.interrupt()
    ran = notebook.finish(cell)
    took_s = time.monotonic() - pressed
    print(f"interrupt to prompt: {took_s:.3f} s")
    assert ran.status == "error"
    assert ran.ename == "RunInterrupted"
    assert "stopped by you" in ran.traceback
    assert took_s < 3
    return ran.text + ran.traceback


# ---- interrupt


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("while True: pass", id="pure Python"),
        pytest.param("time.sleep(100)", id="sleep"),
        pytest.param("if rank == 0: dist.all_reduce(torch.ones(1))", id="a collective the peer never joins"),
        pytest.param("dist.recv(torch.ones(1), src=1 - rank)", id="a collective on both ranks"),
        pytest.param("if rank == 1: dist.barrier()", id="barrier of one rank"),
        pytest.param("if rank == 1: dist.monitored_barrier()", id="monitored barrier of one rank"),
        pytest.param("if rank == 0: dist.recv(torch.ones(1), src=1)", id="recv without a send"),
        pytest.param("if rank == 0: dist.init_process_group('gloo')", id="init_process_group of one rank"),
        pytest.param("if rank == 1: dist.new_group([0, 1])", id="new_group of one rank"),
        pytest.param(
            "dist.distributed_c10d._get_default_store().wait(['never'])", id="a key nobody sets in the store"
        ),
        pytest.param("!sleep 100", id="a shell command"),
        pytest.param("import subprocess\nsubprocess.run(['sleep', '100'])", id="a subprocess"),
        pytest.param("import asyncio\nawait asyncio.sleep(100)", id="await"),
        pytest.param(
            "while True:\n    try:\n        time.sleep(0.01)\n    except Exception:\n        pass",
            id="code that swallows every Exception",
        ),
        pytest.param(
            "while True:\n    try:\n        dist.barrier() if rank else time.sleep(0.01)\n"
            "    except Exception:\n        pass",
            id="a collective in code that swallows every Exception",
        ),
    ],
)
def test_interrupt_gives_the_prompt_back_and_keeps_the_variables(notebook: Notebook, code: str) -> None:
    interrupt_ends(notebook, code)
    the_next_cell_works(notebook)


def test_after_an_interrupt_in_ddp_backward_the_same_model_trains_on(notebook: Notebook) -> None:
    notebook.ok(BEGIN_TRAINING)
    interrupt_ends(notebook, "loss = loss_of()\nif rank == 0: loss.backward()")
    assert notebook.ok(TRAIN_ON).lines() == ["[0\u20131] loss falls: True weights equal: True"]
    the_next_cell_works(notebook)


def test_after_an_interrupt_the_workers_of_data_loaders_are_gone(notebook: Notebook) -> None:
    pids = notebook.worker_pids()
    interrupt_ends(
        notebook,
        "class Slow(torch.utils.data.Dataset):\n"
        "    def __len__(self): return 10**6\n"
        "    def __getitem__(self, i): time.sleep(0.01); return i\n"
        "loader = torch.utils.data.DataLoader(Slow(), num_workers=2)\n"
        "for batch in loader: print('batch') if batch == 0 else None",
        shown="batch",
    )
    until(lambda: not live_below(pids), within_s=2)
    the_next_cell_works(notebook)


def test_an_interrupt_that_comes_before_the_first_line_is_not_lost(notebook: Notebook) -> None:
    """While values are unpickled on the workers, user code does not run yet."""
    notebook.ok(SLOW % 0.6)
    cell = notebook.start("%%distributed\nslow\nwhile True: pass")
    until((notebook.folder / "unpickling").exists)
    notebook.interrupt()
    ran = notebook.finish(cell)
    assert ran.ename == "RunInterrupted"
    assert ran.duration_s < 3
    the_next_cell_works(notebook)


def test_code_that_ignores_interrupts_is_ended_by_the_ladder(notebook: Notebook) -> None:
    cell = notebook.start(
        "%%distributed\n"
        "begun = False\n"
        "while rank == 1:\n"
        "    try:\n        begun = begun or not print('begun')\n        time.sleep(0.05)\n"
        "    except KeyboardInterrupt:\n        pass"
    )
    notebook.until("begun")
    notebook.interrupt()
    notebook.until("interrupt again to do it now")
    pressed = time.monotonic()
    notebook.interrupt()
    ran = notebook.finish(cell)
    assert time.monotonic() - pressed < 3
    assert ran.ename == "RunInterrupted"
    assert "Lost: rank 1's variables" in ran.traceback
    assert "the other ranks keep their variables" in ran.traceback
    ran = notebook.ok("%%rank 0\nkept")
    assert "42" in ran.text
    prepare(notebook, "%%rank 1")
    the_next_cell_works(notebook)


def test_a_worker_that_ignores_sigterm_as_well_is_killed(notebook: Notebook) -> None:
    cell = notebook.start(
        "%%distributed\n"
        "import signal\n"
        "if rank == 0:\n"
        "    signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    print('begun')\n"
        "    time.sleep(100)"
    )
    notebook.until("begun")
    notebook.interrupt()
    notebook.until("interrupt again to do it now")
    notebook.interrupt()
    notebook.until("rank 0 does not stop: SIGTERM sent")
    notebook.interrupt()
    ran = notebook.finish(cell)
    assert "rank 0 does not stop: SIGKILL sent" in ran.text
    assert "Lost: rank 0's variables" in ran.traceback
    prepare(notebook, "%%rank 0")
    the_next_cell_works(notebook)


# ---- a rank raises


@pytest.mark.parametrize(
    "waiting", ["dist.all_reduce(torch.ones(1))", "dist.barrier()", "g = dist.new_group([0, 1])"]
)
def test_a_rank_that_raises_releases_those_that_wait(notebook: Notebook, waiting: str) -> None:
    ran = notebook.fails(f"%%distributed\nif rank == 1:\n    raise ValueError('boom')\n{waiting}")
    assert ran.duration_s < 1
    assert ran.traceback.startswith("rank 1 raised ValueError: boom")
    assert "Cell In[" in ran.traceback
    assert "line 3" in ran.traceback
    assert "rank 0 was released" in ran.traceback
    the_next_cell_works(notebook)


def test_a_rank_that_raises_before_backward_costs_neither_model_nor_optimizer(notebook: Notebook) -> None:
    notebook.ok(BEGIN_TRAINING)
    ran = notebook.fails(
        "%%distributed\nloss = loss_of()\nif rank == 1:\n    raise ValueError('boom')\nloss.backward()"
    )
    assert ran.traceback.startswith("rank 1 raised ValueError: boom")
    assert "rank 0 was released" in ran.traceback
    assert notebook.ok(TRAIN_ON).lines() == ["[0\u20131] loss falls: True weights equal: True"]
    the_next_cell_works(notebook)


def test_ranks_that_raise_the_same_show_one_traceback(notebook: Notebook) -> None:
    ran = notebook.fails("%%distributed\n{}['missing']")
    assert ran.traceback.startswith("ranks 0\u20131 raised KeyError: 'missing'")
    assert ran.traceback.count("Traceback (most recent call last)") == 1
    the_next_cell_works(notebook)


def test_ranks_that_raise_differently_are_both_named(notebook: Notebook) -> None:
    ran = notebook.fails("%%distributed\nraise [ValueError, TypeError][rank]('boom')")
    assert "ValueError: boom" in ran.traceback
    assert "TypeError: boom" in ran.traceback
    the_next_cell_works(notebook)


def test_an_error_that_is_its_own_cause_is_an_error_like_any_other(notebook: Notebook) -> None:
    ran = notebook.fails("%%distributed\nboom = ValueError('boom')\nraise boom from boom")
    assert ran.traceback.startswith("ranks 0\u20131 raised ValueError: boom")
    the_next_cell_works(notebook)


def test_four_ranks_are_released_when_one_raises(notebook: Notebook) -> None:
    notebook.ok("%workers restart -n 4")
    prepare(notebook)
    ran = notebook.fails(
        "%%distributed\nif rank == 2: raise ValueError('boom')\ndist.all_reduce(torch.ones(1))"
    )
    assert ran.traceback.startswith("rank 2 raised ValueError: boom")
    assert "ranks 0, 1 and 3 were released" in ran.traceback
    assert ran.duration_s < 2
    the_next_cell_works(notebook, n=4)
    notebook.ok("%workers restart -n 2")


def test_sys_exit_0_is_a_success_and_sys_exit_3_a_failure(notebook: Notebook) -> None:
    assert notebook.ok("%%distributed\nsys.exit(0)").text == ""
    assert notebook.ok("%%distributed\nsys.exit()").text == ""
    ran = notebook.fails("%%distributed\nsys.exit(3)")
    assert "SystemExit: 3" in ran.traceback
    the_next_cell_works(notebook)


# ---- a worker dies

ENDS = {
    "SIGKILL": ("os.kill(os.getpid(), 9)", "killed by SIGKILL: most likely by the out-of-memory killer"),
    "SIGSEGV": ("import ctypes; ctypes.string_at(0)", "killed by SIGSEGV: a crash in C or C++ code"),
    "exit code": ("os._exit(3)", "ended its process with exit code 3"),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_worker_that_dies_is_named_and_replaced(notebook: Notebook, how: str) -> None:
    code, words = ENDS[how]
    notebook.ok("%%distributed\nprecious = rank")
    ran = notebook.fails(f"%%distributed\nif rank == 1: {code}\ndist.barrier()")
    assert ran.duration_s < 2
    assert ran.traceback.startswith(f"rank 1 {words}") or ran.traceback.startswith(f"rank 1 was {words}")
    assert "rank 0" in ran.traceback
    assert re.search("Lost: rank 1's variables .*`kept`", ran.traceback)
    assert notebook.ok("%%rank 0\nprecious").text.endswith("0")
    prepare(notebook, "%%rank 1")
    the_next_cell_works(notebook)


def test_shapes_that_differ_are_named_as_the_cause_of_an_abort(notebook: Notebook) -> None:
    ran = notebook.fails("%%distributed\ndist.all_reduce(torch.ones(100, 10 + rank))")
    assert "rank 0 was killed by SIGABRT" in ran.traceback
    assert "shapes or dtypes that differ between ranks" in ran.traceback
    assert "Received data size doesn't match expected size" in ran.traceback
    prepare(notebook, "%%rank 0")
    the_next_cell_works(notebook)


def test_a_crash_shows_where_in_the_cell_it_happened(notebook: Notebook) -> None:
    ran = notebook.fails("%%distributed\nimport ctypes\nctypes.string_at(0)")
    assert "Cell In[" in ran.traceback
    assert "line 3" in ran.traceback
    assert "Extension modules" not in ran.text + ran.traceback
    assert "quarterdeck/worker" not in ran.text + ran.traceback


def test_a_worker_killed_between_cells_is_named_by_the_next_cell(notebook: Notebook) -> None:
    notebook.kill_workers(1)
    ran = prepare(notebook)
    assert "rank 1 was killed by SIGKILL" in ran.text
    assert "has lost" in ran.text
    the_next_cell_works(notebook)


def test_setup_cells_run_again_on_a_worker_that_replaces_a_lost_one(notebook: Notebook) -> None:
    notebook.ok("%%distributed --setup\nfactor = 7 * (rank + 1)")
    notebook.fails("%%distributed\nif rank == 1: os._exit(1)")
    ran = notebook.ok("%%distributed\nprint('factor', factor)")
    assert set(ran.lines()) == {"[0] factor 7", "[1] factor 14"}
    prepare(notebook, "%%rank 1")
    the_next_cell_works(notebook)


def test_a_setup_cell_brings_along_what_it_refers_to(notebook: Notebook) -> None:
    """Also what had travelled before it; and the other ranks keep what they made of it."""
    notebook.ok("class Scale:\n    factor = 3\nscales = [Scale()]\ndef total():\n    return len(scales)")
    notebook.ok("%%distributed\nscales.append(Scale()); total()")
    notebook.ok("%%distributed --setup\nprepared = total() * Scale.factor")
    notebook.kill_workers(0)
    ran = notebook.ok("%%distributed\nprint(prepared, total())")
    assert "another object" not in ran.text
    assert [line.split("] ")[-1] for line in sorted(ran.lines()) if line.startswith("[")] == ["3 1", "6 2"]
    notebook.ok("%workers restart")
    prepare(notebook)
    the_next_cell_works(notebook)


# ---- our own processes die


def doctor_pid(notebook: Notebook, process: str) -> int:
    found = re.search(rf"{process} +pid (\d+)", notebook.ok("%workers doctor").text)
    assert found is not None
    return int(found[1])


def test_when_the_coordinator_is_killed_between_cells_the_next_cell_says_so(notebook: Notebook) -> None:
    workers = notebook.worker_pids()
    os.kill(doctor_pid(notebook, "background process"), signal.SIGKILL)
    seconds_until_gone(workers, within_s=1)
    ran = prepare(notebook)
    assert re.search(
        r"quarterdeck's background process \(pid \d+\) was killed by SIGKILL: all workers .* are lost",
        ran.text,
    )
    the_next_cell_works(notebook)


def test_when_the_zygote_is_killed_torch_is_imported_anew_and_that_can_be_interrupted(
    notebook: Notebook,
) -> None:
    kill_zygote(notebook)
    cell = notebook.start("%%distributed\nprint('too early')")
    notebook.until("torch is being imported")
    pressed = time.monotonic()
    notebook.interrupt()
    ran = notebook.finish(cell)
    assert time.monotonic() - pressed < 1
    assert ran.ename == "RunInterrupted"
    assert "nothing was run" in ran.traceback
    assert "too early" not in ran.text
    ran = prepare(notebook)
    assert re.search(r"The process that starts the workers \(pid \d+\) was killed by SIGKILL", ran.text)
    assert "their variables are lost" in ran.text
    the_next_cell_works(notebook)


def test_when_the_zygote_is_lost_the_next_workers_are_as_many_and_set_up(notebook: Notebook) -> None:
    notebook.ok("%workers restart -n 3")
    notebook.ok("%%distributed --setup\nprepared = rank + 1")
    kill_zygote(notebook)
    ran = notebook.ok("%%distributed\nprint(prepared, world_size)")
    assert {line.split("] ")[-1] for line in ran.lines() if line.startswith("[")} == {"1 3", "2 3", "3 3"}
    notebook.ok("%workers stop")
    notebook.ok("%workers start -n 2")
    prepare(notebook)
    the_next_cell_works(notebook)


OURS = {
    "background process": "quarterdeck's background process",
    "forked from": "the process that workers are forked from",
}


@pytest.mark.parametrize("process", OURS)
def test_when_one_of_our_processes_is_killed_the_running_cell_ends_and_says_so(
    notebook: Notebook, process: str
) -> None:
    pid = doctor_pid(notebook, process)
    cell = notebook.start("%%distributed\nprint('begun')\ntime.sleep(100)")
    notebook.until("begun")
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    ran = notebook.finish(cell)
    assert time.monotonic() - killed < 2
    assert ran.status == "error"
    assert OURS[process] in ran.traceback
    assert "lost" in ran.traceback.lower()
    assert "replaced" not in ran.traceback
    assert "could not be brought together" not in prepare(notebook).text
    the_next_cell_works(notebook)


# ---- a rank that cannot be brought back


def test_a_rank_stuck_in_the_repair_is_replaced_and_the_other_keeps_its_variables(notebook: Notebook) -> None:
    notebook.ok(
        "%%distributed\nimport time, torch.distributed as dist\nmine = f'kept on {rank}'\n"
        "if rank == 1:\n    dist.destroy_process_group = lambda *_: time.sleep(1000)"
    )
    notebook.fails("%%distributed\n1 / 0")
    ran = notebook.ok(
        "%%distributed\nimport torch, torch.distributed as dist\nt = torch.ones(1)\ndist.all_reduce(t)\n"
        "print(t.item(), globals().get('mine'))",
        deadline_s=40,
    )
    assert "[0] 2.0 kept on 0" in ran.lines()
    assert "[1] 2.0 None" in ran.lines()


def test_a_rank_that_begins_after_another_has_failed_gets_to_its_first_lines(
    notebook: Notebook,
) -> None:
    """It may fail alike, and the names that it binds are there for the next cell, on every rank."""
    slow = notebook.worker_pids()[0]
    os.kill(slow, signal.SIGSTOP)
    cell = notebook.start("%%distributed\nbound = rank\nraise ValueError('alike')")
    try:
        time.sleep(0.7)  # rank 1 has failed, and rank 0 has been told so
    finally:
        os.kill(slow, signal.SIGCONT)
    ran = notebook.finish(cell)
    assert "ranks 0–1 raised ValueError: alike" in ran.text + ran.traceback
    assert sorted(notebook.ok("%%distributed\nbound").lines()) == ["[0] 0", "[1] 1"]


def test_one_that_begins_late_and_goes_on_is_released(notebook: Notebook) -> None:
    slow = notebook.worker_pids()[0]
    os.kill(slow, signal.SIGSTOP)
    cell = notebook.start(
        "%%distributed\nimport time\nif rank: raise ValueError('alone')\nbegun = 1\ntime.sleep(60)"
    )
    try:
        time.sleep(0.7)
    finally:
        os.kill(slow, signal.SIGCONT)
    ran = notebook.finish(cell, deadline_s=20)
    assert "rank 1 raised ValueError: alone" in ran.text + ran.traceback
    assert notebook.ok("%%rank 0\nbegun").text == "[0] 1"


def test_replicas_are_compared_where_both_ranks_have_them(notebook: Notebook) -> None:
    """A module that one rank has more is no other state: garbage, or what the rank that failed still held."""
    notebook.ok("%%distributed\nimport torch\nddp = torch.nn.parallel.DistributedDataParallel")
    notebook.ok("%%distributed\ntorch.manual_seed(0)\nmodel = ddp(torch.nn.Linear(2, 2))")
    notebook.fails(
        "%%distributed\ndef train():\n    mine = ddp(torch.nn.Linear(3, 3))\n"
        "    if rank: raise ValueError('no')\ntrain()"
    )
    assert "differ between ranks" not in notebook.ok("%%distributed\nrank").text
    notebook.fails(
        "%%distributed\nwith torch.no_grad():\n    model.module.bias += rank\nraise ValueError('no')"
    )
    assert "differ between ranks" in notebook.ok("%%distributed\nrank").text
    notebook.ok("%%distributed\ndel model")


def test_a_process_that_user_code_forks_leaves_the_garbage_of_its_rank_alone(notebook: Notebook) -> None:
    """Old process groups are among it, whose end waits for threads that only the rank has."""
    ran = notebook.ok("""
%%distributed
import gc, os, time
class Hangs:
    def __init__(self):
        self.me, self.pid = self, os.getpid()
    def __del__(self):
        if os.getpid() != self.pid: time.sleep(60)
gc.disable()
Hangs()
child = os.fork()
if not child:
    gc.collect()
    os._exit(7)
gc.enable()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""")
    assert ran.lines() == ["[0–1] 7"]
