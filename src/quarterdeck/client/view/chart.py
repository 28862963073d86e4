"""The curves of the run that a cell runs, as a picture under it: what a saved notebook shows, too."""

from __future__ import annotations

import base64
from pathlib import Path
from uuid import uuid4

from quarterdeck.client.view.runs_html import called
from quarterdeck.client.view.sink import Bundle, Sink
from quarterdeck.store.history import NotARun, StoredRun

FIRST_AFTER_S = 2.0
"""From the first metric to the first picture."""
INTERVAL_S = 10.0
"""Between two pictures in the long run; the last one comes with the end."""
SLOWER = 1.3
"""Each interval is so many times the one before, up to that."""


class Chart:
    """Drawn by the thread that shows the cell; `seen` when a rank has begun to keep metrics."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._display_id = f"quarterdeck-{uuid4().hex}"
        self._shown = ""
        self._due_s: float | None = None
        self._given_up = False
        self._interval_s = FIRST_AFTER_S

    def seen(self, now: float) -> None:
        if self._due_s is None and self._sink.live and not self._given_up:
            self._due_s = now + FIRST_AFTER_S

    def give_up(self) -> None:
        """It cannot be drawn here; no picture follows."""
        self._due_s, self._given_up = None, True

    def due_in(self, now: float) -> float | None:
        """Seconds to the next picture; None if there is nothing to draw."""
        return None if self._due_s is None else max(0.0, self._due_s - now)

    def draw(self, folder: str, now: float) -> None:
        """Show the curves as they are."""
        self._due_s = now + self._interval_s
        self._interval_s = min(INTERVAL_S, SLOWER * self._interval_s)
        picture = _picture(Path(folder))
        if picture is None or picture[0]["image/png"] == self._shown:
            return
        put = self._sink.update if self._shown else self._sink.show
        put(*picture, self._display_id)
        self._shown = picture[0]["image/png"]


def _picture(folder: Path) -> tuple[Bundle, Bundle] | None:
    """None while there is nothing, or where no matplotlib is."""
    try:
        from quarterdeck.metrics.plot import plot
        from quarterdeck.metrics.series import Metrics

        metrics = Metrics.read(folder)
        if not metrics.names:
            return None
        data, metadata = plot(metrics, title=_title(folder))._repr_mimebundle_()
    except ImportError:
        return None
    last = metrics.last()
    words = ", ".join(f"{name} {last[name]:.4g}" for name in metrics.names if name in last)
    png = base64.b64encode(data["image/png"]).decode("ascii")
    return {"image/png": png, "text/plain": f"curves: {words}"}, metadata


def _title(folder: Path) -> str:
    """A cell shows its code anyway; several calls may draw below the same cell."""
    try:
        header = StoredRun.read(folder).header
    except NotARun:
        return ""
    return called(header) if header.kind == "function" or header.name else ""
