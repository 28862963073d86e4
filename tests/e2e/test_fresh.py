"""`%%distributed --fresh`: a cell in a group of its own, beside the session and apart from it."""

from __future__ import annotations

import pytest

from support.notebook import Notebook


@pytest.fixture(scope="module", autouse=True)
def loaded(notebook: Notebook) -> None:
    notebook.ok("import os\nimport quarterdeck as qd\nshared, word = [1, 2], 'notebook'")


def test_it_neither_sees_nor_changes_the_session_s_variables(notebook: Notebook) -> None:
    notebook.ok("%%distributed\nmine = 'session'")
    ran = notebook.fails("%%distributed --fresh -n 1\nmine")
    assert "NameError: name 'mine' is not defined" in ran.traceback
    notebook.ok("%%distributed --fresh -n 1\nmine = 'fresh'")
    assert notebook.ok("%%distributed\nmine").lines() == ["[0\u20131] 'session'"]


def test_each_has_new_workers(notebook: Notebook) -> None:
    session = notebook.worker_pids()
    pids = [int(notebook.ok("%%distributed --fresh -n 1\nimport os\nos.getpid()").text) for _ in range(2)]
    assert len({*session, *pids}) == 4
    assert notebook.worker_pids() == session


@pytest.mark.parametrize("n", [1, 3])
def test_it_takes_any_number_of_ranks(notebook: Notebook, n: int) -> None:
    ran = notebook.ok(
        f"%%distributed --fresh -n {n}\nimport torch, torch.distributed as dist\n"
        "one = torch.ones(1)\ndist.all_reduce(one)\nassert one.item() == world_size\nprint(rank, world_size)"
    )
    shown = [line.rpartition("] ")[2] for line in ran.lines()]
    assert sorted(shown) == [f"{rank} {n}" for rank in range(n)]


def test_it_sees_the_notebook_s_values_and_changes_a_copy(notebook: Notebook) -> None:
    ran = notebook.ok("%%distributed --fresh -n 1\nshared.append(3)\nshared, word")
    assert ran.text == "([1, 2, 3], 'notebook')"
    assert notebook.ok("shared").text == "[1, 2]"


def test_a_value_that_the_session_has_changed_comes_from_the_notebook(notebook: Notebook) -> None:
    notebook.ok("%%distributed\nword = 'changed on the workers'")
    assert notebook.ok("%%distributed --fresh -n 1\nword").text == "'notebook'"


def test_the_session_s_setup_cells_run_first(notebook: Notebook) -> None:
    notebook.ok("%%distributed --setup\nbase = 40 + rank")
    ran = notebook.ok("%%distributed --fresh -n 3\nbase")
    assert sorted(ran.lines()) == ["[0] 40", "[1] 41", "[2] 42"]


def test_an_error_says_nothing_of_variables_that_are_gone(notebook: Notebook) -> None:
    ran = notebook.fails("%%distributed --fresh\nkept = 1\nif rank == 1:\n    raise ValueError('boom')")
    assert "rank 1 raised ValueError: boom" in ran.traceback
    assert "line 4" in ran.traceback
    assert "kept" not in ran.traceback.replace("kept = 1", "")
    assert "next cell" not in ran.traceback
    assert ran.text == ""


def test_a_killed_rank_ends_it_and_the_session_goes_on(notebook: Notebook) -> None:
    notebook.ok("%%distributed\nstill = 'there'")
    ran = notebook.fails(
        "%%distributed --fresh\nimport os, time\nif rank: os.kill(os.getpid(), 11)\ntime.sleep(60)"
    )
    assert "rank 1 was killed by SIGSEGV" in ran.traceback
    assert "rank 1 is replaced" not in ran.traceback
    assert notebook.ok("%%distributed\nstill").lines() == ["[0\u20131] 'there'"]


