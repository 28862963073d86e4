"""What stays of a run, whatever happens: to its kernel, to its coordinator, to the disk, to its files."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import fresh_notebook
from quarterdeck.store.reader import list_runs
from support.notebook import Notebook
from support.waiting import seconds_until_gone

LOAD = "%load_ext quarterdeck\nimport quarterdeck as qd"
DOUBLE = (
    "def double(x):\n    print('doubling', x)\n    return 2 * x\n"
    "double = qd.distributed(qd.Elastic(nproc_per_node=1))(double)"
)


# ---- the history


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """A notebook in the folder of one that was killed in the middle of two runs."""
    folder = tmp_path_factory.mktemp("killed")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(
        "git -c user.name=me -c user.email=me@here commit -q --allow-empty -m first",
        cwd=folder,
        shell=True,
        check=True,
    )
    with fresh_notebook(folder) as notebook:
        notebook.ok(LOAD)
        notebook.ok("%workers start -n 2")
        notebook.ok("import os\nos.environ['JPY_SESSION_NAME'] = '/home/me/study.ipynb'")
        notebook.ok(
            "class Point:\n    def __init__(self, x): self.x = x\n"
            "    def __repr__(self): return f'Point({self.x})'\n"
            "def make(x):\n    print('making', x)\n    return Point(x)\n"
            "make = qd.distributed(qd.Elastic(nproc_per_node=2), name='points')(make)\nmake(7)"
        )
        notebook.ok(
            "import torch\none = qd.Elastic(nproc_per_node=1)\n"
            "big = qd.distributed(one)(lambda: torch.arange(300_000))\nbig()[-1]"
        )
        notebook.fails("def fail(): raise LookupError('nothing there')\nqd.distributed()(fail)()")
        notebook.ok("%%distributed --name seen\nprint('from rank', rank)")
        cell = notebook.submit(
            "%%distributed --background --name cut-cell\nimport time\nprint('begun', rank)\ntime.sleep(1000)"
        )
        notebook.shown(cell, "[1] begun 1")
        cell = notebook.submit(
            "def endless():\n    import subprocess, time\n"
            "    print(subprocess.Popen(['sleep', '1000']).pid, flush=True)\n"
            "    time.sleep(1000)\nrun = qd.distributed(one)(endless).submit()"
        )
        while not (shown := notebook.shown(cell).text):
            notebook.ok("pass")
        pids = notebook.everything()
        assert int(shown) in pids
        notebook.kill()
        seconds_until_gone(pids, within_s=5)
    with fresh_notebook(folder) as notebook:
        notebook.ok(LOAD)
        yield notebook


def test_a_run_cut_short_by_its_kernel_s_end_says_so(later: Notebook) -> None:
    for name in ("cut-cell", "endless()"):
        shown = later.ok(f"run = qd.runs()[{name!r}]\nrun.status, run.reason").text
        assert shown == "('stopped', 'its kernel ended')"
    assert later.ok("qd.runs()['cut-cell'].logs(1)").text == "'begun 1\\n'"
    assert "its kernel ended" in later.fails("run.result()").traceback
    assert later.ok("run.wait(), run.stop()").text == "(True, None)"


def test_the_others_are_as_they_ended(later: Notebook) -> None:
    shown = later.ok("[(run.name, run.status) for run in qd.runs()]").text
    assert eval(shown) == [
        ("endless()", "stopped"),
        ("cut-cell", "stopped"),
        ("seen", "succeeded"),
        ("fail()", "failed"),
        ("<lambda>()", "succeeded"),
        ("points", "succeeded"),
    ]


def test_values_are_still_there_also_of_classes_that_the_notebook_lacks(later: Notebook) -> None:
    assert later.ok("qd.runs()['points'].result()").text == "Point(7)"
    assert later.ok("[type(r.return_value).__name__ for r in qd.runs()['points'].results]").text == (
        "['Point', 'Point']"
    )
    later.ok("class Point:\n    def __repr__(self): return 'another Point'")
    assert later.ok("by_id = qd.runs()[qd.runs()['points'].run_id]\nby_id.result().x").text == "7"
    assert later.ok("qd.runs()['<lambda>()'].result().sum().item()").text == str(sum(range(300_000)))


def test_a_failure_is_raised_again_as_it_was(later: Notebook) -> None:
    raised = later.fails("qd.runs()['fail()'].result()")
    assert raised.ename == "LookupError"
    assert "nothing there" in raised.traceback
    assert (
        later.ok("[o.ename for o in qd.runs()['fail()'].outcomes]").text == "['LookupError', 'LookupError']"
    )


def test_what_was_run_and_where_is_on_record(later: Notebook) -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=later.folder, capture_output=True, text=True)
    later.ok("run = qd.runs()['points']\nimport sys, platform, importlib.metadata")
    shown = later.ok("run.environment['git'], run.environment['python'] == platform.python_version()").text
    assert shown == f"('{commit.stdout.strip()}', True)"
    assert later.ok("run.environment['torch'] == importlib.metadata.version('torch')").text == "True"
    assert later.ok("run.environment['backend'], run.environment['devices']").text == "('gloo', 'cpu, cpu')"
    assert later.ok("print(run.source)").lines()[:2] == ["def make(x):", "    print('making', x)"]
    assert later.ok("print(qd.runs()['seen'].source)").lines() == ["print('from rank', rank)", ""]
    shown = later.ok("run.kind, run.notebook, run.world_size, run.attempt").text
    assert shown == "('function', '/home/me/study.ipynb', 2, 0)"
    shown = later.ok("print(run.folder.parent)").text.strip()
    assert shown == str(later.folder / ".quarterdeck" / "runs")


def test_filters(later: Notebook) -> None:
    def names(code: str) -> object:
        return eval(later.ok(f"[run.name for run in {code}]").text)

    assert names("qd.runs('seen')") == ["seen"]
    assert names("qd.runs(state='stopped')") == ["endless()", "cut-cell"]
    assert names("qd.runs(notebook='study.ipynb', state='failed')") == ["fail()"]
    assert names("qd.runs(notebook='other.ipynb')") == []
    assert names("qd.runs().filter(state='succeeded').filter(name='points')") == ["points"]
    assert names("qd.runs()[:2]") == ["endless()", "cut-cell"]
    assert names("qd.runs(home='.quarterdeck', name='seen')") == ["seen"]
    assert names("qd.runs(home='nowhere')") == []


def test_a_filter_for_a_state_that_there_is_not_names_those_that_are(later: Notebook) -> None:
    raised = later.fails("qd.runs(state='success')")
    assert raised.ename == "UsageError"
    assert "succeeded" in raised.traceback
    assert later.fails("qd.runs()['no such run']").ename == "KeyError"
    assert later.fails("qd.runs()[99]").ename == "IndexError"


def test_the_table_shows_the_newest_first(later: Notebook) -> None:
    ran = later.ok("qd.runs()")
    lines = ran.lines()
    assert lines[0].split() == ["name", "state", "started", "duration", "ranks", "last", "metrics", "run"]
    assert [line.split()[0] for line in lines[1:]] == [
        "endless()", "cut-cell", "seen", "fail()", "<lambda>()", "points(7)",
    ]  # fmt: skip
    assert ran.html.index("cut-cell") < ran.html.index("points")
    assert "&lt;lambda&gt;()" in ran.html
    assert later.ok("qd.runs(limit=2)").lines()[-1] == "and 4 older: qd.runs(limit=...) shows more"
    assert "&lt;lambda&gt;" in later.ok("qd.runs()['<lambda>()']").html


# ---- deleting


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    with fresh_notebook(tmp_path_factory.mktemp("own")) as notebook:
        notebook.ok(LOAD + "\nimport os, pathlib\none = qd.distributed(qd.Elastic(nproc_per_node=1))")
        notebook.ok(DOUBLE)
        yield notebook


def test_delete_removes_a_run_and_prune_the_older_ones(own: Notebook) -> None:
    own.ok("ids = [double.submit(i) for i in range(4)]\n[run.wait() for run in ids]")
    own.ok("gone = qd.runs()[0]\ngone.delete()")
    assert own.ok("len(qd.runs()), gone.folder.exists()").text == "(3, False)"
    assert own.ok("len(qd.runs().prune(keep=1)), len(qd.runs())").text == "(2, 1)"
    assert own.ok("qd.runs().prune(older_than=3600)").text == "[]"
    assert own.ok("import datetime\nlen(qd.runs().prune(older_than=datetime.timedelta(0)))").text == "1"
    assert own.fails("qd.runs().prune()").ename == "UsageError"
    assert own.fails("qd.runs().prune(keep=-1)").ename == "UsageError"


def test_a_run_on_its_way_is_not_deleted(own: Notebook) -> None:
    own.ok("%%distributed --background --fresh -n 1 --as run --name going\nimport time\ntime.sleep(1000)")
    raised = own.fails("run.delete()")
    assert raised.ename == "UsageError"
    assert "stop it first" in raised.traceback
    own.ok("double(1)")
    own.ok("qd.runs().prune(keep=0)")
    assert own.ok("[run.name for run in qd.runs()]").text == "['going']"
    own.ok("run.stop()\nrun.wait()\nrun.delete()")
    assert own.ok("qd.runs()").text == "No runs yet."
    assert own.ok("run.status, run").text.startswith("('stopped', <Run")


def test_the_doctor_tells_where_the_store_is_and_its_size(own: Notebook) -> None:
    own.ok("double(2)")
    text = own.ok("%workers doctor").text
    (line,) = [line for line in text.splitlines() if line.startswith("run store")]
    assert str(own.folder / ".quarterdeck") in line
    assert re.search(r"\([\d.]+ [kM]?B\)$", line)


def test_a_home_of_the_user_s_choice(own: Notebook) -> None:
    own.ok("os.environ['QUARTERDECK_HOME'] = 'chosen/place'\nhere = len(qd.runs())")
    assert own.ok("double(3), len(qd.runs()), here").lines()[-1] == "(6, 1, 0)"
    assert list((own.folder / "chosen" / "place" / "runs").iterdir())
    own.ok("del os.environ['QUARTERDECK_HOME']")
    assert own.ok("3 in [len(qd.runs('double()'))], len(qd.runs('double()'))").text == "(False, 1)"


def test_somebody_else_s_result_is_not_loaded(own: Notebook) -> None:
    """It would run code; what the run tells without it is still there."""
    own.ok(
        "import pickle\nclass Evil:\n    def __reduce__(self): return os.system, ('touch evil',)\n"
        "run = double.submit(4)\nrun.wait()\n(file,) = run.folder.glob('*.result')\nrun_id = run.run_id"
    )
    own.ok(
        "old = file.read_bytes()\nfile.write_bytes(old.replace(b'return_value', b'return_valuE'))\ndel run"
    )
    own.ok("import gc; _ = gc.collect()")
    raised = own.fails("qd.runs()[run_id].result()")
    assert raised.ename == "UntrustedResult"
    own.ok(
        "head, stream = 32, pickle.dumps(Evil())\n"
        "at = head + 32\nnew = old[:16] + len(stream).to_bytes(8, 'little') + old[24:at] + stream\n"
        "_ = file.write_bytes(new + bytes(8192 - len(new)))"
    )
    assert own.fails("qd.runs()[run_id].result()").ename == "UntrustedResult"
    assert not (own.folder / "evil").exists()
    assert (
        own.ok("qd.runs()[run_id].status, qd.runs()[run_id].logs(0)").text == "('succeeded', 'doubling 4\\n')"
    )
    own.ok("file.write_bytes(b'short')")
    assert own.fails("qd.runs()[run_id].result()").ename in ("ValueError", "UsageError", "UntrustedResult")


# ---- places that cannot be written


@pytest.mark.parametrize("call", ["double(21)", "double.submit(21).result()"])
def test_a_home_that_cannot_be_made_costs_a_line_and_nothing_else(own: Notebook, call: str) -> None:
    (own.folder / "file").touch()
    own.ok("os.environ['QUARTERDECK_HOME'] = str(pathlib.Path('file/below').absolute())")
    message = own.submit(call)
    shown = own.shown(message)
    assert shown.lines()[-1] == "42" or "42" in shown.lines()
    assert shown.text.count("cannot be written") == 1
    assert own.ok("qd.runs()[0].result(), qd.runs()[0].logs(0)").text == "(42, 'doubling 21\\n')"
    cell = own.ok("%%distributed -n 2 --as run\nprint('still', rank)")
    assert cell.text.count("cannot be written") == 1
    assert own.ok("run.status, run.logs(1)").text == "('succeeded', 'still 1\\n')"
    own.ok("qd.runs().prune(keep=0)\ndel os.environ['QUARTERDECK_HOME']")


def test_a_long_home_is_no_trouble(own: Notebook) -> None:
    place = own.folder / ("long-" * 40) / "deep"
    own.ok(f"os.environ['QUARTERDECK_HOME'] = {str(place)!r}")
    assert own.ok("double(5)").lines() == ["doubling 5", "10"]
    assert own.ok("qd.runs()[0].result()").text == "10"
    own.ok("del os.environ['QUARTERDECK_HOME']")


def _full_disk(place: Path, free_bytes: int) -> None:
    """A disk of its own with so much left."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    with (place / "filler").open("wb") as file:
        file.write(bytes(256 * 1024 - free_bytes))


