"""Detached runs: they outlive their kernel, and any later kernel gets them back."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.kernel import descendants
from support.notebook import Notebook
from support.waiting import is_gone, seconds_until_gone, until

DEADLINE_S = 60
LOAD = "%load_ext quarterdeck\nimport quarterdeck as qd, os, time"

# Goes on until the file `end` is there.
GROWS = """{magic}
import os, time, quarterdeck as qd
step = 0
while not os.path.exists({end!r}):
    qd.log(loss=1.0, step=step)
    print("step", step, flush=True)
    step += 1
    time.sleep(0.02)
"""


class Place:
    """A folder with a store, sockets of its own, and kernels that come and go."""

    def __init__(self, folder: Path, sockets: Path) -> None:
        self.folder = folder
        self.sockets = sockets
        self._kernels: list[Notebook] = []
        self._coordinators: set[int] = set()

    def kernel(self, load: bool = True) -> Notebook:
        notebook = Notebook(self.folder, env={"XDG_RUNTIME_DIR": str(self.sockets)})
        self._kernels.append(notebook)
        if load:
            notebook.ok(LOAD)
        return notebook

    def grows(self, options: str = "") -> str:
        return GROWS.format(magic=f"%%distributed -n 2 --detach {options}", end=str(self.folder / "end"))

    def end(self) -> None:
        (self.folder / "end").touch()

    def header(self, name: str = "") -> dict[str, object]:
        files = (self.folder / ".quarterdeck" / "runs").glob(f"*{name}/run.json")
        return dict(json.loads(max(files).read_text()))

    def coordinator(self, name: str = "") -> int:
        keeper = self.header(name)["keeper"]
        assert isinstance(keeper, dict)
        self._coordinators.add(keeper["pid"])
        return int(keeper["pid"])

    def processes(self, name: str = "") -> set[int]:
        """Coordinator, zygote and workers of a detached run."""
        pid = self.coordinator(name)
        return {pid, *descendants(pid)}

    def terminal(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python -m quarterdeck` in the folder."""
        command = [sys.executable, "-m", "quarterdeck", *arguments]
        environ = {**os.environ, "XDG_RUNTIME_DIR": str(self.sockets)}
        return subprocess.run(
            command, cwd=self.folder, env=environ, capture_output=True, text=True, timeout=60
        )

    def goes_on(self, name: str) -> None:
        """Until the run has printed some more."""
        (log,) = (self.folder / ".quarterdeck" / "runs").glob(f"*{name}/rank-0.log")
        seen = log.stat().st_size
        until(lambda: log.stat().st_size > seen + 50)

    def close(self) -> None:
        """Whatever a failed test has left: ours alone, by id. Prints what its runs came to."""
        for name in ("events.jsonl", "coordinator.log"):
            for path in (self.folder / ".quarterdeck" / "runs").glob(f"*/{name}"):
                print(path, path.read_text()[-3000:], sep="\n")
        for notebook in self._kernels:
            with contextlib.suppress(Exception):
                notebook.shutdown()
        for pid in self._coordinators:
            if not is_gone(pid):
                os.kill(pid, signal.SIGKILL)


def until_in(notebook: Notebook, condition: str, limit_s: float = 40) -> None:
    """Wait, in the kernel, until an expression is true."""
    notebook.ok(
        f"limit = time.monotonic() + {limit_s}\n"
        f"while not ({condition}):\n"
        "    assert time.monotonic() < limit, (run.status, run.reason, run.logs())\n    time.sleep(0.02)"
    )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    sockets = Path(tempfile.mkdtemp(prefix="qd", dir="/tmp"))  # a socket's path is short
    made = Place(tmp_path, sockets)
    shm = set(os.listdir("/dev/shm"))
    try:
        yield made
        seconds_until_gone(made._coordinators, within_s=10)
        assert not list(sockets.iterdir()), "a socket or its folder is left"
        assert not {name for name in os.listdir("/dev/shm") if name.startswith("quarterdeck")} - shm
    finally:
        made.close()
        shutil.rmtree(sockets)


# ---- kernels come and go


