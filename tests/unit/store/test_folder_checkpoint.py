"""FolderCheckpoint: the five methods of Flyte's SyncCheckpoint, and what is added: whole saves, threads."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from quarterdeck import files
from quarterdeck.store import folder_checkpoint as checkpoint
from quarterdeck.store.folder_checkpoint import FolderCheckpoint


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def fill(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "run" / "checkpoints"


@pytest.fixture
def ck(dest: Path) -> FolderCheckpoint:
    return FolderCheckpoint(dest)


@pytest.mark.parametrize("src", [None, "", "empty"])
def test_no_earlier_checkpoint(tmp_path: Path, dest: Path, src: str | None) -> None:
    (tmp_path / "empty").mkdir()
    ck = FolderCheckpoint(str(dest), str(tmp_path / src) if src else src)
    assert not ck.prev_exists()
    assert ck.read() is None
    assert ck.restore() is None
    assert ck.restore(tmp_path / "nowhere") is None
    assert not dest.parent.exists(), "folders are made by the first save only"


def test_a_named_source_that_is_gone_is_an_error_whatever_is_asked(tmp_path: Path, dest: Path) -> None:
    """Never a silent start from zero."""
    ck = FolderCheckpoint(dest, tmp_path / "gone")
    (tmp_path / "into").mkdir()
    for ask in (ck.prev_exists, ck.read, ck.restore, lambda: ck.restore(tmp_path / "into")):
        with pytest.raises(FileNotFoundError, match="gone"):
            ask()
    ck.write(b"it saves all the same")
    assert tree(dest) == {"_dst_cp": b"it saves all the same"}


def test_one_that_is_being_replaced_is_there(tmp_path: Path, dest: Path) -> None:
    earlier = FolderCheckpoint(tmp_path / "earlier")
    earlier.write(b"step 1")
    (tmp_path / "earlier").rename(tmp_path / ".earlier.qd-old")
    assert FolderCheckpoint(dest, tmp_path / "earlier").read() == b"step 1"


def test_write_is_for_the_next_attempt(ck: FolderCheckpoint, dest: Path) -> None:
    ck.write(b"step 1")
    ck.write(b"step 2")
    assert tree(dest) == {"_dst_cp": b"step 2"}
    assert ck.read() is None
    following = FolderCheckpoint(dest.parent / "next", dest)
    assert following.prev_exists()
    assert following.read() == b"step 2"
    following.write(b"step 3")
    assert following.read() == b"step 2"


def test_a_file_is_saved_under_its_name_beside_the_others(
    ck: FolderCheckpoint, dest: Path, tmp_path: Path
) -> None:
    fill(tmp_path, **{"a.pt": "1", "b.pt": "2"})
    ck.save(tmp_path / "a.pt")
    ck.save(str(tmp_path / "b.pt"))
    fill(tmp_path, **{"a.pt": "3"})
    ck.save(tmp_path / "a.pt")
    assert tree(dest) == {"a.pt": b"3", "b.pt": b"2"}


def test_an_open_file_is_saved_from_its_position(ck: FolderCheckpoint, dest: Path, tmp_path: Path) -> None:
    with (fill(tmp_path, f="0123") / "f").open("rb") as file:
        file.seek(2)
        ck.save(file)
    assert tree(dest) == {"_dst_cp": b"23"}
    with tempfile.NamedTemporaryFile() as other:
        other.write(b"x")
        other.seek(0)
        ck.save(other)  # type: ignore[arg-type]
    assert tree(dest) == {"_dst_cp": b"x"}


def test_a_directory_is_saved_by_content_over_what_is_there(
    ck: FolderCheckpoint, dest: Path, tmp_path: Path
) -> None:
    ck.write(b"0")
    ck.save(fill(tmp_path / "one", shard0="1", deep__shard1="1"))
    ck.save(fill(tmp_path / "two", shard0="2", deep__shard2="2"))
    assert tree(dest) == {"_dst_cp": b"0", "shard0": b"2", "deep/shard1": b"1", "deep/shard2": b"2"}
    assert os.listdir(dest.parent) == [dest.name]
    assert tree(tmp_path / "one")["shard0"] == b"1", "what is saved is a copy"


def test_a_directory_around_the_checkpoint_folder_is_refused(ck: FolderCheckpoint, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="contains the folder"):
        ck.save(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (b"state", r"write\(\)"),
        (bytearray(1), r"write\(\)"),
        (FolderCheckpoint, "path or a file"),
        (3, "path or a file"),
        (None, "path or a file"),
        (io.StringIO("text"), '"rb"'),
    ],
)
def test_save_refuses_anything_else(ck: FolderCheckpoint, dest: Path, wrong: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ck.save(wrong)
    assert not dest.exists()


def test_save_refuses_a_file_open_for_writing_only(ck: FolderCheckpoint, tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file, pytest.raises(ValueError, match='"rb"'):
        ck.save(file)


def test_save_refuses_a_buffer_that_was_just_written(ck: FolderCheckpoint, dest: Path) -> None:
    ck.write(b"before")
    buffer = io.BytesIO()
    buffer.write(b"after torch.save")
    with pytest.raises(ValueError, match=r"seek\(0\)"):
        ck.save(buffer)
    assert tree(dest) == {"_dst_cp": b"before"}


def test_a_missing_path_is_named(ck: FolderCheckpoint, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.pt"):
        ck.save(tmp_path / "gone.pt")


def test_write_takes_bytes_only(ck: FolderCheckpoint, dest: Path) -> None:
    with pytest.raises(TypeError, match="not str"):
        ck.write("text")  # type: ignore[arg-type]
    ck.write(memoryview(b"view"))
    assert tree(dest) == {"_dst_cp": b"view"}


@pytest.mark.parametrize(
    ("files", "says"),
    [({"a": "", "b": ""}, r"exactly one .* not 2 \(a, b\)"), ({"folder__a": ""}, r"not 1 \(folder\)")],
)
def test_read_needs_exactly_one_file(dest: Path, tmp_path: Path, files: dict[str, str], says: str) -> None:
    ck = FolderCheckpoint(dest, fill(tmp_path / "src", **files))
    with pytest.raises(ValueError, match=says + r".*restore\(path\)"):
        ck.read()


def test_restore_copies_once_into_a_directory(dest: Path, tmp_path: Path) -> None:
    src = fill(tmp_path / "src", a="1", deep__b="2")
    ck = FolderCheckpoint(dest, src)
    target = tmp_path / "target"
    with pytest.raises(ValueError, match="directory"):
        ck.restore(target)
    fill(target, mine="0")
    target.chmod(0o700)
    assert ck.restore(target) == target
    assert tree(target) == {"mine": b"0", "a": b"1", "deep/b": b"2"}
    assert target.stat().st_mode & 0o777 == 0o700, "the directory itself is the caller's"
    fill(src, a="changed")
    assert ck.restore(tmp_path / "other") == target
    assert tree(target)["a"] == b"1"


def test_restore_without_a_path_uses_a_temporary_directory(dest: Path, tmp_path: Path) -> None:
    ck = FolderCheckpoint(dest, fill(tmp_path / "src", a="1"))
    assert ck.read() == b"1"
    path = ck.restore()
    assert path is not None
    assert tree(path) == {"a": b"1"}
    assert ck.restore(tmp_path) == path
    del ck
    assert not path.exists()


def test_a_restore_that_failed_can_be_repeated(
    dest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ck = FolderCheckpoint(dest, fill(tmp_path / "src", a="1"))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_copy", fail)
        with pytest.raises(OSError, match="disk full"):
            ck.restore(tmp_path)
    assert ck.restore(tmp_path) == tmp_path


def fail(*_: Any, **__: Any) -> None:
    raise OSError("disk full")


@pytest.mark.parametrize(
    ("method", "broken"),
    [("write", "os.replace"), ("write", "os.fsync"), ("save", "os.fsync"), ("save", "os.rename")],
)
def test_a_save_that_fails_leaves_the_one_before(
    ck: FolderCheckpoint,
    dest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    broken: str,
) -> None:
    ck.write(b"before")
    given = b"after" if method == "write" else fill(tmp_path / "folder", a="1")
    with monkeypatch.context() as patch:
        patch.setattr(broken, fail)
        with pytest.raises(OSError, match="disk full"):
            getattr(ck, method)(given)
    assert tree(dest) == {"_dst_cp": b"before"}
    assert os.listdir(dest.parent) == [dest.name], "no debris"


@pytest.mark.parametrize("dies_at", ["write", "link", "first rename", "second rename", "removal"])
def test_a_killed_process_leaves_a_whole_checkpoint(dest: Path, tmp_path: Path, dies_at: str) -> None:
    FolderCheckpoint(dest).save(fill(tmp_path / "one", a="1", b="1", kept="1"))
    child = multiprocessing.get_context("fork").Process(
        target=_die_saving, args=(dest, fill(tmp_path / "two", a="2", b="2"), dies_at)
    )
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    done = b"2" if dies_at == "removal" else b"1"
    saved = {"a": done, "b": done, "kept": b"1"}
    following = FolderCheckpoint(tmp_path / "next", dest)
    restored = following.restore()
    assert restored is not None
    assert tree(restored) == saved
    FolderCheckpoint(dest).save(fill(tmp_path / "three", c="3"))
    assert {name: data for name, data in tree(dest).items() if ".qd-tmp-" not in name} == saved | {"c": b"3"}


def _die_saving(dest: Path, folder: Path, dies_at: str) -> None:
    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    renames = iter(range(2))
    rename = os.rename

    def dying_rename(*paths: Any) -> None:
        if ("first rename", "second rename")[next(renames)] == dies_at:
            die()
        rename(*paths)

    if dies_at == "write":
        os.replace = die  # type: ignore[assignment]
        FolderCheckpoint(dest).write(b"2")
    if dies_at == "link":
        os.link = die
    os.rename = dying_rename  # type: ignore[assignment]
    if dies_at == "removal":
        files.sync = lambda path: die() if path == dest.parent else None
    FolderCheckpoint(dest).save(folder)


def test_what_a_killed_write_left_is_not_a_checkpoint(dest: Path, tmp_path: Path) -> None:
    src = fill(tmp_path / "src", **{".qd-tmp-1": "half"})
    ck = FolderCheckpoint(dest, src)
    assert not ck.prev_exists()
    fill(src, whole="1")
    assert ck.read() == b"1"
    restored = ck.restore()
    assert restored is not None
    assert tree(restored) == {"whole": b"1"}


def test_threads_save_whole_files_and_folders(ck: FolderCheckpoint, dest: Path, tmp_path: Path) -> None:
    folders = [fill(tmp_path / str(n), a=str(n) * 1000, b=str(n) * 1000) for n in range(4)]
    errors: list[BaseException] = []

    def save(n: int) -> None:
        try:
            for _ in range(5):
                ck.save(folders[n])
                ck.write(str(n).encode() * 1000)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = tree(dest)
    assert not errors
    assert set(found) == {"a", "b", "_dst_cp"}
    assert found["a"] == found["b"]
    assert all(len(set(data)) == 1 and len(data) == 1000 for data in found.values())
    assert os.listdir(dest.parent) == [dest.name]


def _save_often(dest: Path, folder: Path) -> None:
    for _ in range(10):
        FolderCheckpoint(dest).save(folder)
        FolderCheckpoint(dest).write(folder.name.encode())


def test_processes_that_share_a_folder_follow_each_other(dest: Path, tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    folders = [fill(tmp_path / str(n), a=str(n), b=str(n)) for n in range(3)]
    processes = [fork.Process(target=_save_often, args=(dest, folder)) for folder in folders]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    found = tree(dest)
    assert found["a"] == found["b"]
    assert set(found) == {"a", "b", "_dst_cp"}


def test_a_signal_handler_may_save_in_the_middle_of_a_save(ck: FolderCheckpoint, dest: Path) -> None:
    class File(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if size:
                ck.write(b"handler")
            return super().read(size)

    ck.save(File(b"outer"))
    assert tree(dest) == {"_dst_cp": b"outer"}


def test_the_folders_do_not_move_with_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ck = FolderCheckpoint("here")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    ck.write(b"1")
    assert tree(tmp_path / "here") == {"_dst_cp": b"1"}


def test_only_local_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="local folders"):
        FolderCheckpoint("s3://bucket/run")
    FolderCheckpoint(f"file://{tmp_path}/f").write(b"1")
    assert (tmp_path / "f" / "_dst_cp").exists()


def test_torch_is_not_imported() -> None:
    """In a worker it is there already; a plain script that uses this one class should not load it."""
    path = Path(checkpoint.__file__)
    code = f"import sys, runpy; runpy.run_path({str(path)!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