@pytest.mark.parametrize("free_kib", [0, 8, 12, 20])
def test_a_full_disk_costs_a_line_and_nothing_else(own: Notebook, free_kib: int) -> None:
    place = own.folder / f"disk-{free_kib}"
    _full_disk(place, free_kib * 1024)
    try:
        own.ok(f"os.environ['QUARTERDECK_HOME'] = {str(place / 'home')!r}")
        own.ok("def wordy(x):\n    print('x' * 30_000)\n    return x + 1\nwordy = one(wordy)")
        message = own.submit("run = wordy.submit(41)\nprint(run.result(), run.status)")
        assert "42 succeeded" in own.shown(message).text
        notices = [line for line in own.shown(message).lines() if line.startswith("Warning")]
        assert len(notices) == 1, notices
        raised = own.fails("def fails(): print('y' * 30_000); 1 / 0\none(fails)()")
        assert raised.ename == "ZeroDivisionError"
        shown = own.ok("%%distributed -n 2 --as run\nprint('still', rank)")
        assert "[0] still 0" in shown.lines()
        assert own.ok("run").status == "ok"
        assert own.ok("qd.runs(), [run.status for run in qd.runs()]").status == "ok"
        own.ok("del run; del os.environ['QUARTERDECK_HOME']; _ = __import__('gc').collect()")
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


