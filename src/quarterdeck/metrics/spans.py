"""`qd.span`: a named stretch of this rank's time, for the time axis of a run. In every process that runs user
code; the format and the reader are in `store.spans`.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import ContextDecorator
from types import TracebackType
from typing import Any, Self

import msgspec

from quarterdeck.context import Context, current, make_run_folder
from quarterdeck.public import public
from quarterdeck.store.layout import SPANS
from quarterdeck.store.records import LINES, RecordWriter
from quarterdeck.store.spans import Span

__all__ = ["SpanFile", "span"]

LIMIT = 10_000
"""The most spans that one process keeps of a rank and an attempt."""
NAME_CHARS = 200
"""A longer name is cut."""


class SpanFile:
    """A rank's spans. What cannot be written is lost: a time axis must not end a run."""

    def __init__(self, context: Context) -> None:
        self.path = context.run_dir / SPANS.name(context.attempt, context.rank)
        self._context = context
        self._records = RecordWriter(self.path, LINES)
        self._made = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, span: Span) -> None:
        try:
            if not self._made:
                make_run_folder(self._context)
                self._made = True
            self._records.append(msgspec.json.encode(span))
        except OSError:
            pass

    def close(self) -> None:
        self._records.close()


class _Book:
    """This process's spans of one context."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.file = SpanFile(context)
        self.lock = threading.RLock()
        self.begun = 0

    def __del__(self) -> None:
        self.file.close()

    def begin(self, span: Span) -> bool:
        """Whether it is kept."""
        with self.lock:
            self.begun += 1
            if self.begun == 1:
                self.context.announce()
            if self.begun <= LIMIT:
                self.file.write(span)
            elif self.begun == LIMIT + 1:
                name = f"more than {LIMIT:,} spans: the others are not kept"
                self.file.write(Span(name, span.start_unix_ns, span.start_unix_ns, 0))
            return self.begun <= LIMIT

    def end(self, span: Span) -> None:
        with self.lock:
            self.file.write(span)


_book: _Book | None = None
_book_lock = threading.RLock()
_depths = threading.local()


def _book_of(context: Context) -> _Book:
    """The same one where only the context is another: `spawn_helper` makes its own for the same run."""
    global _book
    with _book_lock:
        path = context.run_dir / SPANS.name(context.attempt, context.rank)
        if _book is None or _book.file.path != path:
            _book = _Book(context)
        return _book


@public
class span(ContextDecorator):
    """`with qd.span("eval"):`, or `@qd.span("eval")` on a function: the time it takes is shown on the run's
    time axis, rank by rank.

    May be nested and used in threads; 10,000 are kept per rank and attempt. A span that its process's end has
    cut off is shown as such.

    Args:
        name: stands on the bar; the first 200 characters are kept.

    Raises:
        TypeError: the name is not a str.
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise TypeError(f"a span is named by a text, not {name!r:.80}")
        self.name = name[:NAME_CHARS].encode("utf-8", "replace").decode()
        self._open: list[tuple[_Book, Span] | None] = []

    def _recreate_cm(self) -> Self:
        """Each call of a decorated function is a span of its own, in whatever thread."""
        return type(self)(self.name)

    def __enter__(self) -> Self:
        depth = _depths.value = getattr(_depths, "value", 0) + 1
        book, begun = _book_of(current()), Span(self.name, time.time_ns(), None, depth - 1)
        self._open.append((book, begun) if book.begin(begun) else None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _depths.value = max(0, getattr(_depths, "value", 1) - 1)
        kept = self._open.pop()
        if kept is not None:
            book, begun = kept
            book.end(msgspec.structs.replace(begun, end_unix_ns=time.time_ns()))

    def __reduce__(self) -> tuple[Any, ...]:
        return span, (self.name,)


def _in_child() -> None:
    """Locks may have been held by threads that are not here."""
    global _book_lock
    _book_lock = threading.RLock()
    if _book is not None:
        _book.lock = threading.RLock()


os.register_at_fork(after_in_child=_in_child)
