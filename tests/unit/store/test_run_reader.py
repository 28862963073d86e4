"""Reading runs: cut files, files of later versions, writers that were killed, runs that are deleted."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path

import msgspec
import pytest

from quarterdeck.protocol.blob import Blob
from quarterdeck.protocol.worker import Outcome, Output
from quarterdeck.store.format import (
    TERMINAL,
    GroupEvent,
    OutcomeEvent,
    RunHeader,
    RunOwner,
    StateEvent,
    encode,
)
from quarterdeck.store.reader import NotARun, StoredRun, delete, folder_bytes, list_runs
from quarterdeck.store.results import read_result, write_result
from quarterdeck.store.writer import RunWriter

LIST_S = 2.0


@pytest.fixture(autouse=True)
def key_file(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUARTERDECK_KEY_FILE", str(tmp_path_factory.mktemp("state") / "key"))


@pytest.fixture
def dead() -> RunOwner:
    """A process that was here and is no more."""
    child = subprocess.Popen(["sleep", "60"])
    keeper = _keeper_of(child.pid)
    child.kill()
    child.wait()
    return keeper


def _keeper_of(pid: int) -> RunOwner:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return RunOwner(pid=pid, start_ticks=int(fields[19]), node=RunOwner.here().node)


def _record(home: Path, *states: str, keeper: RunOwner | None = None, name: str = "x") -> RunWriter:
    recorder = RunWriter(home, RunHeader(name=name, keeper=keeper))
    recorder.open()
    for number, state in enumerate(states, 1):
        recorder.event(
            msgspec.convert({"event": "state", "time_unix_ns": number, "state": state}, StateEvent)
        )
    recorder.close()
    return recorder


def _rich(home: Path, keeper: RunOwner | None = None) -> RunWriter:
    recorder = _record(home, "queued", "starting", keeper=keeper)
    recorder.event(GroupEvent(2, 0, 2, "gloo", "cpu", ["cpu"]))
    recorder.event(StateEvent(3, "running", reason='quotes " and \n lines é'))
    recorder.event(OutcomeEvent(4, 0, Outcome(rank=0, state="ok"), kept=True))
    recorder.event(StateEvent(5, "succeeded"))
    recorder.close()
    return recorder


def _lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_bytes().splitlines() if line]


# ---- cut and foreign files


def test_events_cut_anywhere_leave_the_events_before(tmp_path: Path) -> None:
    folder = _rich(tmp_path).folder
    whole = (folder / "events.jsonl").read_bytes()
    states = ["queued", "queued", "starting", "starting", "running", "running", "succeeded"]
    for size in range(len(whole) + 1):
        (folder / "events.jsonl").write_bytes(whole[:size])
        (run,) = list_runs([tmp_path])
        complete = whole[:size].count(b"\n")
        assert run.state == states[complete]
        assert len(run.outcomes()) == (complete >= 5)


def test_events_of_a_dead_writer_cut_anywhere(tmp_path: Path, dead: RunOwner) -> None:
    folder = _rich(tmp_path, keeper=dead).folder
    whole = (folder / "events.jsonl").read_bytes()
    for size in range(len(whole) + 1):
        (folder / "events.jsonl").write_bytes(whole[:size])
        first, second = StoredRun.read(folder), StoredRun.read(folder)
        assert first.state == second.state == ("succeeded" if size >= len(whole) - 1 else "lost")
        assert len(second.outcomes()) == (whole[: size + 1].count(b"\n") >= 5)
        assert (first.ended_unix_ns, first.reason) == (second.ended_unix_ns, second.reason)


def test_a_header_cut_anywhere_is_no_run(tmp_path: Path) -> None:
    folder = _rich(tmp_path).folder
    whole = (folder / "run.json").read_bytes()
    for size in range(len(whole)):
        (folder / "run.json").write_bytes(whole[:size])
        assert list_runs([tmp_path]) == []
    (folder / "run.json").write_bytes(whole)
    assert len(list_runs([tmp_path])) == 1


@pytest.mark.parametrize(
    "line",
    [
        b'{"event":"metric","time_unix_ns":1,"x":1}',
        b'{"event":"state","time_unix_ns":1,"state":"paused"}',
        b'{"event":"state"}',
        b"null",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"event":"state","x":' + b"[" * 100_000,
        b'{"event":"state","time_unix_ns":1e400,"state":"failed"}',
        b"",
    ],
)
def test_a_line_that_is_not_understood_is_skipped(tmp_path: Path, line: bytes) -> None:
    recorder = _record(tmp_path, "running")
    with (recorder.folder / "events.jsonl").open("ab") as file:
        file.write(line + b"\n")
    recorder.event(StateEvent(9, "failed", reason="seen"))
    assert StoredRun.read(recorder.folder).reason == "seen"


def test_fields_of_later_versions_are_ignored(tmp_path: Path) -> None:
    recorder = _record(tmp_path, "running")
    with (recorder.folder / "events.jsonl").open("ab") as file:
        file.write(b'{"event":"state","time_unix_ns":7,"state":"failed","mood":"bad"}\n')
    header = json.loads((recorder.folder / "run.json").read_text())
    (recorder.folder / "run.json").write_text(json.dumps({**header, "colour": [1, 2]}))
    assert StoredRun.read(recorder.folder).ended_unix_ns == 7


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (None, "No such file"),
        (b"", "truncated"),
        (b"{}", "which run it is of"),
        (b"[]", "Expected `object`"),
        (b"\xff", "malformed"),
        (b"[" * 100_000, "Expected `object`"),
        (b'{"format":2,"run_id":"x","created_unix_ns":1}', "format 2"),
        (b'{"x":' + b"[" * 100_000, "recursion"),
    ],
)
def test_a_foreign_folder_is_passed_over(tmp_path: Path, header: bytes | None, why: str) -> None:
    folder = tmp_path / "runs" / "20250101-000000-000-x"
    folder.mkdir(parents=True)
    if header is not None:
        (folder / "run.json").write_bytes(header)
    (tmp_path / "runs" / "file").touch()
    (tmp_path / "runs" / "dangling").symlink_to("nowhere")
    good = _record(tmp_path, "running")
    (tmp_path / "runs" / "link").symlink_to(good.folder)
    assert [run.folder for run in list_runs([tmp_path, tmp_path / "absent"])] == [good.folder]
    with pytest.raises(NotARun, match=why):
        StoredRun.read(folder)


# ---- following


def test_a_refresh_reads_what_was_appended(tmp_path: Path) -> None:
    recorder = _record(tmp_path, "queued")
    run = StoredRun.read(recorder.folder)
    assert (run.state, run.started_unix_ns, run.duration_s) == ("queued", 0, 0.0)
    recorder.event(StateEvent(2, "running"))
    assert run.state == "queued"
    run.refresh()
    assert (run.state, run.started_unix_ns, run.terminal) == ("running", 2, False)
    assert run.duration_s == pytest.approx(time.time(), rel=0.01)
    recorder.event(StateEvent(3, "restarting", reason="rank 1 was killed"))
    recorder.event(StateEvent(4, "running", attempt=1))
    recorder.event(OutcomeEvent(5, 0, Outcome(rank=1, state="killed"), kept=False))
    run.refresh()
    assert (run.state, run.attempt, run.started_unix_ns) == ("running", 1, 2)
    assert run.outcomes() == []
    assert [outcome.state for outcome in run.outcomes(attempt=0)] == ["killed"]


def test_the_first_end_is_the_end(tmp_path: Path) -> None:
    run = StoredRun.read(_record(tmp_path, "running", "stopped", "running", "failed").folder)
    assert (run.state, run.ended_unix_ns) == ("stopped", 2)


def test_the_newest_comes_first_from_all_homes(tmp_path: Path) -> None:
    for number in (2, 9, 4, 1):
        header = RunHeader(name="x", created_unix_ns=1_760_000_000_000_000_000 + number * 3_600_000_000_000)
        RunWriter(tmp_path / str(number % 2), header).open()
    runs = list_runs([tmp_path / "0", tmp_path / "1"])
    assert [(run.created_unix_ns // 3_600_000_000_000 - 488888) for run in runs] == [9, 4, 2, 1]


# ---- lost runs


def test_lost_is_recorded_once(tmp_path: Path, dead: RunOwner) -> None:
    folder = _record(tmp_path, "running", keeper=dead).folder
    os.utime(folder / "run.json", ns=(1, 1))
    os.utime(folder / "events.jsonl", ns=(7_000_000_000, 7_000_000_000))
    with ThreadPool(8) as pool:
        runs = pool.map(StoredRun.read, [folder] * 100)
    assert {(run.state, run.reason) for run in runs} == {("lost", "its background process is gone")}
    assert {run.ended_unix_ns for run in runs} == {7_000_000_000}
    runs[0].refresh()
    assert [line["state"] for line in _lines(folder)] == ["running", "lost"]


def test_last_words_count(tmp_path: Path, dead: RunOwner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that ends its run, and itself, just after the reader has read; nobody can lock the store."""
    folder = _record(tmp_path, "running", keeper=dead).folder

    def gone(_: RunOwner) -> bool:
        with (folder / "events.jsonl").open("ab") as file:
            file.write(encode(StateEvent(9, "succeeded")))
        return True

    monkeypatch.setattr(RunOwner, "gone", gone)
    with (folder / "events.jsonl").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert StoredRun.read(folder).state == "succeeded"


