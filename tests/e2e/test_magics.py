"""`%workers`, `%push`, `%pull`, completion, inspection, loading and unloading, in a real kernel."""

from __future__ import annotations

import time
from typing import Any

import pytest

from support.kernel import descendants
from support.notebook import Notebook

BOTH = "[0\u20131]"


def _completions(notebook: Notebook, before: str, behind: str = "") -> list[str]:
    """What the front end offers with the cursor between these parts of a cell."""
    reply: Any = notebook.client.complete(before + behind, len(before), reply=True, timeout=30)
    return list(reply["content"]["matches"])


def _inspection(notebook: Notebook, code: str) -> str:
    """What Shift-Tab shows with the cursor at the end of the code; empty if nothing is found."""
    reply: Any = notebook.client.inspect(code, len(code), reply=True, timeout=30)
    return str(reply["content"]["data"].get("text/plain", ""))


def _soon(notebook: Notebook, verb: str) -> None:
    """Have another thread of the kernel run `%workers` when the next cell, `_CELL`, runs on both ranks."""
    notebook.ok(f"""
import os, threading, time

def soon():
    while len([name for name in os.listdir() if name.startswith("runs-")]) < 2:
        time.sleep(0.02)
    time.sleep(0.1)
    get_ipython().run_line_magic("workers", {verb!r})
    for name in ("runs-0", "runs-1"):
        os.remove(name)

threading.Timer(0.1, soon).start()
""")


_CELL = """import os, time
open(f"runs-{rank}", "w").close()
while os.path.exists(f"runs-{rank}"): time.sleep(0.05)  # here"""


# ---- %workers


def test_status_shows_every_rank_with_its_process(notebook: Notebook) -> None:
    ran = notebook.ok("%workers status")
    assert "2 workers, idle" in ran.text
    assert len(set(notebook.worker_pids())) == 2
    assert "<table" in ran.html


def test_status_is_what_workers_shows_without_a_verb(notebook: Notebook) -> None:
    assert "2 workers, idle" in notebook.ok("%workers").text


def test_doctor_names_versions_and_processes(notebook: Notebook) -> None:
    text = notebook.ok("%workers doctor").text
    for fact in ("python", "torch", "forked from", "background process", "cores", "GPUs", "run store"):
        assert fact in text


def test_stacks_of_idle_workers_say_that_nothing_runs(notebook: Notebook) -> None:
    text = notebook.ok("%workers stacks").text
    assert text.count("no user code is running") == 2


def test_start_on_running_workers_says_so(notebook: Notebook) -> None:
    before = notebook.worker_pids()
    assert "2 workers were running already" in notebook.ok("%workers start").text
    assert notebook.worker_pids() == before


def test_interrupt_without_a_cell_says_so(notebook: Notebook) -> None:
    assert "No cell is running" in notebook.ok("%workers interrupt").text


def test_restart_gives_new_workers_without_variables(notebook: Notebook) -> None:
    notebook.ok("%%distributed\nforgotten = 1")
    before = notebook.worker_pids()
    assert "2 workers started" in notebook.ok("%workers restart").text
    assert not set(notebook.worker_pids()) & set(before)
    assert "NameError" in notebook.fails("%%distributed\nforgotten").traceback


def test_stop_ends_the_workers_and_the_next_cell_starts_new_ones(notebook: Notebook) -> None:
    before = notebook.worker_pids()
    assert "2 workers stopped" in notebook.ok("%workers stop").text
    assert not set(before) & descendants(notebook.pid)
    assert "No workers yet" in notebook.ok("%workers").text
    ran = notebook.ok("%%distributed\nworld_size")
    assert "2 workers started" in ran.text
    assert f"{BOTH} 2" in ran.lines()


def test_restart_with_n_changes_the_number_of_workers(notebook: Notebook) -> None:
    assert "3 workers started" in notebook.ok("%workers restart -n 3").text
    assert notebook.ok("%%distributed\nworld_size").lines() == ["[0\u20132] 3"]
    assert "2 workers started" in notebook.ok("%workers restart -n 2").text


