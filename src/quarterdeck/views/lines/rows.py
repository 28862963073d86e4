"""The merge: every rank's lines in one sequence, equal lines of several ranks folded into one row.

Guarantees: a rank's rows stand in its program order; each of its
lines is in exactly one row; a row never holds a line twice from one rank. Between ranks the order is that
of arrival, except that a line joins an equal row which stands after its rank's last row, at most `WINDOW`
rows back.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict, deque
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal, Protocol

Kind = Literal["stdout", "stderr", "result", "rich", "info", "warning"]
WINDOW = 1000
"""Rows a lagging rank may join. Joining re-sends their segment: this is how far back shown text changes."""

NOWHERE = -1.0
"""Before every position."""


@dataclass(slots=True, eq=False)
class Row:
    """One line, block or display, of one rank or of several that showed the same."""

    kind: Kind
    text: str
    """Canonical text (see ansi); of rich rows a digest of their bundle."""
    members: int = 0
    """Bit r is set if rank r shows this row."""
    no: float = 0.0
    """Position: grows along the sequence. Given by the layout."""
    live: bool = False
    """Its one rank may still change it."""
    indexed: bool = False
    cost: int = 0
    """Bytes it takes in the notebook, about; the layout's own."""
    bundle: Any = None
    """What the front end is given for a rich row."""
    place: Any = None
    """The layout's own: where it stands; None once it is shown no more."""

    @property
    def ranks(self) -> list[int]:
        """Ascending."""
        return [rank for rank in range(self.members.bit_length()) if self.members >> rank & 1]


class Layout(Protocol):
    """Where rows stand: `cell.outputs.Outputs`, `run.output_rows.OutputRows`."""

    def add(self, row: Row, after: float) -> None:
        """Place it at the end, or in a free place behind position `after`; sets `row.no`."""

    def add_after(self, row: Row, anchor: Row) -> None:
        """Place it right behind another; sets `row.no`."""

    def remove(self, row: Row) -> None:
        """Nobody shows it any more."""

    def touch(self, row: Row) -> None:
        """Its text or ranks changed."""


