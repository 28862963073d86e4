"""`--resume`: a new run continues an earlier one, also after a kernel restart, with its curves joined."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import fresh_notebook
from support.notebook import Notebook

PREPARE = """
import os, time
import quarterdeck as qd

def told(call):
    try:
        call()
    except qd.UsageError as error:
        return str(error)
    raise AssertionError("not refused")
"""

# Logs the steps from where the run before stopped, and keeps the number of the next one.
TRAIN = """{magic}
import quarterdeck as qd
here = qd.current()
first = int(here.checkpoint.read() or b"0")
for step in range(first, first + 5):
    qd.log(loss=100.0 * (first + 1) + step, step=step)
here.checkpoint.write(b"%d" % (first + 3))
first"""


@pytest.fixture(scope="module", autouse=True)
def prepared(notebook: Notebook) -> None:
    notebook.deadline_s = 30
    notebook.ok(PREPARE)


def train(options: str) -> str:
    return TRAIN.format(magic=f"%%distributed -n 2 {options}")


def test_it_finds_what_the_earlier_run_saved_and_says_which_it_was(notebook: Notebook) -> None:
    assert "[0\u20131] 0" in notebook.ok(train("--fresh --name walk --as one")).lines()
    assert "[0\u20131] 3" in notebook.ok(train("--resume latest --name walk --as two")).lines()
    assert "[0\u20131] 6" in notebook.ok(train("--resume latest --name walk --as three")).lines()
    notebook.ok("assert three.parent.run_id == two.run_id and two.parent is one and one.parent is None")


def test_curves_are_those_of_the_runs_before_up_to_where_the_new_one_began(notebook: Notebook) -> None:
    notebook.ok("""
loss = three.metrics["loss"]
assert list(loss.steps(1)) == list(range(11))
assert list(loss.values(1)) == [100, 101, 102, 403, 404, 405, *range(706, 711)]
assert list(two.metrics["loss"].steps(0)) == list(range(8))
assert list(one.metrics["loss"].steps(0)) == list(range(5))
table = three.metrics.to_pandas()
assert sorted(set(table["run"])) == sorted(run.run_id for run in (one, two, three))
assert len(table) == 2 * 11
drawn = three.plot("loss").axes[0].get_lines()
assert any(len(line.get_xdata()) == 11 for line in drawn), [len(line.get_xdata()) for line in drawn]
""")


def test_a_run_is_named_by_its_id_its_name_or_a_path(notebook: Notebook) -> None:
    notebook.ok(train("--fresh --name source --as source"))
    for which in (
        "source",
        "{source.run_id}",
        "{source.folder}",
        "{source.folder}/checkpoints",
        "{source.folder}/checkpoints/attempt-0",
    ):
        named = notebook.ok(f"print(f{which!r})").text.strip()
        ran = notebook.ok(train(f"--resume {named} --as run"))
        assert "[0\u20131] 3" in ran.lines(), which
        notebook.ok("assert run.parent.run_id == source.run_id")


def test_the_rank_is_told_where_the_parent_is(notebook: Notebook) -> None:
    notebook.ok(train("--fresh --name source --as source"))
    ran = notebook.ok(
        "%%distributed -n 1 --resume source\n"
        "import quarterdeck as qd\nqd.current().parent_dir.name, qd.current().resume_from.name"
    )
    assert ran.text == notebook.ok("(source.run_id, 'checkpoints')").text
    ran = notebook.ok("%%distributed -n 1 --fresh\nqd.current().parent_dir, qd.current().resume_from")
    assert ran.text == "(None, None)"


def test_attempts_of_the_new_run_prefer_what_it_has_saved_itself(notebook: Notebook) -> None:
    notebook.ok(train("--fresh --name source"))
    ran = notebook.ok("""%%distributed -n 1 --resume source --max-restarts 2
import os, signal, quarterdeck as qd
here = qd.current()
seen = here.checkpoint.read()
if here.attempt == 1: here.checkpoint.write(b"own")
if here.attempt < 2: os.kill(os.getpid(), signal.SIGKILL)
seen""")
    assert "b'own'" in ran.lines()
    ran = notebook.ok("""%%distributed -n 1 --resume source --max-restarts 1
if qd.current().attempt < 1: os.kill(os.getpid(), 9)
qd.current().checkpoint.read()""")
    assert "b'3'" in ran.lines(), "nothing was saved meanwhile: the parent's still counts"


def test_latest_is_the_newest_like_this_cell_that_has_a_checkpoint(notebook: Notebook) -> None:
    notebook.ok(train("--fresh --name steady --as steady"))
    notebook.ok("%%distributed -n 1 --fresh --name steady\nprint('saves nothing')")
    notebook.ok(train("--fresh --name other"))
    notebook.ok(train("--resume steady --as run"))
    notebook.ok("assert run.parent is steady")
    notebook.ok(train("--resume latest --name steady --as run"))
    notebook.ok("assert run.parent is steady")


def test_a_cell_without_a_name_is_known_by_its_code(notebook: Notebook) -> None:
    notebook.ok(train("--fresh --as plain"))
    notebook.ok(train("--resume latest --as run"))
    notebook.ok("assert run.parent is plain")


def test_functions_continue_too(notebook: Notebook) -> None:
    notebook.ok("""
@qd.distributed(qd.Elastic(nproc_per_node=2))
def counts():
    here = qd.current()
    before = int(here.checkpoint.read() or b"0")
    here.checkpoint.write(b"%d" % (before + 1))
    return before

