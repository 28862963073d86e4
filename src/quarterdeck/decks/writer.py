"""A deck's way into the run's folder, while user code goes on. In every process that runs user code.

A change is written at once, or, within 0.1 s of the last write, by a thread that lives as long as something
waits. Nothing here raises OSError: the first one is told on stderr, and the deck lives on in memory. In a
child that user code has forked nothing is written: its parent's decks are its parent's.
"""

from __future__ import annotations

import atexit
import errno
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from quarterdeck import files
from quarterdeck.context import Context, make_run_folder
from quarterdeck.decks.file import Body, Label, file_name, label_record, place_of, records
from quarterdeck.decks.packages import keep_packages

INTERVAL_S = 0.1

_lock = threading.RLock()  # a signal handler may append, too
_writing = threading.RLock()
"""Held from taking what waits to having written it: after `flush` nothing is still on its way."""
_waiting: dict[Writer, float] = {}
"""What is to be written, and when, by the monotonic clock."""
_thread: threading.Thread | None = None
_told: set[Path] = set()


class Writer:
    """One deck's file. `snapshot` gives its generation, which grows when its content is replaced, and its
    content.
    """

    def __init__(self, context: Context, label: Label, snapshot: Callable[[], tuple[int, Body]]) -> None:
        self._names = (*place_of(context.attempt, context.rank), file_name(label.name))
        self.path = context.run_dir.joinpath(*self._names)
        self._context = context
        self._label = label
        self._snapshot = snapshot
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._last_s = float("-inf")
        self._whole = False
        """What is in the file is what was meant to be there, so that it can go on."""
        self._generation = self._count = self._cut = 0
        """These describe what is in the file."""
        self._inode = 0
        self._announced = False

    def is_of(self, context: Context) -> bool:
        """It writes for this run, attempt and rank."""
        mine = self._context
        return mine is context or (
            (mine.run_dir, mine.attempt, mine.rank) == (context.run_dir, context.attempt, context.rank)
        )

    def changed(self) -> None:
        """Writes now or soon."""
        if os.getpid() != self._pid:
            return
        due_s = self._last_s + INTERVAL_S
        if time.monotonic() >= due_s or not _wait(self, due_s):
            self.write()

    def write(self) -> None:
        """All that is not yet in the file."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._last_s = time.monotonic()
            generation, body = self._snapshot()
            fits = self._whole and generation == self._generation
            if fits and (self._count, self._cut) == (len(body.parts), body.cut):
                return
            self._whole = False
            self._announce()
            try:
                self._go_on(body) if fits else self._write_whole(body)
            except OSError as error:
                self._lost(error)
                return
            self._whole, self._generation = True, generation
            self._count, self._cut = len(body.parts), body.cut

    def _announce(self) -> None:
        """Once, and not of what is there for every run."""
        if not self._announced and not self._label.automatic:
            self._announced = True
            self._context.announce()
            keep_packages(self._context)

    def _go_on(self, body: Body) -> None:
        new = records(body.parts[self._count :], body.cut if body.cut != self._cut else 0)
        try:
            _append(self.path, new, self._inode)
        except FileNotFoundError:
            self._write_whole(body)

    def _write_whole(self, body: Body) -> None:
        run_folder = self._context.run_dir
        make_run_folder(self._context)
        files.make_folder(run_folder, *self._names[:-1])
        content = label_record(self._label) + records(body.parts, body.cut)
        self._inode = files.write(run_folder, *self._names, content=content)

    def _lost(self, error: OSError) -> None:
        folder = self._context.run_dir
        if folder in _told:
            return
        _told.add(folder)
        rank, reason = self._context.rank, error.strerror or error
        try:
            print(f"qd.Deck: decks of rank {rank} are not kept: {reason}: {self.path}", file=sys.stderr)
        except (OSError, ValueError):
            pass  # stderr is closed, too


def put(context: Context, name: str, parts: list[str]) -> None:
    """An automatic deck, whole."""
    body = Body(tuple(parts))
    Writer(context, Label(name, time.time_ns(), True), lambda: (1, body)).write()


def flush() -> None:
    """Writes all that waits. At the end of a cell, of a function, of the process."""
    with _writing:
        with _lock:
            due = list(_waiting)
            _waiting.clear()
        for writer in due:
            writer.write()


def _append(path: Path, data: bytes, inode: int) -> None:
    """FileNotFoundError also for another file than ours: two notebooks of one folder may share its place."""
    descriptor = files.open_file(path.parent, path.name, flags=os.O_WRONLY | os.O_APPEND)
    try:
        if os.fstat(descriptor).st_ino != inode:
            raise FileNotFoundError(errno.ENOENT, "it was replaced")
        files.write_all(descriptor, data)
    finally:
        os.close(descriptor)


def _wait(writer: Writer, due_s: float) -> bool:
    """False if there is nobody to write it later: the interpreter is about to end."""
    global _thread
    with _lock:
        _waiting.setdefault(writer, due_s)
        if _thread is not None:
            return True
        _thread = threading.Thread(target=_write_later, name="quarterdeck-decks", daemon=True)
        try:
            _thread.start()
        except RuntimeError:
            _thread = None
            del _waiting[writer]
        return _thread is not None


def _write_later() -> None:
    global _thread
    while True:
        with _lock:
            if not _waiting:
                _thread = None
                return
            rest_s = min(_waiting.values()) - time.monotonic()
        if rest_s > 0:
            time.sleep(rest_s)
        with _writing:
            with _lock:
                now_s = time.monotonic()
                due = [writer for writer, due_s in _waiting.items() if due_s <= now_s]
                for writer in due:
                    del _waiting[writer]
            for writer in due:
                with suppress(Exception):  # of the way to the coordinator: other decks wait for this thread
                    writer.write()


def _in_child() -> None:
    """Nothing of the parent's that its threads may have held."""
    global _lock, _writing, _thread
    _lock, _writing, _thread = threading.RLock(), threading.RLock(), None
    _waiting.clear()


os.register_at_fork(after_in_child=_in_child)
atexit.register(flush)
