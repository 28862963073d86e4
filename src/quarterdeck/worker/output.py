"""What a rank shows, in program order: Python's streams and rich displays share one sequenced emitter. Runs
in the worker.

Text is collected for a moment (FLUSH_AFTER_S) and sent as one message, but a line after a pause goes at once.
C++ code and subprocesses write to descriptors 1 and 2, pipes that the coordinator reads. A forked child
(DataLoader worker) writes there too: it must not touch the emitter's lock, which may have been held when it
was forked.
"""

from __future__ import annotations

import ctypes
import faulthandler
import io
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from quarterdeck.protocol.worker import Output
from quarterdeck.worker.interrupts import shield

FLUSH_AFTER_S = 0.005
_MAX_CHARS = 16_000  # keeps a message inline in its datagram, whatever the characters
_libc = ctypes.CDLL(None)

Stream = Literal["stdout", "stderr"]


def wire_text(text: str) -> str:
    """As UTF-8 can carry it, and exactly a str: user code has lone surrogates, and classes of its own."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class Emitter:
    """Sends `Output` messages of one rank. Thread-safe; order is the order of the calls."""

    def __init__(self, send: Callable[[Output], None]) -> None:
        self.rank = 0
        self._send = send
        self._lock = threading.RLock()
        self._parts: list[str] = []
        self._chars = 0
        self._stream: Stream = "stdout"
        self._last_sent_s = 0.0
        self._dirty = threading.Event()
        threading.Thread(target=self._flush_late, name="quarterdeck-output", daemon=True).start()

    def write(self, stream: Stream, text: str) -> None:
        with shield, self._lock:
            if stream != self._stream:
                self.flush()
                self._stream = stream
            self._parts.append(text)
            self._chars += len(text)
            line_after_pause = text[-1] in "\n\r" and time.monotonic() - self._last_sent_s > 2 * FLUSH_AFTER_S
            if line_after_pause or self._chars > _MAX_CHARS:
                self.flush()
            else:
                self._dirty.set()

    def show(self, output: Output) -> None:
        """Send something rich, after the text that was written before it."""
        with shield, self._lock:
            self.flush()
            output.rank = self.rank
            self._send(output)

    def flush(self) -> None:
        with shield, self._lock:
            text = wire_text("".join(self._parts))
            self._parts.clear()
            self._chars = 0
            self._dirty.clear()
            for start in range(0, len(text), _MAX_CHARS):
                part = text[start : start + _MAX_CHARS]
                self._send(Output(rank=self.rank, kind=self._stream, text=part))
            if text:
                self._last_sent_s = time.monotonic()

    def _flush_late(self) -> None:
        while self._dirty.wait():
            time.sleep(FLUSH_AFTER_S)
            self.flush()


class RankStream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of a worker; `.buffer` and `.fileno()` lead to the descriptor below."""

    def __init__(self, emitter: Emitter, stream: Stream, fd: int) -> None:
        self._emitter = emitter
        self._stream = stream
        self._fd = fd
        self._pid = os.getpid()
        self.buffer = io.FileIO(fd, "w", closefd=False)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "replace"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if text and os.getpid() == self._pid:
            self._emitter.write(self._stream, text)
        elif text:
            # In a forked child, by a logging handler: the emitter's lock may have been held at the fork.
            os.write(self._fd, text.encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        if os.getpid() == self._pid:
            self._emitter.flush()


def install(emitter: Emitter) -> None:
    """Point Python's streams at the emitter, and those of forked children at descriptors 1 and 2."""
    sys.stdout = RankStream(emitter, "stdout", 1)
    sys.stderr = RankStream(emitter, "stderr", 2)

    def after_in_child() -> None:
        sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
        faulthandler.enable(file=2)

    os.register_at_fork(after_in_child=after_in_child)


def flush_all(emitter: Emitter) -> None:
    """Python's and C's buffers out, before the cell's outcome is reported."""
    flush_streams()
    emitter.flush()
    _libc.fflush(None)


def flush_streams() -> None:
    """Whatever user code has put there: None, something without `flush`, a closed file."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(BaseException):
            stream.flush()
