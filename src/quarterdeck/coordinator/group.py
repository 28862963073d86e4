"""A group of workers through its incarnations: start, re-join after a fault, replace the dead, stop. No
policy here.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection

from quarterdeck.coordinator.devices import Plan, threads_per_worker
from quarterdeck.coordinator.worker import Worker, WorkerDied
from quarterdeck.coordinator.zygote import Zygote
from quarterdeck.protocol.channel import Frame
from quarterdeck.protocol.messages import Join, Joined, KernelContext, Output, Release

JOIN_TIMEOUT_S = 10.0
"""It takes some 20 ms. Who has not answered by then is killed and replaced, rather than all hanging."""
FIRST_JOIN_TIMEOUT_S = 60.0
"""Of workers that have just started: GPUs wake up."""
FREE_LIMIT_S = 2.0
LEAVE_GRACE_S = 0.5


class GroupFailed(Exception):
    """The workers could not be started or could not find each other; the text says why."""


class WorkerGroup:
    """The workers of a session, or of one attempt of a run. `on_output` and `on_death` as for Worker."""

    def __init__(
        self,
        plan: Plan,
        zygote: Zygote,
        context: KernelContext,
        run_id: str,
        on_output: Callable[[Output, bytes], None],
        on_death: Callable[[Worker], None],
        restart_count: int = 0,
        max_restarts: int = 0,
    ) -> None:
        self.plan = plan
        self.workers: list[Worker] = []
        self.incarnation = 0
        self.context = context
        self._zygote = zygote
        self._run_id = run_id
        self._restart_count = restart_count
        self._max_restarts = max_restarts
        self._on_output = on_output
        self._on_death = on_death

    async def start(self, join_timeout_s: float | None = None) -> None:
        """Fork all workers and let them join. Raises GroupFailed and ZygoteLost. May be cancelled;
        after that, as after an error of the join, `kill` has something to do.
        """
        ranks = range(self.plan.nproc_per_node)
        self.workers = [self._handle(rank) for rank in ranks]
        await self._start_all(self.workers)
        await self.join(ranks, join_timeout_s or FIRST_JOIN_TIMEOUT_S)

    async def join(self, fresh: Collection[int] = (), limit_s: float = JOIN_TIMEOUT_S) -> list[Joined]:
        """A new incarnation of all ranks; `fresh` ones have just started. Raises GroupFailed."""
        self.incarnation += 1
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            joins = [
                asyncio.wait_for(self._join_one(worker, listener, worker.rank in fresh), limit_s)
                for worker in self.workers
            ]
            answers = await asyncio.gather(*joins, return_exceptions=True)
        joined = [a.message for a in answers if isinstance(a, Frame) and isinstance(a.message, Joined)]
        failures = [self._failure(w, a) for w, a in zip(self.workers, answers, strict=True)]
        if any(failures):
            raise GroupFailed("; ".join(text for text in failures if text))
        for worker in self.workers:
            worker.group = "auto"
        return joined

    async def free_stuck(self) -> None:
        """After a join that failed: let those that waited for others come free, kill those that do not."""
        for worker in self._stuck():
            worker.tell(Release())
        waited_s = 0.0
        while self._stuck() and waited_s < FREE_LIMIT_S:
            await asyncio.sleep(0.05)
            waited_s += 0.05
        for worker in self._stuck():
            await worker.kill()

    def _stuck(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.alive and worker.running]

    async def replace_dead(self) -> list[int]:
        """Empty workers in the place of dead ones; returns their ranks. They still have to join."""
        dead = [worker.rank for worker in self.workers if not worker.alive]
        new = [self._handle(rank) for rank in dead]
        await self._start_all(new)
        for worker in new:
            self.workers[worker.rank] = worker
        return dead

    async def stop(self, grace_s: float = LEAVE_GRACE_S) -> None:
        await asyncio.gather(*(worker.leave(grace_s) for worker in self.workers if worker.alive))

    async def kill(self) -> None:
        await asyncio.gather(*(worker.kill() for worker in self.workers))

    def _handle(self, rank: int) -> Worker:
        worker = Worker(rank, self._zygote, self._on_output, self._on_death)
        worker.device = self.plan.devices[rank]
        return worker

    async def _start_all(self, workers: list[Worker]) -> None:
        """All of them, or none: those that came up are ended when one does not."""
        results = await asyncio.gather(*map(self._start_one, workers), return_exceptions=True)
        for problem in results:
            if isinstance(problem, BaseException):
                await asyncio.gather(*(worker.kill() for worker in workers))
                raise problem

    async def _start_one(self, worker: Worker) -> None:
        try:
            await worker.start(spawn=self.plan.start_method == "spawn")
        except WorkerDied as death:
            last = " ".join(worker.last_lines)
            raise GroupFailed(f"rank {worker.rank} ended while it started. {last or death}") from death

    async def _join_one(self, worker: Worker, listener: socket.socket, fresh: bool) -> Frame:
        n = self.plan.nproc_per_node
        join = Join(
            incarnation=self.incarnation,
            rank=worker.rank,
            local_rank=worker.rank,
            world_size=n,
            port=listener.getsockname()[1],
            backend=self.plan.backend,
            run_id=self._run_id,
            restart_count=self._restart_count,
            max_restarts=self._max_restarts,
            threads=threads_per_worker(self.context.environ, n),
            environ=self.context.environ if fresh else {},
            cwd=self.context.cwd if fresh else "",
            sys_path=self.context.sys_path if fresh else [],
            device=worker.device,
            fresh=fresh,
        )
        return await worker.ask(join, [listener.fileno()] if worker.rank == 0 else [])

    def _failure(self, worker: Worker, answer: Frame | BaseException) -> str:
        if isinstance(answer, Frame):
            message = answer.message
            if not isinstance(message, Joined) or message.incarnation != self.incarnation:
                return f"rank {worker.rank} answered out of turn"
            return f"rank {worker.rank}: {message.error}" if message.error else ""
        if isinstance(answer, TimeoutError):
            return f"rank {worker.rank} did not join the process group in time"
        return f"rank {worker.rank}: {answer}"
