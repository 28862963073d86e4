"""What user code does to its streams, its exceptions and its values is shown as its own, and ends nothing."""

from __future__ import annotations

import pytest

from support.notebook import Notebook

_REDUCE = """class Leaves:
    def __{hook}__(self, *_): import sys; sys.exit({code})
leaves = Leaves()
leaves.x = 1"""
_FUNCTION = "import quarterdeck as qd\n@qd.distributed(qd.Elastic(nproc_per_node=2))\n"


@pytest.mark.parametrize(
    "stream",
    [
        "class Tee:\n    def write(self, text): sys.__stdout__.write(text)\n\nsys.stdout = Tee()",
        "class Odd:\n    def write(self, text): 1 / 0\n    def flush(self): exit(3)\nsys.stdout = Odd()",
        "sys.stdout = sys.stderr = None",
        "if rank: sys.stdout = sys.stderr = None",
        "sys.stdout = open('closed.txt', 'w'); sys.stdout.close()",
        "sys.stdout.close()",
    ],
    ids=["no flush", "all raise", "None", "None on one rank", "closed file", "ours closed"],
)
def test_streams_that_user_code_replaces_fail_no_cell_and_lose_no_names(
    notebook: Notebook, stream: str
) -> None:
    notebook.ok(f"%%distributed\nimport sys\nkept = rank\nbefore = sys.stdout, sys.stderr\n{stream}")
    assert sorted(notebook.ok("%%distributed\nkept + 40").lines()) == ["[0] 40", "[1] 41"]
    failed = notebook.fails("%%distributed\nraise ValueError('of the user')")
    assert "ValueError: of the user" in failed.traceback
    assert "quarterdeck itself" not in failed.traceback
    notebook.ok("%%distributed\nsys.stdout, sys.stderr = before\nprint(kept)")


@pytest.mark.parametrize("code", ["0", "7", "'bye'"])
def test_an_exit_while_a_value_is_unpickled_is_an_error_of_that_value(notebook: Notebook, code: str) -> None:
    notebook.ok("%%distributed\nkept = rank")
    notebook.ok(_REDUCE.format(hook="setstate", code=code))
    for cell in ("%%distributed\nleaves", "%push leaves"):
        assert "raised while it was unpickled" in notebook.fails(cell).traceback
    notebook.ok(
        "import quarterdeck as qd\n@qd.distributed(qd.Elastic(nproc_per_node=2))\ndef take(x): return 3"
    )
    assert "raised while it was unpickled" in notebook.fails("take(leaves)").traceback
    assert sorted(notebook.ok("%%distributed\nkept").lines()) == ["[0] 0", "[1] 1"]


@pytest.mark.parametrize("code", ["0", "7"])
def test_an_exit_while_a_value_is_pickled_is_an_error_of_that_value(notebook: Notebook, code: str) -> None:
    notebook.ok(_REDUCE.format(hook="reduce", code=code))
    assert "`leaves`" in notebook.fails("%%distributed\nleaves").traceback
    own = _REDUCE.format(hook="reduce", code=code).replace("leaves", "own")
    notebook.ok(f"%%distributed\nkept = rank\n{own}")
    assert "`own`" in notebook.fails("%pull own").traceback
    notebook.ok(f"{_FUNCTION}def give(): return Leaves()")
    assert "not picklable" in notebook.ok("repr(give())").text
    assert sorted(notebook.ok("%%distributed\nkept").lines()) == ["[0] 0", "[1] 1"]


@pytest.mark.parametrize("shown", ["R()", "display(R())", "R(), 3"])
def test_a_repr_that_raises_is_shown_with_its_line(notebook: Notebook, shown: str) -> None:
    ran = notebook.ok(
        f"%%distributed\nclass R:\n    def __repr__(self):\n        raise ValueError('no')\n{shown}"
    )
    assert "in R.__repr__(self)" in ran.text
    assert "ValueError: no" in ran.text


def test_an_exception_whose_text_cannot_be_had_keeps_its_class_and_line(notebook: Notebook) -> None:
    odd = "class Odd(RuntimeError):\n    def __str__(self):\n        raise RuntimeError('no text')\n"
    failed = notebook.fails(f"%%distributed\n{odd}raise Odd()")
    assert "Odd: <exception str() failed>" in failed.traceback
    assert "----> 5 raise Odd()" in failed.traceback
    notebook.ok(f"{odd}{_FUNCTION}def f(): raise Odd()")
    assert "Odd: <exception str() failed>" in notebook.fails("f()").traceback
    chained = notebook.fails(f"%%distributed\n{odd}try:\n    raise Odd()\nexcept Odd:\n    1 / 0")
    assert "Odd: <exception str() failed>" in chained.traceback
    assert "ZeroDivisionError" in chained.traceback


@pytest.mark.parametrize(
    "cell",
    [
        "%%distributed\nraise ValueError('H' * 20_000_000)",
        "%%distributed\ntry:\n    raise KeyError('H' * 20_000_000)\nexcept KeyError:\n    1 / 0",
        "long_winded()",
    ],
)
def test_an_exception_with_a_text_without_end_is_shown_in_part(notebook: Notebook, cell: str) -> None:
    notebook.ok(f"{_FUNCTION}def long_winded(): raise ValueError('H' * 20_000_000)")
    failed = notebook.fails(cell)
    assert 60_000 < len(failed.traceback) < 200_000
    assert "characters left out" in failed.traceback
    notebook.ok("%%distributed\nrank")


def test_a_cell_inside_a_cell_that_fails_is_shown_and_the_cell_goes_on(notebook: Notebook) -> None:
    ran = notebook.ok("%%distributed\nget_ipython().run_cell('1 / 0')\nprint('after')")
    assert ran.text.index("ZeroDivisionError") < ran.text.index("after")


def test_workers_are_no_prompt_and_know_qd(notebook: Notebook) -> None:
    """Lightning asks for `sys.ps1`; README's examples say `qd.log` without an import."""
    ran = notebook.ok("%%distributed\nimport sys\nqd.log(1, loss=0.5)\nhasattr(sys, 'ps1')")
    assert "[0–1] False" in ran.text
    notebook.ok("qd = 'a table of mine'")
    assert notebook.ok("%%distributed\nqd").lines() == ["[0–1] 'a table of mine'"]
    notebook.ok("import quarterdeck as qd")
    assert "[0–1] True" in notebook.ok("%%distributed\nhasattr(qd, 'log')").text
