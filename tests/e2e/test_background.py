"""Cells in the background, and several runs at once: the kernel is free, and everything keeps its place."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import fresh_notebook
from support.notebook import Notebook, Ran
from support.waiting import until

BOTH = "[0\u20131]"
GO = "import os, time\nwhile not os.path.exists({flag!r}): time.sleep(0.01)\n"


def held(notebook: Notebook, flag: str) -> str:
    """Code that runs until `release(notebook, flag)`."""
    return GO.format(flag=str(notebook.folder / flag))


def release(notebook: Notebook, flag: str) -> None:
    (notebook.folder / flag).touch()


def waits(notebook: Notebook, code: str, behind: str) -> str:
    """Start a cell that has to wait, and see the one line that says for what."""
    message = notebook.start(code)
    notebook.until("Waiting for")
    assert notebook.shown(message).lines() == [f"Waiting for {behind}."]
    return message


@pytest.fixture(scope="module", autouse=True)
def quarterdeck(notebook: Notebook) -> None:
    notebook.ok("import quarterdeck as qd, time")


@pytest.fixture(autouse=True)
def nothing_runs_on(notebook: Notebook) -> Iterator[None]:
    """A test that fails takes no other along."""
    yield
    notebook.ok("%workers interrupt")


def number(notebook: Notebook) -> int:
    """The number of the cell that ran last, before this question."""
    return int(notebook.ok("print(len(In) - 2)").text)


# ---- what comes back, and what goes on meanwhile


def test_a_background_cell_gives_a_run_at_once_and_leaves_the_kernel_free(notebook: Notebook) -> None:
    cell = notebook.submit(f"%%distributed --background\n{held(notebook, 'a')}print('done', rank)")
    assert notebook.ok("type(_).__name__, _.status").text == "('Run', 'running')"
    ran = notebook.ok(f"run = Out[{number(notebook) - 1}]\nrun.status, run.wait(0), 6 * 7")
    assert ran.text == "('running', False, 42)"
    release(notebook, "a")
    assert notebook.ok("run.wait(), run.status, run.result()").text == "(True, 'succeeded', None)"
    shown = notebook.shown(cell, "[1] done 1")
    assert "[0] done 0" in shown.text


def test_as_binds_the_run_and_shows_nothing(notebook: Notebook) -> None:
    ran = notebook.ok("%%distributed --background --as named\npass")
    assert ran.outputs == []
    assert notebook.ok("named.wait()\nnamed.kind, named.status, named.world_size").text == (
        "('cell', 'succeeded', 2)"
    )


def test_as_binds_the_run_of_a_cell_in_the_foreground_too(notebook: Notebook) -> None:
    notebook.ok("%%distributed --as quiet\npass")
    assert notebook.ok("quiet.status").text == "'succeeded'"
    notebook.fails("%%distributed --as loud\n1 / 0")
    assert notebook.ok("loud.status, loud.outcomes[0].ename").text == "('failed', 'ZeroDivisionError')"


def test_what_it_writes_appears_under_the_cell_that_started_it(notebook: Notebook) -> None:
    cell = notebook.submit(
        f"%%distributed --background --as run\nprint('first', flush=True)\n{held(notebook, 'b')}print('last')"
    )
    notebook.shown(cell, f"{BOTH} first")
    release(notebook, "b")
    meanwhile = notebook.ok("print('mine')\nrun.wait()")
    assert meanwhile.text.split() == ["mine", "True"]
    assert notebook.shown(cell, f"{BOTH} last").lines() == [f"{BOTH} first", f"{BOTH} last"]


def test_logs_and_show_tell_what_it_wrote(notebook: Notebook) -> None:
    notebook.ok("%%distributed --background --as run\nprint('from', rank)\nrank * 10")
    assert notebook.ok("run.wait()\nrun.logs(1)").text == "'from 1\\n10\\n'"
    assert notebook.ok("print(run.logs())").lines() == [
        "--- rank 0", "from 0", "0", "", "--- rank 1", "from 1", "10", "",
    ]  # fmt: skip
    shown = notebook.ok("run.show()")
    assert "succeeded" in shown.lines()[0]
    assert shown.lines()[2].split() == ["0", "succeeded", "0"]
    assert shown.mimes() == {"text/plain", "text/html"}


# ---- the session is busy


def test_the_next_cell_waits_with_one_line_and_sees_what_it_left(notebook: Notebook) -> None:
    notebook.ok("%%distributed\nleft = 'before'")
    notebook.ok(f"%%distributed --background\n{held(notebook, 'c')}left = 'after'")
    message = waits(notebook, "%%distributed\nleft", f"cell [{number(notebook)}]")
    release(notebook, "c")
    assert notebook.finish(message).lines() == [f"{BOTH} 'after'"]


def test_stopping_the_waiting_cell_stops_the_waiting_only(notebook: Notebook) -> None:
    notebook.ok(f"%%distributed --background --as run\n{held(notebook, 'd')}")
    message = waits(notebook, "%%distributed\nprint('never')", f"cell [{number(notebook)}]")
    notebook.interrupt()
    ran = notebook.finish(message)
    assert ran.ename == "RunInterrupted"
    assert "nothing was run" in ran.traceback
    assert notebook.ok("run.status").text == "'running'"
    release(notebook, "d")
    assert notebook.ok("run.wait()\nrun.status").text == "'succeeded'"


def test_a_second_background_cell_is_sent_when_the_first_is_over(notebook: Notebook) -> None:
    """What travels with it is decided then."""
    notebook.ok(f"%%distributed --background --as one\n{held(notebook, 'e')}order = ['one']")
    message = waits(
        notebook, "%%distributed --background --as two\norder.append('two')", f"cell [{number(notebook)}]"
    )
    release(notebook, "e")
    assert notebook.finish(message).status == "ok"
    assert notebook.ok("one.wait(), two.wait()").text == "(True, True)"
    assert notebook.ok("%%distributed\norder").lines() == [f"{BOTH} ['one', 'two']"]


def test_push_and_pull_wait_for_it(notebook: Notebook) -> None:
    notebook.ok(f"%%distributed --background --as run\nmade = 0\n{held(notebook, 'f')}made = rank + 5")
    behind = f"cell [{number(notebook)}]"
    message = waits(notebook, "%pull made --rank 1", behind)
    release(notebook, "f")
    assert notebook.finish(message).status == "ok"
    assert notebook.ok("made").text == "6"
    notebook.ok(f"%%distributed --background --as run\n{held(notebook, 'g')}made = 'by the cell'")
    behind = f"cell [{number(notebook)}]"
    notebook.ok("made = 'pushed'")
    message = waits(notebook, "%push made", behind)
    release(notebook, "g")
    assert notebook.finish(message).status == "ok"
    assert notebook.ok("%%distributed\nmade").lines() == [f"{BOTH} 'pushed'"]


def test_the_names_it_bound_are_the_workers_own(notebook: Notebook) -> None:
    """As after any cell: what the notebook calls the same does not replace them, and a line says so."""
    notebook.ok("%%distributed --background --as run\ntheirs = rank")
    ran = notebook.ok("theirs = 'mine'\nrun.wait()")
    ran = notebook.ok("%%distributed\ntheirs")
    assert sorted(ran.lines())[-2:] == ["[0] 0", "[1] 1"] or "[0] 0" in ran.lines()
    assert "`theirs`: the workers' own value is used" in ran.text


def test_what_travelled_with_it_does_not_travel_again(notebook: Notebook) -> None:
    notebook.ok("travelled = [0]")
    notebook.ok("%%distributed --background --as run\ntravelled.append(rank)")
    notebook.ok("run.wait()")
    assert sorted(notebook.ok("%%distributed\ntravelled").lines()) == ["[0] [0, 0]", "[1] [0, 1]"]


def test_status_stacks_and_completion_answer_meanwhile(notebook: Notebook) -> None:
    notebook.ok(f"%%distributed --background --as run\n{held(notebook, 'h')}")
    cell = number(notebook)
    assert notebook.ok("%workers status").lines()[0] == f"2 workers, running cell [{cell}]"
    assert "time.sleep(0.01)" in notebook.ok("%workers stacks").text
    release(notebook, "h")
    notebook.ok("run.wait()")


# ---- how it ends


def test_stop_ends_it_and_keeps_the_variables(notebook: Notebook) -> None:
    cell = notebook.submit(
        "%%distributed --background --as run\nkept = rank\nprint('up', flush=True)\n"
        f"{held(notebook, 'never')}"
    )
    notebook.shown(cell, f"{BOTH} up")
    assert notebook.ok("run.stop()\nrun.wait(), run.status, run.reason").text == (
        "(True, 'stopped', 'stopped by the user')"
    )
    assert notebook.fails("run.result()").ename == "RunInterrupted"
    assert "stopped by you" in notebook.shown(cell, "stopped by you").text
    assert sorted(notebook.ok("%%distributed\nkept").lines()) == ["[0] 0", "[1] 1"]
    assert notebook.ok("run.stop(), run.status").text == "(None, 'stopped')"


def test_workers_interrupt_reaches_it(notebook: Notebook) -> None:
    notebook.ok(f"%%distributed --background --as run\n{held(notebook, 'never')}")
    cell = number(notebook)
    assert notebook.ok("%workers interrupt").text.strip() == f"Interrupting cell [{cell}]."
    assert notebook.ok("run.wait()\nrun.status").text == "'stopped'"


def test_interrupting_a_cell_that_waits_for_the_run_ends_the_waiting_only(notebook: Notebook) -> None:
    notebook.ok(f"%%distributed --background --as run\n{held(notebook, 'i')}")
    message = notebook.start("print('waiting', flush=True)\nrun.wait()")
    notebook.until("waiting")
    notebook.interrupt()
    assert notebook.finish(message).ename == "KeyboardInterrupt"
    assert notebook.ok("run.status").text == "'running'"
    release(notebook, "i")
    notebook.ok("run.wait()")


def test_its_failure_is_shown_under_it_and_raised_by_result(notebook: Notebook) -> None:
    cell = notebook.submit("%%distributed --background --as run\nkept = 3\nif rank == 1:\n    1 / 0")
    number_ = number(notebook)
    assert notebook.ok("run.wait()\n'the kernel goes on'").status == "ok"
    shown = notebook.shown(cell, "The next cell works.")
    assert shown.lines()[0] == "rank 1 raised ZeroDivisionError: division by zero"
    assert f"Cell In[{number_}], line 4" in shown.text
    assert "variables of all ranks are kept" in shown.text
    assert "ZeroDivisionError" in shown.html
    assert shown.status == "ok"
    raised = notebook.fails("run.result()")
    assert "rank 1 raised ZeroDivisionError: division by zero" in raised.traceback
    assert notebook.ok("run.status, run.reason").text == (
        "('failed', 'rank 1 raised ZeroDivisionError: division by zero')"
    )
    assert notebook.ok("%%distributed\nkept").lines() == [f"{BOTH} 3"]


def test_a_killed_worker_is_told_under_it_and_replaced(notebook: Notebook) -> None:
    cell = notebook.submit(
        "%%distributed --background --as run\nimport os\nif rank == 1: os.kill(os.getpid(), 9)"
    )
    assert "rank 1 was killed by SIGKILL" in notebook.shown(cell, "The next cell works.").text
    assert notebook.fails("run.result()").ename == "RunFailed"
    assert sorted(notebook.ok("%%distributed\nrank").lines()) == ["[0] 0", "[1] 1"]


def test_a_time_out_ends_it(notebook: Notebook) -> None:
    notebook.ok(f"%%distributed --background --as run --timeout 0.2\n{held(notebook, 'never')}")
    raised = notebook.fails("run.result()")
    assert raised.ename == "RunTimedOut"
    assert "0.2 s" in raised.traceback


def test_result_with_a_limit_says_that_it_is_not_over(notebook: Notebook) -> None:
    notebook.ok(f"%%distributed --background --as run\n{held(notebook, 'j')}")
    assert notebook.fails("run.result(timeout=0.05)").ename == "TimeoutError"
    release(notebook, "j")
    assert notebook.ok("await run\nprint(run.status)").text.strip() == "succeeded"


def test_workers_stop_ends_it_and_the_next_cell_starts_anew(notebook: Notebook) -> None:
    notebook.ok(f"%%distributed --background --as run\n{held(notebook, 'never')}")
    assert "2 workers stopped" in notebook.ok("%workers stop").text
    assert notebook.ok("run.wait()\nrun.status").text == "'stopped'"
    assert notebook.ok("%%distributed -n 2\nworld_size").lines()[-1] == f"{BOTH} 2"


@pytest.mark.parametrize("other", ["--setup", "--debug"])
def test_what_does_not_go_with_background_is_refused(notebook: Notebook, other: str) -> None:
    ran = notebook.fails(f"%%distributed --background {other}\npass")
    assert ran.ename == "UsageError"
    assert other in ran.traceback


# ---- several at once


def test_three_runs_beside_a_busy_session_each_with_its_own_output(notebook: Notebook) -> None:
    session = notebook.submit(f"%%distributed --background --as busy\n{held(notebook, 'k')}print('session')")
    notebook.ok(
        "def work(tag, flag):\n"
        "    import os, time\n"
        "    print('begun', tag, flush=True)\n"
        "    while not os.path.exists(flag): time.sleep(0.01)\n"
        "    print('ended', tag)\n"
        "    return tag, qd.current().rank\n"
        "work = qd.distributed(qd.Elastic(nproc_per_node=2))(work)"
    )
    flag = str(notebook.folder / "k")
    cells: dict[str, str] = {}
    for tag in ("x", "y"):
        cells[tag] = notebook.submit(f"run_{tag} = work.submit({tag!r}, {flag!r})")
    cells["z"] = notebook.submit(
        f"%%distributed --fresh -n 1 --background --as run_z\nprint('begun z', flush=True)\n"
        f"{held(notebook, 'k')}print('ended z')"
    )
    for tag, cell in cells.items():
        notebook.shown(cell, f"begun {tag}")
    assert "2 workers, running cell" in notebook.ok("%workers status").text
    assert notebook.ok("{r.status for r in (busy, run_x, run_y, run_z)}").text == "{'running'}"
    assert len(notebook.ok("print(*qd.runs(state='running'))").text.split("<Run")) == 5
    release(notebook, "k")
    assert notebook.ok("run_x.result(), run_y.result(), run_z.result(), busy.result()").text == (
        "(('x', 0), ('y', 0), None, None)"
    )
    for tag in ("x", "y"):
        shown = notebook.shown(cells[tag], f"{BOTH} ended {tag}")
        assert sorted(shown.lines()) == [f"{BOTH} begun {tag}", f"{BOTH} ended {tag}"]
    assert notebook.shown(cells["z"], "ended z").lines() == ["begun z", "ended z"]
    assert notebook.shown(session, "session").lines() == [f"{BOTH} session"]


def test_a_failing_submitted_function_is_shown_where_it_was_submitted(notebook: Notebook) -> None:
    cell = notebook.submit("def bad(): raise KeyError('gone')\nrun = qd.distributed()(bad).submit()")
    shown = notebook.shown(cell, "KeyError: 'gone'")
    assert shown.lines()[0].endswith("raised KeyError: 'gone'")
    assert notebook.fails("run.result()").ename == "KeyError"


def test_a_failing_call_is_shown_once(notebook: Notebook) -> None:
    ran: Ran = notebook.fails("qd.distributed()(bad)()")
    assert ran.ename == "KeyError"
    assert ran.text == ""


# ---- nothing is left of them


def settled(notebook: Notebook) -> tuple[dict[int, int], int]:
    """Descriptors of kernel, coordinator and zygote, once no worker is left; and the kernel's threads."""
    until(lambda: len(notebook.everything()) <= 3, otherwise=notebook.everything)
    pids = notebook.everything()
    fds = {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in pids}
    return fds, len(os.listdir(f"/proc/{notebook.pid}/task"))


