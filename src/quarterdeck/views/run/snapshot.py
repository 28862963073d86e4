"""All that is small about a run, as one `State`. Used by `feed`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from quarterdeck.decks.reader import Head
from quarterdeck.metrics.progress import Bar
from quarterdeck.metrics.records import NotFinite
from quarterdeck.metrics.step_timing import Pace
from quarterdeck.protocol.agent import Vitals
from quarterdeck.protocol.worker import Outcome
from quarterdeck.store.reader import StoredRun
from quarterdeck.views.run import faults
from quarterdeck.views.run.messages import DeckHead, Progress, Rank, RankState, RunHead, State
from quarterdeck.views.run.progress import progress
from quarterdeck.views.run.runs_html import called
from quarterdeck.views.sink import Control

_NOTES = 20
_RANK_STATES: dict[str, RankState] = {
    "ok": "succeeded",
    "error": "failed",
    "interrupted": "interrupted",
    "released": "released",
    "killed": "killed",
}
_WITHOUT_OUTCOME: dict[str, RankState] = {
    "queued": "starting",
    "starting": "starting",
    "running": "running",
    "restarting": "starting",
    "succeeded": "succeeded",
    "failed": "stopped",
    "stopped": "stopped",
    "lost": "lost",
}


@dataclass
class RunFacts:
    """What the files of a run tell, beside `StoredRun`; by rank, of the present attempt."""

    vitals: Mapping[int, Vitals] = field(default_factory=dict)
    paces: Mapping[int, Pace] = field(default_factory=dict)
    steps_per_s: float | None = None
    bars: Mapping[int, list[Bar]] = field(default_factory=dict)
    decks: list[Head] = field(default_factory=list)
    last_steps: Mapping[int, int] = field(default_factory=dict)
    """Logged last, in any attempt."""
    not_finite: Mapping[tuple[str, int], NotFinite] = field(default_factory=dict)


def state(
    folder: Path,
    run: StoredRun | None,
    facts: RunFacts,
    control: Control,
    last_line: Callable[[int], str],
) -> State:
    """As it is now. `run`: None while nobody has put it on record."""
    over = run is not None and run.terminal
    return State(
        run=_head(folder, run, facts, control),
        steps_per_s=None if over else facts.steps_per_s,
        progress=None if over else _progress(facts),
        ranks=_ranks(run, facts, last_line),
        faults=faults.faults(run) if run is not None else [],
        decks=[
            DeckHead(head.name, head.automatic, list(head.ranks), head.version, head.size_bytes)
            for head in facts.decks
        ],
        notes=notes(facts.not_finite),
    )


def _head(folder: Path, run: StoredRun | None, facts: RunFacts, control: Control) -> RunHead:
    now_ms = time.time() * 1000
    if run is None:
        return RunHead(
            run_id=folder.name, name="", state="starting", words="", attempt=0, attempts=1, world_size=0,
            backend="", resumed="", started_ms=None, ended_ms=None, now_ms=now_ms, can_stop=control.can_stop,
            stopping=control.stopping,
        )  # fmt: skip
    return RunHead(
        run_id=run.run_id,
        name=called(run.header),
        state=run.state,
        words=faults.sentence(run, _step(run, facts)),
        attempt=run.attempt,
        attempts=max(run.attempt, run.header.max_restarts) + 1,
        world_size=run.world_size,
        backend=run.backend,
        resumed=_resumed(run, facts),
        started_ms=_ms(run.started_unix_ns),
        ended_ms=_ms(run.ended_unix_ns),
        now_ms=now_ms,
        can_stop=control.can_stop and not run.terminal,
        stopping="" if run.terminal else control.stopping,
    )


def _resumed(run: StoredRun, facts: RunFacts) -> str:
    if run.resumed or not run.header.resumed_from:
        return run.resumed
    return "has loaded nothing yet" if _step(run, facts) is not None else ""


def _ms(time_unix_ns: int) -> float | None:
    return time_unix_ns / 1e6 if time_unix_ns else None


def _step(run: StoredRun, facts: RunFacts) -> int | None:
    """The step of the rank that failed first; else of the one that is farthest."""
    root = faults.root_of(run)
    if root is not None and (step := _step_of(root.rank, facts)) is not None:
        return step
    return max((s for rank in facts.last_steps if (s := _step_of(rank, facts)) is not None), default=None)


def _step_of(rank: int, facts: RunFacts) -> int | None:
    pace = facts.paces.get(rank)
    if pace is not None and pace.step is not None:
        return pace.step
    return facts.last_steps.get(rank)


def _progress(facts: RunFacts) -> Progress | None:
    return progress(facts.bars, time.time_ns())


# ---- ranks


def _ranks(run: StoredRun | None, facts: RunFacts, last_line: Callable[[int], str]) -> list[Rank]:
    size = run.world_size if run is not None else 0
    outcomes = {outcome.rank: outcome for outcome in run.outcomes()} if run is not None else {}
    seen = {*facts.vitals, *facts.paces, *facts.last_steps}
    over = run is not None and run.state == "succeeded" and outcomes
    found = seen if over else set(range(size)) or seen  # once it is over: those that took part
    return [
        _rank(rank, run, facts, outcomes.get(rank), last_line(rank)) for rank in sorted(found | set(outcomes))
    ]


def _rank(rank: int, run: StoredRun | None, facts: RunFacts, outcome: Outcome | None, line: str) -> Rank:
    pace = facts.paces.get(rank)
    vitals = facts.vitals.get(rank)
    going = outcome is None and (run is None or not run.terminal)
    devices = run.devices if run is not None else []
    return Rank(
        rank=rank,
        state=_rank_state(run, outcome),
        step=_step_of(rank, facts),
        step_ms=pace.step_ms if pace else None,
        wait_ms=pace.wait_ms if pace else None,
        slowest=bool(pace and pace.slowest and going),
        device=devices[rank] if rank < len(devices) else "",
        cpu_percent=vitals.cpu_percent if vitals and going else None,
        gpu_percent=vitals.gpu_percent if vitals and going else None,
        memory_bytes=vitals.memory_bytes if vitals else None,
        memory_limit_bytes=vitals.memory_limit_bytes if vitals else None,
        gpu_memory_bytes=vitals.gpu_memory_bytes if vitals else None,
        gpu_memory_limit_bytes=vitals.gpu_memory_limit_bytes if vitals else None,
        last_line=line,
    )


def _rank_state(run: StoredRun | None, outcome: Outcome | None) -> RankState:
    if outcome is not None:
        return "stopped" if outcome.by_quarterdeck else _RANK_STATES[outcome.state]
    return "running" if run is None else _WITHOUT_OUTCOME[run.state]


# ---- notes


def notes(not_finite: Mapping[tuple[str, int], NotFinite]) -> list[str]:
    """One for each metric: "loss: nan since step 812 on rank 1". What lasts comes before what is over, and
    what began first before what followed.
    """
    order = sorted(not_finite.items(), key=lambda item: (not item[1].lasts, item[1].step, item[0]))
    found: dict[str, str] = {}
    for (name, rank), what in order:
        when = "since" if what.lasts else "at"
        found.setdefault(name, f"{name}: {what.value} {when} step {what.step:,} on rank {rank}")
    return list(found.values())[:_NOTES]
