"""The run that a cell runs, under the cell: the live view, and beside it the form that a saved notebook
keeps. Used by the thread that shows the cell, and by `run.show()`.

Three outputs in this order: the live view, the curves as a picture, the tables. Where a live view is on
screen a rule in the tables' style hides the other two; where its kernel is gone, it hides what is left of the
view.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from uuid import uuid4

from quarterdeck.metrics.series import Metrics
from quarterdeck.present.words import metric
from quarterdeck.store.reader import NotARun, StoredRun
from quarterdeck.views.cell.figure_thread import draw_later
from quarterdeck.views.run import static_html
from quarterdeck.views.sink import Bundle, Control, Sink

FIRST_AFTER_S = 2.0
"""From the first thing to see to the first picture."""
INTERVAL_S = 10.0
"""Between two pictures in the long run; the last one comes with the end."""
SLOWER = 1.3
"""Each interval is so many times the one before, up to that."""
_SHARE = 0.1
"""The share of the time that pictures may take: those of a long run come less often."""
_NOTHING: Bundle = {"text/plain": ""}

_HEAD_START_S = 1.0
"""A live view of a run that is over goes first: both would read the same files at the same moment."""
_neighbours = threading.Lock()
"""The outputs of one run stand together, also where several runs appear under one cell at once."""


class RunOutput:
    """`seen` once there is something to see; `draw` shows it. Not thread-safe.

    Pictures are drawn by a thread, since they take a moment in which whoever shows the cell has to hear the
    ranks. Where a live view is on screen nobody waits for the last one either.
    """

    def __init__(self, sink: Sink, control: Control, opens_output: bool = False) -> None:
        self._sink, self._control, self._opens_output = sink, control, opens_output
        self.trouble = ""
        """What cannot be shown, and why."""
        self._view: Bundle | None = None
        self._picture = _Part(sink)
        self._tables = _Part(sink)
        self._due_s: float | None = None
        self._interval_s = FIRST_AFTER_S
        self._placed = False
        self._metrics: Metrics | None = None
        self._known: tuple[Path, bool] | None = None
        """The run that these belong to, and whether it is known which ones that continues."""
        self._took_s = 0.0
        """To draw the last picture."""
        self._drawn = threading.Event()
        """The last picture that was asked for is there."""
        self._drawn.set()

    def seen(self, now: float) -> None:
        """There is something to see: the live view comes at the next `draw`."""
        if self._due_s is None:
            self._due_s = now if self._sink.live else now + INTERVAL_S

    def cleared(self) -> None:
        """The cell's outputs were taken away, these among them: the next `draw` shows them again."""
        self._drawn.wait()
        self._placed = False
        self._picture, self._tables = _Part(self._sink), _Part(self._sink)

    def due_in(self, now: float) -> float | None:
        """Seconds to the next drawing; None if there is nothing to draw."""
        return None if self._due_s is None else max(0.0, self._due_s - now)

    def draw(self, folder: Path, now: float, *, last: bool = False) -> None:
        """Show the run as it is. `last`: as it ended, and what is shown has to be there afterwards."""
        self._due_s = now + max(self._interval_s, self._took_s / _SHARE)
        self._interval_s = min(INTERVAL_S, SLOWER * self._interval_s)
        if not self._sink.live:
            self._print(folder)
            return
        pause_s = 0.0
        if not self._placed:
            self._place(folder)
            if not last:
                return  # the live view has its moment first
            pause_s = _HEAD_START_S if self._view is not None else 0.0
        if last or self._drawn.is_set():
            self._drawn = draw_later(lambda: self._draw(folder, pause_s))
        if last and self._view is None:
            self._drawn.wait()

    def _draw(self, folder: Path, pause_s: float) -> None:
        time.sleep(pause_s)
        began_s = time.thread_time()
        try:
            run = _run_in(folder)
            metrics = self._read(folder, run)
            if metrics.names:
                self._picture.put(*_picture_of(metrics, _title(run)))
            if run is not None:
                self._tables.put(static_html.of(run, metrics), {})
        except Exception as error:  # of matplotlib, for one: no reason to end a run
            self.trouble = f"The run cannot be drawn: {type(error).__name__}: {error}"
        self._took_s = time.thread_time() - began_s

    def _read(self, folder: Path, run: StoredRun | None) -> Metrics:
        known = folder, run is not None
        if self._metrics is None or self._known != known:
            self._metrics = Metrics(folder) if run is None else Metrics.of_run(folder, run.header)
            self._known = known
        self._metrics.refresh()
        return self._metrics

    def _place(self, folder: Path) -> None:
        self._placed = True
        draw_later(_import_drawing)
        if self._view is None and not self.trouble:
            self._view = self._live_view(folder)
        with _neighbours:
            if self._view is not None:
                self._sink.show(self._view, {}, "")
            self._picture.put(_NOTHING, {})
            self._tables.put({"text/html": static_html.empty(), "text/plain": ""}, {})

    def _live_view(self, folder: Path) -> Bundle | None:
        """Whatever a front end's packages do: the static form is there without them."""
        try:
            return self._sink.live_view(folder, self._control, self._opens_output)
        except Exception as error:
            self.trouble = f"No live view here: {type(error).__name__}: {error}"
            return None

    def _print(self, folder: Path) -> None:
        """A script's reader, from time to time."""
        run = _run_in(folder)
        if run is not None:
            self._tables.put({"text/plain": static_html.sentence(run)}, {})


def in_thread(name: str, work: Callable[[], None]) -> threading.Thread:
    """Started, in a copy of the caller's context: what it shows belongs to the cell that runs now."""
    thread = threading.Thread(target=copy_context().run, args=(work,), name=name, daemon=True)
    thread.start()
    return thread


class _Part:
    """One output, shown once and then updated; what did not change is not sent."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._display_id = f"quarterdeck-{uuid4().hex}"
        self._shown: Bundle | None = None

    def put(self, data: Bundle, metadata: Bundle) -> None:
        if data == self._shown:
            return
        put = self._sink.update if self._shown is not None and self._sink.live else self._sink.show
        put(data, metadata, self._display_id)
        self._shown = data


def _import_drawing() -> None:
    """matplotlib takes a second to import: meanwhile, rather than at the end of a short run."""
    with suppress(ImportError):
        import quarterdeck.metrics.figure  # noqa: F401


def _picture_of(metrics: Metrics, title: str) -> tuple[Bundle, Bundle]:
    """The placeholder where no matplotlib is."""
    try:
        from quarterdeck.metrics.plot import plot

        data, metadata = plot(metrics, title=title)._repr_mimebundle_()
    except ImportError:
        return _NOTHING, {}
    last = metrics.last()
    told = ", ".join(f"{name} {metric(last[name])}" for name in metrics.names if name in last)
    png = base64.b64encode(data["image/png"]).decode("ascii")
    return {"image/png": png, "text/plain": f"curves: {told}"}, metadata


def _run_in(folder: Path) -> StoredRun | None:
    """None before its coordinator has written what it is."""
    try:
        return StoredRun.read(folder)
    except NotARun:
        return None


def _title(run: StoredRun | None) -> str:
    """A cell shows its code anyway; several calls may draw below the same cell."""
    if run is None or not (run.header.kind == "function" or run.header.name):
        return ""
    return static_html.called(run.header)
