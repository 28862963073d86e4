"""The parts of a cell's output: stretches of text and displays, in slots of the notebook that they update.

Text is cut into segments small enough to be sent anew with every update.
"""

from __future__ import annotations

import json
from collections import deque
from typing import Any
from uuid import uuid4

from quarterdeck.present import words
from quarterdeck.views.cell import html
from quarterdeck.views.lines.rows import Row
from quarterdeck.views.sink import Bundle, Sink

SEGMENT_ROWS = 200
SEGMENT_BYTES = 32_000
TEXT_BUDGET = 1_000_000
"""Bytes of text in one cell's outputs, HTML and plain text together; about 10,000 short lines."""
RICH_BUDGET = 10_000_000
"""Bytes of displays. Much more than for text: an image is in no log."""
TAIL_ROWS = 200
EMPTY: Bundle = {"text/html": "", "text/plain": ""}


def row_cost(row: Row) -> int:
    """About what a row adds to the notebook: its text in HTML and plain, and its share of markup."""
    if row.kind == "rich":
        return len(row.bundle.text)
    return 2 * len(row.text) + 60


class Rich:
    """A mime bundle with its metadata, as it came."""

    __slots__ = ("data", "metadata", "text")

    def __init__(self, data: dict[str, str], metadata: bytes) -> None:
        self.data = {kind: json.loads(value) if _is_json(kind) else value for kind, value in data.items()}
        self.metadata: dict[str, Any] = json.loads(metadata) if metadata else {}
        self.text = repr(sorted(data.items())) + metadata.decode()


class Slot:
    """One output of the cell."""

    __slots__ = ("display_id", "shown")

    def __init__(self) -> None:
        self.display_id = f"quarterdeck-{uuid4().hex}"
        self.shown = False

    def put(self, sink: Sink, data: Bundle, metadata: Bundle) -> None:
        """Show it, or replace what is shown there."""
        (sink.update if self.shown else sink.show)(data, metadata, self.display_id)
        self.shown = True


class Segment:
    """A stretch of rows with their slots. Dirty: what is shown is not what it holds."""

    def __init__(self) -> None:
        self.slot = Slot()
        self.rows: list[Row] | deque[Row] = []
        self.dirty = True
        self.reused = False
        """It was emptied, and may stand before rows that are older than its own."""
        self.size = 0

    @property
    def has_room(self) -> bool:
        """Whether text may be added."""
        return len(self.rows) < SEGMENT_ROWS and self.size < SEGMENT_BYTES

    def publish(self, sink: Sink, world_size: int) -> int:
        """Send it whole; returns the bytes sent."""
        self.dirty = False
        if not self.rows:
            self.slot.put(sink, EMPTY, {})
            return 0
        data = self.render(world_size)
        self.slot.put(sink, data, {})
        return sum(map(len, data.values()))

    def render(self, world_size: int) -> dict[str, str]:
        """The text in both forms."""
        return {
            "text/html": html.segment(self.rows, world_size),
            "text/plain": html.plain(self.rows, world_size),
        }


class TailSegment(Segment):
    """The last rows of a cell that printed more than its budget; older ones fall out and are counted."""

    def __init__(self, log_dir: str) -> None:
        super().__init__()
        self.rows = deque()
        self.hidden = 0
        self.log_dir = log_dir

    def render(self, world_size: int) -> dict[str, str]:
        """With the sentence that says where the rest is."""
        rows = [self.notice(), *self.rows]
        return {"text/html": html.segment(rows, world_size), "text/plain": html.plain(rows, world_size)}

    def notice(self) -> Row:
        """What is missing, and where it can be read."""
        where = f"only in the log: {self.log_dir}" if self.log_dir else "not shown"
        lines = "1 line is" if self.hidden == 1 else f"{words.number(self.hidden)} lines are"
        text = f"Output cut at {words.size(TEXT_BUDGET)}" + (f": {lines} {where}" if self.hidden else "")
        return Row("info", text)


class RichSegment(Segment):
    """A display: a label that says whose it is, and the bundle as an output of its own, rendered natively."""

    def __init__(self) -> None:
        super().__init__()
        self.label = Slot()
        self.sent: object = None

    @property
    def has_room(self) -> bool:
        """Never for text."""
        return False

    def publish(self, sink: Sink, world_size: int) -> int:
        """The label, and the bundle if it is not the one shown."""
        self.dirty = False
        row = self.rows[0] if self.rows else None
        if world_size > 1:
            self.label.put(sink, _label(row, world_size) if row else EMPTY, {})
        rich = row.bundle if row else None
        if rich is self.sent and self.slot.shown:
            return 200
        self.sent = rich
        self.slot.put(sink, rich.data if rich else EMPTY, rich.metadata if rich else {})
        return len(rich.text) if rich else 0


def _label(row: Row, world_size: int) -> Bundle:
    ranks = row.ranks
    return {"text/html": html.label(ranks, world_size), "text/plain": html.plain_label(ranks, world_size)}


def _is_json(kind: str) -> bool:
    return kind == "application/json" or kind.endswith("+json")
