"""Sessions beside the default one: `--session NAME` and `qd.Session`."""

from __future__ import annotations

import pytest

from support.notebook import Notebook

BOTH = "[0\u20131]"


@pytest.fixture(scope="module", autouse=True)
def two_sessions(notebook: Notebook) -> None:
    notebook.ok("import quarterdeck as qd")
    notebook.ok("%%distributed --session b -n 1\nwhere = 'b'")
    notebook.ok("%%distributed\nwhere = 'default'")


# ---- the magics


def test_each_has_its_own_workers_and_variables(notebook: Notebook) -> None:
    assert notebook.ok("%%distributed\nwhere, world_size").lines() == [f"{BOTH} ('default', 2)"]
    assert notebook.ok("%%distributed --session b\nwhere, world_size").text == "('b', 1)"


def test_what_travelled_to_one_travels_to_the_other_too(notebook: Notebook) -> None:
    notebook.ok("seen = [0]\ndef look(): return seen")
    notebook.ok("%%distributed\nlook().append(1)")
    assert notebook.ok("%%distributed --session b\nlook()").text == "[0]"
    assert notebook.ok("%%distributed\nlook()").lines() == [f"{BOTH} [0, 1]"]


def test_status_tells_of_the_named_one(notebook: Notebook) -> None:
    assert notebook.ok("%workers status").lines()[0] == "2 workers, idle"
    assert notebook.ok("%workers status --session b").lines()[0] == "1 worker, idle"
    assert "other sessions" in notebook.ok("%workers doctor").text
    assert notebook.ok("%workers --session nobody").text.startswith("No workers yet")


def test_both_run_at_the_same_time(notebook: Notebook) -> None:
    flag = notebook.folder / "flag"
    notebook.ok(
        "%%distributed --background --as run\nimport os, time\n"
        f"while not os.path.exists({str(flag)!r}): time.sleep(0.01)"
    )
    cell = f"%%distributed --session b\nopen({str(flag)!r}, 'w').close()\n'not waited'"
    assert notebook.ok(cell).text == "'not waited'"
    assert notebook.ok("run.wait(), run.status").text == "(True, 'succeeded')"


def test_interrupt_reaches_the_named_one(notebook: Notebook) -> None:
    notebook.ok("%%distributed --session b --background --as run\nimport time\ntime.sleep(60)")
    assert "No cell is running" in notebook.ok("%workers interrupt").text
    assert "Interrupting" in notebook.ok("%workers interrupt --session b").text
    assert notebook.ok("run.wait(), run.status").text == "(True, 'stopped')"


def test_push_and_pull_go_to_the_named_one(notebook: Notebook) -> None:
    notebook.ok("parcel = {'for': 'b'}")
    notebook.ok("%push parcel --session b")
    assert notebook.ok("%%distributed --session b\n'parcel' in globals()").text == "True"
    assert notebook.ok("%%distributed\n'parcel' in globals()").lines() == [f"{BOTH} False"]
    notebook.ok("%pull where as there --session b")
    notebook.ok("%pull where as here")
    assert notebook.ok("there, here").text == "('b', 'default')"


def test_another_size_than_it_has_is_refused(notebook: Notebook) -> None:
    ran = notebook.fails("%%distributed --session b -n 2\npass")
    assert ran.ename == "UsageError"
    assert "`-n 1`" in ran.traceback
    assert "--session b" in ran.traceback, "the command it names is for the right session"


def test_rank_names_its_session(notebook: Notebook) -> None:
    assert notebook.ok("%%rank 0 --session b\nwhere").text == "'b'"
    assert "rank 0 only" in notebook.fails("%%rank 1 --session b\nwhere").traceback


def test_restart_and_stop_leave_the_other_alone(notebook: Notebook) -> None:
    notebook.ok("%%distributed --session c -n 1\nwhere = 'c'")
    pids = notebook.worker_pids()
    assert "1 worker started" in notebook.ok("%workers restart --session c").text
    assert "NameError" in notebook.fails("%%distributed --session c\nwhere").traceback
    assert "1 worker stopped" in notebook.ok("%workers stop --session c").text
    assert notebook.ok("%workers status --session c").text.startswith("No workers yet")
    assert notebook.worker_pids() == pids
    assert notebook.ok("%%distributed --session b\nwhere").text == "'b'"


def test_setup_cells_belong_to_their_session(notebook: Notebook) -> None:
    notebook.ok("%%distributed --session d -n 1 --setup\nprepared = 'for d'")
    notebook.fails("%%distributed --session d\nimport os\nos._exit(1)")
    assert notebook.ok("%%distributed --session d\nprepared").text == "'for d'"
    assert notebook.ok("%%distributed\n'prepared' in globals()").lines() == [f"{BOTH} False"]
    assert notebook.ok("%%distributed --fresh -n 1 --session d\nprepared").text == "'for d'"
    notebook.ok("%workers stop --session d")


@pytest.mark.parametrize("name", ["'two words'", "a/b", "1st", "''"])
def test_a_wrong_name_is_refused(notebook: Notebook, name: str) -> None:
    ran = notebook.fails(f"%%distributed --session {name}\npass")
    assert ran.ename == "UsageError"
    assert "not a name for a session" in ran.traceback


