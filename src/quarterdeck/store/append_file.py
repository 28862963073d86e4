"""A file that only grows. Used by the recorder and by the reader that records a lost run."""

from __future__ import annotations

import os
from pathlib import Path

from quarterdeck import files


class Appender:
    """Opened by the first write, again by a write after `close`. Every write raises OSError if not all of it
    is in the file; there is no buffer, so a SIGKILL costs nothing that was written.
    """

    def __init__(self, path: Path) -> None:
        self.size_bytes = 0
        """What it has written, also of writes that failed in the middle."""
        self._path = path
        self._descriptor = -1
        self._torn = False

    def text(self, data: bytes) -> None:
        self._open()
        rest = memoryview(data)
        while rest:
            written = os.write(self._descriptor, rest)
            self.size_bytes += written
            rest = rest[written:]

    def line(self, data: bytes) -> None:
        """`data` and a newline. What a failed line left behind never swallows the next one."""
        whole = b"\n" * self._torn + data + b"\n"
        self._torn = True
        self.text(whole)
        self._torn = False

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        if self._descriptor < 0:
            flags = os.O_WRONLY | os.O_APPEND
            self._descriptor = files.create(self._path.parent, self._path.name, flags=flags)
