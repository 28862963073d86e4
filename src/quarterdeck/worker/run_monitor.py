"""What a worker keeps of the run that it works for, beside user code: it announces the run, writes the phases
of its start, looks once a second at when collectives began, and copies metrics into event files. Used by
`serve`; one thread per worker, which sleeps while there is no work.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from quarterdeck.context import Context
from quarterdeck.metrics import progress
from quarterdeck.metrics.collectives import ArrivalFile, recorded
from quarterdeck.metrics.first_step import second_step_unix_ns
from quarterdeck.metrics.spans import SpanFile
from quarterdeck.metrics.tensorboard import EventFiles
from quarterdeck.store.spans import Span
from quarterdeck.worker.interrupts import shield

LOOK_S = 1.0
_CHEAP_S = 0.01
_SHARE = 100
"""A look may take a hundredth of the time between two."""
_LONGEST_S = 16.0
_FRESH_NS = 10_000_000_000
"""Phases that ended earlier belong to no run: the session's workers had been idle."""
_SEEN = ("metrics-", "progress-")


class Watch:
    """One run on this rank. `look` and `finish` never raise; `announce` from any thread."""

    def __init__(
        self,
        context: Context,
        phases: list[Span],
        tell: Callable[[], None],
        tell_loaded: Callable[[int], None],
        tensorboard: str = "",
    ) -> None:
        self.context = context
        self._tell = tell
        self._tell_loaded = tell_loaded
        self._loaded: int | None = None
        self._pid = os.getpid()
        self._announced = self._finished = False
        self._started_ns = time.time_ns()
        self._phases = [p for p in phases if self._started_ns - (p.end_unix_ns or 0) < _FRESH_NS]
        self._wants_first_step = True
        self._lock = threading.RLock()
        self._arrivals: ArrivalFile | None = None
        self._events = EventFiles(context, tensorboard) if tensorboard else None

    def announce(self) -> None:
        """Tells the coordinator, once. A forked child must not touch the channel."""
        if self._announced or os.getpid() != self._pid:
            return
        with shield, self._lock:
            if self._announced:
                return
            self._announced = True
            self._tell()
            self._write_phases()

    def loaded(self, step: int) -> None:
        """Tells the coordinator, of the first one; -1 where the step is not known, which it may be later."""
        if os.getpid() != self._pid:
            return
        with shield, self._lock:
            if self._loaded is None or self._loaded < 0 <= step:
                self._loaded = step
                self._tell_loaded(step)

    def begin(self) -> None:
        """A run of its own is on record from the start."""
        if self._phases and self.context.run_dir.is_dir():
            self._write_phases()

    def look(self) -> float:
        """Seconds that it took to ask for the collectives: how often to look depends on it."""
        with self._lock, suppress(Exception):
            if self._finished:  # while the thread came here: nothing is opened any more
                return 0.0
            if self._events is not None:
                self._events.copy()
            if self._watched():
                self._first_step()
                return self._take_arrivals()
        return 0.0

    def finish(self, cheap: bool) -> None:
        """At the end of the work, on the main thread; `cheap` if a look takes no time worth naming."""
        progress.finish()  # not under the lock: a loop that is written first announces
        with self._lock:
            self._finished = True
            with suppress(Exception):
                self._last_look(cheap)
            self._close_arrivals()
            if self._events is not None:
                self._events.close()

    def _last_look(self, cheap: bool) -> None:
        if self._announced or (self._phases and self.context.run_dir.is_dir()):
            self._write_phases()
            self._first_step()
        if cheap and (self._arrivals is not None or self._announced):
            self._take_arrivals()

    def _watched(self) -> bool:
        """Some rank keeps metrics or progress: often it is rank 0 alone."""
        with suppress(OSError):
            return any(name.startswith(_SEEN) for name in os.listdir(self.context.run_dir))
        return False

    def _write_phases(self) -> None:
        phases, self._phases = self._phases, []
        if phases:
            with SpanFile(self.context) as file:
                for phase in phases:
                    file.write(phase)

    def _first_step(self) -> None:
        """From the first line of user code to the end of the second step: compilation, caches, the first
        batch of data.
        """
        if not self._wants_first_step:
            return
        end_ns = second_step_unix_ns(self.context)
        if end_ns is not None and end_ns > self._started_ns:
            self._wants_first_step = False
            with SpanFile(self.context) as file:
                file.write(Span("first step", self._started_ns, end_ns, 0))

    def _take_arrivals(self) -> float:
        if self.context.world_size < 2:
            return 0.0
        began_s = time.perf_counter()
        found = recorded()
        if found is None:
            return 0.0
        if self._arrivals is None:
            self._arrivals = ArrivalFile(self.context, self._started_ns)
        self._arrivals.take(found)
        return time.perf_counter() - began_s

    def _close_arrivals(self) -> None:
        if self._arrivals is not None:
            self._arrivals.close()
            self._arrivals = None


class Watcher:
    """The worker's thread that looks. `watching` around each piece of work."""

    def __init__(self) -> None:
        self._working = threading.Event()
        self._watch: Watch | None = None
        self._period_s = LOOK_S
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, watch: Watch) -> Iterator[None]:
        self._start()
        self._watch = watch
        self._working.set()
        try:
            watch.begin()
            yield
        finally:
            self._working.clear()
            self._watch = None
            if os.getpid() == watch._pid:
                watch.finish(cheap=self._period_s == LOOK_S)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="quarterdeck-watch", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while self._working.wait():
            # At the same moment on all ranks: the recorder holds the last 512 collectives, and what is
            # compared must be in all of their copies.
            time.sleep(self._period_s - time.time() % self._period_s)
            watch: Any = self._watch
            if watch is None:
                continue
            took_s = watch.look()
            while took_s > _CHEAP_S and took_s * _SHARE > self._period_s and self._period_s < _LONGEST_S:
                self._period_s *= 2
            if took_s <= _CHEAP_S:
                self._period_s = LOOK_S
