"""One end of a SOCK_SEQPACKET pair that carries typed messages, each with a blob or with handles. Used by
every process.

A datagram is one message: it arrives whole or not at all, also when several threads or a forked child send on
the same socket. What is larger than INLINE_BYTES travels as a memfd, so that no message is ever too long for
the socket. Handles are descriptors that only this machine understands: ends of channels and pipes.
"""

from __future__ import annotations

import mmap
import os
import select
import socket
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from quarterdeck import files
from quarterdeck.protocol.blob import Blob
from quarterdeck.protocol.messages import Anything
from quarterdeck.protocol.parts import Message

INLINE_BYTES = 64 * 1024
_MAX_FDS = 16
_IN_MEMFD, _WITH_BLOB = 1, 2
"""Flags in the first byte of a datagram: which descriptors come before the handles."""

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Anything)


class BadMessage(Exception):
    """What arrived is none of our messages; its descriptors are closed, and the channel goes on."""


class Frame(NamedTuple):
    """A received message, its bytes to forward unchanged, and what came with it. The receiver closes the
    handles that it does not use.
    """

    message: Message
    raw: bytes
    blob: Blob | None = None
    handles: Sequence[int] = ()


def encode(message: Message) -> bytes:
    return _encoder.encode(message)


def close_all(handles: Sequence[int]) -> None:
    for handle in handles:
        os.close(handle)


def _blob_of(raw: bytes) -> Blob:
    blob = Blob.new()
    files.write_all(blob.fileno(), raw)
    return blob


def _bytes_of(blob: Blob) -> bytes:
    with mmap.mmap(blob.fileno(), blob.size_bytes, prot=mmap.PROT_READ) as mapped:
        return bytes(mapped)


def send_raw(sock: socket.socket, raw: bytes, blob: Blob | None = None, handles: Sequence[int] = ()) -> None:
    """Send encoded bytes as one datagram. Raises BlockingIOError on a full non-blocking socket; nothing is
    sent then.
    """
    kind = _WITH_BLOB if blob is not None else 0
    blobs = [blob] if blob is not None else []
    if len(raw) > INLINE_BYTES:
        kind, blobs, raw = kind | _IN_MEMFD, [_blob_of(raw), *blobs], b""
    socket.send_fds(sock, [bytes([kind]), raw], [*(one.fileno() for one in blobs), *handles])


def receive(sock: socket.socket) -> Frame | None:
    """The next message, or None when the other end is closed. Raises BlockingIOError like `send_raw`, and
    BadMessage.
    """
    try:
        datagram, fds, _, _ = socket.recv_fds(sock, INLINE_BYTES + 1, _MAX_FDS, socket.MSG_CMSG_CLOEXEC)
    except (ConnectionResetError, BrokenPipeError):
        return None
    if not datagram:
        return None
    try:
        raw = _bytes_of(Blob(fds.pop(0))) if datagram[0] & _IN_MEMFD else datagram[1:]
        blob = Blob(fds.pop(0)) if datagram[0] & _WITH_BLOB else None
        return Frame(_decoder.decode(raw), raw, blob, fds)
    except (msgspec.DecodeError, ValueError, IndexError, OSError) as error:
        close_all(fds)
        raise BadMessage(str(error)) from error


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Channel:
    """Blocking end: any thread may send, one thread receives."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._lock = threading.RLock()  # a signal handler that prints may come in the middle of a send

    @classmethod
    def from_fd(cls, fd: int) -> Channel:
        return cls(socket.socket(fileno=fd))

    def fileno(self) -> int:
        return self.sock.fileno()

    def send(self, message: Message, blob: Blob | None = None, handles: Sequence[int] = ()) -> None:
        """Raises BrokenPipeError when the other end is gone."""
        raw = encode(message)
        with self._lock:
            send_raw(self.sock, raw, blob, handles)

    def receive(self) -> Frame | None:
        return receive(self.sock)

    def poll(self, timeout_s: float | None) -> bool:
        """Whether a message (or the end) can be received within `timeout_s`."""
        poller = select.poll()
        poller.register(self.sock, select.POLLIN)
        return bool(poller.poll(None if timeout_s is None else timeout_s * 1000))

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
