"""A group of workers through its incarnations: start, re-join after a fault, replace the dead, stop. No
policy here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence

from quarterdeck.coordinator.exit_report import killed_outcome
from quarterdeck.coordinator.placement import Placement
from quarterdeck.coordinator.stuck import Tell, named, stuck_words, where
from quarterdeck.coordinator.worker import STOPPED, Worker, WorkerDied
from quarterdeck.present.failure import evidence, evidence_lines, sentence
from quarterdeck.protocol.agent import Agent
from quarterdeck.protocol.channel import Frame
from quarterdeck.protocol.parts import KernelContext
from quarterdeck.protocol.worker import Join, Joined, Output, Release

JOIN_TIMEOUT_S = 10.0
"""It takes some 20 ms. Who has not answered by then is killed and replaced, rather than all hanging."""
FIRST_JOIN_TIMEOUT_S = 60.0
"""For workers that have just started: GPUs wake up."""
FREE_LIMIT_S = 2.0
LEAVE_GRACE_S = 0.5
_RELEASE_EVERY_S = 0.05
_LEFT_ALONE = "was ended by quarterdeck, as another rank was lost while they started"


class GroupFailed(Exception):
    """The workers could not be started or could not find each other; the text says why."""


class WorkerGroup:
    """The workers of a session, or of one attempt of a run. `on_output` and `on_death` as for Worker."""

    def __init__(
        self,
        key: str,
        placement: Placement,
        agents: Sequence[Agent],
        context: KernelContext,
        on_output: Callable[[Output, bytes], None],
        on_death: Callable[[Worker], None],
        restart_count: int = 0,
        max_restarts: int = 0,
        tell: Tell = lambda _: None,
    ) -> None:
        """`agents`: of the nodes of the placement, on which the group is open under its key. The key also
        becomes TORCHELASTIC_RUN_ID. `tell`: what the reader hears of ranks that let the others wait.
        """
        self.placement = placement
        self.workers: list[Worker] = []
        self.incarnation = 0
        self.context = context
        self._key = key
        self._agents = agents
        self._restart_count = restart_count
        self._max_restarts = max_restarts
        self._on_output = on_output
        self._on_death = on_death
        self._tell = tell

    @property
    def lost(self) -> bool:
        """All its workers ended with the process that they are forked from: there is nothing to repair."""
        return any(worker.exited is not None and worker.exited.zygote_gone for worker in self.workers)

    async def start(self, join_timeout_s: float | None = None) -> None:
        """Fork all workers and let them join. Raises GroupFailed and ZygoteLost. May be cancelled;
        after that, as after an error of the join, `kill` has something to do.
        """
        ranks = range(self.placement.world_size)
        self.workers = [self._handle(rank) for rank in ranks]
        await self._start_all(self.workers)
        await self.join(ranks, join_timeout_s or FIRST_JOIN_TIMEOUT_S)

    async def join(self, fresh: Collection[int] = (), limit_s: float = JOIN_TIMEOUT_S) -> list[Joined]:
        """A new incarnation of all ranks; `fresh` ones have just started. The first that fails, or the time
        limit, ends it for all: raises GroupFailed, and no rank is left in it then.
        """
        self.incarnation += 1
        port = self._agents[0].listen()
        joins = {
            worker: asyncio.create_task(worker.join(self._join_of(worker, port, worker.rank in fresh)))
            for worker in self.workers
        }
        try:
            async with named(self._busy, "joined the others", self._tell):
                problem = await self._join_problem(joins, limit_s)
            if problem and len(fresh) < len(self.workers):  # of a start, the caller ends all
                await self._free(fresh)
        finally:
            self._agents[0].stop_listening(port)
            for join in joins.values():
                join.cancel()
        if problem:
            raise GroupFailed(problem)
        for worker in self.workers:
            worker.group = "auto"
        return [message for join in joins.values() if isinstance(message := join.result().message, Joined)]

    async def _join_problem(self, joins: dict[Worker, asyncio.Task[Frame]], limit_s: float) -> str:
        """Why not all can join, as soon as that is known; empty when they have."""
        pending = set(joins.values())
        deadline_s = time.monotonic() + limit_s
        while pending:
            left_s = deadline_s - time.monotonic()
            done, pending = await asyncio.wait(pending, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                return await stuck_words(self._busy(), f"joined the others within {limit_s:g} s")
            for worker, join in joins.items():
                if join in done and (problem := self._failure(worker, join)):
                    return problem
        return ""

    async def _free(self, fresh: Collection[int]) -> None:
        """Let those that wait for others come free; kill those that do not, and the new ones, which have
        nothing to lose. While the store's listener is open: who connects too late would try again for ever.
        """
        for worker in self._busy():
            if worker.rank in fresh:
                await worker.kill(_LEFT_ALONE)
        waited_s = 0.0
        while self._busy() and waited_s < FREE_LIMIT_S:
            for worker in self._busy():
                worker.tell(Release())
            await asyncio.sleep(_RELEASE_EVERY_S)
            waited_s += _RELEASE_EVERY_S
        for worker in self._busy():
            place = await where(worker)
            await worker.kill(f"did not join the others after a fault, so quarterdeck ended it ({place})")

    def _busy(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.alive and worker.running]

    async def replace_dead(self) -> list[int]:
        """Empty workers in the place of dead ones; returns their ranks. They still have to join."""
        dead = [worker.rank for worker in self.workers if not worker.alive]
        new = [self._handle(rank) for rank in dead]
        if not dead:
            return []
        await self._start_all(new)
        for worker in new:
            self.workers[worker.rank] = worker
        return dead

    async def stop(self, grace_s: float = LEAVE_GRACE_S) -> None:
        await asyncio.gather(*(worker.leave(grace_s) for worker in self.workers if worker.alive))

    async def kill(self, why: str = STOPPED) -> None:
        """`why` as of a worker."""
        await asyncio.gather(*(worker.kill(why) for worker in self.workers))

    def _handle(self, rank: int) -> Worker:
        place = self.placement.places[rank]
        return Worker(place, self._agents[place.node_rank], self._on_output, self._on_death)

    async def _start_all(self, workers: list[Worker]) -> None:
        """All of them, or none: all are ended when one does not come up, or nobody waits any more."""

        def late() -> list[Worker]:
            return [worker for worker in workers if not worker.started]

        starts = [asyncio.create_task(self._start_one(worker)) for worker in workers]
        try:
            async with named(late, "started", self._tell):
                await asyncio.gather(*starts)
        except BaseException:
            for start in starts:
                start.cancel()
            await asyncio.gather(*(worker.kill(_LEFT_ALONE) for worker in workers))
            raise

    async def _start_one(self, worker: Worker) -> None:
        try:
            await worker.start(self._key, spawn=self.placement.start_method == "spawn")
        except WorkerDied as death:
            raise GroupFailed(self._death(worker, death, "while it started")) from death

    def _death(self, worker: Worker, death: WorkerDied, when: str) -> str:
        outcome = killed_outcome(worker, death.exited, 0)
        return "\n".join([f"{sentence(outcome)}, {when}.", *evidence_lines(evidence(outcome))])

    def _join_of(self, worker: Worker, port: int, fresh: bool) -> Join:
        place, placement, context = worker.place, self.placement, self.context
        return Join(
            incarnation=self.incarnation,
            rank=place.rank,
            local_rank=place.local_rank,
            world_size=placement.world_size,
            local_world_size=placement.nproc_per_node,
            node_rank=place.node_rank,
            nnodes=len(placement.nodes),
            master_addr=self._agents[0].address,
            port=port,
            backend=placement.backend,
            run_id=self._key,
            restart_count=self._restart_count,
            max_restarts=self._max_restarts,
            threads=placement.threads(context.environ, place),
            environ=context.changes if fresh else {},
            cwd=context.cwd if fresh else "",
            sys_path=context.sys_path if fresh else [],
            device=place.device,
            fresh=fresh,
        )

    def _failure(self, worker: Worker, join: asyncio.Task[Frame]) -> str:
        try:
            message = join.result().message
        except WorkerDied as death:
            return self._death(worker, death, "while it joined the others")
        if not isinstance(message, Joined) or message.incarnation != self.incarnation:
            return f"rank {worker.rank} gave an answer that nobody had asked for."
        return f"rank {worker.rank} could not join the others: {message.error}" if message.error else ""