def test_the_stop_button_ends_it(notebook: Notebook) -> None:
    message = notebook.start("%%distributed --fresh\nimport time\nprint('up', flush=True)\ntime.sleep(60)")
    notebook.until("[0\u20131] up")
    notebook.interrupt()
    ran = notebook.finish(message)
    assert ran.ename == "RunInterrupted"
    assert (
        notebook.ok("qd.runs()[0].status, qd.runs()[0].reason").text == "('stopped', 'stopped by the user')"
    )


def test_in_the_background_it_leaves_the_session_free(notebook: Notebook) -> None:
    flag = notebook.folder / "flag"
    cell = notebook.submit(
        "%%distributed --fresh --background --as run -n 1\nimport os, time\n"
        f"while not os.path.exists({str(flag)!r}): time.sleep(0.01)\nprint('late')"
    )
    assert notebook.ok("%%distributed\nworld_size").lines() == ["[0\u20131] 2"]
    assert notebook.ok("run.status, run.kind").text in ("('running', 'cell')", "('starting', 'cell')")
    flag.touch()
    assert notebook.ok("run.result(), run.status, run.world_size").text == "(None, 'succeeded', 1)"
    assert notebook.shown(cell, "late").lines() == ["late"]


def test_as_names_the_run_also_of_one_that_fails(notebook: Notebook) -> None:
    notebook.ok("%%distributed --fresh --as good -n 1\nprint('said')")
    assert notebook.ok("good.status, good.logs(0)").text == "('succeeded', 'said\\n')"
    notebook.fails("%%distributed --fresh --as bad -n 1\n{}['missing']")
    assert notebook.ok("bad.status, bad.outcomes[0].ename").text == "('failed', 'KeyError')"


def test_what_it_started_ends_with_it(notebook: Notebook) -> None:
    ran = notebook.ok(
        "%%distributed --fresh -n 1\nimport subprocess\nsubprocess.Popen(['sleep', '1000']).pid"
    )
    check = f"import pathlib, time; time.sleep(0.1); print(pathlib.Path('/proc/{ran.text}/exe').exists())"
    assert notebook.ok(check).text.strip() == "False"


def test_options_of_a_cell_work(notebook: Notebook) -> None:
    ran = notebook.ok("%%distributed --fresh -n 1 --env LEVEL=7 --name short\nimport os\nos.environ['LEVEL']")
    assert ran.text == "'7'"
    assert notebook.ok("qd.runs()['short'].status").text == "'succeeded'"
    assert notebook.fails("%%distributed --fresh --timeout 0.2\nimport time\ntime.sleep(60)").ename == (
        "RunTimedOut"
    )


@pytest.mark.parametrize("other", ["--ranks 0", "--setup", "--debug"])
def test_what_does_not_go_with_it_is_refused(notebook: Notebook, other: str) -> None:
    ran = notebook.fails(f"%%distributed --fresh {other}\npass")
    assert ran.ename == "UsageError"
    assert other.partition(" ")[0] in ran.traceback


def test_a_value_that_cannot_be_pickled_is_named_before_anything_starts(notebook: Notebook) -> None:
    notebook.ok("import threading\nlock = threading.Lock()\nbefore = len(qd.runs())")
    ran = notebook.fails("%%distributed --fresh\nlock")
    assert ran.ename == "UsageError"
    assert "lock" in ran.traceback
    assert notebook.ok("len(qd.runs()) - before").text == "0"


def test_a_failing_setup_cell_is_named(notebook: Notebook) -> None:
    notebook.ok("%workers restart\n")
    notebook.ok("%%distributed --setup\nassert world_size == 2, 'made for two'")
    ran = notebook.fails("%%distributed --fresh -n 1\nprint('never')")
    assert "--setup cell" in ran.traceback
    assert "made for two" in ran.traceback
    assert notebook.ok("qd.runs()[0].status").text == "'failed'"
    assert "made for two" in notebook.fails("qd.runs()[0].result()").traceback