def test_one_worker_needs_no_rank_labels(notebook: Notebook) -> None:
    notebook.ok("%workers restart -n 1")
    assert notebook.ok("%%distributed\nworld_size").lines() == ["1"]
    notebook.ok("%workers restart -n 2")


# ---- while a cell runs


def test_interrupt_from_another_thread_ends_the_cell(notebook: Notebook) -> None:
    _soon(notebook, "interrupt")
    ran = notebook.fails(f"%%distributed\n{_CELL}\ntime.sleep(60)")
    assert ran.ename == "RunInterrupted"
    assert ran.duration_s < 20


def test_status_answers_while_a_cell_runs(notebook: Notebook) -> None:
    _soon(notebook, "status")
    ran = notebook.ok(f"%%distributed --name slow\n{_CELL}")
    assert "2 workers, running slow" in ran.text


def test_stacks_show_the_line_that_every_rank_is_at(notebook: Notebook) -> None:
    _soon(notebook, "stacks")
    ran = notebook.ok(f"%%distributed\n{_CELL}")
    line = 'while os.path.exists(f"runs-{rank}"): time.sleep(0.05)  # here'
    assert ran.text.count(f"line 4, in <module>\n      {line}") == 2


def test_a_second_cell_waits_for_the_first_and_says_for_which(notebook: Notebook) -> None:
    cell = notebook.start(
        "import threading\nrun = get_ipython().run_cell_magic\n"
        "second = threading.Timer(0.4, run, ('distributed', '', 'print(\"second\")'))\nsecond.start()\n"
        "run('distributed', '--name first', 'import time\\ntime.sleep(1.5)\\nprint(\"first\")')\n"
        "second.join()"
    )
    notebook.until("Waiting for first.")
    ran = notebook.finish(cell)
    assert sorted(ran.lines()) == [f"{BOTH} first", f"{BOTH} second"]


# ---- %push and %pull


def test_push_replaces_a_worker_s_value_and_says_what_it_was(notebook: Notebook) -> None:
    notebook.ok("%%distributed\ntable = [1, 2, 3]")
    ran = notebook.ok("table = 'from the notebook'\n%push table")
    assert "`table` replaced the workers' own value (list of 3)" in ran.text
    assert notebook.ok("%%distributed\ntable").lines() == [f"{BOTH} 'from the notebook'"]


def test_push_takes_several_names_and_some_ranks(notebook: Notebook) -> None:
    notebook.ok("left, right = 1, 2\n%push left right --ranks 1")
    assert notebook.ok("%%rank 1\nleft + right").lines() == ["[1] 3"]
    assert "NameError" in notebook.fails("%%rank 0\nglobals()['left']").traceback


def test_pull_brings_rank_0_s_value(notebook: Notebook) -> None:
    notebook.ok("%%distributed\nresult = {'rank': rank}")
    assert notebook.ok("%pull result\nresult").text == "{'rank': 0}"


def test_pull_can_name_the_rank_and_the_notebook_s_variable(notebook: Notebook) -> None:
    notebook.ok("%%distributed\nscore = rank + 10")
    assert notebook.ok("score = 'mine'\n%pull score as theirs --rank 1\nscore, theirs").text == "('mine', 11)"


def test_pulled_objects_are_of_the_notebook_s_own_class(notebook: Notebook) -> None:
    notebook.ok("from dataclasses import dataclass\n@dataclass\nclass Config:\n    lr: float = 0.1")
    notebook.ok("%%distributed\nconfig = Config(lr=0.5)")
    assert notebook.ok("%pull config\ntype(config) is Config, config").text == "(True, Config(lr=0.5))"


def test_a_pulled_model_computes_in_the_notebook(notebook: Notebook) -> None:
    notebook.ok(
        "%%distributed\nimport torch\nlinear = torch.nn.Linear(2, 1)\n"
        "_ = torch.nn.init.constant_(linear.weight, 3)"
    )
    assert notebook.ok("%pull linear\nlinear.weight.tolist()").text == "[[3.0, 3.0]]"