def test_it_goes_on_through_two_kernels_and_is_stopped_from_the_third(place: Place) -> None:
    first = place.kernel()
    ran = first.ok(place.grows("--name walk --as run"))
    assert "is detached: qd.runs()['walk'].attach() gets it back, from any kernel." in ran.text
    until_in(first, "'step 3' in run.logs(0)")
    assert first.ok("run.status, run.detached").text == "('running', True)"
    ours = place.processes("walk")
    assert len(ours) >= 4, ours
    assert not ours & first.everything(), "it hangs on the kernel"
    os.killpg(os.getpgid(first.pid), signal.SIGKILL)
    seconds_until_gone({first.pid}, within_s=10)

    second = place.kernel()
    second.ok("run = qd.runs()['walk'].attach()\nseen = len(run.logs(0))")
    assert second.ok("run.status").text == "'running'"
    until_in(second, "len(run.logs(0)) > seen")
    until_in(second, "len(run.metrics['loss'].steps(0)) > 5")
    assert "rank 0:" in second.ok("run.stacks()").text
    second.shutdown()
    place.goes_on("walk")
    assert not any(map(is_gone, ours))
    assert "rank 1:" in place.terminal("stacks", "walk").stdout
    assert "no run is called" in place.terminal("stacks", "never").stderr

    third = place.kernel()
    third.ok("run = qd.runs()['walk'].attach()\nseen = len(run.logs(1))")
    assert "running, detached" in third.ok("qd.runs()").text
    until_in(third, "len(run.logs(1)) > seen")
    third.ok("began = time.monotonic()\nrun.stop()\nassert run.wait(20)\ntook_s = time.monotonic() - began")
    assert third.ok("run.status, run.reason").text == "('stopped', 'stopped by the user')"
    assert float(third.ok("print(took_s)").text) < 5
    assert third.fails("run.result()").ename == "RunInterrupted"
    seconds_until_gone(ours, within_s=10)


def test_a_kernel_that_asks_whether_it_starts_does_not_end_it(place: Place) -> None:
    """It asks when the answer takes a second, as it does on a busy machine."""
    notebook = place.kernel()
    notebook.ok("import quarterdeck.kernel.pulse as pulse\npulse._ASK_EVERY_S = 0.001")
    notebook.ok(place.grows("--name walk --as run"))
    until_in(notebook, "'step 3' in run.logs(0)")
    assert notebook.ok("run.status").text == "'running'"
    place.coordinator("walk")
    place.end()
    notebook.ok("assert run.wait(20) and run.status == 'succeeded'")


def test_a_restarted_kernel_gets_the_result_of_what_it_submitted(place: Place) -> None:
    notebook = place.kernel()
    notebook.ok(f"""
@qd.distributed(qd.Elastic(nproc_per_node=2), name="sum")
def add(a, b=1):
    import torch, torch.distributed as dist
    while not os.path.exists({str(place.folder / "end")!r}):
        time.sleep(0.02)
    total = torch.full((1000,), float(a + b))
    dist.all_reduce(total)
    return total

run = add.submit(2, b=3, detach=True)
""")
    place.coordinator("sum")
    notebook.restart()
    notebook.ok(LOAD)
    notebook.ok("run = qd.runs()['sum'].attach()\nassert not run.wait(0)")
    place.end()
    notebook.ok("value = run.result(30)\nassert value.tolist() == [10.0] * 1000 and len(run.results) == 2")
    assert notebook.ok("run.status, run.arguments").text == "('succeeded', '2, b=3')"
    seconds_until_gone({place.coordinator("sum")}, within_s=10)


