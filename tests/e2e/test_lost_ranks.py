"""A rank that dies or hangs where no cell runs on it yet costs a moment and is named; the next cell works."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import fresh_notebook
from support.notebook import SLOW, Notebook
from support.waiting import is_gone, seconds_until_gone, until

HOOK = """
import os, pathlib, signal, sys, time

here = pathlib.Path(__file__).parent
command = pathlib.Path("/proc/self/cmdline").read_text()


def in_worker():
    what = here / "join"
    if not what.exists():
        return
    rank, how = what.read_text().split()
    dist = sys.modules["torch.distributed"]
    real = dist.TCPStore

    def store(host, port, world_size, is_first, **more):
        if is_first != (rank == "0"):
            return real(host, port, world_size, is_first, **more)
        if how == "once":
            what.unlink()
        if how == "hangs":
            while what.exists():
                time.sleep(0.1)
            return real(host, port, world_size, is_first, **more)
        os.kill(os.getpid(), signal.SIGSEGV)

    dist.TCPStore = store


if "worker.zygote import main" in command:
    os.register_at_fork(after_in_child=in_worker)
if "worker_main" in command:
    with open(here / "pids", "a") as file:
        file.write(f"{os.getpid()}\\n")
    if (here / "crash").exists():
        os.kill(os.getpid(), signal.SIGSEGV)
    if (here / "stop").exists():
        os.kill(os.getpid(), signal.SIGSTOP)
    while (here / "hang").exists():
        pass
