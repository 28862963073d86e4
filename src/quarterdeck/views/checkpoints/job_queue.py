"""Work that views ask for, one piece after another in a thread that is there only while there is some. Used
by `widget`, in the kernel.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

Work = Callable[[Callable[[], bool]], None]
"""Is given a function that says whether to go on."""
_MOST_WAITING = 16


class JobQueue:
    """`newest_only`: what is asked for ends what was asked for before."""

    def __init__(self, name: str, newest_only: bool) -> None:
        self._name = name
        self._newest_only = newest_only
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, Work]] = deque(maxlen=1 if newest_only else _MOST_WAITING)
        self._asked = 0
        self._running = False

    def put(self, work: Work) -> None:
        with self._lock:
            self._asked += 1
            self._waiting.append((self._asked, work))
            if self._running:
                return
            self._running = True
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running = False
                    return
                number, work = self._waiting.popleft()
            work(lambda number=number: not self._newest_only or number == self._asked)  # type: ignore[misc]