@dataclass(slots=True)
class Rows:
    """The rows of one cell."""

    layout: Layout
    index: dict[tuple[Kind, str], list[Row]] = field(default_factory=dict)
    """Rows that others may join, by content, in order of position."""
    recent: deque[Row] = field(default_factory=deque)
    spots: defaultdict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Positions of each rank's rows, ascending; only the last few thousand."""
    floors: dict[int, float] = field(default_factory=dict)
    """Where the positions forgotten in `spots` end."""
    last: dict[int, str] = field(default_factory=dict)
    """By rank, the text that it showed last and that is not blank."""

    # ---- finished content

    def line(self, rank: int, kind: Kind, text: str, bundle: Any = None) -> Row:
        """Show something finished; returns the row it joined, or its own."""
        self._said(rank, text)
        spots = self.spots[rank]
        last = spots[-1] if spots else NOWHERE
        row = self._find(kind, text, last, inf)
        if row is None:
            row = Row(kind, text, 1 << rank, bundle=bundle)
            self.layout.add(row, last)
            self._offer(row)
        else:
            row.members |= 1 << rank
            self.layout.touch(row)
        spots.append(row.no)
        if len(spots) > 4 * WINDOW:
            self.floors[rank] = spots[2 * WINDOW - 1]
            del spots[: 2 * WINDOW]
        return row

    def replace(self, rank: int, row: Row, text: str, bundle: Any = None) -> Row:
        """Other content at the same place (update_display); ranks that show the old content keep the row.

        The result is live: it changes again, so it joins nothing until it is closed.
        """
        row = self.alone(rank, row)
        row.live, row.text, row.bundle = True, text, bundle
        self.layout.touch(row)
        return row

    # ---- content that still changes

    def open(self, rank: int, kind: Kind) -> Row:
        """A row of one rank that nobody joins until it is closed."""
        row = Row(kind, "", 1 << rank, live=True)
        spots = self.spots[rank]
        self.layout.add(row, spots[-1] if spots else NOWHERE)
        insort(spots, row.no)
        return row

    def edit(self, rank: int, row: Row, text: str) -> None:
        """Change the text of an open row."""
        if row.text != text:
            self._said(rank, text)
            row.text = text
            self.layout.touch(row)

    def close(self, rank: int, row: Row) -> Row:
        """Finish an open row: it joins an equal one between its rank's neighbours, or can be joined."""
        row.live = False
        if row.place is None:
            return row
        spots = self.spots[rank]
        at = bisect_left(spots, row.no)
        before = spots[at - 1] if at else self.floors.get(rank, NOWHERE)
        behind = spots[at + 1] if at + 1 < len(spots) else inf
        other = self._find(row.kind, row.text, before, behind)
        if other is None:
            self._offer(row)
            return row
        self._leave(rank, row)
        other.members |= 1 << rank
        insort(spots, other.no)
        self.layout.touch(other)
        return other

    def discard(self, rank: int, row: Row) -> None:
        """Take an open row away."""
        if row.place is not None:
            self._leave(rank, row)

    def reopen(self, rank: int, row: Row) -> Row | None:
        """Make a finished row writable again, split off if others share it. None if it is shown no more."""
        if row.place is None or not row.members >> rank & 1:
            return None
        row = self.alone(rank, row)
        row.live = True
        return row

    def alone(self, rank: int, row: Row) -> Row:
        """A row with this content that only this rank shows and nobody joins, beside the shared one."""
        if row.members == 1 << rank:
            self._withdraw(row)
            return row
        own = Row(row.kind, row.text, 1 << rank, bundle=row.bundle)
        self.layout.add_after(own, row)
        row.members &= ~(1 << rank)
        self.layout.touch(row)
        self._forget_spot(rank, row)
        insort(self.spots[rank], own.no)
        return own

    # ---- taking away

    def clear(self, rank: int, rows: list[Row]) -> None:
        """Take the rank out of these rows, which are all that it shows."""
        self.spots.pop(rank, None)
        self.floors.pop(rank, None)
        for row in rows:
            row.members &= ~(1 << rank)
            if row.members:
                self.layout.touch(row)
            else:
                self._withdraw(row)
                self.layout.remove(row)

    def evict(self, row: Row) -> None:
        """The layout shows this row no more; nobody may join it."""
        self._withdraw(row)

    # ---- inside

    def _said(self, rank: int, text: str) -> None:
        if text and not text.isspace():
            self.last[rank] = text

    def _find(self, kind: Kind, text: str, before: float, behind: float) -> Row | None:
        """The first row of this content between two positions, where the caller's rank has no row."""
        found = self.index.get((kind, text))
        if found is None:
            return None
        at = 0 if found[0].no > before else bisect_right(found, before, key=_position)
        return found[at] if at < len(found) and found[at].no < behind else None

    def _offer(self, row: Row) -> None:
        """Let others join, and let the oldest of the window go."""
        row.indexed = True
        known = self.index.setdefault((row.kind, row.text), [])
        if known and known[-1].no > row.no:
            insort(known, row, key=_position)
        else:
            known.append(row)
        self.recent.append(row)
        if len(self.recent) > WINDOW:
            self._withdraw(self.recent.popleft())

    def _withdraw(self, row: Row) -> None:
        if not row.indexed:
            return
        row.indexed = False
        known = self.index[row.kind, row.text]
        known.remove(row)
        if not known:
            del self.index[row.kind, row.text]

    def _leave(self, rank: int, row: Row) -> None:
        self._forget_spot(rank, row)
        self._withdraw(row)
        self.layout.remove(row)

    def _forget_spot(self, rank: int, row: Row) -> None:
        spots = self.spots[rank]
        at = bisect_left(spots, row.no)
        if at < len(spots) and spots[at] == row.no:
            del spots[at]


def _position(row: Row) -> float:
    return row.no
