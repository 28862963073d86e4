"""A closed run: a function or a cell in a group of its own, from submission to its last line in the store.

    Accepted -> (Notice) -> Begun -> outputs -> one Outcome per rank, with its value -> Finished

The group is forked for it and gone after it, attempt by attempt. Whatever happens ends in a terminal state in
the run store and in a last message for the kernel: Finished, or Refused where no rank ever ran a line of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from quarterdeck.agent.exit_report import OomCounter
from quarterdeck.agent.group import GroupFailed, WorkerGroup
from quarterdeck.agent.placement import BadRequest, plan
from quarterdeck.agent.stuck import named
from quarterdeck.agent.vitals import sampled
from quarterdeck.agent.worker import Worker
from quarterdeck.agent.zygote import ZygoteLost
from quarterdeck.coordinator.group_launcher import Launcher
from quarterdeck.coordinator.output_throttle import OutputThrottle
from quarterdeck.coordinator.record import KERNEL_ENDED, RunRecord
from quarterdeck.coordinator.restarts import Restarts
from quarterdeck.coordinator.resumption import Resumption
from quarterdeck.coordinator.run import CellRun, Reason
from quarterdeck.coordinator.setup_cells import SETUP_DONE, SetupCell, SetupCells, failure_words
from quarterdeck.protocol.async_channel import AsyncChannel
from quarterdeck.protocol.channel import close_fds, encode
from quarterdeck.protocol.messages import (
    Accepted,
    Begun,
    CallFunction,
    Finished,
    Notice,
    Outcome,
    Output,
    Payload,
    Refused,
    RunCell,
    RunPlace,
    Submit,
)
from quarterdeck.store.owner import RunOwner

SETUP_TIMEOUT_S = 120.0
"""For each of the session's set-up cells, which run first in the new group."""


class SetupFailed(Exception):
    """A set-up cell did not succeed in the new group; the text says on which rank and how."""


class Stopped(Exception):
    """It was stopped where no rank runs a line of it."""


