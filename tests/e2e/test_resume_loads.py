"""A run that was told to continue another, and does not, says so; one that does says from where."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.notebook import Notebook

SAVES = """
%%distributed -n 2 --fresh --name {name} --as {name}
import torch, quarterdeck as qd
model = torch.nn.Linear(2, 2)
for step in range({steps}):
    qd.save_checkpoint(model, step=step, metrics={{"loss": 1.0}})
qd.current().checkpoint.write(b"flyte")
"""
NOTHING = "has loaded nothing: it trains from the start"
PREPARE = """
import quarterdeck as qd

def head(run):
    from quarterdeck.views.run.snapshot import RunFacts, state
    from quarterdeck.views.sink import Control
    from quarterdeck.store.reader import StoredRun
    return state(run.folder, StoredRun.read(run.folder), RunFacts(), Control(), lambda rank: "").run.resumed
"""


@pytest.fixture(scope="module", autouse=True)
def prepared(notebook: Notebook) -> None:
    notebook.deadline_s = 40
    notebook.ok(PREPARE)
    notebook.ok(SAVES.format(name="source", steps=3))


@pytest.mark.parametrize("code", ["pass", "qd.log(loss=1.0)", "qd.save_checkpoint({}, step=0)"])
def test_one_that_loads_nothing_says_so_in_its_output_and_its_head(notebook: Notebook, code: str) -> None:
    ran = notebook.ok(f"%%distributed -n 2 --resume source --as run\nimport quarterdeck as qd\n{code}")
    assert ran.text.count(NOTHING) == 1
    assert "qd.load_checkpoint(" in ran.text
    assert notebook.ok("head(run)").text == "'has loaded nothing'"
    shown = notebook.ok("run")
    assert "It has loaded nothing." in shown.text + shown.html


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ('qd.load_checkpoint("latest")', "resumed from step 2"),
        ("qd.load_checkpoint(1)", "resumed from step 1"),
        ('qd.load_checkpoint("best:loss")', "resumed from step "),
        ('if rank == 1: qd.load_checkpoint("latest")', "resumed from step 2"),
        ("qd.current().checkpoint.read()", "resumed"),
        ("qd.current().checkpoint.restore()", "resumed"),
        ("list(qd.current().resume_from.iterdir())", "resumed"),
        ('qd.current().resume_from; qd.load_checkpoint("latest")', "resumed from step 2"),
        ('qd.load_checkpoint(1); qd.load_checkpoint("latest")', "resumed from step 1"),
    ],
)
def test_one_that_loads_says_from_which_step(notebook: Notebook, code: str, words: str) -> None:
    ran = notebook.ok(
        f"%%distributed -n 2 --resume source --as run\nimport quarterdeck as qd\n{code};\nqd.log(loss=1.0)"
    )
    assert NOTHING not in ran.text
    assert notebook.ok("print(head(run))").text.startswith(words)


def test_while_it_trains_from_the_start_it_is_told_before_its_end(notebook: Notebook) -> None:
    cell = notebook.start(
        "%%distributed -n 2 --resume source\n"
        "import time, quarterdeck as qd\nfor step in range(3000):\n    qd.log(loss=1.0)\n    time.sleep(0.02)"
    )
    notebook.until(NOTHING, deadline_s=30)
    notebook.interrupt()
    assert notebook.finish(cell).text.count(NOTHING) == 1


def test_a_function_is_told_as_well_and_one_that_fails_has_other_troubles(notebook: Notebook) -> None:
    notebook.ok("""
@qd.distributed(qd.Elastic(nproc_per_node=2), resume="source")
def train(fails):
    if fails: raise ValueError("no")
""")
    assert NOTHING in notebook.ok("train(False)").text
    assert NOTHING not in notebook.fails("train(True)").text


def test_runs_that_continue_nothing_are_told_nothing(notebook: Notebook) -> None:
    ran = notebook.ok("%%distributed -n 2 --fresh --as run\nimport quarterdeck as qd\nqd.log(loss=1.0)")
    assert NOTHING not in ran.text
    assert notebook.ok("head(run)").text == "''"


@pytest.mark.parametrize("code", ['qd.load_checkpoint("latest")', "qd.current().checkpoint.read()"])
def test_a_source_that_is_gone_before_it_is_read_is_an_error(notebook: Notebook, code: str) -> None:
    notebook.ok(SAVES.format(name="going", steps=1))
    folder = notebook.ok("print(going.folder)").text.strip()
    ran = notebook.fails(
        "%%distributed -n 1 --resume going\nimport shutil, quarterdeck as qd\n"
        f"shutil.rmtree({folder!r})\n{code}"
    )
    if "read" in code:  # which folder it reads was looked for before the first line
        assert "is not there" in ran.traceback
    else:
        assert "There is no checkpoint at" in ran.traceback
    assert notebook.ok("%%distributed --fresh -n 1\n40 + 2").text == "42"


def test_a_named_place_without_a_whole_checkpoint_is_an_error(notebook: Notebook, tmp_path: Path) -> None:
    notebook.ok(SAVES.format(name="harmed", steps=2))
    folder = Path(notebook.ok("print(harmed.folder)").text.strip()) / "checkpoints"
    copied = tmp_path / "copied"
    shutil.copytree(folder, copied)
    for step in copied.glob("step-*"):
        (step / "manifest.json").write_text("{")
    for where in (copied, tmp_path / "gone", tmp_path):
        ran = notebook.fails(f"qd.load_checkpoint({str(where)!r})")
        assert ran.ename == "UsageError", where
        assert str(where) in ran.traceback
    assert (
        notebook.ok(f"qd.load_checkpoint('latest', directory={str(tmp_path / 'new')!r}) is None").text
        == "True"
    )
