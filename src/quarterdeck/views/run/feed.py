"""A run as messages for its live views, read from its folder as it grows. Made by `widget`, in the kernel;
used from any thread.

    feed = Feed(folder, control)
    feed.whole()                # answers Sync: all there is, for a view that knows nothing
    feed.news()                 # some 20 times a second, until `feed.over`: what changed
    feed.answer(request)        # whatever else a view asks for, but Stop

What these give goes to every view of the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import RLock
from typing import TypeVar

import msgspec

from quarterdeck.metrics.history import History
from quarterdeck.store.output import OutputReader
from quarterdeck.views.run.curve_stream import CurveStream, Sent
from quarterdeck.views.run.messages import (
    Compare,
    State,
    Sync,
    ToKernel,
    Trouble,
    WantDeck,
    WantLog,
    WantRuns,
    Zoom,
)
from quarterdeck.views.run.output_rows import OutputRows
from quarterdeck.views.run.requests import Answers
from quarterdeck.views.run.run_files import RunFiles
from quarterdeck.views.run.snapshot import state
from quarterdeck.views.sink import BYTES_PER_S, Control

STATE_EVERY_S = 1 / 4
LINES_EVERY_S = 1 / 10
CURVES_EVERY_S = 1 / 20
_SHARE = 0.1
"""The share of a core that curves or lines may take: where they take more they come less often. Curves come 4
times a second at least, lines once if the browser takes them.
"""
_LINES_PAUSE_S = 1.0
_LINE_BYTES = 60
"""What a message has beside the text of a line."""
_AFTER_END_S = 0.5
"""From a run's end on; then nobody writes to its folder any more."""

T = TypeVar("T")


