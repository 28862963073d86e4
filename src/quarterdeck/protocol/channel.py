"""One end of a SOCK_SEQPACKET pair that carries typed messages and file descriptors. Used by every process.

A datagram is one message: it arrives whole or not at all, also when several threads or a forked child send on
the same socket. What is larger than INLINE_BYTES travels as a memfd, so that no message is ever too long for
the socket.
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
from quarterdeck.protocol.messages import Anything, Message

INLINE_BYTES = 64 * 1024
_MAX_FDS = 16
_INLINE, _MEMFD = b"\0", b"\1"

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Anything)


class BadMessage(Exception):
    """What arrived is none of our messages; its descriptors are closed, and the channel goes on."""


class Frame(NamedTuple):
    """A received message, its descriptors (the receiver closes them), and its bytes to forward unchanged."""

    message: Message
    fds: list[int]
    raw: bytes


def encode(message: Message) -> bytes:
    return _encoder.encode(message)


def close_fds(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _memfd_of(raw: bytes) -> int:
    fd = os.memfd_create("quarterdeck-message", os.MFD_CLOEXEC)
    files.write_all(fd, raw)
    return fd


def _read_memfd(fd: int) -> bytes:
    try:
        with mmap.mmap(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ) as mapped:
            return bytes(mapped)
    finally:
        os.close(fd)


def send_raw(sock: socket.socket, raw: bytes, fds: Sequence[int] = ()) -> None:
    """Send encoded bytes as one datagram. Raises BlockingIOError on a full non-blocking socket; nothing is
    sent then.
    """
    if len(raw) <= INLINE_BYTES:
        socket.send_fds(sock, [_INLINE, raw], list(fds))
        return
    memfd = _memfd_of(raw)
    try:
        socket.send_fds(sock, [_MEMFD], [memfd, *fds])
    finally:
        os.close(memfd)


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
        raw = datagram[1:] if datagram[:1] == _INLINE else _read_memfd(fds.pop(0))
        return Frame(_decoder.decode(raw), fds, raw)
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError) as error:
        close_fds(fds)
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

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Raises BrokenPipeError when the other end is gone."""
        raw = encode(message)
        with self._lock:
            send_raw(self.sock, raw, fds)

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
