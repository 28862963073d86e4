"""What went wrong in a run, in words: a sentence for its head, an entry for each fault. Used by `state`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from quarterdeck.present import ansi, words
from quarterdeck.present.failure import failure
from quarterdeck.protocol.messages import Finished, Outcome
from quarterdeck.store.reader import StoredRun
from quarterdeck.views.run.messages import Fault

_FAILED = ("error", "killed")
_TITLE_CHARS = 300


def sentence(run: StoredRun, step: int | None) -> str:
    """How it ended; "" while it goes on. `step`: where the run was."""
    at = "" if step is None else f" at step {words.number(step)}"
    last = run.last
    if last is None or not run.terminal:
        return ""
    if run.state == "succeeded":
        return f"succeeded in {words.seconds(run.duration_s)}"
    if run.state == "stopped" and last.stopped:
        return f"stopped by you{at}"
    cause = _cause(run) or run.reason
    return f"{run.state}{at}" + (f": {cause}" if cause else "")


def root_of(run: StoredRun) -> Outcome | None:
    """The rank that failed first, as the run's last event names it."""
    last = run.last
    if last is None or last.root_cause is None:
        return None
    return next((outcome for outcome in run.outcomes() if outcome.rank == last.root_cause), None)


def faults(run: StoredRun) -> list[Fault]:
    """The root cause first, then what followed from it, then the failures of earlier attempts."""
    found = _of_last_attempt(run)
    for attempt in reversed([attempt for attempt in run.attempts if attempt < run.attempt]):
        groups = _groups(_failed(run.outcomes(attempt)))
        if groups:
            found.append(_fault(groups[0], run, attempt, root=False, earlier=True))
    return found


def _of_last_attempt(run: StoredRun) -> list[Fault]:
    last = run.last
    groups = _groups(_failed(run.outcomes(), root_of(run)))
    found = [_fault(group, run, run.attempt, root=number == 0) for number, group in enumerate(groups)]
    if not run.terminal or last is None or last.state not in ("failed", "lost"):
        return found
    if root_of(run) is None:
        found.insert(0, _without_rank(run))
        found[1:] = [_follows(fault) for fault in found[1:]]
    return found


def _without_rank(run: StoredRun) -> Fault:
    """It failed, and not by a rank: its time was over, its coordinator vanished."""
    assert run.last is not None
    reason = run.reason or f"The run is {run.state}"
    return Fault(
        title=reason[0].upper() + reason[1:],
        detail=_detail(run.last.time_unix_ns, run.attempt),
        ranks=[],
        attempt=run.attempt,
        root=True,
        traceback="",
        evidence=[],
    )


def _follows(fault: Fault) -> Fault:
    fault.root = False
    return fault


def _fault(
    group: Sequence[Outcome], run: StoredRun, attempt: int, root: bool, earlier: bool = False
) -> Fault:
    first, ranks = group[0], sorted(outcome.rank for outcome in group)
    title = _title(group, run.world_size)
    return Fault(
        title=f"Earlier: {title}" if earlier else title,
        detail=_detail(first.time_unix_ns, attempt),
        ranks=ranks,
        attempt=attempt,
        root=root,
        traceback=ansi.strip("\n".join(first.traceback)),
        evidence=[line for outcome in group for line in outcome.evidence],
    )


def _title(group: Sequence[Outcome], world_size: int) -> str:
    """ "ValueError on rank 1: Expected input batch_size (21) ..."; "Rank 2 was killed by SIGKILL ..."."""
    first = group[0]
    if first.state == "error" and first.ename:
        what = first.summary
        where = words.ranks_in_words([outcome.rank for outcome in group], world_size)
        title = f"{first.ename} on {where}" + (f": {what}" if what else "")
    else:
        title = _headline(group, world_size)
        title = title[:1].upper() + title[1:]
    return title if len(title) <= _TITLE_CHARS else title[: _TITLE_CHARS - 1] + "…"


def _headline(group: Sequence[Outcome], world_size: int) -> str:
    """As the exception of the cell says it: "rank 2 was killed by SIGKILL, most likely by the OOM killer"."""
    error = failure(Finished(outcomes=list(group), root_cause=group[0].rank), world_size=world_size)
    return str(error or "")


def _cause(run: StoredRun) -> str:
    """ "rank 1 raised ValueError"; "" if no rank is the cause."""
    root = root_of(run)
    if root is None or run.finished().stopped:
        return ""
    group = next((g for g in _groups(_failed(run.outcomes(), root)) if root in g), [root])
    if root.state == "error" and root.ename:
        where = words.ranks_in_words([outcome.rank for outcome in group], run.world_size)
        return f"{where} raised {root.ename}"
    return _headline(group, run.world_size)


def _failed(outcomes: Iterable[Outcome], root: Outcome | None = None) -> list[Outcome]:
    """The root cause first, then by time; what another rank's end caused comes last. What quarterdeck ended
    has not failed.
    """
    failed = [outcome for outcome in outcomes if outcome.state in _FAILED and not outcome.by_quarterdeck]
    return sorted(failed, key=lambda one: (one is not root, one.secondary, one.time_unix_ns, one.rank))


def _groups(failed: Iterable[Outcome]) -> list[list[Outcome]]:
    """Ranks that failed alike together."""
    groups: dict[tuple[object, ...], list[Outcome]] = {}
    for outcome in failed:
        alike = (outcome.state, outcome.ename, outcome.evalue, ansi.strip("\n".join(outcome.traceback)))
        alone = (outcome.rank,) if outcome.state == "killed" else ()
        groups.setdefault((*alike, *alone), []).append(outcome)
    return list(groups.values())


def _detail(time_unix_ns: int, attempt: int) -> str:
    """ "14:26:37, attempt 2"."""
    parts = [datetime.fromtimestamp(time_unix_ns / 1e9).strftime("%H:%M:%S")] if time_unix_ns else []
    return ", ".join([*parts, *([f"attempt {attempt + 1}"] if attempt else [])])
