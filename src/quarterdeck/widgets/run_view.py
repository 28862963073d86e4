"""The live view of a run: an anywidget, and the thread that tells it what is new. Made by the magics' sink.

The browser's half asks (`client.feed.messages`), in whatever thread the kernel serves its comms; the thread
sends what has changed, 20 times a second at most, while the run goes on and somebody looks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import msgspec
import traitlets
from ipykernel._version import version_info

from quarterdeck.client.feed.curves import Sent
from quarterdeck.client.feed.feed import Feed
from quarterdeck.client.feed.messages import Alive, Stop, Sync, ToKernel
from quarterdeck.client.view.sink import Control

_TICK_S = 0.05
_UNHEARD_S = 1.0
"""Between two whole pictures to a view that has not answered yet: an old kernel cannot hear it while a cell
runs."""
_NOBODY_S = 180.0
"""Of silence from all views, after which nobody is taken to look."""
_HEARS = int(str(version_info[0])) >= 7
"""Messages of the page are served while a cell runs."""


class RunView(anywidget.AnyWidget):
    """The model of one run's views: nothing but a line to the browser, so nothing of it is worth saving."""

    _esm = Path(__file__).parent / "static" / "run_view.js"
    beside_output = traitlets.Bool(True).tag(sync=True)
    """What the ranks write is shown beside it already."""

    def __init__(self, folder: Path, control: Control, beside_output: bool = True) -> None:
        super().__init__(beside_output=beside_output)
        _hear_at_once(self.comm)
        self._line = _Line(folder, control, self._tell)
        self.on_msg(self._line.take)

    def _tell(self, sent: Sequence[Sent]) -> None:
        for message, buffer in sent:
            self.send(msgspec.to_builtins(message), [buffer] if buffer else None)


class _Line:
    """Between one run and its views."""

    def __init__(self, folder: Path, control: Control, send: Callable[[Sequence[Sent]], None]) -> None:
        self._folder, self._control, self._send = folder, control, send
        self._feed: Feed | None = Feed(folder, control)
        self._heard_s = 0.0
        self._paused = False
        self._lock = threading.Lock()
        threading.Thread(target=self._tell, name="quarterdeck-view", daemon=True).start()

    def take(self, _widget: object, content: Any, _buffers: object) -> None:
        """A message of the browser. What is none of ours is passed over: a newer bundle may ask more."""
        try:
            request = msgspec.convert(content, ToKernel)
        except msgspec.ValidationError:
            return
        self._heard_s = time.monotonic()
        if isinstance(request, Stop):
            self._control.stop()
        elif isinstance(request, Alive):
            if self._paused:
                self._answer(Sync())
        else:
            self._answer(request)

    def _answer(self, request: ToKernel) -> None:
        """Of a run that is over, from the store again: what was read of it is not kept."""
        with self._lock:
            feed = self._feed or Feed(self._folder, self._control)
            self._send(feed.whole() if isinstance(request, Sync) else feed.answer(request))
            self._paused = False

    def _tell(self) -> None:
        """The thread, to the end of the run."""
        asked_s = began_s = time.monotonic()
        while self._feed is not None:
            time.sleep(_TICK_S)
            now = time.monotonic()
            silent_s = now - (self._heard_s or began_s)
            self._paused = self._paused or (_HEARS and silent_s > _NOBODY_S)
            with self._lock:
                if not self._heard_s and not self._paused and now - asked_s >= _UNHEARD_S:
                    asked_s = now
                    self._send(self._feed.whole())
                news = self._feed.news()
                if news and not self._paused:
                    self._send(news)
                if self._feed.over:
                    self._feed = None


def _hear_at_once(comm: Any) -> None:
    """ipykernel 7.4 serves a comm in the thread that last sent on it: the one that is busy with the cell.
    Left to the page's own choice, the Stop button is heard while the cell runs.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda data, default: default
