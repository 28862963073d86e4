"""`%run` in a worker cell: a script that fails is a cell that fails."""

from __future__ import annotations

import pytest

from support.notebook import Notebook

_SCRIPT = "print('start')\nseen = 5\ndef g():\n    return 1 / 0\ng()\n"


@pytest.fixture
def scripts(notebook: Notebook) -> Notebook:
    (notebook.folder / "fails.py").write_text(_SCRIPT)
    (notebook.folder / "leaves.py").write_text("import sys\nsys.exit(int(sys.argv[1]))\n")
    (notebook.folder / "sleeps.py").write_text("import time\nseen = 6\nprint('asleep')\ntime.sleep(60)\n")
    (notebook.folder / "rank_0.py").write_text(
        "from torch import distributed as d\nif not d.get_rank():\n    raise KeyError('a key')\nd.barrier()\n"
    )
    (notebook.folder / "cells.ipy").write_text("x = 1\n1 / 0\n")
    return notebook


@pytest.mark.parametrize("options", ["", "-t ", "-n ", "-i ", "-m "])
def test_its_traceback_is_the_cells(scripts: Notebook, options: str) -> None:
    scripts.ok("%%distributed\nkept = rank")
    failed = scripts.fails(f"%%distributed\n%run {options}{'fails' if '-m' in options else 'fails.py'}")
    assert "raised ZeroDivisionError: division by zero" in failed.traceback
    assert "fails.py:4, in g()" in failed.traceback
    assert "quarterdeck/worker" not in failed.traceback
    assert "IPython/core" not in failed.traceback
    assert "start" in failed.text
    assert sorted(scripts.ok("%%distributed\nkept").lines()) == ["[0] 0", "[1] 1"]


def test_its_names_are_there_all_the_same(scripts: Notebook) -> None:
    scripts.fails("%%distributed\n%run fails.py")
    assert scripts.ok("%%distributed\nseen").lines() == ["[0–1] 5"]


def test_an_exit_with_a_code_fails_and_one_without_does_not(scripts: Notebook) -> None:
    failed = scripts.fails("%%distributed\n%run leaves.py 1")
    assert "SystemExit: 1" in failed.traceback
    assert "leaves.py:2" in failed.traceback
    scripts.ok("%%distributed\n%run leaves.py 0")
    scripts.ok("%%distributed\n%run -e leaves.py 1")


def test_a_failure_on_one_rank_frees_the_others(scripts: Notebook) -> None:
    failed = scripts.fails("%%distributed\n%run rank_0.py")
    assert "rank 0 raised KeyError: 'a key'" in failed.traceback
    scripts.ok("%%distributed\nimport torch.distributed as dist\ndist.barrier()")


def test_a_stop_is_a_stop(scripts: Notebook) -> None:
    stopped = scripts.run("%%distributed\n%run sleeps.py", while_running=lambda: _interrupt(scripts))
    assert stopped.ename == "RunInterrupted"
    assert scripts.ok("%%distributed\nseen").lines() == ["[0–1] 6"]
    timed_out = scripts.fails("%%distributed --timeout 1\n%run sleeps.py")
    assert "time-out" in timed_out.traceback


def test_cells_of_a_file_fail_once(scripts: Notebook) -> None:
    failed = scripts.fails("%%distributed\n%run cells.ipy")
    assert "ZeroDivisionError" in failed.traceback
    assert "ZeroDivisionError" not in failed.text


def _interrupt(notebook: Notebook) -> None:
    notebook.until("asleep")
    notebook.interrupt()