class Feed:
    """One run. Nothing on disk makes it raise: a part that cannot be read is told once, as a Trouble."""

    def __init__(
        self, folder: Path, control: Control | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`folder` need not be there yet, nor a run's."""
        self.folder = folder
        self.over = False
        """The run has ended, and all that it left was given; or its folder is gone."""
        self._control = control or Control()
        self._clock = clock
        self._lock = RLock()
        history = History(folder)
        self._facts = RunFiles(history, self._safely)
        self._curves = CurveStream(folder.name, history)
        self._output = OutputReader(folder)
        self._lines = OutputRows()
        self._answers = Answers(folder, self._facts.decks)
        self._state: State | None = None
        self._due = {"state": 0.0, "lines": 0.0, "curves": 0.0}
        self._troubles: list[Trouble] = []
        self._told: set[str] = set()
        self._asked: tuple[bool, str] = (False, "")
        self._end_seen_s: float | None = None

    def whole(self) -> list[Sent]:
        with self._lock:
            self._facts.refresh()
            ended = self._has_ended()
            self._read_lines(ended)
            sent: list[Sent] = [
                *self._safely("curves", lambda: self._curves.whole(self._facts.run), _nothing()),
                *self._safely("curves", self._answers.compared_whole, _nothing()),
                (self._lines.whole(), b""),
            ]
            self.over = self.over or ended
            return [*self._new_state(always=True), *sent, *self._new_troubles()]

    def news(self) -> list[Sent]:
        """What changed since the last call of this or `whole`, not more often than views want it."""
        with self._lock:
            if self.over:
                return []
            now, sent, changed = self._clock(), _nothing(), False
            if self._is_due("state", now, STATE_EVERY_S):
                changed = self._facts.refresh() | self._control_changed()
                if self._has_ended():
                    return self._last_news()
            if self._is_due("curves", now, CURVES_EVERY_S):
                sent += self._new_curves(now)
            if self._is_due("lines", now, LINES_EVERY_S):
                sent += self._new_lines(now)
            return [*(self._new_state() if changed else []), *sent, *self._new_troubles()]

    def answer(self, request: ToKernel) -> list[Sent]:
        """`Stop` is not for a feed: []. What cannot be answered gives a Trouble."""
        if isinstance(request, WantRuns):
            with self._lock:
                names = self._curves.metrics.names
            return self._safe_answer("runs", partial(self._answers.runs, names))  # reads many runs: no lock
        with self._lock:
            match request:
                case Sync():
                    return self.whole()
                case Zoom():
                    zoom = request.name, request.first_step, request.last_step
                    return self._safe_answer("curves", lambda: [self._curves.zoom(*zoom)])
                case WantLog():
                    return self._safe_answer("log", partial(self._answers.log, request.rank))
                case WantDeck():
                    return self._safe_answer("deck", partial(self._answers.deck, request.name, request.rank))
                case Compare():
                    return self._safe_answer("compare", partial(self._answers.compare, request.run_ids))
            return []

    # ---- parts

    def _last_news(self) -> list[Sent]:
        """The run has ended: all that is left, at once."""
        sent = [*self._new_curves(self._clock()), *self._new_lines(self._clock(), ended=True)]
        self.over = True
        return [*sent, *self._new_state(always=True), *self._new_troubles()]

    def _new_curves(self, now: float) -> list[Sent]:
        start = time.perf_counter()
        sent = self._safely("curves", lambda: self._curves.news(self._facts.run), _nothing())
        sent += self._safely("curves", self._answers.compared_news, _nothing())
        pause_s = (time.perf_counter() - start) / _SHARE
        self._due["curves"] = now + min(max(CURVES_EVERY_S, pause_s), STATE_EVERY_S)
        return sent

    def _new_lines(self, now: float, ended: bool = False) -> list[Sent]:
        start = time.perf_counter()
        self._read_lines(ended)
        lines = self._lines.news()
        if lines is None:
            return []
        took_s = time.perf_counter() - start
        sending_s = sum(_LINE_BYTES + len(line.text) for line in lines.lines) / BYTES_PER_S
        self._due["lines"] = now + max(LINES_EVERY_S, sending_s, min(took_s / _SHARE, _LINES_PAUSE_S))
        return [(lines, b"")]

    def _read_lines(self, ended: bool) -> None:
        before = self._output.skipped_bytes
        self._lines.feed(self._safely("output", lambda: self._output.read(over=ended), []))
        self._lines.skipped(self._output.skipped_bytes - before)
        if ended:
            self._lines.finish()

    def _new_state(self, always: bool = False) -> list[Sent]:
        metrics = self._curves.metrics
        facts = self._facts.facts
        facts.last_steps, facts.not_finite = metrics.last_steps, metrics.not_finite
        run = self._facts.run
        made = self._safely(
            "state", lambda: state(self.folder, run, facts, self._control, self._lines.last_line), None
        )
        before, self._state = self._state, _timeless(made) if made is not None else None
        return [(made, b"")] if made is not None and (always or before != self._state) else []

    def _new_troubles(self) -> list[Sent]:
        sent: list[Sent] = [(trouble, b"") for trouble in self._troubles]
        self._troubles = []
        return sent

    # ---- inside

    def _has_ended(self) -> bool:
        run = self._facts.run
        if run is None or not (run.terminal or self._facts.gone):
            return False
        if self._end_seen_s is None:
            self._end_seen_s = self._clock()
        since_s = time.time() - run.ended_unix_ns / 1e9
        return since_s >= _AFTER_END_S or self._clock() - self._end_seen_s >= _AFTER_END_S

    def _is_due(self, part: str, now: float, every_s: float) -> bool:
        if now < self._due[part]:
            return False
        self._due[part] = now + every_s
        return True

    def _control_changed(self) -> bool:
        before, self._asked = self._asked, (self._control.can_stop, self._control.stopping)
        return before != self._asked

    def _safely(self, about: str, make: Callable[[], T], otherwise: T) -> T:
        try:
            return make()
        except Exception as error:  # a view that shows less is better than none
            if about not in self._told:
                self._told.add(about)
                text = f"The run's {about} cannot be read: {type(error).__name__}: {error}"
                self._troubles.append(Trouble(about=about, text=text))
            return otherwise

    def _safe_answer(self, about: str, make: Callable[[], list[Sent]]) -> list[Sent]:
        try:
            return make()
        except LookupError as error:
            text = str(error.args[0]) if error.args else "What you asked for is no longer there."
        except Exception as error:
            text = f"What you asked for cannot be read: {type(error).__name__}: {error}"
        return [(Trouble(about=about, text=text), b"")]


def _timeless(made: State) -> State:
    return msgspec.structs.replace(made, run=msgspec.structs.replace(made.run, now_ms=0.0))


def _nothing() -> list[Sent]:
    return []