class IsolatedRun:
    """`execute` once; `stop` at any time, from the same loop."""

    def __init__(
        self,
        launcher: Launcher,
        channel: AsyncChannel,
        submit: Submit,
        setup_cells: SetupCells,
        keeper: RunOwner | None = None,
    ) -> None:
        """`keeper`: of a detached run, this process with its socket."""
        self.title = submit.title
        self.detached = keeper is not None
        self._launcher = launcher
        self._group: WorkerGroup | None = None
        self._channel = channel
        self._submit = submit
        self._setup_cells = setup_cells
        self._outlet = OutputThrottle(channel)
        self._record = RunRecord(
            submit.context,
            submit.title,
            submit.work,
            submit.source,
            submit.arguments,
            parent=submit.parent.run_id,
            parent_folder=submit.parent.folder,
            resumed_from=submit.parent.resume,
            max_restarts=submit.max_restarts if submit.restart != "never" else 0,
            keeper=keeper,
        )
        self._restarts = Restarts(submit, channel.send)
        self._resumption = Resumption(submit.parent.resume, self._tell)
        self._oom = OomCounter()
        self._run: CellRun | None = None
        self._starting: asyncio.Task[WorkerGroup] | None = None
        self._stopped: Reason | None = None
        self._attempt = 0
        self._began_s = time.monotonic()

    @property
    def run_id(self) -> str:
        return self._record.run_id

    @property
    def folder(self) -> Path:
        return self._record.folder

    @property
    def attempt(self) -> int:
        return self._attempt

    def open(self) -> None:
        """Put it on record, where it has its final id and folder."""
        self._record.open()

    def refuse_impossible(self) -> None:
        """Raise BadRequest before anything is on record, where the GPUs have been counted already."""
        gpus = self._launcher.zygote_pool.gpus(self._submit.context)
        if gpus is not None and not self._launcher.zygote_pool.outdated(self._submit.context):
            plan(self._submit.spec, gpus)

    def stop(self, reason: Reason = "interrupt") -> None:
        """End it, in whatever state it is; no attempt follows."""
        self._stopped = self._stopped or reason
        if self._run is not None:
            self._run.stop(reason)
        elif self._starting is not None and not self._starting.cancelling():  # twice would cut its end short
            self._starting.cancel()

    async def execute(self, fds: Sequence[int]) -> None:
        self._setup_cells = self._setup_cells.copy()  # from here on its own
        self._record.open()
        self._channel.send(Accepted(run_id=self.run_id, folder=str(self._record.folder)))
        limit_s = self._submit.work.timeout_s
        timer = asyncio.get_running_loop().call_later(limit_s, self.stop, "timeout") if limit_s else None
        try:
            await self._attempts(fds)
        except (BadRequest, GroupFailed, ZygoteLost, SetupFailed, Stopped) as problem:
            self._end_without_run(problem)
        except Exception as bug:  # ours; its call tells the kernel
            self._record.state("failed", self._attempt, f"quarterdeck itself failed: {bug}")
            raise
        finally:
            if timer is not None:
                timer.cancel()
            self._resumption.leave()
            self._setup_cells.clear()
            self._record.close()

    # ---- attempts

    async def _attempts(self, fds: Sequence[int]) -> None:
        while True:
            self._record.state("restarting" if self._attempt else "starting", self._attempt)
            group = self._group = await self._start_group()
            answers: list[tuple[Outcome, list[int]]] = []
            again = False
            try:
                finished = await self._one_attempt(group, fds, answers)
                again = self._again(finished)
                if not again:
                    await self._end(finished, answers)
                    return
            finally:
                for _, value_fds in answers:
                    close_fds(value_fds)
                self._launcher.ended(self.run_id)
                await (group.kill() if self._stopped or again else group.stop())
                self._group = None
            self._attempt += 1

    async def _start_group(self) -> WorkerGroup:
        if self._stopped:  # between two attempts
            raise Stopped
        self._starting = asyncio.get_running_loop().create_task(self._launch())
        try:
            return await self._starting
        except asyncio.CancelledError:
            raise Stopped from None
        finally:
            self._starting = None

    async def _launch(self) -> WorkerGroup:
        began_s = time.monotonic()
        submit = self._submit
        group, notices = await self._launcher.launch(
            self.run_id,
            self.title,
            submit.spec,
            submit.context,
            self._on_output,
            lambda _: None,
            self._attempt,
            self._restarts.most,
            self._tell,
        )
        for text in notices:
            self._tell(text)
        self._record.group(group.plan, self._attempt)
        begun = Begun(
            attempt=self._attempt,
            world_size=len(group.workers),
            backend=group.plan.backend,
            device_type=group.plan.device_type,
            took_s=time.monotonic() - began_s,
        )
        self._channel.send(begun)
        return group

    async def _one_attempt(
        self, group: WorkerGroup, fds: Sequence[int], answers: list[tuple[Outcome, list[int]]]
    ) -> Finished:
        for setup in self._setup_cells:
            await self._set_up(group, setup)
        self._record.state("running", self._attempt)
        self._restarts.begun(self._attempt)

        def keep(outcome: Outcome, value_fds: list[int]) -> None:
            answers.append((outcome, value_fds))

        with sampled(self._record, group.workers, self._submit.context.environ):
            return await self._execute(group.workers, encode(self._placed()), fds, None, keep)

    async def _set_up(self, group: WorkerGroup, setup: SetupCell) -> None:
        """Raises SetupFailed."""
        workers = setup.where(group.workers)
        async with named(self._busy, SETUP_DONE, self._tell):
            words = failure_words(await self._execute(workers, setup.raw, setup.fds, SETUP_TIMEOUT_S))
        if self._stopped:
            raise Stopped
        if words:
            raise SetupFailed(f"A --setup cell of the session failed on {words}")

    def _busy(self) -> list[Worker]:
        return self._run.running() if self._run is not None else []

    async def _execute(
        self,
        workers: Sequence[Worker],
        raw: bytes,
        fds: Sequence[int],
        timeout_s: float | None = None,
        keep: Callable[[Outcome, list[int]], None] | None = None,
    ) -> Finished:
        if self._stopped:
            raise Stopped
        self._run = CellRun(workers, timeout_s, self._oom, self._tell, keep, self._record.saving)
        try:
            return await self._run.execute(raw, fds)
        finally:
            self._run = None

    def _placed(self) -> RunCell | CallFunction:
        """The work, with the run and the attempt that it belongs to."""
        record = self._record
        work, parent = self._submit.work, self._submit.parent
        place = RunPlace(
            run_id=record.run_id,
            name=work.name or self.title,
            folder=str(record.folder),
            attempt=self._attempt,
            closed=True,
            parent=parent.folder,
            resume=parent.resume,
        )
        return msgspec.structs.replace(work, place=place)

    def _again(self, finished: Finished) -> bool:
        """Whether another attempt follows; then this one's outcomes are on record."""
        if self._stopped or not self._restarts.again(finished, self._attempt):
            return False
        self._record.outcomes(finished.outcomes, self._attempt)
        return True

    # ---- the end

    async def _end(self, finished: Finished, answers: list[tuple[Outcome, list[int]]]) -> None:
        """Values and outcomes to the store and to the kernel, then the last word to both."""
        self._outlet.finish()
        for outcome, value_fds in answers:
            self._channel.send(outcome, value_fds)
        await self._record.results(answers, self._attempt)
        await self._record.tidy_up()
        finished.outcomes = [msgspec.structs.replace(o, value=Payload()) for o in finished.outcomes]
        finished.duration_s = time.monotonic() - self._began_s
        finished.log_dir = str(self._record.folder) if self._record.has_logs else ""
        self._record.outcomes(finished.outcomes, self._attempt)
        self._record.end(finished, self._attempt, self._kernel_gone())
        self._tell_left_out()
        if finished.root_cause is None and not finished.stopped:
            self._resumption.succeeded()
        self._channel.send(finished)

    def _end_without_run(self, problem: BaseException) -> None:
        """Nothing of it ran: it was stopped before, or could not start."""
        self._outlet.finish()
        if isinstance(problem, Stopped):
            stopped: Literal["timeout", "interrupt"] = (
                "timeout" if self._stopped == "timeout" else "interrupt"
            )
            finished = Finished(outcomes=[], root_cause=None, stopped=stopped)
            finished.duration_s = time.monotonic() - self._began_s
            self._record.end(finished, self._attempt, self._kernel_gone())
            self._channel.send(finished)
            return
        text = str(problem)
        if self._kernel_gone():
            self._record.state("stopped", self._attempt, KERNEL_ENDED)
        self._record.state("failed", self._attempt, text)
        self._channel.send(Refused(text=text))

    def _tell(self, text: str) -> None:
        self._channel.send(Notice(text=text, level="warning"))

    def _tell_left_out(self) -> None:
        if self._outlet.left_out:
            left_out, folder = self._outlet.left_out, self._record.folder
            self._channel.send(
                Notice(text=f"{left_out:,} characters came too fast to be shown: they are in {folder}.")
            )
        if self._record.notice:
            self._tell(self._record.notice)

    def _on_output(self, output: Output, raw: bytes) -> None:
        if output.kind == "loaded":
            self._resumption.loaded()
            self._record.loaded(output.rank, output.step, self._attempt)
            return
        if output.kind == "logged":
            self._resumption.began()
        self._record.write(output)
        self._outlet.show(output, raw)

    def _kernel_gone(self) -> bool:
        """Its end closes the channel and the guard pipe, in any order. Of no matter to a detached run."""
        gone = self._channel.closed or self._launcher.zygote_pool.kernel_gone()
        return gone and not self.detached

    async def kernel_ended(self) -> None:
        """The coordinator is about to end, with its kernel: the last line in the store says so."""
        self._record.state("stopped", self._attempt, KERNEL_ENDED)
        self._stopped = self._stopped or "interrupt"  # no attempt follows
        if self._group is not None:
            await self._group.kill("ended with its kernel")