@pytest.mark.slow
def test_attempts_begin_anew_while_no_kernel_is_there(place: Place) -> None:
    first = place.kernel()
    first.ok("%%distributed --setup -n 2\nmade = 'by the set-up cell'")
    first.ok(f"""%%distributed -n 2 --detach --name stumbles --max-restarts 2 --as run --env LEVEL=7
import os, signal, time, quarterdeck as qd
print("attempt", qd.current().attempt, made, os.environ["LEVEL"], flush=True)
while not os.path.exists({str(place.folder / "alone")!r}):
    time.sleep(0.02)
if qd.current().attempt < 2 and rank == 1:
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(0.1)
""")
    until_in(first, "'attempt 0' in run.logs(1)")
    ours = place.processes("stumbles")
    first.kill()
    seconds_until_gone({first.pid}, within_s=10)
    (place.folder / "alone").touch()
    second = place.kernel()
    second.ok("run = qd.runs()['stumbles'].attach()\nassert run.wait(30)")
    assert second.ok("run.status, run.attempt").text == "('succeeded', 2)"
    lines = second.ok("print(run.logs(1))").lines()
    assert lines[:3] == [f"attempt {n} by the set-up cell 7" for n in range(3)]
    seconds_until_gone(ours, within_s=10)


def test_the_kernel_that_started_it_follows_it_like_any_run(place: Place) -> None:
    notebook = place.kernel()
    cell = notebook.submit(place.grows("--as run"))
    assert "step 1" in notebook.shown(cell, "step 1").text
    place.end()
    assert notebook.ok("run.wait(20), run.status, run.result()").text == "(True, 'succeeded', None)"
    notebook.ok("""%%distributed -n 2 --detach --as bad
if rank: raise ValueError("boom")""")
    assert "rank 1 raised ValueError: boom" in notebook.fails("bad.result()").traceback
    assert notebook.ok("bad.status").text == "'failed'"
    seconds_until_gone({place.coordinator("cell-*"), *(place.coordinator(f"{n}*") for n in "2")}, within_s=10)


def test_values_above_what_the_store_keeps_come_to_the_kernel_that_started_it(place: Place) -> None:
    notebook = place.kernel()
    notebook.ok("""
@qd.distributed(qd.Elastic(nproc_per_node=1), name="large")
def large():
    import torch
    return torch.ones(20_000_000)

run = large.submit(detach=True)
assert run.result(40).sum().item() == 20_000_000
""")
    seconds_until_gone({place.coordinator("large")}, within_s=10)
    later = place.kernel()
    assert "was not kept" in later.fails("qd.runs()['large'].attach().result()").traceback


def test_a_function_s_own_parameter_of_that_name_is_its_own(place: Place) -> None:
    notebook = place.kernel()
    notebook.ok("""
@qd.distributed(qd.Elastic(nproc_per_node=1))
def takes(detach):
    return detach

run = takes.submit(detach=True)
assert run.result(40) is True and not run.detached
""")


