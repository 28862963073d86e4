"""The checkpoint browser: an anywidget, a thread that looks once a second for what is new while somebody
looks at it, and threads for what takes a while. Made by the magics' sink.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import traitlets

from quarterdeck.views.checkpoints.actions import Namespace
from quarterdeck.views.checkpoints.feed import CheckpointsFeed, is_work
from quarterdeck.views.checkpoints.job_queue import JobQueue
from quarterdeck.views.checkpoints.location import Location
from quarterdeck.views.checkpoints.messages import Alive, Compare, ToBrowser, ToKernel, WantStatistics
from quarterdeck.views.widget import NOBODY_S, LiveWidget, asked

_TICK_S = 1.0


class CheckpointBrowser(LiveWidget):
    """The model of one browser's views."""

    view = traitlets.Unicode("checkpoints").tag(sync=True)
    """Which of the bundle's views this is."""

    def __init__(self, scope: Location, namespace: Namespace) -> None:
        super().__init__()
        self._feed = CheckpointsFeed(scope, namespace)
        self._looking = JobQueue("quarterdeck-look", newest_only=True)
        self._doing = JobQueue("quarterdeck-do", newest_only=False)
        self._heard_s = 0.0
        self._lock = threading.Lock()
        self._following = False

    def take(self, content: Any) -> None:
        request: ToKernel | None = asked(content, ToKernel)
        if request is None:
            return
        self._heard_s = time.monotonic()
        if is_work(request):
            lane = self._looking if isinstance(request, WantStatistics | Compare) else self._doing
            lane.put(lambda go_on: self._tell(self._feed.work(request, go_on)))
        elif not isinstance(request, Alive):
            self._tell(self._feed.answer(request))
        self._follow()

    def _tell(self, messages: Iterable[ToBrowser]) -> None:
        for message in messages:
            self.tell(message)

    def _follow(self) -> None:
        with self._lock:
            if self._following:
                return
            self._following = True
        threading.Thread(target=self._poll, name="quarterdeck-shelf", daemon=True).start()

    def _poll(self) -> None:
        """The thread, as long as somebody looks."""
        self._feed.sweep()
        while True:
            with suppress(Exception):  # a page that cannot be reached ends nothing here
                self._tell(self._feed.news())
            time.sleep(_TICK_S)
            with self._lock:
                if self.comm is None or time.monotonic() - self._heard_s > NOBODY_S:
                    self._following = False
                    return
