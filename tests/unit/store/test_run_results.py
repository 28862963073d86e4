"""Results: round trips, and what is never unpickled without being asked for."""

from __future__ import annotations

import os
import pickle
import stat
import subprocess
import sys
import threading
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest

from quarterdeck.protocol.blob import Blob
from quarterdeck.store import key as key_module
from quarterdeck.store.results import KEPT_BYTES, UntrustedResult, read_result, write_result
from quarterdeck.transfer.shared_buffers import pack

STREAM = pickle.dumps({"loss": 0.1})


@pytest.fixture(autouse=True)
def key_file(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path_factory.mktemp("state") / "quarterdeck" / "key"
    monkeypatch.setenv("QUARTERDECK_KEY_FILE", str(path))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "attempt-0-rank-0.result"


def _write(path: Path, *buffers: bytes, stream: bytes = STREAM) -> None:
    blob, spans = pack(memoryview(buffer) for buffer in buffers)
    if blob is not None:
        os.lseek(blob.fileno(), 0, os.SEEK_END)
    assert write_result(path, stream, spans, blob) == ""


@pytest.mark.parametrize(
    "sizes", [[], [0], [0, 0], [1], [64, 0, 65], [0, 3], [5_000_000, 1, 9_000_001], [4096, 0]]
)
@pytest.mark.parametrize("stream", [b"", STREAM, b"s" * 100_000])
def test_a_round_trip(path: Path, sizes: list[int], stream: bytes) -> None:
    buffers = [os.urandom(size) for size in sizes]
    _write(path, *buffers, stream=stream)
    back, views = read_result(path)
    assert back == stream
    assert [bytes(view) for view in views] == buffers
    assert os.listdir(path.parent) == [path.name]


def test_without_a_blob(path: Path) -> None:
    assert write_result(path, STREAM, [], None) == ""
    assert read_result(path) == (STREAM, [])


def test_buffers_are_aligned_writable_and_private(path: Path) -> None:
    _write(path, b"a" * 100, b"b" * 100)
    _, (first, second) = read_result(path)
    assert not first.readonly
    first[:] = b"x" * 100
    assert (bytes(first), bytes(second)) == (b"x" * 100, b"b" * 100)
    assert bytes(read_result(path)[1][0]) == b"a" * 100
    numpy = pytest.importorskip("numpy")
    assert all(numpy.frombuffer(view, "u1").ctypes.data % 64 == 0 for view in (first, second))


def test_the_buffers_outlive_the_file(path: Path) -> None:
    _write(path, b"a" * 100_000)
    _, (view,) = read_result(path)
    path.unlink()
    assert bytes(view) == b"a" * 100_000


def test_too_large_is_said_and_leaves_nothing(path: Path) -> None:
    blob = Blob.new()
    os.ftruncate(blob.fileno(), 210_000_000)
    reason = write_result(path, b"", [(0, 210_000_000)], blob)
    assert reason == "210 MB is more than the 64 MB that the store keeps per rank"
    just = KEPT_BYTES - len(STREAM)
    assert write_result(path, STREAM, [(0, just + 1)], blob).startswith("65 MB is more than the 64 MB")
    assert os.listdir(path.parent) == []
    assert write_result(path, STREAM, [(0, just)], blob) == ""


def test_what_cannot_be_written_is_said(path: Path, tmp_path: Path) -> None:
    assert write_result(tmp_path / "absent" / "x.result", STREAM, [], None) == "No such file or directory"
    assert write_result(path, STREAM, [(0, 1)], None) == "its buffers did not arrive"
    blob = Blob.new()
    assert write_result(path, STREAM, [(0, 1)], blob) == "its buffers did not arrive"
    assert write_result(path, STREAM, [(-1, 1)], blob) == "its buffers begin before their memory"
    full = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], capture_output=True)
    if full.returncode == 0:
        try:
            assert write_result(path, b"x" * 100_000, [], None) == "No space left on device"
            assert os.listdir(tmp_path) == []
        finally:
            subprocess.run(["umount", "-l", tmp_path], check=True)


