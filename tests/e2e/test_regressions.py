"""What once cost a rank, its variables or the truth."""

from __future__ import annotations

import os
import signal
import time

from support.notebook import Notebook

BOTH = "[0\u20131]"
BAD_DATA = """
from torch.utils.data import DataLoader, Dataset
class Bad(Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        raise KeyError("sample 50")
"""
GROUP = """%%distributed
import torch, torch.distributed as dist
mine = dist.new_group([0, 1])
"""
USE_GROUP = "%%distributed\nt = torch.ones(1)\ndist.all_reduce(t, group=mine)\nt.item()"


def test_a_key_error_in_a_dataloader_worker_is_shown_and_costs_no_rank(notebook: Notebook) -> None:
    notebook.ok(BAD_DATA)
    pids = notebook.worker_pids()
    ran = notebook.fails("%%distributed\nfor batch in DataLoader(Bad(), num_workers=1):\n    pass")
    assert "sample 50" in ran.traceback
    assert notebook.worker_pids() == pids


def test_text_that_utf8_cannot_carry_is_shown_escaped(notebook: Notebook) -> None:
    pids = notebook.worker_pids()
    assert r"\udcff" in notebook.fails("%%distributed\nraise ValueError('bad \\udcff')").traceback
    assert r"a \udcff" in notebook.ok("%%distributed\nprint('a \\udcff', end='')").text
    assert notebook.ok("%%distributed\nprint('later', end='')").text == f"{BOTH} later"
    assert notebook.ok("%%distributed\nglobals()[5] = 1").status == "ok"
    assert notebook.worker_pids() == pids


def test_a_pull_under_another_name_leaves_the_workers_value_alone(notebook: Notebook) -> None:
    notebook.ok("counts = {}")
    notebook.ok("%%distributed\ncounts['seen'] = 100")
    notebook.ok("%pull counts as snapshot")
    ran = notebook.ok("%%distributed\ncounts")
    assert ran.lines() == [f"{BOTH} {{'seen': 100}}"]
    assert notebook.ok("print(counts, snapshot)").text == "{} {'seen': 100}\n"


def test_a_magic_line_may_end_in_a_comment(notebook: Notebook) -> None:
    assert notebook.ok("%%distributed -n 2   # two of them\n1").text == f"{BOTH} 1"
    notebook.ok("%%rank 0  # only one\nvalue = 3")
    assert notebook.ok("%pull value  # and now here\nprint(value)").text == "3\n"


def test_a_worker_killed_while_another_rank_runs_a_cell_is_named(notebook: Notebook) -> None:
    notebook.ok("%%distributed\nkept = rank")
    victim = notebook.worker_pids()[1]
    message = notebook.start("%%rank 0\nimport time\nprint('begun')\ntime.sleep(1)")
    notebook.until("begun")
    os.kill(victim, signal.SIGKILL)
    assert notebook.finish(message).status == "ok"
    text = notebook.ok("%%distributed\n1").text
    assert "rank 1 was killed by SIGKILL" in text
    assert "kept" in text


def test_completion_that_never_ends_does_not_stop_cells(notebook: Notebook) -> None:
    notebook.ok(
        "%%distributed\nimport time\nclass Slow:\n"
        "    def __dir__(self):\n        time.sleep(600)\nslow = Slow()"
    )
    code = "%%distributed\nslow."
    notebook.client.complete(code, len(code), reply=True, timeout=30)
    assert notebook.ok("%%distributed\n1 + 1", deadline_s=10).text == f"{BOTH} 2"


def test_a_group_variable_works_on_after_an_interrupt(notebook: Notebook) -> None:
    notebook.ok(GROUP)
    notebook.run(
        "%%distributed\nif rank == 0:\n    dist.all_reduce(torch.ones(1), group=mine)",
        while_running=lambda: _stop_soon(notebook),
    )
    assert notebook.ok(USE_GROUP).text == f"{BOTH} 2.0"


def test_a_group_that_lost_a_rank_is_named_and_delays_nothing(notebook: Notebook) -> None:
    notebook.ok(GROUP)
    notebook.fails(
        "%%distributed\nimport os, signal\nif rank == 1:\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\ndist.barrier()"
    )
    ran = notebook.ok("%%distributed\nimport torch.distributed as dist\ndist.barrier()\n1")
    assert "process group of ranks 0, 1 (`mine`)" in ran.text
    assert ran.duration_s < 6
    notebook.ok(GROUP)
    assert notebook.ok(USE_GROUP).text == f"{BOTH} 2.0"


def _stop_soon(notebook: Notebook) -> None:
    time.sleep(0.7)
    notebook.interrupt()
