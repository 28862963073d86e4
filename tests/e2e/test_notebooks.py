"""The tutorial notebooks run from the first cell to the last. (`make demo` runs the quickstart.)"""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
DEADLINE_S = 180


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> NotebookNode:
    return _execute("02_functions_and_runs", tmp_path_factory)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> NotebookNode:
    return _execute("03_checkpoints_and_restarts", tmp_path_factory)


def _execute(name: str, tmp_path_factory: pytest.TempPathFactory) -> NotebookNode:
    """The notebook, executed in a copy of its folder."""
    folder = tmp_path_factory.mktemp("tutorial") / "notebooks"
    shutil.copytree(NOTEBOOKS, folder, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
    client = NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "1")  # this interpreter's kernel, not a registered namesake
        asyncio.run(asyncio.wait_for(client.async_execute(), DEADLINE_S))
    return notebook


def _shown(notebook: NotebookNode, cell_id: str) -> str:
    """What the cell shows, as text."""
    cell = next(cell for cell in notebook.cells if cell.id == cell_id)
    parts = (o.text if o.output_type == "stream" else o.data["text/plain"] for o in cell.outputs)
    return "\n".join(parts)


def test_a_call_shows_what_its_ranks_print_and_returns_a_trained_network(executed: NotebookNode) -> None:
    assert "[0\u20131] lr 0.02: 60 epochs on 700 images" in _shown(executed, "call")
    found = re.search(r"test accuracy: ([\d.]+) %", _shown(executed, "evaluate"))
    assert found is not None
    assert float(found[1]) > 90


def test_a_call_that_fails_and_one_that_is_stopped_say_so(executed: NotebookNode) -> None:
    assert "rank 1 says: batch 17 has no labels" in _shown(executed, "error")
    assert "watch(): stopped, stopped by the user" in _shown(executed, "endless")


def test_a_new_attempt_goes_on_from_the_checkpoint(executed: NotebookNode) -> None:
    shown = _shown(executed, "restart")
    assert "attempt 1 starts at step 6" in shown
    assert "3 steps in attempt 1" in shown


def test_cells_in_the_background_and_in_a_group_of_their_own(executed: NotebookNode) -> None:
    assert "[0\u20131] 2" in _shown(executed, "background-next")
    assert "[0\u20131] False" in _shown(executed, "fresh")


def test_the_history_lists_the_runs_newest_first(executed: NotebookNode) -> None:
    rows = _shown(executed, "history").splitlines()[1:]
    names = [re.sub(r"\d+", "N", re.split(" {2,}", row)[0]) for row in rows]
    sweep = ["train(epochs=N, lr=N.N)"] * 4
    assert names[:6] == [*["cell [N]"] * 3, "count_to(N)", "watch()", "check()"]
    assert sorted(names[6:]) == sorted([*sweep, "train(epochs=N, lr=N.N, hidden=N)"])
    assert re.search(r"check\(\) +failed", _shown(executed, "filter"))
    assert "5 removed, 5 kept" in _shown(executed, "delete")


def _accuracy(notebook: NotebookNode, cell_id: str) -> float:
    found = re.search(r"test accuracy: ([\d.]+) %", _shown(notebook, cell_id))
    assert found is not None
    return float(found[1])


def test_a_killed_training_goes_on_from_its_newest_checkpoint(checkpoints: NotebookNode) -> None:
    shown = _shown(checkpoints, "killed")
    assert "attempt 0 starts at step 0" in shown
    assert re.search(r"rank 1 was killed by SIGKILL.*: attempt 2 of 3 began", shown)
    assert re.search(r"attempt 1 starts at step (80|100)\n", shown), "the one of step 99 may not be complete"
    assert "succeeded in attempt 1" in shown
    assert _accuracy(checkpoints, "killed") > 90


def test_what_was_saved_is_listed_and_the_best_is_loaded_into_the_notebook(
    checkpoints: NotebookNode,
) -> None:
    listed = _shown(checkpoints, "checkpoints")
    assert re.search(r"\n199 .*\n179 ", listed, re.DOTALL)
    assert "best loss" in listed
    shown = _shown(checkpoints, "best")
    found = re.search(r"best: step (\d+), latest: step 199", shown)
    assert found is not None
    assert "{'lr': 0.05, 'batch': 32}" in shown
    assert "layers.0.weight    (64, 64)" in shown
    assert f"step {found[1]}," in _shown(checkpoints, "load-best")
    assert _accuracy(checkpoints, "load-best") > 90


def test_it_is_continued_on_three_ranks_with_its_curve(checkpoints: NotebookNode) -> None:
    assert "[0\u20132] attempt 0 starts at step 200" in _shown(checkpoints, "resume")
    assert _accuracy(checkpoints, "resume") > 90
    assert re.search(r"-digits continues \S+-digits", _shown(checkpoints, "joined"))
    found = re.search(r"loss ([\d.]+), kept with it: ([\d.]+)", _shown(checkpoints, "cell"))
    assert found is not None
    assert found[1] == found[2]


def test_a_sharded_model_is_loaded_whole(checkpoints: NotebookNode) -> None:
    assert "rank 0 holds 32 of the 64 rows" in _shown(checkpoints, "sharded")
    assert _accuracy(checkpoints, "whole") > 90
