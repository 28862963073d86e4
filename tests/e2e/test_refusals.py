"""What cannot be is refused before anything starts, in a few words that say what to write instead."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.notebook import Notebook

BOTH = "[0\u20131]"


@pytest.fixture(autouse=True)
def the_session_stays_as_it_was(notebook: Notebook) -> Iterator[None]:
    notebook.ok("%%distributed\nkept = 'still here'")
    before = notebook.worker_pids()
    yield
    assert notebook.worker_pids() == before
    assert notebook.ok("%%distributed\nkept").lines() == [f"{BOTH} 'still here'"]


def _refused(notebook: Notebook, code: str) -> str:
    """Run what must be refused; returns the error, which is short and has no stack."""
    ran = notebook.fails(code)
    assert ran.ename == "UsageError", ran.traceback
    assert len(ran.traceback.splitlines()) <= 6, ran.traceback
    assert ran.outputs == [], ran.text
    assert ran.duration_s < 10
    return ran.traceback.removeprefix("UsageError: ")


# ---- options


def test_a_wrong_option_names_the_nearest_right_one(notebook: Notebook) -> None:
    text = _refused(notebook, "%%distributed --time-out 5\nkept = 'changed'")
    assert text == "%%distributed has no option `--time-out`.\nDid you mean `--timeout`?"


def test_an_option_of_no_kind_lists_all(notebook: Notebook) -> None:
    text = _refused(notebook, "%%distributed --zzzzzz\nkept = 'changed'")
    assert "--backend" in text
    assert "--timeout" in text


def test_options_are_never_guessed_from_their_beginnings(notebook: Notebook) -> None:
    assert "Did you mean `--timeout`?" in _refused(notebook, "%%distributed --timeo 5\nkept = 'changed'")


def test_a_word_too_many_is_named(notebook: Notebook) -> None:
    assert "%%distributed takes no `everywhere`" in _refused(notebook, "%%distributed everywhere\nkept = 1")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("%%distributed -n 0", "write 1 or more"),
        ("%%distributed -n -1", "write 1 or more"),
        ("%%distributed -n two", "write 1 or more, auto, gpu or cpu"),
        ("%%distributed --ranks first", "write them as 0 or 0,2-3"),
        ("%%distributed --ranks 1-0", "write them as 0 or 0,2-3"),
        ("%%distributed --timeout soon", "seconds"),
        ("%%distributed --timeout 0", "seconds"),
        ("%%distributed --env MODE", "write NAME=VALUE"),
        ("%%distributed --seed lucky", "--seed"),
        ("%%distributed --backend mpi", "gloo"),
        ("%%distributed --start-method forkserver", "spawn"),
        ("%%distributed --name", "--name"),
        ("%%distributed --name 'open", "quotation"),
        ("%%rank", "LIST"),
    ],
)
def test_a_wrong_value_says_what_to_write(notebook: Notebook, line: str, says: str) -> None:
    assert says in _refused(notebook, f"{line}\nkept = 'changed'")


# ---- the group


def test_a_rank_that_does_not_exist_is_named_with_those_that_do(notebook: Notebook) -> None:
    assert "There is no rank 7: the session has ranks 0-1." in _refused(
        notebook, "%%rank 7\nkept = 'changed'"
    )


def test_another_n_on_running_workers_names_what_it_would_cost(notebook: Notebook) -> None:
    text = _refused(notebook, "%%distributed -n 3\nkept = 'changed'")
    assert "`-n 2`" in text
    assert "`%workers restart -n 3`" in text
    assert "kept" in text


def test_another_start_method_on_running_workers_is_refused(notebook: Notebook) -> None:
    text = _refused(notebook, "%%distributed --start-method spawn\nkept = 'changed'")
    assert "`%workers restart --start-method spawn`" in text


def test_the_same_n_is_no_error(notebook: Notebook) -> None:
    assert notebook.ok("%%distributed -n 2\nworld_size").lines() == [f"{BOTH} 2"]


@pytest.mark.parametrize("line", ["%%distributed --backend nccl\n1", "%workers restart --backend nccl"])
def test_nccl_without_a_gpu_says_to_use_gloo(notebook: Notebook, line: str) -> None:
    text = _refused(notebook, line)
    assert "this machine has none" in text
    assert "`--backend gloo`" in text


def test_workers_restart_n_gpu_without_a_gpu_keeps_the_workers(notebook: Notebook) -> None:
    assert "Write `-n cpu` or a number." in _refused(notebook, "%workers restart -n gpu")


# ---- the code


def test_a_syntax_error_shows_the_notebook_s_line_and_runs_nothing(notebook: Notebook) -> None:
    number = int(notebook.ok("print(len(In))").text)
    text = _refused(notebook, "%%distributed\nkept = 'changed'\n\nfor i in range(3) print(i)")
    assert f"Cell In[{number}], line 4" in text
    assert "for i in range(3) print(i)" in text
    assert "Nothing was run" in text


def test_an_indentation_error_is_found_before_the_start_too(notebook: Notebook) -> None:
    assert "IndentationError" in _refused(notebook, "%%distributed\nkept = 'changed'\nif kept:\nprint()")


def test_an_empty_cell_is_named(notebook: Notebook) -> None:
    assert "has no code under it" in _refused(notebook, "%%distributed\n\n  \n")
    assert "cell body is empty" in notebook.run("%%distributed").text


def test_a_cell_of_comments_only_runs(notebook: Notebook) -> None:
    assert notebook.ok("%%distributed\n# nothing yet").outputs == []


def test_what_cannot_be_pickled_is_named_with_the_path_to_it(notebook: Notebook) -> None:
    notebook.ok(
        "import threading\nclass Box:\n    def __init__(self):\n        self.guard = threading.Lock()\n"
        "box = Box()\ndef opened():\n    return box.guard"
    )
    text = _refused(notebook, "%%distributed\nkept = 'changed'\nopened()")
    assert "`box.guard`" in text
    assert "used by `opened`" in text
    assert "%%distributed" in text


def test_a_closure_over_something_unpicklable_is_named(notebook: Notebook) -> None:
    notebook.ok(
        "import threading\ndef make():\n    guard = threading.Lock()\n    return lambda: guard.locked()\n"
        "guarded = make()"
    )
    text = _refused(notebook, "%%distributed\nkept = 'changed'\nguarded()")
    assert "guard" in text.replace("guarded", "")
    assert "`guarded`" in text


def test_a_name_that_only_one_rank_has_is_refused_with_the_cures(notebook: Notebook) -> None:
    notebook.ok("%%rank 0\nonly_here = 1")
    text = _refused(notebook, "%%distributed\nkept = 'changed'\nonly_here")
    assert "exists on rank 0 but not on rank 1" in text
    assert "%%rank 0" in text


# ---- line magics


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("%workers statsu", "Did you mean `%workers status`?"),
        ("%workers dance", "Write one of status, start"),
        ("%workers restart --n 3", "`-n`"),
        ("%pull nothing_of_this_name", "rank 0 has no `nothing_of_this_name`"),
        ("%pull kept --rank 5", "There is no rank 5"),
        ("%pull kept to mine", "`%pull NAME as OTHER`"),
        ("%pull kept as 1st", "`%pull NAME as OTHER`"),
        ("%pull", "NAME"),
        ("%push nothing_of_this_name", "The notebook has no `nothing_of_this_name`"),
        ("%push", "NAME"),
    ],
)
def test_a_wrong_line_magic_says_what_to_write(notebook: Notebook, line: str, says: str) -> None:
    assert says in _refused(notebook, line)


def test_a_value_that_cannot_be_pulled_is_named_with_the_path_to_it(notebook: Notebook) -> None:
    notebook.ok("%%distributed\nimport threading\nholder = {'inside': [threading.Lock()]}")
    text = _refused(notebook, "%pull holder")
    assert "`holder` cannot be pulled" in text
    assert "inside" in text


def test_pushing_what_cannot_be_pickled_is_refused(notebook: Notebook) -> None:
    notebook.ok("import threading\nbroken = {'guard': threading.Lock()}")
    assert "guard" in _refused(notebook, "%push broken")


def test_an_error_does_not_bind_the_pulled_name(notebook: Notebook) -> None:
    _refused(notebook, "%pull nothing_of_this_name as mine")
    assert notebook.ok("'mine' in globals()").text == "False"


# ---- before anything is loaded or started


def test_a_cell_before_load_ext_is_ipython_s_own_error(new_notebook: Notebook) -> None:
    ran = new_notebook.run("%%distributed\nrank")
    assert ran.status == "error"
    assert "`%%distributed` not found" in ran.text


def test_nccl_without_a_gpu_is_refused_on_a_first_cell_too(new_notebook: Notebook) -> None:
    new_notebook.ok("%load_ext quarterdeck")
    ran = new_notebook.fails("%%distributed --backend nccl\nrank", deadline_s=110)
    assert "this machine has none. Write `--backend gloo`" in ran.traceback
    assert "No workers yet" in new_notebook.ok("%workers").text