def test_lost_where_nothing_can_be_recorded(tmp_path: Path, dead: RunOwner) -> None:
    folder = _record(tmp_path, keeper=dead).folder
    (folder / "events.jsonl").symlink_to("/proc/version")
    run = StoredRun.read(folder)
    run.refresh()
    assert run.state == "lost"


def test_a_run_that_died_before_its_first_event(tmp_path: Path, dead: RunOwner) -> None:
    folder = _record(tmp_path, keeper=dead).folder
    assert StoredRun.read(folder).state == "lost"
    assert [line["state"] for line in _lines(folder)] == ["lost"]


def test_of_another_node_nothing_is_known(tmp_path: Path, dead: RunOwner) -> None:
    away = msgspec.structs.replace(dead, node=dead.node + "x")
    run = StoredRun.read(_record(tmp_path, "running", keeper=away).folder)
    assert run.state == "running"
    assert not away.gone()


def test_a_keeper_is_gone_when_its_process_is() -> None:
    here = RunOwner.here()
    assert not here.gone()
    assert msgspec.structs.replace(here, start_ticks=here.start_ticks - 1).gone()
    child = subprocess.Popen(["sleep", "60"])
    keeper = _keeper_of(child.pid)
    assert not keeper.gone()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert keeper.gone()  # a zombie
    child.wait()
    assert keeper.gone()


