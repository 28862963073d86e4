"""What travels beside messages: nobody has to close it, and nobody closes it for others."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from quarterdeck.protocol import channel
from quarterdeck.protocol.blob import Blob
from quarterdeck.protocol.channel import INLINE_BYTES, Channel
from quarterdeck.protocol.kernel import Notice
from quarterdeck.protocol.parts import Changes, KernelContext, changed


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = map(Channel, channel.pair())
    yield ours, theirs
    ours.close()
    theirs.close()


def _open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def _blob(text: bytes) -> Blob:
    blob = Blob.new()
    os.pwrite(blob.fileno(), text, 0)
    return blob


@pytest.mark.parametrize("size", [10, INLINE_BYTES + 1])
@pytest.mark.parametrize("with_blob", [False, True])
@pytest.mark.parametrize("handles", [0, 2])
def test_a_message_arrives_with_its_blob_and_its_handles(
    ends: tuple[Channel, Channel], size: int, with_blob: bool, handles: int
) -> None:
    before = _open_descriptors()
    null = [os.open(os.devnull, os.O_RDONLY) for _ in range(handles)]
    ends[0].send(Notice(text="x" * size), _blob(b"large") if with_blob else None, null)
    channel.close_all(null)
    frame = ends[1].receive()
    assert frame is not None
    assert frame.message == Notice(text="x" * size)
    assert len(frame.handles) == handles
    assert (frame.blob is not None) == with_blob
    if frame.blob is not None:
        assert os.pread(frame.blob.fileno(), 100, 0) == b"large"
    channel.close_all(frame.handles)
    del frame
    assert _open_descriptors() == before


def test_a_message_that_cannot_be_read_leaves_nothing_open(ends: tuple[Channel, Channel]) -> None:
    before = _open_descriptors()
    for kind in (b"\0rubbish", b"\3", b"\2"):
        socket.send_fds(ends[0].sock, [kind], [ends[0].fileno()])
        with pytest.raises(channel.BadMessage):
            ends[1].receive()
    assert _open_descriptors() == before


def test_a_closed_blob_may_be_closed_again() -> None:
    blob = _blob(b"abc")
    assert blob.size_bytes == 3
    blob.close()
    blob.close()


@pytest.mark.parametrize(
    ("own", "changes", "now"),
    [
        ({"SLURM_JOB_ID": "7", "HOME": "/a"}, {}, {"SLURM_JOB_ID": "7", "HOME": "/a"}),
        ({"HOME": "/a"}, {"HOME": "/b", "NEW": ""}, {"HOME": "/b", "NEW": ""}),
        ({"HOME": "/a", "GONE": "1"}, {"GONE": None, "NEVER": None}, {"HOME": "/a"}),
    ],
)
def test_what_the_notebook_changed_is_changed_on_a_node_and_the_rest_is_the_node_s(
    own: dict[str, str], changes: Changes, now: dict[str, str]
) -> None:
    assert changed(own, changes) == now


def test_the_kernel_tells_what_it_has_set_and_removed_since_import(monkeypatch: pytest.MonkeyPatch) -> None:
    from quarterdeck.kernel import notebook

    monkeypatch.setattr(notebook, "AT_IMPORT", {**os.environ, "OLD": "1", "SAME": "1", "GONE": "1"})
    monkeypatch.setenv("OLD", "2")
    monkeypatch.setenv("SAME", "1")
    monkeypatch.setenv("NEW", "3")
    monkeypatch.delenv("GONE", raising=False)
    changes = notebook.changes_since_import()
    assert {name: changes[name] for name in changes if name != "PYTEST_CURRENT_TEST"} == {
        "OLD": "2",
        "NEW": "3",
        "GONE": None,
    }
    assert KernelContext(changes, "/", []).environ["OLD"] == "2"