# ---- completion and inspection


def test_options_complete_on_the_magic_line(notebook: Notebook) -> None:
    options = {"--seed", "--session", "--setup", "--start-method"}
    assert options == set(_completions(notebook, "%%distributed --s"))
    assert "--timeout" in _completions(notebook, "%%rank 0 --t")


def test_options_complete_before_a_body_too(notebook: Notebook) -> None:
    assert _completions(notebook, "%%distributed --na", "\nx = 1") == ["--name"]


def test_verbs_of_workers_complete(notebook: Notebook) -> None:
    assert set(_completions(notebook, "%workers st")) == {"status", "start", "stop", "stacks"}


def test_names_that_only_the_workers_have_complete_in_the_body(notebook: Notebook) -> None:
    notebook.ok("%%distributed\nworkers_only_value = 'text'")
    assert "workers_only_value" in _completions(notebook, "%%distributed\nx = 1\nprint(workers_only")
    assert any("upper" in match for match in _completions(notebook, "%%distributed\nworkers_only_value.upp"))
    assert _completions(notebook, "workers_only") == []


def test_names_of_the_notebook_complete_in_the_body_as_well(notebook: Notebook) -> None:
    notebook.ok("notebooks_own_value = 1")
    assert "notebooks_own_value" in _completions(notebook, "%%distributed\nnotebooks_own")


def test_inspection_in_the_body_shows_what_the_workers_have(notebook: Notebook) -> None:
    notebook.ok(
        '%%distributed\ndef workers_function(a, b=2):\n    """Adds on the workers."""\n    return a + b'
    )
    assert "Adds on the workers." in _inspection(notebook, "%%distributed\nx = 1\nworkers_function")
    assert _inspection(notebook, "workers_function") == ""


def test_inspection_falls_back_to_the_notebook(notebook: Notebook) -> None:
    notebook.ok('def notebooks_function():\n    """Lives in the notebook."""')
    assert "Lives in the notebook." in _inspection(notebook, "%%distributed\nnotebooks_function")


def test_completion_answers_while_a_cell_runs(notebook: Notebook) -> None:
    """The shell channel is busy then, so a front end asks on a subshell; here the kernel asks itself."""
    notebook.ok("%%distributed\nbusy_workers_name = 1")
    notebook.ok(
        "import threading\nfrom IPython.core.completer import provisionalcompleter\nfound = []\n"
        "def ask():\n    with provisionalcompleter():\n"
        "        matches = get_ipython().Completer.completions('%%distributed\\nbusy_workers', 26)\n"
        "        found.extend(match.text for match in matches)\n"
        "threading.Timer(0.4, ask).start()"
    )
    notebook.ok("%%distributed\nimport time\ntime.sleep(2)")
    assert "busy_workers_name" in notebook.ok("found").text


@pytest.mark.parametrize("magic", ["%%distributed", "%%rank", "%workers", "%push", "%pull"])
def test_a_question_mark_shows_the_help_of_a_magic(notebook: Notebook, magic: str) -> None:
    message = notebook.start(f"{magic}?")
    notebook.finish(message)
    reply: Any = notebook.client.inspect(magic, len(magic), reply=True, timeout=30)
    assert "usage:" in reply["content"]["data"]["text/plain"]


# ---- loading and unloading


def test_loading_costs_little_and_leaves_torch_alone(new_notebook: Notebook) -> None:
    ran = new_notebook.ok("%load_ext quarterdeck\nimport sys\n'torch' in sys.modules, 'numpy' in sys.modules")
    assert ran.text == "(False, False)"
    assert ran.duration_s < 5