def test_completion_asks_the_workers_of_the_cell_s_session(notebook: Notebook) -> None:
    notebook.ok("%%distributed --session b\nonly_in_b_here = 1")
    notebook.ok("%%distributed\nonly_in_default = 1")
    for magic, expected in (
        ("%%distributed --session b", "only_in_b_here"),
        ("%%distributed", "only_in_default"),
    ):
        text = f"{magic}\nonly_"
        ran = notebook.ok(
            "with __import__('IPython').core.completer.provisionalcompleter():\n"
            f"    found = [c.text for c in get_ipython().Completer.completions({text!r}, {len(text)})]\n"
            "found"
        )
        assert ran.text == f"['{expected}']"


# ---- qd.Session


@pytest.fixture(scope="module")
def e(notebook: Notebook) -> str:
    notebook.ok("e = qd.Session(2, name='e')")
    return "e"


def test_a_session_runs_code_as_a_cell_would(notebook: Notebook, e: str) -> None:
    ran = notebook.ok("e.run('print(rank, world_size)\\nx = rank * 10\\nx')")
    assert sorted(ran.lines()) == ["[0] 0", "[0] 0 2", "[1] 1 2", "[1] 10"]
    assert sorted(notebook.ok("%%distributed --session e\nx").lines()) == ["[0] 0", "[1] 10"]
    assert notebook.ok("e.run('x', ranks=[1])").lines() == ["[1] 10"]


def test_its_errors_are_those_of_a_cell(notebook: Notebook, e: str) -> None:
    ran = notebook.fails("e.run('a = 1\\nif rank:\\n    a / 0')")
    assert ran.ename == "RunFailed"
    assert "rank 1 raised ZeroDivisionError" in ran.traceback
    assert "a / 0" in ran.traceback
    assert "The next cell works" in ran.traceback
    assert notebook.fails("e.run('import time; time.sleep(60)', timeout_s=0.2)").ename == "RunTimedOut"
    assert notebook.fails("e.run('1 +')").ename in ("SyntaxError", "UsageError")


def test_it_takes_the_notebook_s_values(notebook: Notebook, e: str) -> None:
    notebook.ok("factor = 3\ndef scaled(v): return factor * v")
    assert notebook.ok("e.run('scaled(2)')").lines() == [f"{BOTH} 6"]


def test_push_and_pull_of_a_session(notebook: Notebook, e: str) -> None:
    notebook.ok("thing = {'a': 1}\ne.push('thing')")
    notebook.ok("e.run('thing[\"rank\"] = rank')")
    assert notebook.ok("e.pull('thing', rank=1), e.pull('thing')").text == (
        "({'a': 1, 'rank': 1}, {'a': 1, 'rank': 0})"
    )
    assert notebook.fails("e.pull('nothing_there')").ename == "UsageError"
    assert notebook.fails("e.push('nothing_here')").ename == "UsageError"


def test_its_status_is_a_list_of_ranks(notebook: Notebook, e: str) -> None:
    shown = notebook.ok("[(r.rank, r.state, r.device) for r in e.status()], e")
    assert shown.text == "([(0, 'idle', 'cpu'), (1, 'idle', 'cpu')], <Session e: 2 workers>)"


def test_a_session_of_the_same_name_is_the_same(notebook: Notebook, e: str) -> None:
    notebook.ok("e.run('marked = 1')")
    assert notebook.ok("qd.Session(name='e').run('marked')").lines() == [f"{BOTH} 1"]
    ran = notebook.fails("qd.Session(3, name='e')")
    assert ran.ename == "UsageError"
    assert "asks for 3" in ran.traceback


def test_the_default_session_is_the_one_of_the_cells(notebook: Notebook) -> None:
    assert notebook.ok("qd.Session().run('where')").lines() == [f"{BOTH} 'default'"]


def test_interrupt_from_python(notebook: Notebook, e: str) -> None:
    notebook.ok("%%distributed --session e --background --as run\nimport time\ntime.sleep(60)")
    assert notebook.ok("e.interrupt()\nrun.wait(), run.status").text == "(True, 'stopped')"


def test_the_stop_button_ends_a_session_s_run(notebook: Notebook, e: str) -> None:
    message = notebook.start("e.run('import time\\nprint(\"up\", flush=True)\\ntime.sleep(60)')")
    notebook.until(f"{BOTH} up")
    notebook.interrupt()
    assert notebook.finish(message).ename == "RunInterrupted"


def test_restart_and_stop_from_python(notebook: Notebook, e: str) -> None:
    notebook.ok("e.restart(1)")
    assert notebook.ok("len(e.status())").text == "1"
    assert "NameError" in notebook.fails("e.run('marked')").traceback
    assert notebook.ok("e.stop()\ne.status(), e").text == "([], <Session e: 0 workers>)"
    assert notebook.ok("e.run('world_size')").lines()[-1] == f"{BOTH} 2"
    notebook.ok("e.stop()")


@pytest.mark.parametrize(
    "wrong", ["name='no good'", "name=''", "n=0, name='z'", "n='many', name='z'", "1, 'z', backend='mpi'"]
)
def test_a_session_that_cannot_be_is_refused(notebook: Notebook, wrong: str) -> None:
    assert notebook.fails(f"qd.Session({wrong})").ename == "UsageError"
    assert notebook.ok("%workers status --session z").text.startswith("No workers yet")
