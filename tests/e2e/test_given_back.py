"""What a failed cell held is given back: memory, and the processes of its loaders."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from support.kernel import descendants
from support.notebook import Notebook
from support.waiting import seconds_until_gone

LOADER = """
%%distributed
import os, time, torch
from torch.utils.data import DataLoader, Dataset

class Numbers(Dataset):
    def __init__(self, at_3="raise", n=64):
        self.at_3, self.n = at_3, n
    def __len__(self):
        return self.n
    def __getitem__(self, i):
        if i == 3 and self.at_3 == "raise":
            raise ValueError("number 3")
        if i == 3 and self.at_3 == "sleep":
            time.sleep(600)
        while i == 3 and self.at_3 == "loop":
            pass
        if i == 3 and self.at_3 == "stop":
            os.kill(os.getpid(), 19)
        return torch.ones(4) * i

def loader(at_3="raise", **options):
    return DataLoader(Numbers(at_3), batch_size=1, num_workers=2, **options)
"""
FAILS = """
def train():
    big = torch.ones(1 << 28, dtype=torch.uint8)
    raise ValueError('no')
train()
"""


@pytest.fixture(scope="module", autouse=True)
def prepared(notebook: Notebook) -> None:
    notebook.deadline_s = 40
    notebook.ok("%%distributed -n 2\nimport gc, torch")
    notebook.wait_until_warm()
    notebook.ok(LOADER)


def children(notebook: Notebook) -> set[int]:
    return {child for pid in notebook.worker_pids() for child in descendants(pid)}


def rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def works(notebook: Notebook) -> None:
    ran = notebook.ok("%%distributed\nimport torch.distributed as dist\nones = torch.ones(1)\n"
                      "dist.all_reduce(ones)\nprint(int(ones))")  # fmt: skip
    assert ran.lines() == ["[0–1] 2"]


def test_failed_cells_do_not_add_up(notebook: Notebook) -> None:
    pids = notebook.worker_pids()
    before = [rss_mb(pid) for pid in pids]
    for _ in range(6):
        assert "ValueError: no" in notebook.fails("%%distributed" + FAILS).traceback
    works(notebook)
    assert notebook.worker_pids() == pids
    assert all(rss_mb(pid) < was + 200 for pid, was in zip(pids, before, strict=True))  # one holds 268 MB


def test_its_frames_live_until_the_next_cell_begins_and_are_gone_before_its_first_line(
    notebook: Notebook,
) -> None:
    pids = notebook.worker_pids()
    before = [rss_mb(pid) for pid in pids]
    notebook.fails("%%distributed" + FAILS)
    assert all(rss_mb(pid) > was + 200 for pid, was in zip(pids, before, strict=True))
    ran = notebook.ok(
        "%%distributed\nprint(sum(o.numel() > 1 << 20 for o in gc.get_objects() if type(o) is torch.Tensor))"
    )
    assert ran.lines() == ["[0–1] 0"]
    assert all(rss_mb(pid) < was + 100 for pid, was in zip(pids, before, strict=True))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("--no-keep-frames", "ValueError('no')"),
        ("", "MemoryError('no')"),
        ("", "torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')"),
        ("", "ExceptionGroup('several', [MemoryError('no')])"),
        (
            "",
            'RuntimeError("DefaultCPUAllocator: can\'t allocate memory")',
        ),
    ],
)
def test_at_once_where_it_is_asked_for_or_nothing_fitted(
    notebook: Notebook, options: str, error: str
) -> None:
    pids = notebook.worker_pids()
    before = [rss_mb(pid) for pid in pids]
    ran = notebook.fails(f"%%distributed {options}" + FAILS.replace("ValueError('no')", error))
    assert "raise " in ran.traceback, "the text is kept"
    assert all(rss_mb(pid) < was + 100 for pid, was in zip(pids, before, strict=True))
    works(notebook)


def test_the_function_form_of_the_option(notebook: Notebook) -> None:
    pids = notebook.worker_pids()
    before = [rss_mb(pid) for pid in pids]
    notebook.fails(f"import quarterdeck as qd\nqd.Session(2).run({FAILS!r}, keep_frames=False)")
    assert all(rss_mb(pid) < was + 100 for pid, was in zip(pids, before, strict=True))


@pytest.mark.parametrize(
    "loop",
    [
        "for x in loader(): pass",
        "for x in loader(persistent_workers=True): pass",
        "def train():\n    for x in loader(): pass\ntrain()",
        "def train():\n    numbers = iter(loader('no'))\n    next(numbers)\n    1 / 0\ntrain()",
        "for x in loader('no'): 1 / 0",
        "def batches():\n    yield from loader()\nfor x in batches(): pass",
    ],
)
def test_the_processes_of_a_loader_end_with_the_cell_that_failed(notebook: Notebook, loop: str) -> None:
    notebook.fails("%%distributed\n" + loop)
    seconds_until_gone(children(notebook), within_s=1)
    works(notebook)


@pytest.mark.parametrize(
    ("how", "persistent"),
    [
        ("stop", True),
        *[
            pytest.param(how, persistent, marks=pytest.mark.slow)
            for how in ("sleep", "loop", "stop")
            for persistent in (False, True)
            if (how, persistent) != ("stop", True)
        ],
    ],
)
def test_an_interrupt_beside_a_loader_that_hangs_keeps_the_ranks(
    notebook: Notebook, how: str, persistent: bool
) -> None:
    pids = notebook.worker_pids()
    notebook.ok(f"%%distributed\nkept, seen = loader({how!r}, persistent_workers={persistent}), []")
    cell = notebook.start("%%distributed\nfor x in kept:\n    seen.append(x)\n    print('seen', len(seen))")
    if how != "stop":  # one that is stopped may hold the lock of the queue that all send through
        notebook.until("seen 1")
    time.sleep(1.5)  # the process that hangs does so before it has sent what comes next
    began_s = time.monotonic()
    notebook.interrupt()
    assert notebook.finish(cell).status == "error"
    assert time.monotonic() - began_s < 4, "torch alone waits 5 s for each process"
    seconds_until_gone(children(notebook), within_s=1)
    assert notebook.worker_pids() == pids
    ran = notebook.ok("%%distributed\nkept.dataset.at_3 = 'no'\nlen(list(kept))")  # the same loader goes on
    assert ran.lines() == ["[0–1] 64"]
    notebook.ok("%%distributed\ndel kept")
    works(notebook)


def test_a_loader_of_the_users_that_was_not_cut_off_keeps_its_processes(notebook: Notebook) -> None:
    notebook.ok("%%distributed\nkept = loader('no', persistent_workers=True)\nfor x in kept: break")
    before = children(notebook)
    assert len(before) == 4
    notebook.fails("%%distributed\n1 / 0")
    works(notebook)
    assert children(notebook) == before
    notebook.ok("%%distributed\ndel kept, x")
    seconds_until_gone(children(notebook), within_s=10)


def test_a_del_that_hangs_can_be_interrupted(notebook: Notebook) -> None:
    notebook.ok("""
%%distributed
class Slow:
    def __del__(self):
        print("going", flush=True)
        time.sleep(60)
""")
    notebook.fails("%%distributed\ndef train():\n    slow = Slow()\n    1 / 0\ntrain()")
    cell = notebook.start("%%distributed\nprint('not reached')")
    notebook.until("going")
    notebook.interrupt()
    ran = notebook.finish(cell)
    assert ran.status == "error"
    assert "not reached" not in ran.text
    works(notebook)
