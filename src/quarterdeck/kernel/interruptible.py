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
import time
from types import FrameType
from typing import Any

from quarterdeck.protocol.channel import Channel

_FOREVER = float("inf")
LATE_SIGNAL_S = 0.5
"""Nobody waits longer at once: a signal that comes just before the system call is noticed after it."""


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
        limit_s = time.monotonic() + (_FOREVER if timeout_s is None else timeout_s)
        ready: set[int] = set()
        while not ready:
            left_s = max(0.0, limit_s - time.monotonic())
            ready = {fd for fd, _ in poller.poll(min(left_s, LATE_SIGNAL_S) * 1000)}
            if not left_s:
                break
        interrupted = self._read in ready
        if interrupted:
            os.read(self._read, 4096)
            self.count += 1
        return channel.fileno() in ready, interrupted

    def came(self) -> bool:
        """Whether an interrupt came since the last look."""
        try:
            return bool(os.read(self._read, 4096))
        except BlockingIOError:
            return False

    def _note(self, _signum: int, _frame: FrameType | None) -> None:
        try:
            os.write(self._write, b"!")
        except BlockingIOError:
            pass
