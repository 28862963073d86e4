"""Answers to `%workers status`, `stacks` and `doctor`: what is, without disturbing it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

from quarterdeck.coordinator.coordinator import Coordinator
from quarterdeck.coordinator.placement import BadRequest
from quarterdeck.coordinator.session import Session
from quarterdeck.coordinator.worker import Worker
from quarterdeck.present.words import size
from quarterdeck.protocol.kernel import Answer, Ask, RankStatus
from quarterdeck.store.paths import home
from quarterdeck.store.reader import folder_bytes

_ERROR_BYTES = 2000


async def answer(coordinator: Coordinator, request: Ask) -> Answer:
    if request.what == "ping":
        return Answer()
    if request.run_id:
        return await run_stacks(coordinator, request.run_id)
    session = coordinator.session(request.session)
    if request.what == "stacks":
        return await _stacks(_state_words(session), session.workers())
    return _doctor(coordinator, session) if request.what == "doctor" else _status(session)


def group_line(session: Session, started: bool) -> str:
    """ "2 workers started (gloo, cpu)." """
    assert session.group is not None
    n, placement = len(session.workers()), session.group.placement
    verb = "started" if started else "were running already"
    return f"{n} worker{'s' if n > 1 else ''} {verb} ({placement.backend}, {placement.device_type})."


def stopped_line(n: int, starting: bool) -> str:
    if n:
        return f"{n} worker{'s' if n > 1 else ''} stopped."
    return "The workers that were starting are ended." if starting else "There were no workers."


def _status(session: Session) -> Answer:
    if session.group is None:
        return Answer(text=_state_words(session), facts={"state": session.state})
    placement = session.group.placement
    return Answer(
        text=_state_words(session),
        ranks=[_rank_status(session, worker) for worker in session.workers()],
        facts={
            "state": session.state,
            "backend": placement.backend,
            "start method": placement.start_method,
            "groups so far": str(session.group.incarnation),
        },
    )


def _state_words(session: Session) -> str:
    if session.state == "none":
        return "No workers yet. They start by themselves with the first %%distributed cell."
    n = len(session.workers())
    words = {"busy": f"running {session.holder}"}.get(session.state, session.state)
    return f"{n} worker{'s' if n != 1 else ''}, {words}"


def _rank_status(session: Session, worker: Worker) -> RankStatus:
    memory = worker.agent.memory(worker.life)
    state = "dead" if not worker.alive else "running" if worker.running else "idle"
    return RankStatus(worker.rank, worker.pid, state, worker.place.device, len(worker.names), *memory)


async def run_stacks(coordinator: Coordinator, run_id: str) -> Answer:
    """Raises BadRequest for a run that is not on its way here."""
    workers = coordinator.workers_of(run_id)
    if workers is None:
        raise BadRequest(f"{run_id} is not on its way: it is over, or has not begun.")
    n = len(workers)
    return await _stacks(f"{run_id}: {n} rank{'s' if n != 1 else ''}", workers)


async def _stacks(text: str, workers: Sequence[Worker]) -> Answer:
    busy = [worker for worker in workers if worker.alive and worker.running]
    found = await asyncio.gather(*(worker.agent.stacks(worker.life) for worker in busy))
    stacks = {worker.rank: "" for worker in workers}
    stacks.update({worker.rank: process.stacks for worker, process in zip(busy, found, strict=True)})
    return Answer(text=text, stacks=stacks)


def _doctor(coordinator: Coordinator, session: Session) -> Answer:
    node = coordinator.launcher.agents[0].status(session.context)
    known = node.facts
    runs = home(session.context.environ, session.context.cwd)
    facts = {
        "python": f"{sys.version.split()[0]} ({sys.executable})",
        "torch": f"{node.torch_version}, imported in {node.import_s:.1f} s" if known else "being imported",
        "forked from": f"pid {node.zygote.pid}, {_zygote_words(node.imported)}",
        "background process": f"pid {os.getpid()}, no open port",
        "cores": str(known.cores if known else os.cpu_count()),
        "GPUs": str(known.gpus) if known else "not counted yet",
        "session": _state_words(session),
        "other sessions": ", ".join(sorted(coordinator.sessions.keys() - {session.name})) or "none",
        "runs on their way": ", ".join(sorted(run.run_id for run in coordinator.runs)) or "none",
        "run store": f"{runs} ({size(folder_bytes(runs))})",
    }
    errors = last_errors()
    if errors:
        facts["messages of quarterdeck's own processes"] = errors
    return Answer(text=_state_words(session), facts=facts)


def _zygote_words(level: str) -> str:
    return {"": "importing torch", "torch": "ready, still importing DDP and torch.compile's parts"}.get(
        level, "ready"
    )


def last_errors() -> str:
    """What the coordinator and the zygote wrote to their standard error, an unnamed file of the kernel's."""
    try:
        size = os.fstat(2).st_size
        return os.pread(2, _ERROR_BYTES, max(0, size - _ERROR_BYTES)).decode("utf-8", "replace").strip()
    except OSError:
        return ""