def test_a_script_may_end_before_its_run(place: Place) -> None:
    script = place.folder / "train.py"
    script.write_text(
        "import quarterdeck as qd, os, time\n"
        "@qd.distributed(qd.Elastic(nproc_per_node=2), name='script')\n"
        "def train():\n"
        f"    while not os.path.exists({str(place.folder / 'end')!r}): time.sleep(0.02)\n"
        "    return 7\n"
        "if __name__ == '__main__':\n    print(train.submit(detach=True).run_id)\n"
    )
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(place.sockets)}
    ran = subprocess.run(
        [sys.executable, str(script)],
        cwd=place.folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert "ends with this process" not in ran.stderr
    assert not is_gone(place.coordinator("script"))
    place.end()
    notebook = place.kernel()
    assert notebook.ok("qd.runs()['script'].attach().result(40)").text == "7"
    seconds_until_gone({place.coordinator("script")}, within_s=10)


# ---- ends


def test_a_killed_coordinator_takes_its_workers_along_and_the_run_is_lost(place: Place) -> None:
    notebook = place.kernel()
    notebook.ok(place.grows("--name walk --as run"))
    until_in(notebook, "'step 1' in run.logs(0)")
    ours = place.processes("walk")
    os.kill(place.coordinator("walk"), signal.SIGKILL)
    assert seconds_until_gone(ours, within_s=10) < 2
    until_in(notebook, "run.status == 'lost'")
    assert notebook.fails("run.result()").ename == "WorkersLost"
    later = place.kernel()
    assert later.ok("run = qd.runs()['walk'].attach()\nrun.stop()\nrun.status").text == "'lost'"


@pytest.mark.slow
def test_each_stop_is_a_step_of_the_ladder(place: Place) -> None:
    notebook = place.kernel()
    notebook.ok("""%%distributed -n 1 --detach --name stubborn --as run
import time
print("begun", flush=True)
while True:
    try:
        time.sleep(60)
    except BaseException:
        pass
""")
    until_in(notebook, "'begun' in run.logs(0)")
    ours = place.processes("stubborn")
    notebook.kill()
    later = place.kernel()
    later.ok("""
run = qd.runs()["stubborn"].attach()
for _ in range(6):
    run.stop()
    if run.wait(0.5):
        break
assert run.status == "stopped", run.status
""")
    seconds_until_gone(ours, within_s=10)


def test_a_time_out_bounds_it_without_a_kernel(place: Place) -> None:
    notebook = place.kernel()
    notebook.ok(place.grows("--name short --timeout 8 --as run"))
    place.coordinator("short")
    notebook.kill()
    later = place.kernel()
    later.ok("run = qd.runs()['short'].attach()\nassert run.wait(40)")
    assert later.ok("run.status, run.reason").text == "('failed', 'its time-out was over')"
    seconds_until_gone({place.coordinator("short")}, within_s=10)


def test_sigterm_stops_it_in_order(place: Place) -> None:
    notebook = place.kernel()
    notebook.ok(place.grows("--name walk --as run"))
    until_in(notebook, "'step 1' in run.logs(0)")
    ours = place.processes("walk")
    os.kill(place.coordinator("walk"), signal.SIGHUP)
    place.goes_on("walk")
    assert not any(map(is_gone, ours)), "SIGHUP is not for it"
    os.kill(place.coordinator("walk"), signal.SIGTERM)
    notebook.ok("assert run.wait(20) and run.status == 'stopped'")
    seconds_until_gone(ours, within_s=10)


# ---- what cannot be


def test_only_detached_runs_can_be_attached(place: Place) -> None:
    first, second = place.kernel(), place.kernel()
    first.ok("%%distributed -n 1 --fresh --background --name tied\nimport time\ntime.sleep(60)")
    ran = second.fails("qd.runs()['tied'].attach()")
    assert ran.ename == "UsageError"
    assert "runs under another kernel" in ran.traceback
    first.ok("qd.runs()['tied'].stop()\nqd.runs()['tied'].wait(20)")
    assert second.ok("qd.runs()['tied'].attach().status").text == "'stopped'"


@pytest.mark.parametrize("other", ["--ranks 0", "--setup", "--debug"])
def test_what_does_not_go_with_it_is_refused(place: Place, other: str) -> None:
    notebook = place.kernel()
    ran = notebook.fails(f"%%distributed --detach {other}\npass")
    assert ran.ename == "UsageError"
    assert other.partition(" ")[0] in ran.traceback
    assert notebook.ok("len(qd.runs())").text == "0"


def test_a_socket_that_is_not_the_coordinator_s_is_not_spoken_to(place: Place) -> None:
    """A run's folder may come from a stranger, and name any path."""
    notebook = place.kernel()
    notebook.ok(place.grows("--name walk --as run"))
    place.coordinator("walk")
    later = place.kernel()
    header = place.header("walk")
    keeper = header["keeper"]
    assert isinstance(keeper, dict)
    forged = place.folder / ".quarterdeck" / "runs" / "20200101-000000-000-forged"
    forged.mkdir()
    for pid, path in (
        (1, keeper["socket"]),
        (keeper["pid"], "/tmp/detached-1-1.sock"),
        (1, "/run/other.sock"),
    ):
        claimed = {**keeper, "pid": pid, "socket": path, "start_ticks": _ticks(pid)}
        (forged / "run.json").write_text(
            json.dumps({**header, "run_id": forged.name, "name": "forged", "keeper": claimed})
        )
        ran = later.fails("qd.runs()['forged'].stop()")
        assert ran.ename == "UsageError", ran.traceback
        assert "cannot be reached" in ran.traceback
    place.end()
    notebook.ok("assert run.wait(20) and run.status == 'succeeded'")
    seconds_until_gone({place.coordinator("walk")}, within_s=10)


def _ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
