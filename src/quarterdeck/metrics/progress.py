"""`qd.progress`: how far each loop of a rank is. In every process that runs user code; read by the kernel.

The loops that are open now have slots in `progress-attempt-A-rank-R.bin`: the outermost the first, one in it
the next. A slot is written at most ten times a second, and at the end of its loop. Loops of forked children
are theirs alone, and are not shown.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import monotonic, time_ns
from typing import Any, TypeVar

import msgspec

from quarterdeck.bounds import Count, UnixNs
from quarterdeck.context import Context, current, make_run_folder
from quarterdeck.public import public
from quarterdeck.store.layout import PROGRESS
from quarterdeck.store.slot_file import Slots, read_slots

__all__ = ["Bar", "progress", "read_progress"]

T = TypeVar("T")
WRITE_S = 0.1
SLOTS = 8
"""Loops within loops beyond that are not shown."""
_SLOT_BYTES = 1024
_DESC_CHARS = 120


class Bar(msgspec.Struct, frozen=True):
    """One loop of one rank, as of its last write."""

    desc: str
    n: Count
    total: Count | None
    started_unix_ns: UnixNs
    updated_unix_ns: UnixNs
    done: bool
    """The loop is over, to its end or not."""


@public
def progress(iterable: Iterable[T], desc: str = "", total: int | None = None) -> Iterator[T]:
    """Iterate, and show how far this rank is: `for batch in qd.progress(loader, "epoch 1"):`.

    The view draws one bar for all ranks, with the slowest and the fastest; nothing is printed. It costs a
    fraction of a microsecond per item.

    Args:
        iterable: what is iterated; it may have no end.
        desc: stands beside the bar; the first 120 characters are shown.
        total: number of items; None: what `len()` tells, if it does.

    Returns:
        An iterator over the same items. The bar appears when the first one is asked for.
    """
    if total is None:
        try:
            total = len(iterable)  # type: ignore[arg-type]
        except (TypeError, AttributeError, NotImplementedError):
            total = None
    return _iterate(iterable, str(desc), total)


def _iterate(iterable: Iterable[T], desc: str, total: int | None) -> Iterator[T]:
    loop = open_loop(desc, total)
    n, due = 0, loop.due_s
    try:
        for item in iterable:
            yield item
            n += 1
            if monotonic() >= due:
                loop.put(n)
                due = loop.due_s
    finally:
        loop.close(n)


class Loop:
    """An open one. From any thread, no method raises OSError."""

    def __init__(self, board: _Board | None, desc: str, total: int | None) -> None:
        self.desc, self.total = desc, total
        self.started_ns = time_ns()
        self.second_ns: int | None = None
        """When it was first seen to have done two items."""
        self.due_s = 0.0
        self.slot: int | None = None
        self.closed = False
        self._n = 0
        self._board = board
        if board is not None:
            board.add(self)

    def put(self, n: int, desc: str | None = None, total: int | None = None) -> None:
        """It has done `n` items. Written if the last write is long enough ago."""
        self._n = n
        if desc is not None:
            self.desc, self.total = desc, total
        if n >= 2 and self.second_ns is None:
            self.second_ns = time_ns()
        now_s = monotonic()
        if now_s < self.due_s and not self.closed:
            return
        # The first two items are looked at one by one: the second one's end is that of the first steps.
        self.due_s = now_s + WRITE_S if n >= 2 else 0.0
        if self._board is not None:
            self._board.write(self)

    def close(self, n: int) -> None:
        """Its end, in whatever way. Once."""
        if not self.closed:
            self.closed = True
            self.put(n, self.desc, self.total)
            if self._board is not None:
                self._board.remove(self)

    def end(self) -> None:
        """With what it has done."""
        self.close(self._n)

    def bar(self) -> bytes:
        desc = self.desc if len(self.desc) <= _DESC_CHARS else self.desc[: _DESC_CHARS - 1] + "…"
        desc = desc.encode("utf-8", "replace").decode()
        bar = Bar(desc, _whole(self._n) or 0, _whole(self.total), self.started_ns, time_ns(), self.closed)
        return msgspec.json.encode(bar)


def _whole(number: Any) -> int | None:
    """tqdm counts in floats, too."""
    try:
        whole = int(number)
    except (TypeError, ValueError, OverflowError):
        return None
    return whole if 0 <= whole <= 1 << 53 else None


class _Board:
    """The file of one context's loops."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.path = _path(context)
        self.lock = threading.RLock()
        self.open: list[Loop] = []
        self.second_ns: int | None = None
        self._filled: set[int] = set()
        self._slots: Slots | None = None

    def __del__(self) -> None:
        if self._slots is not None:
            self._slots.close()

    def add(self, loop: Loop) -> None:
        """Its place is after all that are open; what is left of loops within earlier ones goes."""
        with self.lock:
            taken = [other.slot for other in self.open if other.slot is not None]
            slot = max(taken, default=-1) + 1
            loop.slot = slot if slot < SLOTS else None
            self.open.append(loop)
            self._clear_after(slot)
            self.write(loop)

    def write(self, loop: Loop) -> None:
        with self.lock:
            if loop.slot is None or loop not in self.open:
                return
            if self.second_ns is None:
                self.second_ns = loop.second_ns
            if self._make():
                self._put(loop.slot, loop.bar())
                self._filled.add(loop.slot)

    def remove(self, loop: Loop) -> None:
        with self.lock:
            if loop in self.open:
                self.open.remove(loop)

    def _clear_after(self, slot: int) -> None:
        for place in [place for place in self._filled if place > slot]:
            self._filled.discard(place)
            self._put(place, b"")

    def _put(self, slot: int, content: bytes) -> None:
        try:
            if self._slots is not None:
                self._slots.write(slot, content)
        except (OSError, ValueError):
            pass

    def _make(self) -> bool:
        if self._slots is None:
            try:
                make_run_folder(self.context)
            except OSError:
                return False
            self.context.announce()
            self._slots = Slots(self.path, _SLOT_BYTES)
        return True


