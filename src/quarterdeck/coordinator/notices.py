"""What the reader is told of a session's group: of deaths, repairs, and of a group that is not the one asked
for.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import combinations

from quarterdeck.coordinator.exit_report import killed_outcome
from quarterdeck.coordinator.group import WorkerGroup
from quarterdeck.coordinator.placement import BadRequest, nproc
from quarterdeck.coordinator.worker import Worker
from quarterdeck.protocol.parts import GroupSpec
from quarterdeck.protocol.worker import Joined, Outcome


def refuse_another(session: str, group: WorkerGroup, spec: GroupSpec) -> None:
    """Raise BadRequest, with what to write instead, if `spec` asks for another group than this."""
    has = group.placement
    for option, asked, is_now in (
        ("-n", nproc(spec, has.nodes), has.nproc_per_node),
        ("--start-method", spec.start_method, has.start_method),
        ("--backend", spec.backend, has.backend),
    ):
        if asked is not None and str(asked) != str(is_now) and str(asked) not in str(is_now).split(":"):
            raise BadRequest(_another(session, group.workers, option, str(asked), str(is_now)))


def _another(session: str, workers: Sequence[Worker], option: str, asked: str, has: str) -> str:
    names = sorted({name for worker in workers for name in worker.names})
    lost = ""
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        lost = f", which loses their variables ({', '.join(names[:5])}{more})"
    named = "" if session == "default" else f" --session {session}"
    return (
        f"The session's workers run with `{option} {has}`, this asks for {asked}. Leave `{option}` out "
        f"to use them, or start anew with `%workers restart{named} {option} {asked}`{lost}."
    )


def of_death(worker: Worker, when: str = "while it ran no cell") -> str:
    """A sentence."""
    assert worker.exited is not None
    outcome = killed_outcome(worker, worker.exited, time.time_ns())
    lost = f"; it has lost {', '.join(outcome.lost)}" if outcome.lost else ""
    when = f", {when}," if not worker.ended_by else ","
    return f"rank {worker.rank} {outcome.evalue}{when} and was replaced{lost}."


def of_join(joined: Sequence[Joined]) -> list[str]:
    """What a repair could not put right."""
    not_revived = sorted({text for answer in joined for text in answer.not_revived})
    notices = [f"Not usable after the fault: {text}." for text in not_revived]
    if _differ([set(answer.checksums) for answer in joined]):
        notices.append(
            "The weights of a DistributedDataParallel module differ between ranks: they stopped on "
            "different sides of an optimizer step. Load a checkpoint, or send rank 0's weights: "
            "`for p in model.parameters(): dist.broadcast(p.data, 0)`."
        )
    return notices


def _differ(modules: Sequence[set[str]]) -> bool:
    """Whether some rank has a module in another state than another. One that has a module more does not
    count: what nobody uses any more is there until the collector comes, or a function held that has failed.
    """
    return any(one - other and other - one for one, other in combinations(modules, 2))


def of_imports(outcomes: Sequence[Outcome]) -> list[str]:
    """What the next cell is told after an interrupt that did not wait."""
    return [
        f"rank {one.rank} was stopped in the middle of `import {module}`, which may fail from now on. "
        "`%workers restart` cures it, and loses the variables."
        for one in outcomes
        for module in dict.fromkeys(one.cut_imports)
    ]
