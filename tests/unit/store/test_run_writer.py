"""Writing a run: where it goes, what a full or forbidden disk does to it, how runs are told apart."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest

from quarterdeck.protocol.worker import Outcome, Output
from quarterdeck.store.environment import describe
from quarterdeck.store.format import GroupEvent, OutcomeEvent, RunHeader, RunOwner, StateEvent
from quarterdeck.store.paths import fallback, home, homes
from quarterdeck.store.reader import StoredRun, list_runs
from quarterdeck.store.writer import RunWriter
from support.full_disk import files_up_to

CREATED = 1_760_000_000_123_000_000


@pytest.fixture
def no_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own in the place of /tmp."""
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def _state(number: int, state: str = "running", **fields: object) -> StateEvent:
    return msgspec.convert({"event": "state", "time_unix_ns": number, "state": state, **fields}, StateEvent)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    recorder = RunWriter(tmp_path, RunHeader(name="base line", title="cell [7]", source="x = 1\n"))
    recorder.event(_state(1, "starting"))
    group = GroupEvent(2, 0, 2, "gloo", "cpu", ["cpu", "cpu"])
    recorder.event(group)
    recorder.event(_state(3))
    recorder.write(Output(rank=1, kind="stdout", text="hällo\r50%"))
    recorder.write(Output(rank=1, kind="result", data={"text/plain": "42"}))
    for rank in (1, 0):
        outcome = Outcome(rank=rank, state="error", traceback=["a\nb\x1b[31m"], text="é")
        recorder.event(OutcomeEvent(4, 0, outcome, kept=False, note="too large"))
    recorder.event(_state(5_000_000_003, "failed", reason="rank 0 raised"))
    recorder.close()

    (run,) = list_runs(homes(tmp_path))
    assert run.folder == recorder.folder == tmp_path / "runs" / recorder.run_id
    assert recorder.run_id.endswith("-base-line")
    assert (run.header.title, run.header.source, run.header.run_id) == ("cell [7]", "x = 1\n", run.run_id)
    assert run.header.keeper == RunOwner.here()
    assert (run.state, run.reason, run.attempt) == ("failed", "rank 0 raised", 0)
    assert (run.started_unix_ns, run.ended_unix_ns, run.duration_s) == (3, 5_000_000_003, 5.0)
    assert (run.world_size, run.backend, run.device_type, run.devices) == (2, "gloo", "cpu", ["cpu", "cpu"])
    assert [outcome.rank for outcome in run.outcomes()] == [0, 1]
    assert run.outcomes()[0].traceback == ["a\nb\x1b[31m"]
    assert [event.note for event in run.outcome_events()] == ["too large", "too large"]
    assert run.log(1) == "hällo\r50%42\n"
    assert run.log(0) == ""
    assert (tmp_path / ".gitignore").read_text() == "*\n"
    assert recorder.notice == ""
    assert run.size_bytes == sum(file.stat().st_size for file in run.folder.iterdir())


def test_a_recorder_that_was_never_used_leaves_nothing(tmp_path: Path) -> None:
    recorder = RunWriter(tmp_path / "home", RunHeader(name="x"))
    recorder.write(Output(rank=0, kind="stdout", text=""))
    recorder.close()
    assert not recorder.opened
    assert not (tmp_path / "home").exists()


def test_the_folder_is_known_before_it_is_made(tmp_path: Path) -> None:
    recorder = RunWriter(tmp_path, RunHeader(title="cell [7]", created_unix_ns=CREATED))
    folder = recorder.folder
    recorder.open()
    recorder.open()
    assert recorder.opened
    assert recorder.folder == folder
    assert folder.name.endswith("-123-cell-7")
    assert recorder.result_path(1, 0) == folder / "attempt-1-rank-0.result"


def test_runs_of_the_same_millisecond_and_name_are_told_apart(tmp_path: Path) -> None:
    recorders = [RunWriter(tmp_path, RunHeader(name="x", created_unix_ns=CREATED)) for _ in range(3)]
    for recorder in recorders:
        recorder.open()
    first, second, third = (recorder.run_id for recorder in recorders)
    assert (second, third) == (f"{first}-2", f"{first}-3")
    runs = list_runs([tmp_path])
    assert [run.run_id for run in runs] == [third, second, first]
    assert [run.folder.name for run in runs] == [third, second, first]


def test_a_header_is_not_there_before_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object, **__: object) -> None:
        raise SystemExit

    monkeypatch.setattr(os, "replace", crash)
    recorder = RunWriter(tmp_path, RunHeader())
    with pytest.raises(SystemExit):
        recorder.open()
    assert recorder.folder.exists()
    assert not (recorder.folder / "run.json").exists()
    assert list_runs([tmp_path]) == []


