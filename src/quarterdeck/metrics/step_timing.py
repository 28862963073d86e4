"""How long a rank's steps take, how long it waits in them for other ranks, and who is the slowest. Pure;
in the kernel, a few times a second, for the run view.

A collective ends when the last rank has come to it. By how much a rank was earlier is its lead, and what it
waits for, sooner or later. DDP starts several collectives before it waits for all of them: they have the same
lead, which is waited for once. So of a step's collectives only what a lead has grown by counts, beginning
with 0 at each step. Steps are those of `qd.log`, or the items of `qd.progress`.

This never says that a rank waited for longer than it did by more than its lead, but too little where one
waits several times in a step for the same rank. With NCCL a rank comes to a collective when its CPU does.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from quarterdeck.metrics.collectives import ArrivalReader
from quarterdeck.metrics.history import History
from quarterdeck.metrics.progress import read_progress
from quarterdeck.metrics.reader import Columns
from quarterdeck.store.layout import ARRIVALS

STEPS = 20
SLOWER = 1.15
"""A rank whose own work takes longer than that many times the others' median is marked."""
_POINTS = 2_048
_TAIL = 256
_EARLIER = 32
"""Collectives before a window that are looked at: another rank came to its first ones earlier."""
_APART_NS = 10_000_000
"""Points are no denser: a fast loop would fill what is kept with the time between two looks."""


class Pace(NamedTuple):
    """How one rank gets on; what is None is not known."""

    step: int | None = None
    """The last one."""
    step_ms: float | None = None
    """Mean over the last 20 steps or so, as far as waiting is known where it is."""
    wait_ms: float | None = None
    """The part of it that was spent waiting for other ranks."""
    slowest: bool = False
    """Its own work for a step, without waiting, takes 15 % longer than the others' median. One rank at most,
    and only if that is so over 20 steps.
    """


class Point(NamedTuple):
    step: int
    time_ns: int


class _Window(NamedTuple):
    first: Point
    last: Point

    @property
    def steps(self) -> int:
        return self.last.step - self.first.step

    @property
    def step_ms(self) -> float:
        return (self.last.time_ns - self.first.time_ns) / self.steps / 1e6


class Paces:
    """A run's. `refresh` reads what was written since, never raises OSError."""

    def __init__(self, history: History) -> None:
        self.steps_per_s: float | None = None
        """The pace of all ranks together, which do the same steps; None before the second one."""
        self._history = history
        self._folder = history.own.folder
        self._begin(0)

    def refresh(self, attempt: int) -> dict[int, Pace]:
        """By rank."""
        if attempt != self._attempt:
            self._begin(attempt)
        self._refresh_logged()
        self._refresh_loops()
        self._refresh_waits()
        return self._paces()

    def _begin(self, attempt: int) -> None:
        self._attempt = attempt
        self._logged: dict[int, _Logged] = {}
        self._loops: dict[int, _LoopSteps] = {}
        self._waits = _Waits()

    def _refresh_logged(self) -> None:
        self._history.refresh()
        for file in self._history.own.files:
            if file.attempt == self._attempt:
                self._logged.setdefault(file.rank, _Logged()).see(file.columns)

    def _refresh_waits(self) -> None:
        for attempt, rank, path in ARRIVALS.all_in(self._folder):
            if attempt == self._attempt:
                self._waits.add(rank, path)
        self._waits.refresh()

    def _refresh_loops(self) -> None:
        for rank, bars in read_progress(self._folder, self._attempt).items():
            inner = next((bar for bar in reversed(bars) if not bar.done), bars[-1])
            self._loops.setdefault(rank, _LoopSteps()).see(
                inner.started_unix_ns, inner.n, inner.updated_unix_ns
            )

    def _paces(self) -> dict[int, Pace]:
        points = self._points()
        windows = {rank: found for rank, known in points.items() if (found := _window(known))}
        self.steps_per_s = None
        if windows:
            self.steps_per_s = 1e3 / (sum(w.step_ms for w in windows.values()) / len(windows) or 1e-6)
        covered, waits = self._waits.of(points)
        windows |= covered
        slowest = _slowest(windows, waits)
        return {rank: self._pace(rank, known, windows, waits, slowest) for rank, known in points.items()}

    def _points(self) -> dict[int, Sequence[Point]]:
        """The same sort of steps for all ranks: the loops' only if none has logged two."""
        points = {rank: logged.points() for rank, logged in self._logged.items()}
        if all(len(known) < 2 for known in points.values()):
            points |= {rank: loop.points for rank, loop in self._loops.items()}
        ranks = {*self._logged, *self._loops, *self._waits.ranks}
        return {rank: points.get(rank, ()) for rank in sorted(ranks)}

    @staticmethod
    def _pace(
        rank: int,
        points: Sequence[Point],
        windows: dict[int, _Window],
        waits: dict[int, float],
        slowest: int | None,
    ) -> Pace:
        window = windows.get(rank)
        return Pace(
            step=points[-1].step if points else None,
            step_ms=window.step_ms if window else None,
            wait_ms=waits.get(rank) if window else None,
            slowest=rank == slowest,
        )


def _window(points: Sequence[Point], since_ns: int = 0, until_ns: int = 1 << 63) -> _Window | None:
    """The last steps that lie between these times: 20, or as few more as there are points for."""
    last = first = None
    for point in reversed(points):
        if last is None:
            last = point if point.time_ns <= until_ns else None
            continue
        before = first or last
        if point.step >= before.step or point.time_ns >= before.time_ns or point.time_ns < since_ns:
            break  # the steps began anew
        first = point
        if last.step - point.step >= STEPS:
            break
    return _Window(first, last) if first is not None and last is not None else None