# ---- a writer that is killed


def _work(home: Path, pipe: int) -> None:
    """Records runs without end, and says into the pipe what is done."""
    while True:
        recorder = RunWriter(home, RunHeader(name="killed", source="x" * 5000))
        recorder.event(StateEvent(1, "running"))
        for number in range(2, 12):
            recorder.event(StateEvent(number, "running", reason="r" * 3000))
            os.write(pipe, f"event {recorder.run_id} {number}\n".encode())
            recorder.write(Output(rank=0, kind="stdout", text=f"{number}\n" * 500))
            os.write(pipe, f"log {recorder.run_id} {number}\n".encode())
            _keep(recorder.result_path(number, 0), number)
            os.write(pipe, f"result {recorder.run_id} {number}\n".encode())
        recorder.event(StateEvent(12, "succeeded"))
        os.write(pipe, f"end {recorder.run_id} 12\n".encode())
        recorder.close()


def _keep(path: Path, number: int) -> None:
    blob = Blob.new()
    os.write(blob.fileno(), bytes([number]) * 300_000)
    assert write_result(path, bytes([number]) * 1000, [(0, 300_000)], blob) == ""


def _killed_at(home: Path, delay_s: float) -> tuple[RunOwner, list[tuple[str, str, int]]]:
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(source)
        try:
            _work(home, sink)
        finally:
            os._exit(1)
    os.close(sink)
    keeper = _keeper_of(pid)
    time.sleep(delay_s)
    os.kill(pid, signal.SIGKILL)
    with open(source) as reports:
        lines = [line.split() for line in reports.read().split("\n")[:-1]]
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    return keeper, [(what, run_id, int(number)) for what, run_id, number in lines]


