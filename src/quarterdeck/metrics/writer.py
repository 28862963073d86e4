"""The file that a rank's metrics go to. In every process that runs user code; used by `log`."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from io import FileIO
from pathlib import Path

from quarterdeck import files
from quarterdeck.context import Context, make_run_folder
from quarterdeck.metrics.format import Layout, definition
from quarterdeck.store.layout import METRICS


def path_of(context: Context) -> Path:
    return context.run_dir / METRICS.name(context.attempt, context.rank)


class Writer:
    """One rank, one attempt, one process. From any thread; nothing is locked but the counter and the opening,
    as a record is one write.

    No method raises OSError: the first one is told on stderr, and what could not be written is lost.
    """

    def __init__(self, context: Context, step: int = -1) -> None:
        self.context = context
        self.attempt = context.attempt
        self.path = path_of(context)
        self.step = step
        """The step of the last call."""
        self.layouts: dict[tuple[str, ...], Layout] = {}
        """Those whose names are in the file."""
        self.append: Callable[[bytes], int | None] = len
        """One write. Only with something in `layouts`: there is a file then."""
        self._file: FileIO | None = None
        self._told = False
        self._lock = threading.RLock()  # a signal handler may log, too

    def __del__(self) -> None:
        """Only here, when no thread can be about to write: the descriptor's number is soon another file's."""
        if self._file is not None:
            self._file.close()

    def next_step(self) -> int:
        with self._lock:
            self.step += 1
            return self.step

    def put(self, names: tuple[str, ...], time: int, step: int, values: Sequence[float]) -> None:
        """Values under any names: those that are new here are written before, in the same append."""
        layout = self.layouts.get(names)
        if layout is not None:
            self._write(layout.pack(layout.id, time, step, *values, ~time))
        elif self._open():
            layout = Layout(names)
            record = layout.pack(layout.id, time, step, *values, ~time)
            if self._write(definition(layout, self.attempt, self.context.rank) + record):
                self.layouts[names] = layout

    def lost(self, error: OSError | None = None) -> None:
        """Tells it, once. Not as a warning: a filter may make an exception of it, in the middle of a
        training loop.
        """
        if self._told:
            return
        self._told = True
        reason = (error.strerror or str(error)) if error else "the disk is full"
        try:
            print(
                f"qd.log: metrics of rank {self.context.rank} are lost: {reason}: {self.path}",
                file=sys.stderr,
            )
        except (OSError, ValueError):
            pass  # stderr is closed, too

    def _write(self, record: bytes) -> bool:
        try:
            whole = self.append(record) == len(record)
        except OSError as error:
            self.lost(error)
            return False
        if not whole:
            self.lost()
        return whole

    def _open(self) -> bool:
        """Tries again at each call, if it could not: the disk may have got room, or the place back."""
        with self._lock:
            if self._file is not None:
                return True
            try:
                make_run_folder(self.context)
                flags = os.O_WRONLY | os.O_APPEND
                self._file = FileIO(files.create(self.path.parent, self.path.name, flags=flags), "a")
            except OSError as error:
                self.lost(error)
                return False
            self.append = self._file.write
            self.context.announce()
            return True
