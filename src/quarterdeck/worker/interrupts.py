"""KeyboardInterrupt in user code, and nowhere else. Runs in the worker's main thread.

SIGINT may come at any moment, also just after the cell ended or while a message is half sent; then it must
not raise.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Literal

Reason = Literal["", "interrupted", "released"]


class Interrupts:
    """`arm` before user code, `disarm` after it; `deliver` from any thread raises KeyboardInterrupt in
    between. From `expect` on, when a cell has arrived, one that comes early is kept for `arm`.
    """

    def __init__(self) -> None:
        self.reason: Reason = ""
        """Why the running cell was interrupted; empty if it was not."""
        self._armed = False
        self._expected = False
        self._early: Reason = ""
        self._arming = threading.Lock()
        self._shields = 0
        self._pending = False

    def arm(self) -> None:
        """Also takes SIGINT back from user code of an earlier cell that had put its own handler there."""
        self.reason = ""
        self._pending = False
        signal.signal(signal.SIGINT, self._handle)
        with self._arming:
            self._armed = True
            self.reason, self._early = self._early, ""
        if self.reason:
            raise KeyboardInterrupt

    def disarm(self) -> None:
        self._armed = self._expected = False

    @contextmanager
    def user_code(self) -> Iterator[None]:
        """Armed inside: for user code that runs in pickling and unpickling."""
        try:
            self.arm()
            yield
        finally:
            self._armed = False

    def expect(self) -> None:
        """A cell has arrived: what is delivered from here on is meant for it."""
        with self._arming:
            self._expected, self._early = True, ""

    def deliver(self, reason: Reason) -> None:
        with self._arming:
            if self._armed:
                self.reason = reason
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            elif self._expected:
                self._early = reason

    def _handle(self, _signum: int, _frame: FrameType | None) -> None:
        if self._armed and self._shields:
            self._pending = True
        elif self._armed:
            self.reason = self.reason or "interrupted"
            raise KeyboardInterrupt

    def __enter__(self) -> None:
        """Hold an interrupt back while the main thread is inside; other threads pass through."""
        if threading.current_thread() is threading.main_thread():
            self._shields += 1

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self._shields -= 1
        if self._pending and not self._shields:
            self._pending = False
            self._handle(signal.SIGINT, None)


interrupts = Interrupts()
shield = interrupts