_board: _Board | None = None
_lock = threading.RLock()
_forked = False


def open_loop(desc: str, total: int | None) -> Loop:
    """For `progress` and the hook into tqdm."""
    return Loop(None if _forked else _board_of(current()), desc, total)


def claim() -> None:
    """The file is this process's, although it was forked: called by a worker before user code."""
    global _forked
    _forked = False


def second_item_unix_ns(context: Context) -> int | None:
    """When a loop of this context was first seen to have done two items."""
    board = _board
    return board.second_ns if board is not None and board.path == _path(context) else None


def finish() -> None:
    """The work is over: so is every loop that some frame still holds open."""
    global _board
    with _lock:
        board, _board = _board, None
    if board is not None and not _forked:
        for loop in reversed(board.open.copy()):
            loop.end()


def _path(context: Context) -> Path:
    return context.run_dir / PROGRESS.name(context.attempt, context.rank)


def _board_of(context: Context) -> _Board:
    global _board
    with _lock:
        if _board is None or _board.path != _path(context):
            _board = _Board(context)
        return _board


def _in_child() -> None:
    global _forked, _lock, _board
    _forked, _lock = True, threading.RLock()
    if _board is not None:
        _board.lock = threading.RLock()
        _board.open.clear()  # what is left of the parent's loops writes nothing here
    _board = None


os.register_at_fork(after_in_child=_in_child)


# ---- reading


def read_progress(folder: Path, attempt: int) -> dict[int, list[Bar]]:
    """By rank, the outermost loop first. Never raises OSError."""
    found = {rank: _bars(path) for number, rank, path in PROGRESS.all_in(folder) if number == attempt}
    return {rank: bars for rank, bars in found.items() if bars}


def _bars(path: Path) -> list[Bar]:
    bars = []
    for _, content in sorted(read_slots(path, _SLOT_BYTES).items()):
        try:
            bars.append(msgspec.json.decode(content, type=Bar))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue
    return bars
