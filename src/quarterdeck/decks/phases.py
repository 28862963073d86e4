"""What each rank of a run did, and when: the run's events and the spans of its ranks as phases on one axis.
Read in the kernel, at any time, also while the files grow.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from quarterdeck.store.format import (
    TERMINAL,
    Event,
    GroupEvent,
    OutcomeEvent,
    StateEvent,
    decode_event,
    read_header,
)
from quarterdeck.store.layout import EVENTS, SPANS
from quarterdeck.store.records import LINES, RecordReader, TooLong
from quarterdeck.store.spans import Span, spans_in

START_UP, FIRST_STEP, RUNNING = "start-up", "first step", "running"
MOST = 100_000
"""Phases of a run."""


@dataclass(frozen=True)
class Phase:
    rank: int
    name: str
    start_unix_ns: int
    end_unix_ns: int
    depth: int = 0
    open: bool = False
    """It has not ended, or nobody saw its end."""


@dataclass
class Phases:
    """The phases of all attempts."""

    phases: list[Phase] = field(default_factory=list)
    """By rank, and for each as they are drawn."""
    attempts: dict[int, int] = field(default_factory=dict)
    """When each attempt but the first began."""
    ranks: list[int] = field(default_factory=list)
    start_unix_ns: int = 0
    end_unix_ns: int = 0
    live: bool = False
    cut: bool = False
    """There are more than `MOST`: those of later attempts are left out."""


@dataclass
class _Attempt:
    begun: int = 0
    running: int = 0
    world_size: int = 0
    ends: dict[int, int] = field(default_factory=dict)
    """When each rank ended."""


def read_phases(folder: Path) -> Phases:
    """Never raises OSError."""
    attempts, ended = _attempts(folder)
    now = ended or time.time_ns()
    found = Phases(live=not ended, end_unix_ns=now)
    files: dict[int, dict[int, Path]] = {}
    for number, rank, path in SPANS.all_in(folder):
        files.setdefault(number, {})[rank] = path
    stops = _stops(attempts, now)
    for number, attempt in sorted(attempts.items()):
        own = files.get(number, {})
        for rank in sorted({*range(attempt.world_size), *own}):
            if len(found.phases) >= MOST:
                found.cut = True
                break
            spans = spans_in(own[rank])[:MOST] if rank in own else []
            found.phases += _phases(rank, attempt, spans, attempt.ends.get(rank, stops[number]))
    found.phases = list(_since(_created(folder), found.phases))
    found.attempts = {n: one.begun for n, one in attempts.items() if n and one.begun}
    found.ranks = sorted({phase.rank for phase in found.phases})
    found.phases.sort(key=_order)
    found.start_unix_ns = min((phase.start_unix_ns for phase in found.phases), default=now)
    return found


def _stops(attempts: dict[int, _Attempt], now: int) -> dict[int, int]:
    """When each attempt ends at the latest: at the beginning of a later one."""
    found, stop = {}, now
    for number, attempt in sorted(attempts.items(), reverse=True):
        found[number] = stop
        stop = min(stop, attempt.begun or stop)
    return found


def _order(phase: Phase) -> tuple[int, int, bool, int]:
    """As they are drawn, one upon the other: the first step lies within the user's first span, mostly."""
    return phase.rank, phase.depth, phase.name == FIRST_STEP, phase.start_unix_ns


def _since(limit: int, phases: list[Phase]) -> Iterator[Phase]:
    """The workers of a session may have started hours before their cell."""
    for phase in phases:
        if phase.start_unix_ns >= limit:
            yield phase
        elif phase.end_unix_ns > limit:
            yield replace(phase, start_unix_ns=limit)


def _created(folder: Path) -> int:
    try:
        return read_header(folder).created_unix_ns
    except (OSError, ValueError):
        return 0


def _attempts(folder: Path) -> tuple[dict[int, _Attempt], int]:
    """And when the run ended; 0 if it goes on."""
    attempts: dict[int, _Attempt] = {}
    for event in events(folder):
        attempt = attempts.setdefault(event.attempt, _Attempt())
        match event:
            case StateEvent(state=state) if state in TERMINAL:
                return attempts, event.time_unix_ns
            case StateEvent(state="running"):
                attempt.running = attempt.running or event.time_unix_ns
            case StateEvent(state="starting" | "restarting"):
                attempt.begun = attempt.begun or event.time_unix_ns
            case GroupEvent():
                attempt.world_size = event.world_size
            case OutcomeEvent():
                attempt.ends[event.outcome.rank] = event.outcome.time_unix_ns or event.time_unix_ns
    return attempts, 0


def events(folder: Path) -> Iterator[Event]:
    with suppress(OSError, TooLong):
        for line in RecordReader(folder, EVENTS, LINES).new(with_rest=True):
            if (event := decode_event(line)) is not None:
                yield event


def _phases(rank: int, attempt: _Attempt, spans: list[Span], end: int) -> list[Phase]:
    """The spans, on the ground of what the run's events tell."""
    found = []
    if attempt.begun and not any(span.name == START_UP for span in spans):
        found.append(Phase(rank, START_UP, attempt.begun, max(attempt.begun, attempt.running or end)))
    if attempt.running and end > attempt.running:
        found.append(Phase(rank, RUNNING, attempt.running, end, -1, open=rank not in attempt.ends))
    for span in spans:
        stop = end if span.end_unix_ns is None else span.end_unix_ns
        ended, depth = max(span.start_unix_ns, stop), max(0, span.depth)
        found.append(Phase(rank, span.name, span.start_unix_ns, ended, depth, span.end_unix_ns is None))
    return found