# ---- a coordinator that is killed


@pytest.mark.slow
def test_a_coordinator_killed_at_any_moment_leaves_a_store_that_can_be_read(tmp_path: Path) -> None:
    seen: set[tuple[object, str]] = set()
    draw = random.Random(1)
    moments = [draw.uniform(0, 0.3) for _ in range(12)]
    with fresh_notebook(tmp_path) as notebook:
        notebook.ok(
            LOAD
            + "\nimport os, signal, threading, time"
            + "\nfrom quarterdeck.kernel import coordinator_process as coordinator"
        )
        notebook.wait_until_warm()
        notebook.ok(
            "def slow(x):\n    import time\n    print('slow', x, flush=True)\n"
            "    time.sleep(0.12)\n    return x\n"
            "slow = qd.distributed(qd.Elastic(nproc_per_node=1))(slow)\n"
            "def after(delay_s):\n"
            "    pid = coordinator.current().process.pid\n"
            "    global gone\n"
            "    gone = threading.Timer(delay_s, os.kill, (pid, signal.SIGKILL))\n"
            "    gone.start()\n"
            "def attempt(delay_s):\n"
            "    after(delay_s)\n"
            "    try:\n"
            "        run = slow.submit(1)\n"
            "    except qd.WorkersLost: return 'not accepted', ''\n"
            "    try: end = run.result(timeout=20)\n"
            "    except qd.WorkersLost: end = 'lost'\n"
            "    return end, run.status\n"
        )
        for number, delay_s in enumerate(moments):
            if number == 6:
                notebook.wait_until_warm()
            end, status = eval(notebook.ok(f"attempt({delay_s})", deadline_s=60).lines()[-1])
            seen.add((end, status))
            notebook.ok("gone.join()")
            for run in list_runs([tmp_path / ".quarterdeck"]):
                assert run.terminal, (delay_s, run.run_id, run.state)
            if number % 2:  # the others begin while torch is still being imported
                assert notebook.ok("slow(2)").lines()[-1] == "2"
                assert notebook.ok("qd.runs()[0].status").text == "'succeeded'"
        assert seen <= {("not accepted", ""), ("lost", "lost"), (1, "succeeded"), ("lost", "succeeded")}
        assert notebook.ok("%%distributed -n 2\nworld_size").lines()[-1] == "[0\u20131] 2"


def test_a_background_cell_of_a_killed_coordinator_is_lost_and_told(tmp_path: Path) -> None:
    with fresh_notebook(tmp_path) as notebook:
        notebook.ok(LOAD + "\nfrom quarterdeck.kernel import coordinator_process as coordinator")
        cell = notebook.submit(
            "%%distributed -n 2 --background --as run\nimport time\nprint('up')\ntime.sleep(1000)"
        )
        notebook.shown(cell, "[0\u20131] up")
        os.kill(int(notebook.ok("coordinator.current().process.pid").text), signal.SIGKILL)
        assert "was killed by SIGKILL" in notebook.shown(cell, "was killed by SIGKILL").text
        assert notebook.fails("run.result()").ename == "WorkersLost"
        assert notebook.ok("run.status, run.reason").text == "('lost', 'its background process is gone')"
        assert notebook.ok("%%distributed\nworld_size").lines()[-1] == "[0\u20131] 2"
