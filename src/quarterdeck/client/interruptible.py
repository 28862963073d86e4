"""Wait for messages without ever losing one to a KeyboardInterrupt. Runs in the kernel.

An interrupt in the middle of taking a message would lose it, and with it perhaps the end of the cell. So
while a call is followed, SIGINT is turned into something to wait for; the user's handler is back when the
call is over.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from types import FrameType
from typing import Any

from quarterdeck.protocol.channel import Channel

_FOREVER = float("inf")


class Interruptible:
    """Context manager. Signals reach only the main thread: in others it just waits."""

    def __init__(self) -> None:
        self.count = 0
        """Interrupts seen so far."""
        self._before: Any = None
        self._main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Interruptible:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._main:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._before)
        os.close(self._read)
        os.close(self._write)

    def wait(self, channel: Channel, timeout_s: float | None) -> tuple[bool, bool]:
        """Whether a message can be taken, and whether an interrupt came, within `timeout_s`."""
        poller = select.poll()
        poller.register(channel, select.POLLIN)
        poller.register(self._read, select.POLLIN)
        ready = {fd for fd, _ in poller.poll(None if timeout_s in (None, _FOREVER) else timeout_s * 1000)}
        interrupted = self._read in ready
        if interrupted:
            os.read(self._read, 4096)
            self.count += 1
        return channel.fileno() in ready, interrupted

    def _note(self, _signum: int, _frame: FrameType | None) -> None:
        try:
            os.write(self._write, b"!")
        except BlockingIOError:
            pass