"""
"""A sitecustomize that does to workers what the files beside it say: to spawned ones before their first line,
to forked ones while they join.
"""
SPAWN = "%%distributed -n 2 --start-method spawn\nprint('world', world_size)"
SUM = """%%distributed
import torch, torch.distributed as dist
ones = torch.ones(1)
dist.all_reduce(ones)
print('sum', int(ones))"""


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """A notebook whose workers obey the hook."""
    folder = tmp_path_factory.mktemp("hooked")
    yield from started(folder)


@pytest.fixture
def own_hooked(tmp_path: Path) -> Iterator[Notebook]:
    yield from started(tmp_path)


def started(folder: Path) -> Iterator[Notebook]:
    (folder / "hook").mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(HOOK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{folder / 'hook'}:{os.environ.get('PYTHONPATH', '')}")
        with fresh_notebook(folder) as notebook:
            notebook.ok("%load_ext quarterdeck\nimport quarterdeck as qd")
            notebook.ok("%workers start -n 2")
            notebook.wait_until_warm()
            yield notebook


@pytest.fixture(autouse=True)
def the_next_cell_works(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "hooked" not in request.fixturenames:
        return
    notebook = request.getfixturevalue("hooked")
    for name in ("join", "crash", "stop", "hang", "pids"):
        (notebook.folder / "hook" / name).unlink(missing_ok=True)
    assert "[0\u20131] sum 2" in notebook.ok(SUM).lines()


def hook(notebook: Notebook, what: str, how: str = "") -> None:
    (notebook.folder / "hook" / what).write_text(how)


def spawned(notebook: Notebook, before: int = 0) -> list[int]:
    """Process ids of the interpreters that have got as far as the hook; two more than `before`."""
    path = notebook.folder / "hook" / "pids"

    def written() -> list[int]:
        return [int(pid) for pid in path.read_text().split()] if path.exists() else []

    until(lambda: len(written()) >= before + 2)
    return written()


# ---- an interpreter that does not reach its first line


@pytest.mark.parametrize("how", ["hang", "stop"])
def test_an_interpreter_that_hangs_before_its_first_line_dies_with_the_kernel(
    own_hooked: Notebook, how: str
) -> None:
    hook(own_hooked, how)
    own_hooked.ok("%workers stop")
    own_hooked.start(SPAWN)
    pids = spawned(own_hooked)
    assert not any(map(is_gone, pids))
    own_hooked.kill()
    seconds_until_gone(pids, within_s=2)


def test_an_interrupt_ends_a_start_that_hangs(hooked: Notebook) -> None:
    hook(hooked, "hang")
    hooked.ok("%workers stop")
    pids: list[int] = []
    for code in (SPAWN, "%workers start -n 2 --start-method spawn", "%workers restart --start-method spawn"):
        cell = hooked.start(code)
        pids = spawned(hooked, len(pids))
        hooked.interrupt()
        ran = hooked.finish(cell, deadline_s=15)
        assert ran.ename == "RunInterrupted"
        assert len(ran.traceback.splitlines()) == 1
        seconds_until_gone(pids, within_s=3)


@pytest.mark.slow
@pytest.mark.parametrize("action", ["stop", "restart"])
def test_a_stop_or_restart_ends_a_start_that_hangs(hooked: Notebook, action: str) -> None:
    """Called from a thread of the notebook, as the main one waits for the start."""
    hook(hooked, "hang")
    hooked.ok("%workers stop")
    hooked.ok(
        "import threading\nfrom quarterdeck.kernel.sessions import calls_of\n"
        "from quarterdeck.protocol.kernel import Control\nfrom quarterdeck.protocol.parts import GroupSpec\n"
        f"request = Control(action='{action}', spec=GroupSpec(2, None, 'fork'))\n"
        "threading.Timer(2, lambda: calls_of('default').control(request)).start()"
    )
    cell = hooked.start(SPAWN)
    pids = spawned(hooked)
    ran = hooked.finish(cell, deadline_s=15)
    assert ran.ename == "RunInterrupted"
    seconds_until_gone(pids, within_s=3)


@pytest.mark.slow
def test_a_start_that_hangs_is_named_with_what_the_system_says_of_it(hooked: Notebook) -> None:
    hook(hooked, "hang")
    hooked.ok("%workers stop")
    cell = hooked.start(SPAWN)
    hooked.until("not started after 10 s", deadline_s=40)
    (hooked.folder / "hook" / "hang").unlink()
    ran = hooked.finish(cell)
    assert re.search(r"rank.* not started after 10 s: it uses the processor \(pid \d+\)", ran.text)
    assert "sitecustomize" in ran.text
    assert "world 2" in ran.text


@pytest.mark.slow
def test_a_rank_that_crashes_while_it_starts_is_named_at_once(hooked: Notebook) -> None:
    hook(hooked, "crash")
    hooked.ok("%workers stop")
    ran = hooked.fails(SPAWN, deadline_s=20)
    assert re.match(r"UsageError: rank \d was killed by SIGSEGV: a crash in C or C\+\+ code", ran.traceback)
    assert "while it started" in ran.traceback


# ---- while ranks join


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_while_a_new_group_joins_costs_a_moment(hooked: Notebook, rank: int) -> None:
    hooked.ok(
        "@qd.distributed(qd.Elastic(nproc_per_node=2))\ndef train():\n    import os\n    return os.getpid()"
    )
    hook(hooked, "join", f"{rank} dies")
    for code in ("%workers restart", "train()"):
        ran = hooked.fails(code)
        assert f"rank {rank} was killed by SIGSEGV" in ran.traceback
        assert "while it joined the others" in ran.traceback
        assert f"rank {1 - rank}" not in ran.traceback
        assert ran.duration_s < 5


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_while_the_group_is_repaired_costs_a_moment_and_no_variables(
    hooked: Notebook, rank: int
) -> None:
    hooked.ok("%%distributed\nkept = 42")
    hook(hooked, "join", f"{rank} once")
    hooked.kill_workers(rank)
    ran = hooked.ok(SUM)
    assert ran.duration_s < 5
    assert "[0\u20131] sum 2" in ran.lines()
    assert f"rank {1 - rank} " not in ran.text
    assert "ended by quarterdeck" not in ran.text
    assert hooked.ok(f"%%rank {1 - rank}\nkept").text.endswith("42")


@pytest.mark.slow
def test_a_rank_that_hangs_while_a_new_group_joins_is_named_and_an_interrupt_ends_it(
    hooked: Notebook,
) -> None:
    hooked.ok("%workers stop")
    hook(hooked, "join", "1 hangs")
    cell = hooked.start(SUM)
    hooked.until("rank 1 has not joined the others after 10 s: it is at", deadline_s=40)
    assert "sitecustomize.py, line" in hooked.screen.ran.text
    pressed = time.monotonic()
    hooked.interrupt()
    assert hooked.finish(cell).ename == "RunInterrupted"
    assert time.monotonic() - pressed < 3
    (hooked.folder / "hook" / "join").unlink()
    assert hooked.ok(SUM).duration_s < 5


def test_when_all_ranks_die_between_cells_the_next_cell_takes_a_moment(hooked: Notebook) -> None:
    hooked.kill_workers(0, 1)
    ran = hooked.ok(SUM)
    assert ran.duration_s < 5
    assert "[0\u20131] sum 2" in ran.lines()
    assert ran.text.count("was killed by SIGKILL") == 2


# ---- while values are copied


@pytest.mark.slow
def test_a_push_that_ends_the_workers_says_how_they_ended(hooked: Notebook) -> None:
    hooked.ok(
        "import os\nclass Ends:\n    def __init__(self, how): self.how = how\n"
        "    def __reduce__(self): return (os._exit, (7,)) if self.how else (os.kill, (0, 0))\n"
    )
    hooked.ok("%%distributed\nkept = 1")
    ran = hooked.fails("x = Ends(True)\n%push x")
    assert ran.duration_s < 5
    for rank in (0, 1):
        assert f"rank {rank} ended its process with exit code 7" in ran.traceback
    assert re.search("it has lost .*kept", ran.traceback)
    assert "status" not in ran.traceback
    assert "ended its process" not in hooked.ok(SUM).text


@pytest.mark.slow
def test_an_interrupted_push_is_one_line(hooked: Notebook) -> None:
    hooked.ok(SLOW % 600)
    cell = hooked.start("%push slow")
    until((hooked.folder / "unpickling").exists)
    hooked.interrupt()
    ran = hooked.finish(cell, deadline_s=10)
    assert ran.ename == "RunInterrupted"
    assert len(ran.traceback.splitlines()) == 1


# ---- what quarterdeck ends itself


STUBBORN = """%%distributed
import signal, time
if rank == 0:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print('begun')
    while True:
        time.sleep(1)"""


def test_a_rank_that_the_ladder_ended_is_said_to_be_stopped_not_lost_to_somebody(hooked: Notebook) -> None:
    hooked.ok("%workers restart -n 2")
    hooked.ok("%%distributed\nmine = 1")
    cell = hooked.start(STUBBORN)
    hooked.until("begun")
    hooked.interrupt()
    for told in ("interrupt again to do it now", "rank 0 does not stop: SIGTERM sent"):
        hooked.until(told)
        hooked.interrupt()
    ran = hooked.finish(cell)
    assert ran.ename == "RunInterrupted"
    assert re.search(
        r"rank 0 did not stop, so quarterdeck ended it \(SIGKILL, \d s after your interrupt\)", ran.traceback
    )
    assert "out-of-memory" not in ran.traceback + ran.text
    assert "`mine`" in ran.traceback
    reason = "did not stop, so quarterdeck ended it"
    assert reason in hooked.ok("print(qd.runs()[0].outcomes[0].evalue)").text


@pytest.mark.slow
@pytest.mark.parametrize("action", ["stop", "restart"])
def test_a_cell_that_a_stop_or_restart_ends_is_stopped_and_not_failed(hooked: Notebook, action: str) -> None:
    hooked.ok("%%distributed --background --as run\nimport time\nprint('begun')\ntime.sleep(600)")
    until(lambda: hooked.ok("print(run.logs(0), run.logs(1))").text.count("begun") == 2)
    ran = hooked.ok(f"%workers {action}")
    assert ran.duration_s < 5
    hooked.ok("assert run.wait(5)\nassert run.status == 'stopped', run.status")
    text = hooked.ok("print([outcome.evalue for outcome in run.outcomes])").text
    assert text == f"{[f'was ended by `%workers {action}`'] * 2}\n"


@pytest.mark.slow
def test_an_abort_is_gloo_s_only_where_gloo_said_so(hooked: Notebook) -> None:
    ran = hooked.fails("%%distributed\nimport os\nif rank == 1:\n    os.abort()")
    assert "rank 1 was killed by SIGABRT: a C or C++ library gave up" in ran.traceback
    assert "shapes" not in ran.traceback


@pytest.mark.slow
def test_a_signal_without_a_name_is_named_by_its_number(hooked: Notebook) -> None:
    ran = hooked.fails("%%distributed\nimport os\nif rank == 1:\n    os.kill(os.getpid(), 40)")
    assert ran.traceback.startswith("rank 1 was killed by signal 40")


# ---- a coordinator that does not answer


def coordinator_pid(notebook: Notebook) -> int:
    code = (
        "from quarterdeck.kernel import coordinator_process\nprint(coordinator_process.current().process.pid)"
    )
    return int(notebook.ok(code).text)


@pytest.mark.slow
@pytest.mark.parametrize("action", ["stop", "restart"])
def test_a_coordinator_that_does_not_answer_is_named_and_replaced(hooked: Notebook, action: str) -> None:
    hooked.ok("%workers restart -n 2")
    pid = coordinator_pid(hooked)
    os.kill(pid, signal.SIGSTOP)
    ran = hooked.fails("%workers status", deadline_s=20)
    assert f"quarterdeck's background process (pid {pid}) has not answered for 3 s" in ran.traceback
    assert "`%workers restart` replaces it" in ran.traceback
    cell = hooked.start(SUM)
    hooked.until(f"quarterdeck's background process (pid {pid}) has not answered for 3 s", deadline_s=20)
    hooked.interrupt()
    assert hooked.finish(cell).ename == "RunInterrupted"
    ran = hooked.ok(f"%workers {action}", deadline_s=30)
    assert f"did not answer, and was ended by `%workers {action}`" in ran.text
    assert "SIGKILL" not in ran.text


@pytest.mark.slow
def test_a_coordinator_that_stops_answering_while_a_cell_runs_is_ended_by_another_interrupt(
    hooked: Notebook,
) -> None:
    hooked.ok("%workers restart -n 2")
    pid = coordinator_pid(hooked)
    cell = hooked.start("%%distributed\nimport time\nprint('begun')\ntime.sleep(600)")
    hooked.until("begun")
    os.kill(pid, signal.SIGSTOP)
    hooked.interrupt()
    hooked.until("Interrupt again to end it", deadline_s=20)
    hooked.interrupt()
    ran = hooked.finish(cell, deadline_s=20)
    assert (
        f"quarterdeck's background process (pid {pid}) did not answer, and was ended by your interrupt"
        in ran.traceback
    )


@pytest.mark.slow
def test_a_coordinator_that_answers_late_goes_on(hooked: Notebook) -> None:
    hooked.ok("%workers restart -n 2")
    pid = coordinator_pid(hooked)
    os.kill(pid, signal.SIGSTOP)
    cell = hooked.start(SUM)
    hooked.until("has not answered for 3 s", deadline_s=20)
    os.kill(pid, signal.SIGCONT)
    ran = hooked.finish(cell)
    assert ran.lines() == ["[0\u20131] sum 2"]