def _slowest(windows: dict[int, _Window], waits: dict[int, float]) -> int | None:
    if len(waits) < 2 or any(windows[rank].steps < STEPS for rank in waits):
        return None
    own = {rank: windows[rank].step_ms - wait for rank, wait in waits.items()}
    rank = max(own, key=own.__getitem__)
    others = median(value for other, value in own.items() if other != rank)
    return rank if own[rank] > SLOWER * max(others, 0.0) else None


class _Logged:
    """The steps of a rank's metrics. Of several sorts of calls (losses every step, accuracy every epoch) the
    one that has had most steps of late counts.
    """

    def __init__(self) -> None:
        self._points: dict[Columns, deque[Point]] = {}
        self._seen: dict[Columns, int] = {}

    def see(self, columns: Sequence[Columns]) -> None:
        self._points = {column: self._points.get(column, deque(maxlen=_POINTS)) for column in columns}
        for column, points in self._points.items():
            new = slice(max(self._seen.get(column, 0), len(column.steps) - _TAIL), None)
            for step, ns in zip(column.steps[new].tolist(), column.times[new].tolist(), strict=True):
                if not points or points[-1].step != step:
                    _append(points, Point(step, ns))
        self._seen = {column: len(column.steps) for column in columns}

    def points(self) -> Sequence[Point]:
        known = self._points.values()
        since_ns = max((points[-1].time_ns for points in known if points), default=0) - 60_000_000_000
        return max(known, key=lambda points: sum(p.time_ns >= since_ns for p in _tail(points)), default=())


def _append(points: deque[Point], new: Point) -> None:
    """The newest is always there. Where the steps begin anew, all are."""
    if len(points) > 1:
        before, last = points[-2], points[-1]
        if last.time_ns - before.time_ns < _APART_NS and before.step < last.step < new.step:
            points.pop()
    points.append(new)


def _tail(points: deque[Point]) -> list[Point]:
    return [points[-place] for place in range(1, min(len(points), 4 * STEPS) + 1)]


class _LoopSteps:
    """How far a loop was at each look."""

    def __init__(self) -> None:
        self.points: deque[Point] = deque(maxlen=_POINTS)
        self._started_ns = 0

    def see(self, started_ns: int, n: int, updated_ns: int) -> None:
        if started_ns != self._started_ns:
            self._started_ns = started_ns
            self.points.clear()
            self.points.append(Point(0, started_ns))
        if n > self.points[-1].step:
            self.points.append(Point(n, updated_ns))


class _Waits:
    """All ranks' arrivals."""

    def __init__(self) -> None:
        self._readers: dict[int, ArrivalReader] = {}
        self._known_for: tuple[int, int] | None = None
        self._windows: dict[int, _Window] = {}
        self._waits: dict[int, float] = {}

    @property
    def ranks(self) -> list[int]:
        return list(self._readers)

    def add(self, rank: int, path: Path) -> None:
        if rank not in self._readers:
            self._readers[rank] = ArrivalReader(path)

    def refresh(self) -> None:
        for reader in self._readers.values():
            reader.refresh()

    def of(self, points: dict[int, Sequence[Point]]) -> tuple[dict[int, _Window], dict[int, float]]:
        """By rank: steps for which all ranks' arrivals are known, and their milliseconds of waiting. Nothing
        if that is not so of any rank. New only when the workers have looked anew.
        """
        readers = self._readers.values()
        if len(readers) < 2 or len(readers) < max(reader.world_size for reader in readers):
            return {}, {}
        known = max(r.since_ns for r in readers), min(r.until_ns for r in readers)
        if known != self._known_for or not self._waits:
            self._known_for = known
            self._windows = self._windows_between(points, *known)
            self._waits = self._per_step()
        return (self._windows, self._waits) if self._waits else ({}, {})

    def _windows_between(
        self, points: dict[int, Sequence[Point]], since_ns: int, until_ns: int
    ) -> dict[int, _Window]:
        """A rank that logs nothing does the steps of one that does."""
        found = {rank: _window(known, since_ns, until_ns) for rank, known in points.items()}
        other = next((window for window in found.values() if window), None)
        if other is None:
            return {}
        return {rank: found.get(rank) or other for rank in sorted(self._readers)}

    def _per_step(self) -> dict[int, float]:
        if not self._windows:
            return {}
        times = self._times(min(window.first.time_ns for window in self._windows.values()))
        last_ns = list(map(max, *times.values()))
        waits = {}
        for rank, window in self._windows.items():
            first, last = window.first.time_ns, window.last.time_ns
            leads = [m - t for m, t in zip(last_ns, times[rank], strict=True) if first < t <= last]
            if not leads:
                return {}
            waits[rank] = _waited_ns(leads, window.steps) / window.steps / 1e6
        return waits

    def _times(self, since_ns: int) -> dict[int, list[int]]:
        """When each rank came to the collectives that all have come to, in the order of the first rank's."""
        own: list[dict[int, int]] = []
        for reader in self._readers.values():
            arrivals = reader.arrivals
            start = max(0, bisect_left(arrivals.times_ns, since_ns) - _EARLIER)
            own.append(dict(zip(arrivals.keys[start:], arrivals.times_ns[start:], strict=True)))
        shared = set(own[0]).intersection(*own[1:])
        keys = [key for key in own[0] if key in shared]
        return {rank: [found[key] for key in keys] for rank, found in zip(self._readers, own, strict=True)}


def _waited_ns(leads: list[int], steps: int) -> int:
    """By what the leads have grown, from 0 at each step."""
    per_step = max(1, round(len(leads) / steps))
    total = before = 0
    for place, lead in enumerate(leads):
        if place % per_step == 0:
            before = 0
        if lead > before:
            total += lead - before
        before = lead
    return total