def _check(run: StoredRun, done: dict[str, int]) -> None:
    assert run.state == ("succeeded" if "end" in done else run.state)
    assert run.state in ("succeeded", "lost")
    if run.state == "lost":
        assert run.reason == "its background process is gone"
    written = [line["time_unix_ns"] for line in _whole_lines(run.folder)]
    assert set(range(1, done.get("event", 0) + 1)) <= set(written)
    numbers = run.log(0).split("\n")
    assert numbers.count(str(done.get("log", 0))) == (500 if "log" in done else 0)
    for number in range(2, 12):
        path = run.result_path(0, number)
        if number <= done.get("result", 0):
            assert path.exists()
        if path.exists():
            stream, (buffer,) = read_result(path)
            assert stream == bytes([number]) * 1000
            assert buffer == bytes([number]) * 300_000


def _whole_lines(folder: Path) -> list[dict[str, int]]:
    lines = []
    for line in (folder / "events.jsonl").read_bytes().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def test_a_writer_killed_at_any_moment_leaves_valid_runs(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    lost = 0
    for number in range(40):
        home = tmp_path / str(number)
        keeper, reports = _killed_at(home, chance.uniform(0, 0.05))
        done: dict[str, dict[str, int]] = {}
        for what, run_id, count in reports:
            done.setdefault(run_id, {})[what] = count
        runs = list_runs([home])
        assert done.keys() <= {run.run_id for run in runs}
        assert all(run.header.keeper == keeper for run in runs)
        for run in runs:
            _check(run, done.get(run.run_id, {}))
        assert [(run.state, run.ended_unix_ns) for run in list_runs([home])] == [
            (run.state, run.ended_unix_ns) for run in runs
        ]
        lost += sum(run.state == "lost" for run in runs)
    assert lost >= 20


# ---- deleting


def test_a_finished_run_is_deleted_with_all_it_has(tmp_path: Path) -> None:
    kept = tmp_path / "mine"
    kept.mkdir()
    (kept / "file").touch()
    folder = _record(tmp_path, "running", "failed").folder
    (folder / "deep").mkdir()
    (folder / "deep" / "link").symlink_to(kept)
    (tmp_path / "runs" / ".deleted-by-one-that-crashed").mkdir()
    other = _record(tmp_path, "running")
    delete(StoredRun.read(folder))
    assert os.listdir(tmp_path / "runs") == [other.folder.name]
    assert (kept / "file").exists()


def test_a_run_that_goes_on_is_not_deleted(tmp_path: Path) -> None:
    recorder = _record(tmp_path, "running")
    run = StoredRun.read(recorder.folder)
    with pytest.raises(ValueError, match="it is still running: stop it first"):
        delete(run)
    recorder.event(StateEvent(9, "stopped"))
    delete(run)
    assert list_runs([tmp_path]) == []


def test_what_is_not_a_run_is_not_deleted(tmp_path: Path) -> None:
    folder = _record(tmp_path, "failed").folder
    run = StoredRun.read(folder)
    link = tmp_path / "runs" / "link"
    link.symlink_to(folder)
    run.folder = link
    with pytest.raises(ValueError, match="left alone"):
        delete(run)
    run.folder = folder.rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="left alone"):
        delete(run)
    run.folder = tmp_path / "runs" / "empty"
    run.folder.mkdir()
    with pytest.raises(ValueError, match="left alone"):
        delete(run)
    assert (tmp_path / "elsewhere" / "run.json").exists()


def test_the_size_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"x" * 1000)
    (tmp_path / "a" / "file").write_bytes(b"x" * 10)
    assert folder_bytes(tmp_path) == 1010
    assert folder_bytes(tmp_path / "absent") == 0


# ---- speed


def test_a_thousand_runs_are_listed_quickly(tmp_path: Path) -> None:
    for _ in range(1000):
        _rich(tmp_path)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        runs = list_runs([tmp_path])
        times.append(time.perf_counter() - start)
    assert len(runs) == 1000
    print(f"1,000 runs: best {min(times) * 1000:.0f} ms, worst {max(times) * 1000:.0f} ms")
    assert min(times) < LIST_S
    assert {run.state for run in runs} <= TERMINAL


def test_the_store_imports_nothing_heavy() -> None:
    code = "import sys, quarterdeck.store.reader, quarterdeck.store.writer, quarterdeck.store.results; "
    code += "print([name for name in ('torch', 'numpy', 'IPython', 'asyncio') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
