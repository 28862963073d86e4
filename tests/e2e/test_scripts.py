"""Scripts written for torchrun run as cells without a change, as often as one likes."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.notebook import Notebook

BOTH = "[0\u20131]"
SCRIPTS = Path(__file__).parent / "scripts"
PRINTED = {
    "train_main.py": {
        "[0] train_main: rank 0 of 2, slope 3.0",
        "[1] train_main: rank 1 of 2, slope 3.0",
    },
    "train_recorded.py": {f"{BOTH} train_recorded: ['rank 0', 'rank 1'] gathered 9"},
    "train_sampler.py": {f"{BOTH} train_sampler: 24 steps on 32 of 64 samples"},
}
SUM_OVER_RANKS = (
    "%%distributed\nimport torch, torch.distributed as dist\n"
    "whole = torch.ones(1)\ndist.all_reduce(whole)\nwhole.item(), dist.get_backend()"
)


@pytest.mark.parametrize("name", PRINTED)
def test_a_torchrun_script_runs_unmodified_and_again(notebook: Notebook, name: str) -> None:
    cell = "%%distributed\n" + (SCRIPTS / name).read_text()
    first, second = notebook.ok(cell), notebook.ok(cell)
    assert set(first.lines()) == set(second.lines()) == PRINTED[name]


@pytest.mark.parametrize("name", PRINTED)
def test_a_process_group_is_there_in_the_cell_after_a_script(notebook: Notebook, name: str) -> None:
    notebook.ok("%%distributed\n" + (SCRIPTS / name).read_text())
    assert notebook.ok(SUM_OVER_RANKS).lines() == [f"{BOTH} (2.0, 'gloo')"]


def test_scripts_leave_their_workers_running(notebook: Notebook) -> None:
    before = notebook.worker_pids()
    for name in PRINTED:
        notebook.ok("%%distributed\n" + (SCRIPTS / name).read_text())
    assert notebook.worker_pids() == before


def test_the_script_s_variables_can_be_looked_at_afterwards(notebook: Notebook) -> None:
    notebook.ok("%%distributed\n" + (SCRIPTS / "train_sampler.py").read_text())
    assert notebook.ok("%%distributed\nepoch, len(losses)").lines() == [f"{BOTH} (5, 24)"]


def test_a_script_run_on_other_files_is_python_s_own_affair(notebook: Notebook) -> None:
    """`%run` of a script on disk works as in any notebook."""
    ran = notebook.ok(f"%%distributed\n%run {SCRIPTS / 'train_main.py'} --steps 60")
    assert set(ran.lines()) == PRINTED["train_main.py"]


def test_a_script_that_calls_sys_exit_with_success_succeeds(notebook: Notebook) -> None:
    ran = notebook.ok("%%distributed\nimport sys\nprint('done')\nsys.exit(0)")
    assert f"{BOTH} done" in ran.lines()


def test_a_script_that_exits_with_an_error_code_is_an_error_and_keeps_the_workers(notebook: Notebook) -> None:
    before = notebook.worker_pids()
    ran = notebook.fails("%%distributed\nimport sys\nsys.exit(2)")
    assert "SystemExit" in ran.traceback
    assert notebook.worker_pids() == before
