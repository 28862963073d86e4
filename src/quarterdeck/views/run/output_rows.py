"""The newest rows of a run's output, for its views: what there is, and what has changed. Used by `feed`."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from quarterdeck.present.ansi import looks, strip
from quarterdeck.store.output import Piece, Stream
from quarterdeck.views.lines.rows import Row
from quarterdeck.views.lines.transcript import Transcript
from quarterdeck.views.run.messages import Line, Lines, Look

KEPT = 10_000
KEPT_CHARS = 5_000_000
"""The most characters of all rows; fewer rows are kept where they are long."""
AT_ONCE = 20_000
"""Lines that are folded in one go. Of more, as of a long log that is opened, only the last are shown."""


@dataclass(slots=True)
class _Arrival:
    """When the first rank showed a row, and when it last changed."""

    time_ms: float
    until_ms: float


class OutputRows:
    """The transcript's layout as one list. Takes pieces; gives messages."""

    def __init__(self) -> None:
        self._transcript = Transcript(self)
        self._kept: deque[Row] = deque()
        """In order of position."""
        self._next = 1
        """Position of the next row; a row of several lines takes as many positions."""
        self._chars = 0
        self._left_out = 0
        self._now_ms = 0.0
        self._changed: set[Row] = set()
        self._gone: list[float] = []

    def feed(self, pieces: Sequence[Piece]) -> None:
        taken = _newest(pieces)
        passed_over = sum(len(piece.text) for piece in pieces) - sum(len(piece.text) for piece in taken)
        if passed_over:
            self._begin_anew()
        self._fold(taken)
        self.skipped(passed_over)

    def _fold(self, pieces: Iterable[Piece]) -> None:
        for rank, stream, time_ns, text in pieces:
            self._now_ms = time_ns / 1e6
            if stream == "result":
                self._transcript.result(rank, text.removesuffix("\n"))
            else:
                self._transcript.write(rank, stream, text)
            self._trim()

    def finish(self) -> None:
        """Nobody writes any more."""
        self._transcript.end()

    def skipped(self, size_bytes: int) -> None:
        """So much text came before all that is kept: about so many rows were left out."""
        if size_bytes and self._kept:
            shown_bytes = sum((len(row.text) + 1) * row.members.bit_count() for row in self._kept)
            self._left_out += max(1, round(size_bytes * len(self._kept) / shown_bytes))

    def last_line(self, rank: int) -> str:
        """The last one of the rank that is not blank, finished or not."""
        return strip(self._transcript.rows.last.get(rank, "").rstrip().rpartition("\n")[2])

    # ---- messages

    def whole(self) -> Lines:
        """All that is kept. What `news` would have told is not told any more."""
        return self._message(True, self._kept)

    def news(self) -> Lines | None:
        """Since the last message; None if nothing has changed."""
        if not self._changed and not self._gone:
            return None
        return self._message(False, sorted(self._changed, key=_position))

    def _message(self, whole: bool, rows: Iterable[Row]) -> Lines:
        first = self._kept[0].no if self._kept else float(self._next)
        lines = [line for row in rows for line in _lines(row)]
        gone = [] if whole else self._gone
        self._changed, self._gone = set(), []
        return Lines(whole=whole, left_out=self._left_out, first=first, gone=gone, lines=lines)

    # ---- layout

    def add(self, row: Row, after: float) -> None:
        self._put(row, float(self._next), len(self._kept))
        self._next += 1 + row.text.count("\n")

    def add_after(self, row: Row, anchor: Row) -> None:
        at = self._at(anchor) + 1
        number = (anchor.no + self._kept[at].no) / 2 if at < len(self._kept) else anchor.no
        if anchor.no < number < self._kept[at].no:
            self._put(row, number, at)
        else:
            self.add(row, anchor.no)

    def remove(self, row: Row) -> None:
        del self._kept[self._at(row)]
        self._forget(row)
        self._gone.append(row.no)

    def touch(self, row: Row) -> None:
        if row.place is None:
            return
        self._chars += len(row.text) - row.cost
        row.cost, row.place.until_ms = len(row.text), self._now_ms
        self._changed.add(row)

    def _put(self, row: Row, number: float, at: int) -> None:
        row.no, row.cost, row.place = number, len(row.text), _Arrival(self._now_ms, self._now_ms)
        self._chars += row.cost
        self._kept.insert(at, row)
        self._changed.add(row)

    def _at(self, row: Row) -> int:
        return bisect_left(self._kept, row.no, key=_position)

    # ---- bounds

    def _trim(self) -> None:
        """The oldest go, and are counted."""
        while len(self._kept) > KEPT or self._chars > KEPT_CHARS:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        row = self._kept.popleft()
        self._transcript.rows.evict(row)
        self._forget(row)
        self._left_out += 1

    def _begin_anew(self) -> None:
        """There is a gap: what stands before it is shown no more, and nothing folds across it."""
        while self._kept:
            self._drop_oldest()
        last = self._transcript.rows.last
        self._transcript = Transcript(self)
        self._transcript.rows.last = last

    def _forget(self, row: Row) -> None:
        row.place = None
        self._chars -= row.cost
        self._changed.discard(row)


def _newest(pieces: Sequence[Piece]) -> list[Piece]:
    """The last ones, with `AT_ONCE` lines or as many as there are."""
    taken: list[Piece] = []
    room = AT_ONCE
    for piece in reversed(pieces):
        lines = piece.text.count("\n")
        if lines > room:
            taken.append(piece._replace(text="\n".join(piece.text.rsplit("\n", room)[1:])))
            break
        taken.append(piece)
        room -= lines
    return taken[::-1]


def _position(row: Row) -> float:
    return row.no


def _lines(row: Row) -> Iterator[Line]:
    arrival: _Arrival = row.place
    ranks, stream = _ranks(row.members), cast(Stream, row.kind)
    for at, coded in enumerate(row.text.split("\n")):
        text, found = looks(coded)
        marks = [Look(*look) for look in found]
        yield Line(row.no + at, ranks, arrival.time_ms, arrival.until_ms, stream, text, marks)


@lru_cache(maxsize=256)
def _ranks(members: int) -> list[int]:
    return Row("stdout", "", members).ranks