@pytest.mark.parametrize("name", ["../../etc", "ä" * 300, "", ".", "x" * 300, "a/b\0c"])
def test_any_name_makes_a_folder_in_runs(tmp_path: Path, name: str) -> None:
    recorder = RunWriter(tmp_path, RunHeader(name=name))
    recorder.open()
    assert recorder.opened
    assert [run.folder for run in list_runs([tmp_path])] == [recorder.folder]
    assert recorder.folder.parent == tmp_path / "runs"
    assert list_runs([tmp_path])[0].header.name == name


def test_a_long_home_and_text_that_utf8_cannot_hold(tmp_path: Path) -> None:
    place = tmp_path / ("h" * 200) / os.fsdecode(b"caf\xe9")
    recorder = RunWriter(place, RunHeader(cwd=str(place), environment={"\udce9": "\udce9"}))
    recorder.write(Output(rank=0, kind="stdout", text="a\udce9b"))
    recorder.event(_state(1, reason="\udce9"))
    (run,) = list_runs([place])
    assert run.folder.is_relative_to(place)
    assert run.reason == "\\udce9"
    assert run.log(0) == "a?b"


def test_events_outlive_close(tmp_path: Path) -> None:
    recorder = RunWriter(tmp_path, RunHeader())
    recorder.event(_state(1))
    recorder.close()
    recorder.close()
    recorder.event(_state(2, "succeeded"))
    assert StoredRun.read(recorder.folder).state == "succeeded"


# ---- places that cannot be written