@pytest.mark.slow
def test_two_hundred_runs_leave_nothing_behind(tmp_path: Path) -> None:
    """Four at a time, some of two ranks, with values in shared memory; `fresh_notebook` looks at /dev/shm."""
    with fresh_notebook(tmp_path) as notebook:
        notebook.ok("%load_ext quarterdeck\nimport quarterdeck as qd, torch")
        notebook.wait_until_warm()
        notebook.ok(
            "def zeros(): return torch.zeros(50_000)\n"
            "alone = qd.distributed(qd.Elastic(nproc_per_node=1))(zeros)\n"
            "pair = qd.distributed(qd.Elastic(nproc_per_node=2))(zeros)\n"
            "for _ in range(5): alone(); pair()"
        )
        before, threads_before = settled(notebook)
        notebook.ok(
            "runs = [alone.submit() for i in range(3)]\n"
            "for i in range(197):\n"
            "    runs.append((pair if i % 10 == 0 else alone).submit())\n"
            "    assert len(runs.pop(0).result()) == 50_000\n"
            "for run in runs: run.result()",
            deadline_s=110,
        )
        deadline = time.monotonic() + 20
        while True:  # ipykernel keeps sockets of threads that wrote something for a few seconds
            after, threads_after = settled(notebook)
            assert after.keys() == before.keys()
            if all(after[pid] <= before[pid] + 3 for pid in before) and threads_after <= threads_before + 1:
                break
            assert time.monotonic() < deadline, (before, after, threads_before, threads_after)
            time.sleep(0.1)
        assert notebook.ok("len(qd.runs())").text == "210"
