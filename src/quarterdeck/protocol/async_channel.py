"""The coordinator's end of a channel: non-blocking, driven by its asyncio loop. Never used from another
thread.
"""

from __future__ import annotations

import asyncio
import os
import socket
import traceback
from collections import deque
from collections.abc import Callable, Sequence

from quarterdeck.protocol.blob import Blob
from quarterdeck.protocol.channel import BadMessage, Frame, close_all, encode, receive, send_raw
from quarterdeck.protocol.parts import Message

_BURST = 64  # messages taken from one socket before the loop looks at the others; arbitrary


class AsyncChannel:
    """Calls `on_frame(frame)` for each message and `on_end()` once, when the other end is gone or `close` was
    called.

    A message that cannot be decoded goes to `on_bad`, and the channel goes on.

    Sending never blocks: what the socket does not take is queued, and `queued_bytes` tells how much that is,
    so that a caller with something optional to say (output for a slow reader) can leave it out.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_frame: Callable[[Frame], None],
        on_end: Callable[[], None],
        on_bad: Callable[[BadMessage], None] = traceback.print_exception,
    ) -> None:
        sock.setblocking(False)
        self.queued_bytes = 0
        self.closed = False
        self._sock = sock
        self._on_frame = on_frame
        self._on_end = on_end
        self._on_bad = on_bad
        self._queue: deque[tuple[bytes, Blob | None, list[int]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._readable)

    def send(self, message: Message, blob: Blob | None = None, handles: Sequence[int] = ()) -> None:
        self.forward(encode(message), blob, handles)

    def forward(self, raw: bytes, blob: Blob | None = None, handles: Sequence[int] = ()) -> None:
        """Send bytes encoded elsewhere. The handles stay the caller's. Silent when nobody reads."""
        if self.closed:
            return
        if not self._queue and self._try_send(raw, blob, handles):
            return
        self._queue.append((raw, blob, [os.dup(handle) for handle in handles]))
        self.queued_bytes += len(raw)
        self._loop.add_writer(self._sock, self._writable)

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        for _, _, handles in self._queue:
            close_all(handles)
        self._queue.clear()
        self.queued_bytes = 0
        self._on_end()

    def _try_send(self, raw: bytes, blob: Blob | None, handles: Sequence[int]) -> bool:
        try:
            send_raw(self._sock, raw, blob, handles)
        except BlockingIOError:
            return False
        except OSError:
            pass  # the other end is gone: the reader sees it and closes
        return True

    def _writable(self) -> None:
        while self._queue:
            raw, blob, handles = self._queue[0]
            if not self._try_send(raw, blob, handles):
                return
            self._queue.popleft()
            self.queued_bytes -= len(raw)
            close_all(handles)
        if not self.closed:
            self._loop.remove_writer(self._sock)

    def _readable(self) -> None:
        for _ in range(_BURST):
            if self.closed:
                return
            try:
                frame = receive(self._sock)
            except BlockingIOError:
                return
            except BadMessage as bad:
                self._on_bad(bad)
                continue
            if frame is None:
                self.close()
                return
            self._on_frame(frame)

    def drain(self) -> None:
        """Take what has already arrived, now."""
        self._readable()
