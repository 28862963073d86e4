"""The session: one kept group of workers, one cell at a time on all its ranks, and what happens after a
fault.

A turn is the right to act on the session. Turns are given in the order they were asked for; starting the
group, repairing it and replaying set-up cells happen inside a turn, so nothing ever meets a half-made group.
A stop or restart waits for none: what goes on is ended for it. Workers that are starting have nothing to
lose, so who waits for them may end that as well.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial

from quarterdeck.coordinator.group import GroupFailed, WorkerGroup
from quarterdeck.coordinator.group_launcher import Launcher
from quarterdeck.coordinator.notices import of_death, of_imports, of_join, refuse_another
from quarterdeck.coordinator.placement import BadRequest, Placement, as_before
from quarterdeck.coordinator.queue import TurnQueue
from quarterdeck.coordinator.record import KERNEL_ENDED, RunRecord
from quarterdeck.coordinator.report import KernelGone
from quarterdeck.coordinator.run import CellRun
from quarterdeck.coordinator.setup_cells import SETUP_DONE, SetupCells, failure_words
from quarterdeck.coordinator.starting import StartCancelled, Starting
from quarterdeck.coordinator.stuck import named
from quarterdeck.coordinator.vitals import sampled
from quarterdeck.coordinator.worker import STOPPED, Worker
from quarterdeck.protocol.agent import ZygoteLost
from quarterdeck.protocol.blob import Blob
from quarterdeck.protocol.kernel import Finished
from quarterdeck.protocol.parts import GroupSpec, KernelContext
from quarterdeck.protocol.worker import Outcome, Output, RunCell

REPAIR = "repair"
"""Who has the turn when nobody called."""
SETUP_TIMEOUT_S = 30.0
"""For a set-up cell on a replaced rank; one that waits for the other ranks would never end."""


class Session:
    """One per name. Methods that change it are called inside `turn`, `interrupt` and the questions at any
    time.
    """

    def __init__(
        self, name: str, context: KernelContext, launcher: Launcher, kernel_gone: KernelGone | None
    ) -> None:
        self.name = name
        self.context = context
        self.launcher = launcher
        self.kernel_gone = kernel_gone
        self.group: WorkerGroup | None = None
        self.run: CellRun | None = None
        self.record: RunRecord | None = None
        """The record of the cell that runs."""
        self.state = "none"
        self.sink: Callable[[Output, bytes], None] = lambda _output, _raw: None
        self._key = ""
        self.queue = TurnQueue()
        self.starting = Starting()
        self.copying: Sequence[Worker] = ()
        """Whose ends the present call reports itself."""
        self._notices: list[str] = []
        self.setup_cells = SetupCells()
        self._before: Placement | None = None
        """The placement of a group that was lost or is being restarted: the next one is made like it."""
        self._stopping = False
        self._background: set[asyncio.Task[None]] = set()

    @property
    def label(self) -> str:
        return "the session" if self.name == "default" else f"session {self.name}"

    # ---- turns

    @property
    def busy(self) -> bool:
        return self.queue.busy

    @property
    def holder(self) -> str:
        """Title of the call that has the turn."""
        return self.queue.holder

    def turn(self, title: str) -> AbstractAsyncContextManager[None]:
        return self.queue.turn(title)

    def ending(self, title: str) -> AbstractAsyncContextManager[None]:
        """The turn for a stop or restart: what goes on is ended for it."""
        return self.queue.at_once(title, partial(self._cut, title))

    async def _cut(self, title: str) -> None:
        if self.run is not None:
            self.run.cut()
        self.starting.cancel()
        if self.group is not None and (self.run is not None or any(w.running for w in self.workers())):
            await self._kill(self.group, f"was ended by `{title}`")

    def take_notices(self) -> list[str]:
        notices, self._notices = self._notices, []
        return notices

    # ---- the group

    async def ensure(self, spec: GroupSpec) -> bool:
        """A group as `spec` wants it; whether it was started just now. Raises BadRequest or GroupFailed."""
        if self.group is not None:
            if spec.backend is not None:
                self.refuse_impossible(spec)
            refuse_another(self.name, self.group, spec)
            return False
        await self._start(spec)
        return True

    async def prepare(self, spec: GroupSpec) -> bool:
        """As `ensure`, with all ranks alive. Also raises StartCancelled."""
        started = await self.ensure(spec)
        if any(not worker.alive for worker in self.workers()):
            await self.mend()
            started = await self.ensure(spec)
        if any(not worker.alive for worker in self.workers()):
            raise StartCancelled
        return started

    def refuse_impossible(self, spec: GroupSpec) -> None:
        """Raise BadRequest for a group that this machine cannot have, while the present one still lives."""
        self.launcher.refuse_impossible(spec, self.context)

    async def _start(self, spec: GroupSpec) -> None:
        if self._before is not None:
            spec = as_before(spec, self._before)
        self.state = "starting"
        self._key = uuid.uuid4().hex[:8]
        try:
            self.group, notices = await self.starting.of(
                self.launcher.launch(
                    self._key,
                    self.label,
                    spec,
                    self.context,
                    self._on_output,
                    self._on_death,
                    tell=self.starting.tell,
                )
            )
            self._notices += notices
            self._before = None
            await self._replay_setup(self.workers())
        finally:
            self.state = "idle" if self.group is not None else "none"

    def workers(self) -> list[Worker]:
        return self.group.workers if self.group is not None else []

    def select(self, ranks: Sequence[int] | None) -> list[Worker]:
        """The workers of these ranks, all for None. Raises BadRequest."""
        workers = self.workers()
        missing = [rank for rank in ranks or () if rank >= len(workers)]
        if missing:
            last = len(workers) - 1
            have = f"ranks 0-{last}" if last else "rank 0 only"
            raise BadRequest(f"There is no rank {missing[0]}: the session has {have}.")
        return [worker for worker in workers if ranks is None or worker.rank in ranks]

    async def stop(self, forget: bool = True) -> None:
        """End the group, and forget its set-up cells with it unless another follows. Called inside a turn."""
        self._stopping = True
        try:
            if self.group is not None:
                await self.group.stop()
        finally:
            self._stopping = False
            self._gone()
            self.state = "none"
            if forget:
                self.setup_cells.clear()
                self._before = None

    # ---- cells

    async def run_cell(
        self, run: CellRun, cell: RunCell, raw: bytes, blob: Blob | None
    ) -> tuple[Finished, bool]:
        """Run it; the second value says whether `mend` has something to do."""
        self.state, self.run = "busy", run
        try:
            asked = [worker for worker in self.workers() if run.waits_for(worker)]
            with sampled(self.record, asked):
                finished = await run.execute(raw, blob)
        finally:
            self.run = None
            self.state = "idle"
        self._notices += of_imports(finished.outcomes)
        if cell.setup and finished.root_cause is None and not finished.stopped:
            ranks = frozenset(outcome.rank for outcome in finished.outcomes)
            self.setup_cells.keep(cell, blob, None if len(ranks) == len(self.workers()) else ranks)
        if self.group is not None and self.group.lost:
            finished.group_lost = True
            self._gone()
        return finished, run.disturbed or self._needs_mending(finished.outcomes)

    def new_run(self, workers: Sequence[Worker], cell: RunCell, tell: Callable[[str], None]) -> CellRun:
        saving = self.record.saving if self.record is not None else lambda: False
        return CellRun(workers, cell.timeout_s, tell, saving=saving)

    def _needs_mending(self, outcomes: Sequence[Outcome]) -> bool:
        owners = {worker.group for worker in self.workers()}
        dead = any(not worker.alive for worker in self.workers())
        return dead or any(o.state != "ok" for o in outcomes) or len(owners) != 1 or "none" in owners

    async def mend(self) -> None:
        """A new incarnation of all ranks; empty workers for the dead, with the set-up cells. In a turn."""
        if self.group is None:
            return
        self.state = "repairing"
        try:
            for attempt in range(3):
                if self.queue.ending or await self._mend_once(last=attempt == 2):
                    break
        except StartCancelled:  # the next turn finds ranks that are dead, and mends
            pass
        finally:
            self.state = "idle" if self.group is not None else "none"

    async def _mend_once(self, last: bool) -> bool:
        assert self.group is not None
        group = self.group
        try:
            replaced = await self.starting.of(group.replace_dead())
            joined = await group.join(fresh=replaced)
        except (GroupFailed, ZygoteLost) as failure:
            if self.queue.ending or not (last or isinstance(failure, ZygoteLost)):
                return False
            await self._give_up(failure)
            return True
        self._notices += of_join(joined)
        if replaced:
            await self._replay_setup([worker for worker in self.workers() if worker.rank in replaced])
        return True

    async def _give_up(self, failure: Exception) -> None:
        if isinstance(failure, ZygoteLost):
            why = f"{failure} The workers ended with it"
        else:
            why = f"The workers could not be brought together again: {str(failure).removesuffix('.')}"
        self._notices.append(
            f"{why}; all of them and their variables are lost. The next cell starts new ones."
        )
        if self.group is not None:
            await self._kill(self.group)
        self._gone()

    def _gone(self) -> None:
        if self.group is not None:
            self._before = self.group.placement
        self.group = None
        self.launcher.ended(self._key)

    async def _kill(self, group: WorkerGroup, why: str = STOPPED) -> None:
        """Deaths that nobody needs to be told of."""
        self._stopping = True
        try:
            await group.kill(why)
        finally:
            self._stopping = False

    async def _replay_setup(self, workers: Sequence[Worker]) -> None:
        """On workers that have nothing yet: replaced ones, or all of a new group."""
        for setup in self.setup_cells:
            targets = setup.where(workers)
            run = self.run = CellRun(targets, SETUP_TIMEOUT_S, lambda _: None)
            try:
                async with named(run.running, SETUP_DONE, self.starting.tell):
                    words = failure_words(await run.execute(setup.raw, setup.blob)) if targets else ""
            finally:
                self.run = None
            if words:
                alone = " It runs on new ranks alone, so it must not wait for others." * (
                    len(workers) < len(self.workers())
                )
                self._notices.append(f"A --setup cell failed when it ran again ({words}).{alone}")
            if run.disturbed and self.group is not None:
                await self._join_again()

    async def _join_again(self) -> None:
        assert self.group is not None
        try:
            await self.group.join()
        except GroupFailed as failure:
            await self._give_up(failure)

    # ---- events

    def _on_output(self, output: Output, raw: bytes) -> None:
        self.sink(output, raw)

    def _on_death(self, worker: Worker) -> None:
        """For a worker that no running cell waits for: otherwise that cell's outcome tells."""
        followed = worker in self.copying or (self.run is not None and self.run.waits_for(worker))
        if self._stopping or followed or worker not in self.workers():
            return
        assert worker.exited is not None
        if worker.exited.pid and (worker.names or not worker.ended_by):
            # without a pid it died with the zygote, and there is nothing to replace it from
            self._notices.append(of_death(worker))
        if self.state != "idle":
            return  # what goes on now mends it at its end
        task = asyncio.get_running_loop().create_task(self._mend_idle())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _mend_idle(self) -> None:
        async with self.turn(REPAIR):
            if any(not worker.alive for worker in self.workers()):
                await self.mend()

    async def close(self) -> None:
        """The kernel is gone, or says goodbye: everything ends."""
        self._stopping = True
        if self.record is not None and self.record.opened:
            self.record.state("stopped", 0, KERNEL_ENDED)
        if self.group is not None:
            await self.group.kill("ended with its kernel")
