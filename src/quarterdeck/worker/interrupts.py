"""KeyboardInterrupt in user code, and nowhere else. Runs in the worker's main thread.

SIGINT may come at any moment, also just after the cell ended or while a message is half sent; then it must
not raise. In the middle of an import it is held back until that is done: see `imports`.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal

from quarterdeck.protocol.worker import FINISH_GRACE_S
from quarterdeck.worker import dataloaders, imports

HOLD_LIMIT_S = 30.0
_LOOK_S = 0.005

Reason = Literal["", "interrupted", "released"]


class _Held:
    """An interrupt that waits for the end of an import."""

    def __init__(self, module: str) -> None:
        self.module = module
        self._until_s = time.monotonic() + HOLD_LIMIT_S

    def is_over(self) -> bool:
        return time.monotonic() > self._until_s


class Interrupts:
    """`begin` before user code, `disarm` after it; `deliver` from any thread raises KeyboardInterrupt in
    between. From `expect` on, when a cell has arrived, one that comes early is kept for them.
    """

    def __init__(self) -> None:
        self.reason: Reason = ""
        """Why the running cell was interrupted; empty if it was not."""
        self._armed = False
        self._expected = False
        self._early: Reason = ""
        self._arming = threading.Lock()
        self._running: object | None = None
        """Another one for each cell."""
        self._shields = 0
        self._pending = False
        self._held: _Held | None = None
        self._traced: FrameType | None = None
        self._forced = False
        self.cut: list[str] = []
        """Modules whose import was interrupted all the same, since the last `arm`: they are half there."""
        self.tell: Callable[[str], None] = lambda _: None
        """Called in a thread of its own with the module whose import is waited for, and with "" after it."""

    def arm(self) -> None:
        """Also takes SIGINT back from user code of an earlier cell that had put its own handler there."""
        self.reason = ""
        self._pending = self._forced = False
        self.cut = []
        signal.signal(signal.SIGINT, self._handle)
        with self._arming:
            self._armed = True
            if self._early == "interrupted":
                self.reason, self._early = self._early, ""
        if self.reason:
            raise KeyboardInterrupt

    def begin(self) -> None:
        """As `arm`, for the cell itself. Another rank that failed before this one had begun releases it only
        after the time that a rank has to end by itself: it may fail alike, and its names are bound.
        """
        self.arm()
        with self._arming:
            early, self._early = self._early, ""
            self._running = running = object()
        if early:
            timer = threading.Timer(FINISH_GRACE_S, self._release, [running])
            timer.daemon = True
            timer.start()

    def _release(self, running: object) -> None:
        with self._arming:
            if self._running is running and self._armed:
                self._send("released")

    def disarm(self) -> None:
        self._armed = self._expected = False
        self._running = None
        dataloaders.calm()
        self._let_go()

    @contextmanager
    def user_code(self) -> Iterator[None]:
        """Armed inside: for user code that runs in pickling and unpickling."""
        try:
            self.arm()
            yield
        finally:
            self._armed = False
            dataloaders.calm()
            self._let_go()

    def expect(self) -> None:
        """A cell has arrived: what is delivered from here on is meant for it."""
        with self._arming:
            self._expected, self._early = True, ""

    def deliver(self, reason: Reason, force: bool = False) -> None:
        """`force`: also in the middle of an import."""
        with self._arming:
            if self._armed:
                self._forced = self._forced or force
                self._send(reason)
            elif self._expected:
                self._early = reason

    def _send(self, reason: Reason) -> None:
        self.reason = reason
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def _handle(self, _signum: int, frame: FrameType | None) -> None:
        if self._armed and self._shields:
            self._pending = True
        elif self._armed and not self._holds(frame):
            self._raise()

    def _raise(self) -> None:
        self._let_go()
        self.reason = self.reason or "interrupted"
        dataloaders.hurry()
        raise KeyboardInterrupt

    # ---- imports

    def _holds(self, frame: FrameType | None) -> bool:
        """Whether it has to wait for the end of an import; then it comes at the importer's next line."""
        found = imports.under_way(frame)
        if found is None:
            return False
        if self._forced or (self._held is not None and self._held.is_over()):
            self.cut.append(found.module)
            return False
        if self._held is None:
            self._held = _Held(found.module)
            self._raise_after(found.importer)
            threading.Thread(target=self._watch, args=(self._held,), daemon=True).start()
        return True

    def _raise_after(self, importer: FrameType) -> None:
        """At its very next line. Where a debugger or coverage traces already, the watch alone does it."""
        held = self._held

        def local(_frame: FrameType, event: str, _arg: object) -> Any:
            if self._held is held and event in ("line", "return", "exception"):
                self._raise()
            return local

        if sys.gettrace() is None:
            importer.f_trace = local
            sys.settrace(lambda *_: None)
            self._traced = importer

    def _watch(self, held: _Held) -> None:
        """No signals while it is held: they would break system calls of the import. One at its end."""
        main = threading.main_thread().ident or 0
        self.tell(held.module)
        while self._held is held:
            time.sleep(_LOOK_S)
            if imports.under_way(sys._current_frames().get(main)) is None or held.is_over():
                with self._arming:
                    if self._held is held and self._armed:
                        signal.pthread_kill(main, signal.SIGINT)
                time.sleep(_LOOK_S)
        self.tell("")

    def _let_go(self) -> None:
        if self._held is None:
            return
        self._held = None
        if self._traced is not None:
            self._traced.f_trace = None
            self._traced = None
            sys.settrace(None)

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
            self._handle(signal.SIGINT, sys._getframe(1))


interrupts = Interrupts()
shield = interrupts
