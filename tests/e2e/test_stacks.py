"""Where ranks are, asked of runs of every kind while they go on. To look disturbs nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.notebook import Notebook

PREPARE = """
import os, time, quarterdeck as qd, torch.distributed as dist

@qd.distributed(qd.Elastic(nproc_per_node=2))
def stuck(hold):
    if dist.get_rank() == 0:
        dist.barrier()
    while not os.path.exists(hold):
        time.sleep(0.01)
    if dist.get_rank() == 1:
        dist.barrier()
    return "ended"

def both(run, *words):
    limit = time.monotonic() + 20
    while not all(word in run.stacks().get(rank, "") for rank, word in enumerate(words)):
        assert time.monotonic() < limit, str(run.stacks())
        time.sleep(0.02)
    return run.stacks()
"""


@pytest.fixture(scope="module", autouse=True)
def prepared(notebook: Notebook) -> None:
    notebook.ok(PREPARE)


def test_a_function_s_run_says_where_each_rank_is_and_goes_on(notebook: Notebook, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    notebook.ok(f"run = stuck.submit({str(hold)!r})")
    text = notebook.ok("both(run, 'dist.barrier()', 'time.sleep(0.01)')").text
    assert text.splitlines()[0].endswith("-stuck: 2 ranks")
    assert "in stuck\n      dist.barrier()" in text
    assert "quarterdeck/" not in text
    hold.touch()
    assert notebook.ok("run.result()").text == "'ended'"
    assert "is over: no rank is in its code any more" in notebook.run("run.stacks()").traceback


def test_a_cell_in_the_background_does_so_with_the_lines_of_the_notebook(
    notebook: Notebook, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    notebook.ok(
        "%%distributed --background --as run\nimport os, time\n"
        f"while not os.path.exists({str(hold)!r}):\n    time.sleep(0.01)  # a line of the cell"
    )
    text = notebook.ok("both(run, '# a line of the cell', '# a line of the cell')").text
    assert text.count("line 4, in <module>") == 2
    hold.touch()
    notebook.ok("assert run.wait(20)")
    notebook.ok("%%distributed\nrank")


def test_before_its_workers_are_there_no_rank_is_anywhere(notebook: Notebook) -> None:
    text = notebook.ok("run = stuck.submit('/')\nprint(run.stacks())\nassert run.wait(30)").text
    assert "-stuck: " in text
