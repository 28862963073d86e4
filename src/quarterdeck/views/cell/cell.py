"""The picture of one running cell: takes the outputs of all ranks, updates the notebook 20 times a second.

Made and driven by the session, in the thread that runs the cell:

    view = CellView(sink)                         # before the turn: only notices
    view.begin(world_size, log_dir)               # at the turn, before the first output
    view.feed(output); view.flush()               # for every output
    poll(channel, timeout=view.next_flush_in())   # and flush() again when that time is over
    view.finish()                                 # at the end, however the cell ended
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from quarterdeck.protocol.worker import Output
from quarterdeck.views.cell import html
from quarterdeck.views.cell.outputs import Outputs
from quarterdeck.views.cell.run_output import RunOutput
from quarterdeck.views.cell.segments import Rich
from quarterdeck.views.cell.terminal import PrintedOutputs
from quarterdeck.views.lines.rows import NOWHERE, Kind, Row
from quarterdeck.views.lines.transcript import Transcript, bounded
from quarterdeck.views.sink import BYTES_PER_S, Control, Sink

INTERVAL_S = 0.05
"""Between two updates of a notebook, on average."""
BURST = 8
"""Updates that may follow each other at once after a pause: the prints of 8 ranks appear without delay."""
PRINT_INTERVAL_S = 1.0
"""Between two prints in a terminal, where what is printed cannot be folded any more."""


class CellView:
    """Shows one cell. Not thread-safe."""

    def __init__(self, sink: Sink, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._interval = INTERVAL_S if sink.live else PRINT_INTERVAL_S
        layout = Outputs if sink.live else PrintedOutputs
        self._outputs: Outputs = layout(sink, 1, lambda row: self._rows.evict(row))
        self._transcript = Transcript(self._outputs)
        self._rows = self._transcript.rows
        self._displays: dict[tuple[int, str], Row] = {}
        self._notices: dict[str, Row] = {}
        self._clear_later: set[int] = set()
        self._burst_s = BURST * INTERVAL_S if sink.live else 0.0
        self._spent_until = float("-inf")
        self._control = _StopOf()
        self._run = RunOutput(sink, self._control)

    def begin(self, world_size: int, log_dir: str = "") -> None:
        """Say how large the group is (it decides about rank chips) and where its full log lies."""
        self._outputs.world_size, self._outputs.log_dir = world_size, log_dir

    def stoppable(self, stop: Callable[[], None]) -> None:
        """What the live view's Stop button does, from now to `finish`."""
        self._control.ask, self._control.can_stop = stop, True

    # ---- content

    def feed(self, output: Output) -> None:
        """Take one output of a rank. Shows nothing yet."""
        rank = output.rank
        if output.kind == "logged":
            self._run.seen(self._clock())
            return
        if output.kind == "clear":
            self._clear_later.add(rank)
            if not output.wait:
                self._clear(rank)
            return
        if rank in self._clear_later:
            self._clear(rank)
        if output.kind == "stdout" or output.kind == "stderr":
            self._transcript.write(rank, output.kind, output.text)
        elif output.kind == "update":
            self._update(output)
        else:
            self._display(output)

    def notice(self, text: str, level: Literal["info", "warning"] = "info", *, key: str = "") -> None:
        """A line of ours. With a key it replaces the one shown with this key; empty text takes that away."""
        self._control.heard(text)
        row = self._notices.pop(key, None) if key else None
        if row is not None and row.place is not None and not text:
            self._outputs.remove(row)
        elif row is not None and row.place is not None:
            row.kind, row.text = level, text
            self._outputs.touch(row)
        elif text:
            row = Row(level, text)
            self._outputs.add(row, NOWHERE)
        if key and row is not None and text:
            self._notices[key] = row

    def error(self, lines: Sequence[str]) -> None:
        """How it failed, in ANSI, below all that is shown."""
        self._outputs.sink.show(html.error(lines), {}, "")

    def finish(self) -> None:
        """The cell is over: end unfinished lines, fold what became equal, show everything."""
        self._transcript.end()
        for (rank, _), row in self._displays.items():
            if row.live:
                self._rows.close(rank, row)
        self._displays.clear()
        self.flush(force=True)
        self._control.ask, self._control.can_stop = _nothing, False  # else view and run keep each other alive
        self._draw(self._clock(), force=True)
        self.flush(force=True)  # a notice instead of the picture

    def _draw(self, now: float, *, force: bool = False) -> None:
        due_in = self._run.due_in(now)
        if due_in is not None and (force or due_in == 0.0) and self._outputs.log_dir:
            self._run.draw(Path(self._outputs.log_dir), now, last=force)
            if self._run.trouble:
                self.notice(self._run.trouble, level="warning", key="view")

    # ---- showing

    def flush(self, now: float | None = None, *, force: bool = False) -> None:
        """Show what changed if it is time."""
        now = self._clock() if now is None else now
        if (now >= self._spent_until - self._burst_s or force) and self._outputs.dirty:
            if self._outputs.stale:
                self._run.cleared()
            sent = self._outputs.publish()
            self._spent_until = max(now, self._spent_until) + max(self._interval, sent / BYTES_PER_S)
        self._draw(now)

    def next_flush_in(self, now: float | None = None) -> float | None:
        """Seconds until flush() has something to do; None: not before the next output."""
        now = self._clock() if now is None else now
        drawing = self._run.due_in(now)
        if not self._outputs.dirty:
            return drawing
        text = max(0.0, self._spent_until - self._burst_s - now)
        return text if drawing is None else min(text, drawing)

    # ---- inside

    def _display(self, output: Output) -> None:
        kind, text, rich = self._content(output)
        if kind == "result" and not text:
            return
        row = self._rows.line(output.rank, kind, text, rich)
        if output.display_id:
            self._displays[output.rank, output.display_id] = row

    def _update(self, output: Output) -> None:
        """An update of a display that this cell does not show (any more) is a display."""
        key = output.rank, output.display_id
        row = self._displays.get(key)
        kind, text, rich = self._content(output)
        if row is None or row.place is None or row.kind != kind:
            if row is not None:
                self._rows.discard(output.rank, self._rows.alone(output.rank, row))
            self._display(output)
        elif row.text != text:
            self._displays[key] = self._rows.replace(output.rank, row, text, rich)

    def _content(self, output: Output) -> tuple[Kind, str, Rich | None]:
        """Plain text stands between the lines; anything else is a display, while the budget lasts."""
        if set(output.data) - {"text/plain"}:
            rich = Rich(output.data, output.metadata)
            if self._outputs.has_room_for(rich):
                return "rich", rich.text, rich
        return "result", bounded(output.data.get("text/plain", "")), None

    def _clear(self, rank: int) -> None:
        """Take away what the rank shows; with it everything, if nobody else shows anything."""
        self._clear_later.discard(rank)
        self._transcript.wipe(rank)
        for key in [key for key in self._displays if key[0] == rank]:
            del self._displays[key]
        rows = [row for row in self._outputs.rows() if row.members >> rank & 1]
        self._rows.clear(rank, rows)
        if rows and not any(row.members for row in self._outputs.rows()):
            for notice in self._outputs.restart():
                self._outputs.add(notice, NOWHERE)


def _nothing() -> None:
    """There is nothing to stop any more."""


class _StopOf(Control):
    """The live view's way to stop what the cell runs."""

    def __init__(self) -> None:
        self.ask: Callable[[], None] = _nothing

    def stop(self) -> None:
        self.stopping = self.stopping or "asked"
        self.ask()

    def heard(self, text: str) -> None:
        """Once it is asked for, what the coordinator tells is about that."""
        if self.stopping and text:
            self.stopping = text
