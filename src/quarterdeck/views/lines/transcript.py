"""All that ranks write, as one sequence of folded rows. A cell's output and the live view's output tab are
both layouts of one of these, so that they cannot show the same text as different lines.
"""

from __future__ import annotations

from quarterdeck.views.lines.rows import Layout, Row, Rows
from quarterdeck.views.lines.screen import LINE_LIMIT, Screen, Stream


class Transcript:
    """Takes pieces of text in the order of their arrival; a piece may end anywhere."""

    def __init__(self, layout: Layout) -> None:
        self.rows = Rows(layout)
        self._screens: dict[tuple[int, Stream], Screen] = {}

    def write(self, rank: int, stream: Stream, text: str) -> None:
        """What the rank wrote next to this stream."""
        screen = self._screens.get((rank, stream))
        if screen is None:
            screen = self._screens[rank, stream] = Screen(rank, stream, self.rows)
        screen.feed(text)

    def result(self, rank: int, text: str) -> Row | None:
        """The value of its last expression: one row, however many lines it has. None for an empty one."""
        return self.rows.line(rank, "result", bounded(text)) if text else None

    def wipe(self, rank: int) -> None:
        """What the rank has shown is taken away: it goes on at the beginning of a line."""
        for (whose, _), screen in self._screens.items():
            if whose == rank:
                screen.wipe()

    def end(self) -> None:
        """Nobody writes any more: unfinished lines are as finished as they will be, and fold."""
        for screen in self._screens.values():
            screen.end()


def bounded(text: str) -> str:
    """A text of several lines, cut where it is too long."""
    if len(text) <= LINE_LIMIT:
        return text
    return f"{text[:LINE_LIMIT]}… (cut at {LINE_LIMIT:,} characters)"