def test_a_home_that_cannot_be_written_has_a_place_beside_it(tmp_path: Path, no_tmp: Path) -> None:
    (tmp_path / "file").touch()
    place = tmp_path / "file" / ".quarterdeck"
    recorder = RunWriter(place, RunHeader(name="x"))
    recorder.event(_state(1))
    assert recorder.opened
    assert recorder.folder.parent.parent == fallback(place)
    text = f"{place} cannot be written (Not a directory): this run is kept in {recorder.folder}."
    assert recorder.notice == text
    assert [run.folder for run in list_runs(homes(place))] == [recorder.folder]
    assert homes(tmp_path / "elsewhere") == []
    for folder in (fallback(place), fallback(place).parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_read_only_file_system(no_tmp: Path) -> None:
    recorder = RunWriter(Path("/proc/quarterdeck"), RunHeader())
    recorder.event(_state(1))
    assert recorder.folder.is_relative_to(no_tmp)
    assert [run.folder for run in list_runs(homes(Path("/proc/quarterdeck")))] == [recorder.folder]


def _somebody_elses(place: Path) -> None:
    place.mkdir(mode=0o700)
    os.chown(place, 12345, 12345)


def _open_to_all(place: Path) -> None:
    place.mkdir()
    place.chmod(0o777)


def _link(place: Path) -> None:
    (place.parent / "planted").mkdir(mode=0o700)
    place.symlink_to(place.parent / "planted")


@pytest.mark.parametrize("plant", [_somebody_elses, _open_to_all, _link, Path.touch])
def test_a_fallback_that_is_not_private_is_not_used(tmp_path: Path, no_tmp: Path, plant: object) -> None:
    if plant is _somebody_elses and os.getuid() != 0:
        pytest.skip("only root can make a folder of somebody else")
    assert callable(plant)
    plant(no_tmp / f"quarterdeck-{os.getuid()}")
    place = Path("/proc/quarterdeck")
    with pytest.raises(OSError, match="private"):
        fallback(place)
    assert homes(place) == []
    recorder = RunWriter(place, RunHeader())
    recorder.event(_state(1))
    assert recorder.opened
    assert stat.S_IMODE(recorder.folder.parent.parent.stat().st_mode) == 0o700
    assert not recorder.folder.is_relative_to(no_tmp / f"quarterdeck-{os.getuid()}")
    assert str(recorder.folder) in recorder.notice


def test_nowhere_to_write(no_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc")
    recorder = RunWriter(Path("/proc/quarterdeck"), RunHeader())
    recorder.event(_state(1))
    recorder.write(Output(rank=0, kind="stdout", text="x"))
    recorder.close()
    assert not recorder.opened
    assert recorder.notice.startswith("The history of this run is incomplete: ")


def test_where_home_is() -> None:
    assert home({}, "/a/b") == Path("/a/b/.quarterdeck")
    assert home({"QUARTERDECK_HOME": "/x"}, "/a/b") == Path("/x")
    assert home({"QUARTERDECK_HOME": "x/y"}, "/a/b") == Path("/a/b/x/y")
    assert home({"QUARTERDECK_HOME": "~/y"}, "/a/b") == Path.home() / "y"


# ---- full disks


def test_a_full_disk_costs_lines_but_never_the_next_one(tmp_path: Path) -> None:
    recorder = RunWriter(tmp_path, RunHeader())
    with files_up_to(4000) as limit:
        for number in range(1, 100):
            recorder.event(_state(number, reason="r" * number))
    torn = (recorder.folder / "events.jsonl").read_bytes()
    assert len(torn) == limit
    assert not torn.endswith(b"\n")
    recorder.event(_state(1000, "succeeded"))
    recorder.event(_state(1001, "failed"))
    run = StoredRun.read(recorder.folder)
    assert (run.state, run.ended_unix_ns, run.started_unix_ns) == ("succeeded", 1000, 1)
    assert recorder.notice == "The history of this run is incomplete: File too large."


def test_a_full_disk_under_a_log(tmp_path: Path) -> None:
    recorder = RunWriter(tmp_path, RunHeader())
    with files_up_to(4000) as limit:
        for _ in range(3):
            recorder.write(Output(rank=0, kind="stdout", text="x" * 3000))
    assert StoredRun.read(recorder.folder).log(0) == "x" * limit
    assert "incomplete: File too large." in recorder.notice


@pytest.mark.parametrize("written", [0, 1, 30])
def test_no_space_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    recorder = RunWriter(tmp_path, RunHeader())
    recorder.event(_state(1))
    write, room = os.write, written

    def full(descriptor: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        size, room = room, 0
        return write(descriptor, data[:size])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        recorder.event(_state(2, reason="is lost"))
    recorder.event(_state(3, "stopped", reason="is there"))
    run = StoredRun.read(recorder.folder)
    assert (run.state, run.reason, run.started_unix_ns) == ("stopped", "is there", 1)
    assert recorder.notice == "The history of this run is incomplete: No space left on device."


def test_a_small_disk_that_fills_up(tmp_path: Path, no_tmp: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", place], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("cannot mount a file system here")
    try:
        _fill(place)
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def _fill(place: Path) -> None:
    recorder = RunWriter(place, RunHeader(name="first"))
    recorder.event(_state(1))
    for _ in range(10):
        recorder.write(Output(rank=0, kind="stdout", text="x" * 10_000))
    recorder.event(_state(2, reason="y" * 10_000))
    assert recorder.notice == "The history of this run is incomplete: No space left on device."
    late = RunWriter(place, RunHeader(name="second"))
    late.event(_state(1))
    assert late.notice.startswith(f"{place} cannot be written (No space left on device): this run is kept in")
    (recorder.folder / "rank-0.log").unlink()
    recorder.close()
    recorder.event(_state(3, "stopped"))
    late.event(_state(4, "succeeded"))
    assert [(run.header.name, run.state) for run in list_runs(homes(place))] == [
        ("second", "succeeded"),
        ("first", "stopped"),
    ]


def test_a_folder_deleted_meanwhile(tmp_path: Path) -> None:
    recorder = RunWriter(tmp_path, RunHeader())
    recorder.open()
    (recorder.folder / "run.json").unlink()
    recorder.folder.rmdir()
    recorder.event(_state(1))
    assert recorder.notice == "The history of this run is incomplete: No such file or directory."


# ---- what a run depends on


def test_the_environment_names_versions_and_the_commit(tmp_path: Path) -> None:
    def git(*arguments: str, cwd: Path = tmp_path / "repo") -> str:
        who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        return subprocess.run(
            ["git", *who, *arguments], cwd=cwd, check=True, capture_output=True, text=True
        ).stdout.strip()

    (tmp_path / "repo" / "deep").mkdir(parents=True)
    assert describe(str(tmp_path))["git"] == ""
    git("init", "-b", "main")
    assert describe(str(tmp_path / "repo"))["git"] == ""
    git("commit", "--allow-empty", "-m", "one")
    commit = git("rev-parse", "HEAD")
    assert describe(str(tmp_path / "repo" / "deep"))["git"] == commit
    git("pack-refs", "--all")
    assert describe(str(tmp_path / "repo"))["git"] == commit
    git("worktree", "add", "../tree", "-b", "side")
    git("commit", "--allow-empty", "-m", "two", cwd=tmp_path / "tree")
    second = git("rev-parse", "HEAD", cwd=tmp_path / "tree")
    assert describe(str(tmp_path / "tree"))["git"] == second != commit
    git("pack-refs", "--all")
    assert describe(str(tmp_path / "tree"))["git"] == second
    git("checkout", "--detach", cwd=tmp_path / "tree")
    assert describe(str(tmp_path / "tree"))["git"] == second
    (tmp_path / "tree" / ".git").write_bytes(b"\xff\xfe")
    assert describe(str(tmp_path / "tree"))["git"] == ""


def test_the_environment_has_versions_without_importing_torch() -> None:
    code = "import sys; from quarterdeck.store.environment import describe; d = describe('.'); "
    code += (
        "assert 'torch' not in sys.modules; print(d['torch'], d['quarterdeck'], d['python'], d['hostname'])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert len(done.stdout.split()) == 4
