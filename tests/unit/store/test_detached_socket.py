"""Sockets of detached runs: private, found only when they listen, and gone when nobody does."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from quarterdeck.store import detached_socket
from quarterdeck.store.format import RunHeader
from quarterdeck.store.owner import RunOwner
from quarterdeck.store.reader import StoredRun
from quarterdeck.store.writer import RunWriter

LISTEN = """
import sys
from quarterdeck.store import detached_socket as runtime
from quarterdeck.store.owner import RunOwner
here = RunOwner.here()
listener, path = runtime.listen(here)
print(here.pid, here.start_ticks, path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="qd", dir="/tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    yield folder / "quarterdeck"
    shutil.rmtree(folder)


@pytest.fixture
def other(sockets: Path) -> Iterator[tuple[subprocess.Popen[str], RunOwner]]:
    """Another process that listens."""
    process = subprocess.Popen(
        [sys.executable, "-c", LISTEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    pid, ticks, path = process.stdout.readline().split()
    yield process, RunOwner(int(pid), int(ticks), RunOwner.here().node, path)
    process.kill()
    process.communicate()


def test_one_connects_to_the_process_that_the_run_names(
    sockets: Path, other: tuple[subprocess.Popen[str], RunOwner]
) -> None:
    process, keeper = other
    assert Path(keeper.socket).parent == sockets
    assert sockets.stat().st_mode & 0o777 == 0o700
    with detached_socket.connect(keeper) as connection:
        assert detached_socket.peer(connection) == (process.pid, os.getuid())
    os.rename(keeper.socket, sockets / "detached-1-1.sock")
    with pytest.raises(PermissionError, match="another process"):
        detached_socket.connect(
            msgspec.structs.replace(keeper, pid=1, start_ticks=1, socket=_socket(sockets, 1))
        )


def test_a_dead_one_is_swept_away_and_a_living_one_is_not(
    sockets: Path, other: tuple[subprocess.Popen[str], RunOwner]
) -> None:
    process, keeper = other
    here = RunOwner.here()
    listener, path = detached_socket.listen(here)
    with listener:
        assert sorted(os.listdir(sockets)) == sorted(os.path.basename(p) for p in (path, keeper.socket))
        process.kill()
        process.wait()
        with pytest.raises(ConnectionRefusedError):
            detached_socket.connect(keeper)
        assert os.listdir(sockets) == [os.path.basename(path)]
    detached_socket.remove(msgspec.structs.replace(here, socket=path))
    assert not sockets.exists()


def test_who_listens_next_sweeps(sockets: Path, other: tuple[subprocess.Popen[str], RunOwner]) -> None:
    process, _ = other
    process.kill()
    process.wait()
    here = RunOwner.here()
    listener, path = detached_socket.listen(here)
    with listener:
        assert os.listdir(sockets) == [os.path.basename(path)]
    detached_socket.remove(msgspec.structs.replace(here, socket=path))


def test_the_reader_that_finds_a_run_lost_removes_its_socket(
    sockets: Path, other: tuple[subprocess.Popen[str], RunOwner], tmp_path: Path
) -> None:
    process, keeper = other
    recorder = RunWriter(tmp_path, RunHeader(name="x", keeper=keeper))
    recorder.open()
    recorder.close()
    assert StoredRun.read(recorder.folder).detached
    process.kill()
    process.wait()
    assert StoredRun.read(recorder.folder).state == "lost"
    assert not sockets.exists()


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_a_folder_that_others_can_enter_is_not_trusted(sockets: Path, mode: int) -> None:
    sockets.mkdir()
    sockets.chmod(mode)
    keeper = _gone(sockets)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(keeper.socket)
        listener.listen()
        with pytest.raises(PermissionError, match="not a private folder"):
            detached_socket.connect(keeper)
        detached_socket.remove(keeper)
        assert os.path.exists(keeper.socket), "nothing is removed there, either"


def test_a_path_of_another_name_is_neither_connected_to_nor_removed(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    victim = tmp_path / "precious"
    victim.touch()
    for path in (str(victim), "precious", f"{tmp_path}/../{tmp_path.name}/precious", f"{tmp_path}/a\0b"):
        keeper = msgspec.structs.replace(_gone(tmp_path), socket=path)
        detached_socket.remove(keeper)
        with pytest.raises(OSError, match="not the socket of a detached run"):
            detached_socket.connect(keeper)
    assert victim.exists()


def test_a_run_s_record_removes_no_socket_but_its_own_and_none_elsewhere(
    sockets: Path, other: tuple[subprocess.Popen[str], RunOwner], tmp_path: Path
) -> None:
    """What `run.json` says may be a stranger's words."""
    _, living = other
    gone = _gone(sockets)
    elsewhere = tmp_path / "private"
    elsewhere.mkdir(mode=0o700)
    victims = [Path(gone.socket), Path(_socket(sockets, 2)), Path(_gone(elsewhere).socket)]
    for victim in victims:
        victim.touch()
    for socket_path in (living.socket, *map(str, victims[1:])):
        _lost(tmp_path / "store", msgspec.structs.replace(gone, socket=socket_path))
    assert all(path.exists() for path in (Path(living.socket), *victims))
    _lost(tmp_path / "store", gone)
    assert not victims[0].exists()


def _lost(home: Path, keeper: RunOwner) -> None:
    recorder = RunWriter(home, RunHeader(name="x", keeper=keeper))
    recorder.open()
    recorder.close()
    assert StoredRun.read(recorder.folder).state == "lost"


def _gone(folder: Path) -> RunOwner:
    """An owner that is gone: pid 1 never has these ticks."""
    return RunOwner(1, 987_654_321, RunOwner.here().node, str(folder / "detached-1-987654321.sock"))


def _socket(folder: Path, pid: int) -> str:
    return str(folder / f"detached-{pid}-1.sock")
