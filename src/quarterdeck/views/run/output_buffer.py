"""The text of all ranks as the lines of a view: by time of arrival, plain, bounded. Used by `feed`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

from quarterdeck.present.ansi import CONTROL, TOKEN, UNFINISHED
from quarterdeck.store.output import Piece, Stream
from quarterdeck.views.run.messages import Line, Lines

KEPT = 10_000
LINE_CHARS = 2_000
AT_ONCE = 2_000
"""New lines between two messages; of more, the middle is left out."""
_OPEN_CHARS = 4 * LINE_CHARS
"""The most that is kept of an unfinished line, as it was written: with codes that will not be shown."""


class OutputBuffer:
    """Takes pieces; gives messages."""

    def __init__(self) -> None:
        self._kept: deque[Line] = deque(maxlen=KEPT)
        self._open: dict[tuple[int, Stream], tuple[float, str]] = {}
        self._count = 0
        """How many lines are finished."""
        self._sent = 0
        """How many of them a message was about."""
        self._head: list[Line] = []
        """The first half of what the next message may bring."""
        self._open_changed = False
        self._last: dict[int, str] = {}

    def feed(self, pieces: Iterable[Piece]) -> None:
        for rank, stream, time_ns, text in pieces:
            time_ms = time_ns / 1e6
            _, begun = self._open.pop((rank, stream), (0.0, ""))
            *whole, rest = (begun + text).split("\n")
            self._skip_all_but(len(whole))
            for raw in whole[-KEPT:]:
                self._add(Line(rank, time_ms, stream, shown(raw.removesuffix("\r"))))
            if rest:
                self._open[rank, stream] = time_ms, _bounded(rest)
            self._open_changed = self._open_changed or bool(rest or begun)

    def finish(self) -> None:
        """Nobody writes any more: unfinished lines are as finished as they will be."""
        for line in self._open_lines():
            self._add(line)
        self._open_changed = self._open_changed or bool(self._open)
        self._open.clear()

    def skipped(self, size_bytes: int) -> None:
        """So much text came before all that there is: about so many lines were left out."""
        if size_bytes and self._kept:
            mean = sum(len(line.text) + 1 for line in self._kept) / len(self._kept)
            number = max(1, round(size_bytes / mean))
            self._count += number
            self._sent += number

    # ---- messages

    def whole(self) -> Lines:
        """All that is kept. What `news` would have told is not told any more."""
        self._head, self._sent, self._open_changed = [], self._count, False
        kept = list(self._kept)
        return Lines(whole=True, dropped=self._count - len(kept), open=self._open_lines(), lines=kept)

    def news(self) -> list[Lines]:
        """Since the last message."""
        new = self._count - self._sent
        if not new and not self._open_changed:
            return []
        open_lines, found = self._open_lines(), []
        dropped, number = 0, new
        if new > AT_ONCE:
            found = [Lines(whole=False, dropped=0, open=open_lines, lines=self._head)] if self._head else []
            number = AT_ONCE - len(self._head)
            dropped = new - AT_ONCE
        tail = list(islice(self._kept, max(0, len(self._kept) - number), None))
        found.append(Lines(whole=False, dropped=dropped, open=open_lines, lines=tail))
        self._head, self._sent, self._open_changed = [], self._count, False
        return found

    def last_line(self, rank: int) -> str:
        """The last one of the rank that is not blank, finished or not."""
        begun = [(time_ms, raw) for (whose, _), (time_ms, raw) in self._open.items() if whose == rank]
        for _, raw in sorted(begun, reverse=True):
            if (text := shown(raw)).strip():
                return text
        return self._last.get(rank, "")

    # ---- inside

    def _skip_all_but(self, new: int) -> None:
        """Counts lines that would be gone again before anybody saw them."""
        if new > KEPT:
            self._count += new - KEPT

    def _add(self, line: Line) -> None:
        if self._count - self._sent == len(self._head) < AT_ONCE // 2:
            self._head.append(line)
        self._count += 1
        self._kept.append(line)
        if line.text and not line.text.isspace():
            self._last[line.rank] = line.text

    def _open_lines(self) -> list[Line]:
        found = [
            Line(rank, time_ms, stream, shown(UNFINISHED.sub("", raw)))
            for (rank, stream), (time_ms, raw) in self._open.items()
        ]
        return sorted((line for line in found if line.text), key=lambda line: (line.rank, line.stream))


def shown(raw: str) -> str:
    """What stands in the line after all carriage returns; plain, not too long."""
    if CONTROL.search(raw):
        parts = [part for part in (TOKEN.sub("", part) for part in raw.split("\r")) if part]
        raw = parts[-1] if parts else ""
    return raw if len(raw) <= LINE_CHARS else raw[: LINE_CHARS - 1] + "…"


def _bounded(raw: str) -> str:
    """As much of an unfinished line as decides what stands in it."""
    if "\r" in raw[:-1]:
        raw = raw[raw.rindex("\r", 0, -1) + 1 :]
    return raw[:_OPEN_CHARS]