def test_every_cut_is_seen(path: Path, tmp_path: Path) -> None:
    _write(path, b"a" * 100)
    whole = path.read_bytes()
    cut = tmp_path / "cut"
    for size in [*range(400), *range(4000, len(whole))]:
        cut.write_bytes(whole[:size])
        for trust in (False, True):
            with pytest.raises(ValueError, match="is damaged"):
                read_result(cut, trust)
    cut.write_bytes(whole[:8] + b"\2" + whole[9:])
    with pytest.raises(ValueError, match="later version"):
        read_result(cut)


# ---- trust


def test_every_changed_byte_that_could_run_code_is_seen(path: Path) -> None:
    _write(path, b"a" * 100)
    whole = path.read_bytes()
    signed = 32 + 16 + 32 + len(STREAM)
    for index in range(signed):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        with pytest.raises((UntrustedResult, ValueError)):
            read_result(path)
    path.write_bytes(whole[: signed - 1] + b"X" + whole[signed:])
    with pytest.raises(UntrustedResult, match="trust=True"):
        read_result(path)
    stream, (view,) = read_result(path, trust=True)
    assert stream == STREAM[:-1] + b"X"
    assert bytes(view) == b"a" * 100


def test_spans_that_lie_outside_are_never_used(path: Path) -> None:
    _write(path, b"a" * 100)
    whole = path.read_bytes()
    path.write_bytes(whole[:32] + (1 << 63).to_bytes(8, "little") + whole[40:])
    with pytest.raises(UntrustedResult):
        read_result(path)
    with pytest.raises(ValueError, match="is damaged"):
        read_result(path, trust=True)


def test_another_users_result_is_not_trusted(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(path, b"a")
    monkeypatch.setenv("QUARTERDECK_KEY_FILE", str(tmp_path / "other"))
    with pytest.raises(UntrustedResult):
        read_result(path)
    assert read_result(path, trust=True)[0] == STREAM


def test_another_process_of_the_user_trusts_it(path: Path, key_file: Path) -> None:
    _write(path, b"a")
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    code = "import sys, pathlib; from quarterdeck.store.results import read_result; "
    code += "assert bytes(read_result(pathlib.Path(sys.argv[1]))[1][0]) == b'a'"
    subprocess.run([sys.executable, "-c", code, path], check=True)


def test_processes_that_need_a_key_at_once_get_the_same(key_file: Path) -> None:
    code = "import sys, time; from quarterdeck.store.key import key; "
    code += "time.sleep(max(0, float(sys.argv[1]) - time.time())); print(key().hex())"
    start = str(time.time() + 0.5)
    children = [
        subprocess.Popen([sys.executable, "-c", code, start], stdout=subprocess.PIPE) for _ in range(8)
    ]
    assert len({child.communicate()[0] for child in children}) == 1
    assert os.listdir(key_file.parent) == [key_file.name]


def test_threads_that_need_a_key_at_once_get_the_same(key_file: Path) -> None:
    barrier = threading.Barrier(16)

    def ask(_: int) -> bytes:
        barrier.wait()
        return key_module.key()

    with ThreadPool(16) as pool:
        assert pool.map(ask, range(16)) == [key_file.read_bytes()] * 16


def test_where_no_key_can_be_kept_results_load_in_this_process_only(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUARTERDECK_KEY_FILE", "/proc/quarterdeck/key")
    _write(path, b"a")
    assert read_result(path)[0] == STREAM
    code = "import sys, pathlib; from quarterdeck.store.results import *; "
    code += "read_result(pathlib.Path(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert "UntrustedResult" in done.stderr


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_damaged_key_is_not_used(key_file: Path, content: bytes) -> None:
    key_file.parent.mkdir(mode=0o700)
    key_file.write_bytes(content)
    key_file.chmod(0o600)
    assert key_module.key() == key_module._OWN


def test_a_key_that_others_can_read_is_not_used(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key_module.key()
    fresh = key_file.with_name("open")
    fresh.write_bytes(key_file.read_bytes())
    fresh.chmod(0o644)
    monkeypatch.setenv("QUARTERDECK_KEY_FILE", str(fresh))
    assert key_module.key() == key_module._OWN


def test_where_the_key_lives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("QUARTERDECK_KEY_FILE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    key_module.key()
    assert (tmp_path / "home" / ".local" / "state" / "quarterdeck" / "key").exists()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    key_module.key()
    assert (tmp_path / "xdg" / "quarterdeck" / "key").exists()