assert told(counts.options(resume="latest")).startswith("This notebook has no earlier run of counts()")
first = counts.submit()
assert first.result() == 0
assert counts.options(resume="latest")() == 1
assert counts() == 0
for which in (first, first.run_id, first.folder, str(first.folder / "checkpoints")):
    run = counts.options(resume=which, name="again").submit()
    assert run.result() == 1 and run.parent is first and run.name == "again", which
""")
    assert "Did you mean resume" in notebook.fails("counts.options(resum='latest')").traceback


def test_there_is_nothing_to_resume_is_said_before_anything_starts(notebook: Notebook) -> None:
    notebook.ok(train("--fresh --name somewhere"))
    notebook.ok("%%distributed -n 1 --fresh --name empty --as empty\nprint('saves nothing')")
    (notebook.folder / "nothing").mkdir(exist_ok=True)
    before = notebook.ok("len(qd.runs())").text
    for which, says in (
        ("latest --name unheard", "no earlier run of unheard"),
        ("latest --name empty", "No earlier run of empty has a checkpoint"),
        ("somewhat", "Runs with a checkpoint: somewhere"),
        ("empty", "has no checkpoint to resume from"),
        ("./nothing", "neither a run nor a checkpoint"),
        ("./missing", "no run and no folder './missing'"),
        ("s3://bucket/run", "load_checkpoint('s3://bucket/run')"),
    ):
        ran = notebook.fails(f"%%distributed -n 1 --resume {which}\npass")
        assert ran.ename == "UsageError", which
        assert says in ran.traceback, ran.traceback
    assert notebook.ok("len(qd.runs())").text == before


@pytest.mark.parametrize("other", ["--ranks 0", "--setup", "--debug"])
def test_what_does_not_go_with_it_is_refused(notebook: Notebook, other: str) -> None:
    ran = notebook.fails(f"%%distributed --resume latest {other}\npass")
    assert ran.ename == "UsageError"
    assert other.partition(" ")[0] in ran.traceback


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Notebook]:
    with fresh_notebook(tmp_path) as started:
        yield started


def test_it_continues_after_a_kernel_restart(own: Notebook) -> None:
    own.ok("%load_ext quarterdeck\nimport quarterdeck as qd")
    ran = own.ok(train("--fresh --name walk"))
    assert "[0\u20131] 0" in ran.lines()
    own.restart()
    own.ok("%load_ext quarterdeck\nimport quarterdeck as qd")
    ran = own.ok(train("--resume latest --name walk --as run"))
    assert "[0\u20131] 3" in ran.lines()
    own.ok("assert list(run.metrics['loss'].steps(0)) == list(range(8))")
    own.restart()
    own.ok("%load_ext quarterdeck\nimport quarterdeck as qd")
    own.ok("assert list(qd.runs()['walk'].metrics['loss'].steps(0)) == list(range(8))")


# ---- checkpoints of steps

SAVES = """{magic}
import torch
from quarterdeck.checkpointing.save import load_checkpoint, save_checkpoint
model = torch.nn.Linear(2, 2)
found = load_checkpoint({which!r}, into=model)
first = found.step + 1 if found else 0
for step in range(first, first + {steps}):
    with torch.no_grad():
        model.weight.fill_(float(step))
    save_checkpoint(model, step=step, metrics={{"loss": 10.0 - step}}, wait=True)
first, model.weight[0, 0].item()"""


def saves(options: str, which: str | int = "latest", steps: int = 3) -> str:
    return SAVES.format(magic=f"%%distributed -n 1 {options}", which=which, steps=steps)


def test_load_checkpoint_looks_into_the_run_that_it_continues(notebook: Notebook) -> None:
    assert "(0, 2.0)" in notebook.ok(saves("--fresh --name steps --as one")).lines()
    assert "(3, 5.0)" in notebook.ok(saves("--resume latest --name steps --as two")).lines()
    assert "(6, 5.0)" in notebook.ok(saves("--resume steps", "best:loss", steps=0)).lines()
    assert "(5, 4.0)" in notebook.ok(saves("--resume steps", 4, steps=0)).lines()
    one = notebook.ok("print(one.folder)").text.strip()
    for path, steps in ((one, 2), (f"{one}/checkpoints", 2), (f"{one}/checkpoints/step-00000001", 1)):
        ran = notebook.ok(saves(f"--resume {path} --as run", steps=0))
        assert f"({steps + 1}, {steps}.0)" in ran.lines(), path
        notebook.ok("assert run.parent is one")


def test_an_attempt_finds_what_the_one_before_saved_first(notebook: Notebook) -> None:
    notebook.ok(saves("--fresh --name steps"))
    ran = notebook.ok(
        saves("--resume steps --max-restarts 1")
        + "\nimport os, signal\nif qd.current().attempt == 0: os.kill(os.getpid(), signal.SIGKILL)\nfirst"
    )
    assert "6" in ran.lines()


def test_a_damaged_checkpoint_is_not_one_to_resume_from(notebook: Notebook) -> None:
    notebook.ok(saves("--fresh --name harmed --as harmed", steps=1))
    folder = Path(notebook.ok("print(harmed.folder)").text.strip()) / "checkpoints" / "step-00000000"
    (folder / "manifest.json").write_text("{")
    assert "has no checkpoint" in notebook.fails("%%distributed --resume harmed\npass").traceback
    assert "It is damaged" in notebook.fails(f"%%distributed --resume {folder}\npass").traceback