def test_unloading_leaves_nothing_and_reloading_works(new_notebook: Notebook) -> None:
    new_notebook.ok(
        "import os, signal, threading\ndef traces():\n    shell = get_ipython()\n    return (\n"
        "        dict(os.environ), signal.getsignal(signal.SIGINT), threading.active_count(),\n"
        "        [set(names) for names in shell.magics_manager.magics.values()],\n"
        "        list(shell.Completer.custom_matchers), 'do_inspect' in vars(shell.kernel),\n"
        "        shell.display_pub, shell.displayhook,\n    )\nbefore = traces()"
    )
    alone = descendants(new_notebook.pid)
    new_notebook.ok("%load_ext quarterdeck")
    new_notebook.ok("%%distributed -n 2\nx = 1", deadline_s=110)
    assert len(descendants(new_notebook.pid)) > len(alone)
    new_notebook.ok("%unload_ext quarterdeck")
    assert descendants(new_notebook.pid) == alone
    assert new_notebook.ok("traces() == before").text == "True"
    assert "`%%distributed` not found" in new_notebook.run("%%distributed\n1").text

    new_notebook.ok("%load_ext quarterdeck")
    new_notebook.ok("%reload_ext quarterdeck")
    ran = new_notebook.ok("%%distributed -n 2\nrank", deadline_s=110)
    assert {"[0] 0", "[1] 1"} <= set(ran.lines())


def test_loading_twice_does_no_harm(notebook: Notebook) -> None:
    before = notebook.worker_pids()
    notebook.ok("%load_ext quarterdeck")
    assert notebook.worker_pids() == before


def test_magics_answer_fast_on_warm_workers(notebook: Notebook) -> None:
    notebook.ok("%%distributed\nsmall = 1")
    began_s = time.monotonic()
    for cell in ("%workers", "%pull small", "%push small", "%%distributed\nsmall"):
        notebook.ok(cell)
    assert time.monotonic() - began_s < 10


# ---- nothing hangs, also not in pickling


SLOW_TO_UNPICKLE = """
import time
class Slow:
    def __reduce__(self):
        return time.sleep, (600,)
slow = Slow()
"""


def test_a_push_that_never_ends_can_be_interrupted_and_the_next_cell_works(notebook: Notebook) -> None:
    notebook.ok(SLOW_TO_UNPICKLE)
    pids = notebook.worker_pids()
    ran = notebook.run("%push slow", deadline_s=15, while_running=lambda: stop_after(notebook, 1.0))
    assert ran.status == "error"
    assert notebook.ok("%%distributed\n1 + 1").text == "[0\u20131] 2"
    assert notebook.worker_pids() == pids


def test_a_value_that_never_arrives_with_its_cell_can_be_interrupted(notebook: Notebook) -> None:
    notebook.ok(SLOW_TO_UNPICKLE)
    pids = notebook.worker_pids()
    ran = notebook.run("%%distributed\nslow", deadline_s=15, while_running=lambda: stop_after(notebook, 1.0))
    assert ran.status == "error"
    assert "stopped by you" in ran.traceback
    assert notebook.ok("%%distributed\n1 + 1").text == "[0\u20131] 2"
    assert notebook.worker_pids() == pids


def test_a_pull_that_never_ends_can_be_interrupted(notebook: Notebook) -> None:
    notebook.ok(
        "%%distributed\nimport time\nclass Stuck:\n    def __reduce__(self): time.sleep(600)\nstuck = Stuck()"
    )
    pids = notebook.worker_pids()
    ran = notebook.run("%pull stuck", deadline_s=15, while_running=lambda: stop_after(notebook, 1.0))
    assert ran.status == "error"
    assert notebook.ok("%%distributed\n1 + 1").text == "[0\u20131] 2"
    assert notebook.worker_pids() == pids


def stop_after(notebook: Notebook, seconds: float) -> None:
    time.sleep(seconds)
    notebook.interrupt()


def test_a_restart_keeps_what_it_is_not_told_to_change(new_notebook: Notebook) -> None:
    new_notebook.ok("%load_ext quarterdeck\n%workers start -n 1 --start-method spawn", deadline_s=60)
    assert "1 worker started" in new_notebook.ok("%workers restart", deadline_s=60).text
    status = new_notebook.ok("%workers status").lines()
    assert [line.split() for line in status if line.startswith("start method")] == [
        ["start", "method", "spawn"]
    ]
