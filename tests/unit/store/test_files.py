"""A file that takes another's place is there whole or not at all, and is as open as its place."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import threading
from pathlib import Path

import pytest

from quarterdeck import files
from support.full_disk import files_up_to


def content(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir()}


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    files.write(tmp_path, "x", content=b"before")
    with pytest.raises(TypeError, match="bytes-like"), files.atomic_write(tmp_path, "x") as file:
        file.writelines([b"half" * 10_000, "text"])  # type: ignore[list-item]
    with files_up_to(100), pytest.raises(OSError, match="too large"):
        files.write(tmp_path, "x", content=b"x" * 101)
    with (
        files_up_to(100),
        pytest.raises(OSError, match="too large"),
        files.atomic_write(tmp_path, "x") as file,
    ):
        file.write(b"x" * 101)  # still in the buffer when the block ends
    assert content(tmp_path) == {"x": b"before"}


@pytest.mark.parametrize("synced", [False, True])
@pytest.mark.parametrize("names", [("x",), ("below", "x")])
def test_a_killed_write_leaves_what_was_there(tmp_path: Path, names: tuple[str, ...], synced: bool) -> None:
    files.make_folder(tmp_path, *names)
    path = tmp_path.joinpath(*names)
    path.rmdir()
    with files.atomic_write(tmp_path, *names, synced=synced) as file:
        file.write(b"before")

    def die() -> None:
        with files.atomic_write(tmp_path, *names, synced=synced) as file:
            file.write(b"half" * 10_000)
            os.kill(os.getpid(), signal.SIGKILL)

    child = multiprocessing.get_context("fork").Process(target=die)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert path.read_bytes() == b"before"
    [left] = [name for name in os.listdir(path.parent) if name != "x"]
    assert left.startswith(files.UNFINISHED)


def test_readers_beside_many_writers_see_whole_files(tmp_path: Path) -> None:
    files.write(tmp_path, "x", content=b"0" * 50_000)

    def write(digit: bytes) -> None:
        for _ in range(100):
            files.write(tmp_path, "x", content=digit * 50_000)

    writers = [threading.Thread(target=write, args=(b"%d" % number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        seen = (tmp_path / "x").read_bytes()
        assert seen == seen[:1] * 50_000
    assert os.listdir(tmp_path) == ["x"]


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"theirs")
    (tmp_path / "x").symlink_to("theirs")
    files.write(tmp_path, "x", content=b"ours")
    assert content(tmp_path) == {"theirs": b"theirs", "x": b"ours"}
    assert not (tmp_path / "x").is_symlink()


@pytest.mark.parametrize(("mode", "expected"), [(None, 0o600), (0o666, 0o644)])
def test_a_file_in_a_private_folder_is_private_unless_users_keep_it(
    tmp_path: Path, mode: int | None, expected: int
) -> None:
    tmp_path.chmod(0o700)
    old = os.umask(0o022)
    try:
        with files.atomic_write(tmp_path, "x", mode=mode) as file:
            file.write(b"1")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == expected
