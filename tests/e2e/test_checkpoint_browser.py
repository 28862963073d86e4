"""Checkpoints of runs, as a notebook without a page shows them: the sequence, the magic, the table."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from support.notebook import Notebook

TRAIN = """%%distributed --name {name}
import torch
model = torch.nn.Linear(4, 2)
for step in range(3):
    qd.save_checkpoint(model, step=step * 10, metrics={{"loss": 1 / (step + 1)}})
"""


def value(notebook: Notebook, code: str) -> Any:
    return ast.literal_eval(notebook.ok(f"print(repr({code}))").text)


@pytest.fixture(scope="module")
def trained(notebook: Notebook) -> Notebook:
    """Two runs with three checkpoints each."""
    notebook.ok("import quarterdeck as qd, sys")
    notebook.ok(TRAIN.format(name="one"))
    notebook.ok(TRAIN.format(name="two"))
    return notebook


def test_a_run_has_its_checkpoints_as_a_sequence(trained: Notebook) -> None:
    trained.ok("found = qd.runs()['two'].checkpoints")
    assert value(trained, "[c.step for c in found]") == [0, 10, 20]
    assert value(trained, "[found.latest.step, found.best('loss').step, found.best('max:loss').step]") == [
        20,
        20,
        0,
    ]
    assert value(trained, "[found[-1].metrics['loss'] < 0.34, found[0].valid, found[0].step]") == [
        True,
        True,
        0,
    ]
    assert "/runs/" in value(trained, "found.latest.path")


def test_the_store_has_those_of_all_runs_the_newest_last(trained: Notebook) -> None:
    trained.ok("every = qd.checkpoints()")
    assert value(trained, "len(every)") >= 6
    assert "two" in value(trained, "every.latest.path")
    assert value(trained, "len(qd.checkpoints(qd.runs()['one'].folder))") == 3
    assert value(trained, "callable(qd.checkpoints)")


@pytest.mark.parametrize("code", ["%checkpoints one", "qd.runs()['one'].checkpoints"])
def test_it_shows_itself_as_a_table_where_no_page_is(trained: Notebook, code: str) -> None:
    ran = trained.ok(code)
    assert not any("widget" in mime for mime in ran.mimes())
    lines = ran.text.splitlines()
    assert lines[0].startswith("one ")
    assert lines[1].split() == ["step", "saved", "size", "loss", "notes"]
    assert [line.split()[0] for line in lines[2:5]] == ["20", "10", "0"]
    assert "best loss" in lines[2]
    assert "3 checkpoints" in lines[5]
    assert "<script" not in ran.html
    assert "qd-shelf-static" in ran.html


def test_all_runs_stand_in_one_list(trained: Notebook) -> None:
    text = trained.ok("%checkpoints").text
    assert text.index("two ") < text.index("one ")


def test_a_name_that_nothing_has_is_refused_with_a_hint(trained: Notebook) -> None:
    ran = trained.run("%checkpoints nowhere")
    assert ran.ename == "UsageError"
    assert "no run and no folder 'nowhere'" in ran.traceback


def test_an_empty_store_says_how_to_fill_it(trained: Notebook, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    assert "qd.save_checkpoint(" in trained.ok(f"%checkpoints {tmp_path}").text


def test_it_is_a_table_where_the_extension_is_not_loaded(new_notebook: Notebook, trained: Notebook) -> None:
    new_notebook.ok("import quarterdeck as qd")
    ran = new_notebook.ok(f"qd.checkpoints({str(trained.folder / '.quarterdeck')!r})")
    assert "best loss" in ran.text
    assert "<table" in ran.html


def test_looking_loads_no_torch(new_notebook: Notebook, trained: Notebook) -> None:
    """The kernel does not import it: a list costs milliseconds, and importing torch takes seconds."""
    new_notebook.ok("import sys, quarterdeck as qd")
    new_notebook.ok(f"qd.checkpoints({str(trained.folder / '.quarterdeck')!r})")
    assert value(new_notebook, "[name for name in ('torch', 'numpy', 'IPython') if name in sys.modules]") == [
        "IPython"
    ]
