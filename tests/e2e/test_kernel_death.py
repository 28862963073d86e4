"""However the kernel ends, nothing of its notebook stays: no process, no file."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import fresh_notebook
from support.notebook import Notebook
from support.waiting import command, seconds_until_gone

BUSY = """%%distributed
import subprocess, sys, torch

class Endless(torch.utils.data.Dataset):
    def __len__(self): return 10**9
    def __getitem__(self, i): return i

if rank == 0:
    batches = iter(torch.utils.data.DataLoader(Endless(), num_workers=2))
    next(batches)
    print("rank 0 is busy", flush=True)
    for batch in batches: pass
else:
    helper = subprocess.Popen(["sleep", "1000"])
    print("rank 1 is busy", flush=True)
    while True: sorted(range(3 * 10**7), key=None)"""


@pytest.fixture
def busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    with fresh_notebook(tmp_path) as notebook:
        notebook.ok("%load_ext quarterdeck")
        notebook.ok("%workers start -n 2")
        notebook.start(BUSY)
        notebook.until("rank 0 is busy")
        notebook.until("rank 1 is busy")
        time.sleep(0.5)  # well into the sort, which holds the interpreter lock
        yield notebook


def no_file_is_left(notebook: Notebook) -> bool:
    """In its own folder for temporary files; `fresh_notebook` looks into /dev/shm."""
    return not list((notebook.folder / "tmp").glob("quarterdeck*"))


def test_a_killed_kernel_takes_everything_along(busy: Notebook) -> None:
    """Workers, one in C with the interpreter locked, their DataLoader workers, and what user code started."""
    pids = busy.everything()
    commands = [command(pid) for pid in pids]
    assert len(pids) >= 8, commands
    assert any(line.startswith("sleep 1000") for line in commands)
    busy.kill()
    assert seconds_until_gone(pids, within_s=5) < 2
    assert no_file_is_left(busy)


def test_restart_in_the_middle_of_a_cell_and_shutdown_leave_nothing(busy: Notebook) -> None:
    pids = busy.everything()
    busy.restart()
    assert seconds_until_gone(pids - {busy.pid}, within_s=5) < 2
    busy.ok("%load_ext quarterdeck")
    assert "No workers yet" in busy.ok("%workers status").text
    busy.ok("%%distributed\nimport subprocess\nhelper = subprocess.Popen(['sleep', '1000'])")
    pids = busy.everything()
    busy.shutdown()
    assert seconds_until_gone(pids, within_s=5) < 2
    assert no_file_is_left(busy)


def test_a_process_forked_from_the_kernel_does_not_keep_the_session_alive(new_notebook: Notebook) -> None:
    new_notebook.ok("%load_ext quarterdeck\n%workers start -n 2", deadline_s=60)
    ours = new_notebook.everything() - {new_notebook.pid}
    new_notebook.ok(
        "import os, signal, time\nchild = os.fork()\nif child == 0:\n"
        "    signal.alarm(6)\n    time.sleep(600)\n    os._exit(0)"
    )
    new_notebook.kill()
    deadline = time.monotonic() + 7  # the coordinator's own limit is 5 s: the zygote may be importing
    while any(os.path.exists(f"/proc/{pid}/exe") for pid in ours) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [pid for pid in ours if os.path.exists(f"/proc/{pid}/exe")]
