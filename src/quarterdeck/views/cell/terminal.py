"""Outputs of a cell in terminal IPython: printed once, in order, and never changed."""

from __future__ import annotations

from quarterdeck.views.cell import html
from quarterdeck.views.cell.outputs import Outputs
from quarterdeck.views.cell.segments import RichSegment, Segment, TailSegment
from quarterdeck.views.lines.rows import Row


class PrintedOutputs(Outputs):
    """Prints finished rows and forgets them, so that nobody joins what already stands on the terminal."""

    def publish(self) -> int:
        """Print what is finished; unfinished lines wait for their end."""
        sent = sum(self._print(segment) for segment in list(self.sequence))
        if self.tail is not None and not self.tail.rows:
            self.sequence.remove(self.tail)
            self.tail = None
        return sent

    def _print(self, segment: Segment) -> int:
        segment.dirty = False
        rows = [row for row in segment.rows if not row.live]
        if not rows:
            return 0
        if isinstance(segment, RichSegment):
            self._show_rich(rows[0])
        else:
            first = [segment.notice()] if isinstance(segment, TailSegment) else []
            self._show(html.plain([*first, *rows], self.world_size))
        for row in rows:
            self.on_evict(row)
            self.remove(row)
        segment.dirty = False
        return len(rows)

    def _show(self, text: str) -> None:
        self.sink.show({"text/plain": text}, {}, "")

    def _show_rich(self, row: Row) -> None:
        if self.world_size > 1:
            self._show(html.plain_label(row.ranks, self.world_size))
        self.sink.show(row.bundle.data, row.bundle.metadata, "")
