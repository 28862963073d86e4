"""The outputs of one cell in order, as the layout of the merge: where rows stand, what is sent, what is cut.

The notebook appends outputs and replaces one in place; it never inserts or removes one. So a segment keeps
its slots, and an emptied one waits to be used again by a rank that shows nothing behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from math import inf

from quarterdeck.views.cell.segments import (
    RICH_BUDGET,
    TAIL_ROWS,
    TEXT_BUDGET,
    Rich,
    RichSegment,
    Segment,
    TailSegment,
    row_cost,
)
from quarterdeck.views.lines.rows import Row
from quarterdeck.views.sink import Sink


class Outputs:
    """Implements rows.Layout on segments."""

    def __init__(self, sink: Sink, world_size: int, on_evict: Callable[[Row], None]) -> None:
        self.sink, self.world_size, self.log_dir = sink, world_size, ""
        self.on_evict = on_evict
        self.sequence: list[Segment] = []
        self.tail: TailSegment | None = None
        self.spent_text = self.spent_rich = 0
        self._numbers = count(1)
        self.stale = False
        """The notebook still shows outputs of before a clear."""
        self.emptied = False
        """There may be slots to be used again."""

    # ---- layout

    def add(self, row: Row, after: float) -> None:
        """Append; a display takes an emptied display slot if one stands behind `after`."""
        row.cost = row_cost(row)
        if row.kind == "rich":
            self._add_rich(row, after)
        else:
            self._add_text(row, after)

    def add_after(self, row: Row, anchor: Row) -> None:
        """Right behind the anchor; a display at the end if no slot is free there."""
        after, behind = anchor.no, self._next_no(anchor)
        number = (after + behind) / 2
        if row.kind == "rich" or anchor.place is self.tail or behind == inf or not after < number < behind:
            self.add(row, after)
            return
        row.cost = row_cost(row)
        self._put(row, anchor.place, number, list(anchor.place.rows).index(anchor) + 1)

    def remove(self, row: Row) -> None:
        """Take it out; its slot stays, empty, if the notebook has it."""
        segment = row.place
        if segment is None:
            return
        segment.rows.remove(row)
        row.place = None
        self._spend(row, segment, -row.cost)
        segment.dirty = True
        if segment.rows or segment is self.tail:
            return
        if segment.slot.shown:
            self.emptied = True
        else:
            self.sequence.remove(segment)

    def touch(self, row: Row) -> None:
        """Its segment is to be sent again."""
        segment = row.place
        if segment is None:
            return
        segment.dirty = True
        if (cost := row_cost(row)) != row.cost:
            self._spend(row, segment, cost - row.cost)
            row.cost = cost

    # ---- what the view asks

    def rows(self) -> Iterator[Row]:
        """All that is shown, in order."""
        for segment in self.sequence:
            yield from segment.rows

    def has_room_for(self, rich: Rich) -> bool:
        """Whether a display fits the cell's budget."""
        return self.spent_rich + len(rich.text) <= RICH_BUDGET

    @property
    def dirty(self) -> bool:
        """Whether there is something to send."""
        return self.stale or any(segment.dirty for segment in self.sequence)

    def restart(self) -> list[Row]:
        """Begin anew after a clear of everything; returns the notices, to be added again."""
        notices = [row for row in self.rows() if not row.members]
        self.stale = self.stale or any(segment.slot.shown for segment in self.sequence)
        self.sequence, self.tail, self.spent_text, self.spent_rich, self.emptied = [], None, 0, 0, False
        return notices

    def publish(self) -> int:
        """Send what changed, in order; returns the bytes."""
        if self.stale:
            self.stale = False
            self.sink.clear(wait=bool(self.sequence))
        return sum(part.publish(self.sink, self.world_size) for part in self.sequence if part.dirty)

    # ---- inside

    def _add_text(self, row: Row, after: float) -> None:
        if self.tail is None and self.spent_text + row.cost > TEXT_BUDGET:
            self.tail = TailSegment(self.log_dir)
            self.sequence.append(self.tail)
        if self.tail is not None:
            self._put(row, self.tail, self._next_number(), len(self.tail.rows))
            if len(self.tail.rows) > TAIL_ROWS:
                self._drop_oldest(self.tail)
        elif not (row.members and self._reuse(row, after)):
            segment = self._last_text()
            self._put(row, segment, self._next_number(), len(segment.rows))

    def _drop_oldest(self, tail: TailSegment) -> None:
        row = tail.rows[0]
        self.on_evict(row)
        tail.hidden += 1
        self.remove(row)

    def _add_rich(self, row: Row, after: float) -> None:
        if not self._reuse(row, after):
            segment = RichSegment()
            self.sequence.append(segment)
            self._put(row, segment, self._next_number(), 0)

    def _last_text(self) -> Segment:
        """The last segment if it takes text, else a new one."""
        last = next((segment for segment in reversed(self.sequence) if segment.rows), None)
        if last is None or not last.has_room:
            last = Segment()
            self.sequence.append(last)
        return last

    def _reuse(self, row: Row, after: float) -> bool:
        """Place it in the first emptied slot behind `after`, or go on in such a one: slots must not grow."""
        if not self.emptied:
            return False
        found: Segment | None = None
        bound = found_bound = inf
        for segment in reversed(self.sequence):
            if segment.rows:
                if segment.rows[-1].no <= after:
                    if segment.reused and segment.has_room and row.kind != "rich":
                        found, found_bound = segment, bound
                    break
                bound = segment.rows[0].no
                if bound <= after:
                    break
            elif isinstance(segment, RichSegment) == (row.kind == "rich"):
                found, found_bound = segment, bound
        return found is not None and self._put_before(row, found, found_bound)

    def _put_before(self, row: Row, segment: Segment, bound: float) -> bool:
        """Append to a segment in the middle; `bound` is the position of the next row behind it."""
        number = self._next_number()
        if bound != inf:
            before = self.sequence[: self.sequence.index(segment) + 1]
            low = next((part.rows[-1].no for part in reversed(before) if part.rows), 0.0)
            number = low + (bound - low) / 1024
            if not low < number < bound:
                return False
        segment.reused = True
        self._put(row, segment, number, len(segment.rows))
        return True

    def _next_number(self) -> float:
        return float(next(self._numbers))

    def _put(self, row: Row, segment: Segment, number: float, at: int) -> None:
        row.no, row.place = number, segment
        segment.rows.insert(at, row)
        segment.dirty = True
        self._spend(row, segment, row.cost)

    def _spend(self, row: Row, segment: Segment, cost: int) -> None:
        segment.size += cost
        if row.kind == "rich":
            self.spent_rich += cost
        elif segment is not self.tail:
            self.spent_text += cost

    def _next_no(self, row: Row) -> float:
        """Position of the row behind this one, inf if it is the last."""
        segment: Segment = row.place
        rows = list(segment.rows)
        at = rows.index(row) + 1
        if at < len(rows):
            return rows[at].no
        behind = self.sequence[self.sequence.index(segment) + 1 :]
        return min((part.rows[0].no for part in behind if part.rows), default=inf)
