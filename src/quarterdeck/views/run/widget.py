"""The live view of a run: an anywidget, and the thread that tells it what is new. Made by the magics' sink.

The browser's half asks (`views.run.messages`), in whatever thread the kernel serves its comms; the thread
sends what has changed, 20 times a second at most, while the run goes on and somebody looks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import traitlets

from quarterdeck.views.run.curve_stream import Sent
from quarterdeck.views.run.feed import Feed
from quarterdeck.views.run.messages import Alive, Stop, Sync, ToKernel, WantRuns
from quarterdeck.views.sink import Control
from quarterdeck.views.widget import NOBODY_S, LiveWidget, asked

_TICK_S = 0.05
_UNHEARD_S = 1.0
"""Between two whole pictures to a view that has not answered yet: many kernels and pages cannot be heard
while a cell runs. They become rarer with time."""
_UNHEARD_SHARE = 0.1


class RunView(LiveWidget):
    """The model of one run's views."""

    opens_output = traitlets.Bool(False).tag(sync=True)
    """The output tab is open at first."""

    def __init__(self, folder: Path, control: Control, opens_output: bool = False) -> None:
        super().__init__(opens_output=opens_output)
        self._link = _Link(folder, control, self._tell)

    def take(self, content: Any) -> None:
        self._link.take(content)

    def _tell(self, sent: Sequence[Sent]) -> None:
        for message, buffer in sent:
            self.tell(message, buffer)


class _Link:
    """Between one run and its views."""

    def __init__(self, folder: Path, control: Control, send: Callable[[Sequence[Sent]], None]) -> None:
        self._folder, self._control, self._send = folder, control, send
        self._feed: Feed | None = Feed(folder, control)
        self._heard_s = 0.0
        self._hears = False
        """Messages of the page come while a cell runs: then only silence means that nobody looks."""
        self._paused = False
        self._lock = threading.Lock()
        threading.Thread(target=self._tell, name="quarterdeck-view", daemon=True).start()

    def take(self, content: Any) -> None:
        request: ToKernel | None = asked(content, ToKernel)
        if request is None:
            return
        self._heard_s = time.monotonic()
        self._hears = self._hears or threading.current_thread() is not threading.main_thread()
        if isinstance(request, Stop):
            self._control.stop()
            return
        if self._paused or isinstance(request, Sync):
            self._answer(Sync())
        if not isinstance(request, (Sync, Alive)):
            self._answer(request)

    def _answer(self, request: ToKernel) -> None:
        feed = self._feed or _reopened(self._folder, self._control)
        if isinstance(request, WantRuns):  # reads many runs, meanwhile the news go on
            self._send(feed.answer(request))
            return
        with self._lock:
            self._send(feed.answer(request))
            self._paused = self._paused and not isinstance(request, Sync)

    def _tell(self) -> None:
        """The thread, to the end of the run."""
        whole_s = began_s = time.monotonic()
        while (feed := self._feed) is not None:
            time.sleep(_TICK_S)
            now = time.monotonic()
            self._paused = self._paused or (self._hears and now - self._heard_s > NOBODY_S)
            wait_s = max(_UNHEARD_S, _UNHEARD_SHARE * (now - began_s))
            unheard = not self._heard_s and now - whole_s >= wait_s
            whole_s = now if unheard else whole_s
            with suppress(Exception), self._lock:  # a page that cannot be reached ends nothing here
                if unheard:
                    self._send(feed.whole())
                news = feed.news()
                if news and not self._paused:
                    self._send(news)
            if feed.over:
                self._feed = None


@lru_cache(maxsize=1)
def _reopened(folder: Path, control: Control) -> Feed:
    """A run that is over, from the store again. Kept while no other is asked of: zooms come in rows."""
    feed = Feed(folder, control)
    feed.whole()
    return feed
