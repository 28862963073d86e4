"""What went wrong in a run, in words: a sentence for its head, an entry for each fault.
Used by `snapshot`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from quarterdeck.present import ansi, words
from quarterdeck.present.failure import alike, evidence, failed, verb
from quarterdeck.protocol.worker import Outcome
from quarterdeck.store.reader import StoredRun
from quarterdeck.views.run.messages import Fault

_TITLE_CHARS = 300
Relation = Literal["root", "also", "earlier"]


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
        groups = alike(failed(run.outcomes(attempt)))
        if groups:
            found.append(_fault(groups[0], run, attempt, "earlier"))
    return found


def _of_last_attempt(run: StoredRun) -> list[Fault]:
    last = run.last
    groups = alike(failed(run.outcomes(), root_of(run)))
    has_failed = run.terminal and last is not None and last.state in ("failed", "lost")
    if has_failed and root_of(run) is None:
        return [_without_rank(run), *(_fault(group, run, run.attempt, "also") for group in groups)]
    return [_fault(group, run, run.attempt, "also" if at else "root") for at, group in enumerate(groups)]


def _without_rank(run: StoredRun) -> Fault:
    """It failed, and not by a rank: its time was over, its background process is gone."""
    assert run.last is not None
    reason = run.reason or f"The run is {run.state}"
    return Fault(
        title=reason[0].upper() + reason[1:],
        code="",
        detail=_detail(run.last.time_unix_ns, run.attempt),
        ranks=[],
        root=True,
        traceback="",
        evidence=[],
    )


def _fault(group: Sequence[Outcome], run: StoredRun, attempt: int, what: Relation) -> Fault:
    first = group[0]
    return Fault(
        title=_title(group, run.world_size, what),
        code=first.ename if first.state == "error" else "",
        detail=_detail(first.time_unix_ns, attempt),
        ranks=sorted(outcome.rank for outcome in group),
        root=what == "root",
        traceback=ansi.strip("\n".join(first.traceback)),
        evidence=[one for outcome in group for one in evidence(outcome)],
    )


def _title(group: Sequence[Outcome], world_size: int, what: Relation) -> str:
    """ "ValueError on rank 1: Expected input batch_size (21) ...", "Also: rank 2 was killed by SIGKILL"."""
    first, where = group[0], words.ranks_in_words([outcome.rank for outcome in group], world_size)
    if first.state == "error" and first.ename:
        title = f"{first.ename} on {where}" + (f": {first.summary}" if first.summary else "")
    else:
        title = f"{where} {verb(first)}"
        title = title[:1].upper() + title[1:] if what == "root" else title
    return words.one_line({"root": "", "also": "Also: ", "earlier": "Earlier: "}[what] + title, _TITLE_CHARS)


def _cause(run: StoredRun) -> str:
    """ "rank 1 raised ValueError"; "" if no rank is the cause."""
    root = root_of(run)
    if root is None or run.finished().stopped:
        return ""
    group = next((g for g in alike(failed(run.outcomes(), root)) if root in g), [root])
    where = words.ranks_in_words([outcome.rank for outcome in group], run.world_size)
    if root.state == "error" and root.ename:
        return f"{where} raised {root.ename}"
    return f"{where} {verb(root)}"


def _detail(time_unix_ns: int, attempt: int) -> str:
    """ "14:26:37, attempt 2"."""
    parts = [datetime.fromtimestamp(time_unix_ns / 1e9).strftime("%H:%M:%S")] if time_unix_ns else []
    return ", ".join([*parts, *([f"attempt {attempt + 1}"] if attempt else [])])
