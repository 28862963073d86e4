"""A closed run: a function or a cell in a group of its own, from submission to its last line in the store.

    Accepted -> (Notice) -> Begun -> outputs -> one Outcome per rank, with its value -> Finished

The group is forked for it and gone after it, attempt by attempt. Whatever happens ends in a terminal state in
the run store and in a last message for the kernel: Finished, or Refused where no rank ever ran a line of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from quarterdeck.coordinator.group import GroupFailed, WorkerGroup
from quarterdeck.coordinator.group_launcher import Launcher
from quarterdeck.coordinator.placement import BadRequest
from quarterdeck.coordinator.record import KERNEL_ENDED, Answer, RunRecord
from quarterdeck.coordinator.report import KernelGone, RunReport
from quarterdeck.coordinator.restarts import Restarts
from quarterdeck.coordinator.resumption import Resumption
from quarterdeck.coordinator.run import CellRun, Reason
from quarterdeck.coordinator.setup_cells import SETUP_DONE, SetupCell, SetupCells, failure_words
from quarterdeck.coordinator.starting import StartCancelled, Starting
from quarterdeck.coordinator.stuck import named
from quarterdeck.coordinator.vitals import sampled
from quarterdeck.coordinator.worker import Worker
from quarterdeck.protocol.agent import ZygoteLost
from quarterdeck.protocol.async_channel import AsyncChannel
from quarterdeck.protocol.blob import Blob
from quarterdeck.protocol.channel import encode
from quarterdeck.protocol.kernel import Begun, Finished, Refused, Submit
from quarterdeck.protocol.parts import Payload, RunPlace
from quarterdeck.protocol.worker import CallFunction, Output, RunCell
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
        kernel_gone: KernelGone | None,
        keeper: RunOwner | None = None,
    ) -> None:
        """`keeper`: of a detached run, this process with its socket; it has no `kernel_gone`."""
        self.title = submit.title
        self.detached = keeper is not None
        self._launcher = launcher
        self._group: WorkerGroup | None = None
        self._channel = channel
        self._submit = submit
        self._setup_cells = setup_cells
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
        self._report = RunReport(self._record, channel, kernel_gone)
        self._restarts = Restarts(submit, channel.send)
        self._resumption = Resumption(submit.parent.resume, self._report.tell)
        self._run: CellRun | None = None
        self._starting = Starting()
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

    def workers(self) -> list[Worker]:
        """Those of the present attempt; none while they start."""
        return list(self._group.workers) if self._group is not None else []

    def open(self) -> None:
        """Put it on record, where it has its final id and folder."""
        self._record.open()

    def refuse_impossible(self) -> None:
        """Raise BadRequest before anything is on record, where the GPUs have been counted already."""
        self._launcher.refuse_impossible(self._submit.spec, self._submit.context)

    def stop(self, reason: Reason = "interrupt") -> None:
        """End it, in whatever state it is; no attempt follows."""
        self._stopped = self._stopped or reason
        if self._run is not None:
            self._run.stop(reason)
        else:
            self._starting.cancel()

    async def execute(self, blob: Blob | None) -> None:
        self._setup_cells = self._setup_cells.copy()  # from here on its own
        self._record.open()
        self._report.accept()
        limit_s = self._submit.work.timeout_s
        timer = asyncio.get_running_loop().call_later(limit_s, self.stop, "timeout") if limit_s else None
        try:
            await self._attempts(blob)
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

    async def _attempts(self, blob: Blob | None) -> None:
        while True:
            self._record.state("restarting" if self._attempt else "starting", self._attempt)
            group = self._group = await self._start_group()
            answers: list[Answer] = []
            again = False
            try:
                finished = await self._one_attempt(group, blob, answers)
                again = self._again(finished)
                if not again:
                    await self._end(finished, answers)
                    return
            finally:
                self._launcher.ended(self.run_id)
                await (group.kill() if self._stopped or again else group.stop())
                self._group = None
            self._attempt += 1

    async def _start_group(self) -> WorkerGroup:
        if self._stopped:  # between two attempts
            raise Stopped
        try:
            return await self._starting.of(self._launch())
        except StartCancelled:
            raise Stopped from None

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
            self._report.tell,
        )
        for text in notices:
            self._report.tell(text)
        self._record.group(group.placement, self._attempt)
        begun = Begun(
            attempt=self._attempt,
            world_size=len(group.workers),
            backend=group.placement.backend,
            device_type=group.placement.device_type,
            took_s=time.monotonic() - began_s,
        )
        self._channel.send(begun)
        return group

    async def _one_attempt(self, group: WorkerGroup, blob: Blob | None, answers: list[Answer]) -> Finished:
        for setup in self._setup_cells:
            await self._set_up(group, setup)
        self._record.state("running", self._attempt)
        self._restarts.begun(self._attempt)

        with sampled(self._record, group.workers):
            return await self._execute(group.workers, encode(self._placed()), blob, answers=answers)

    async def _set_up(self, group: WorkerGroup, setup: SetupCell) -> None:
        """Raises SetupFailed."""
        workers = setup.where(group.workers)
        async with named(self._busy, SETUP_DONE, self._report.tell):
            words = failure_words(await self._execute(workers, setup.raw, setup.blob, SETUP_TIMEOUT_S))
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
        blob: Blob | None,
        timeout_s: float | None = None,
        answers: list[Answer] | None = None,
    ) -> Finished:
        if self._stopped:
            raise Stopped
        self._run = CellRun(workers, timeout_s, self._report.tell, answers, self._record.saving)
        try:
            return await self._run.execute(raw, blob)
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

    async def _end(self, finished: Finished, answers: list[Answer]) -> None:
        """Values and outcomes to the store and to the kernel, then the last word to both."""
        await self._report.tidy_up(answers, self._attempt)
        finished.outcomes = [msgspec.structs.replace(o, value=Payload()) for o in finished.outcomes]
        finished.duration_s = time.monotonic() - self._began_s
        if finished.root_cause is None and not finished.stopped:
            self._resumption.succeeded()
        self._report.end(finished, self._attempt)

    def _end_without_run(self, problem: BaseException) -> None:
        """Nothing of it ran: it was stopped before, or could not start."""
        if isinstance(problem, Stopped):
            stopped: Literal["timeout", "interrupt"] = (
                "timeout" if self._stopped == "timeout" else "interrupt"
            )
            finished = Finished(outcomes=[], root_cause=None, stopped=stopped)
            finished.duration_s = time.monotonic() - self._began_s
            self._record.end(finished, self._attempt, self._report.kernel_gone)
            self._report.end_without_run(finished)
            return
        text = str(problem)
        if self._report.kernel_gone:
            self._record.state("stopped", self._attempt, KERNEL_ENDED)
        self._record.state("failed", self._attempt, text)
        self._report.end_without_run(Refused(text=text))

    def _on_output(self, output: Output, raw: bytes) -> None:
        if output.kind == "loaded":
            self._resumption.loaded()
            self._record.loaded(output.rank, output.step, self._attempt)
            return
        if output.kind == "logged":
            self._resumption.began()
        self._report.show(output, raw)

    async def kernel_ended(self) -> None:
        """The coordinator is about to end, with its kernel: the last line in the store says so."""
        self._record.state("stopped", self._attempt, KERNEL_ENDED)
        self._stopped = self._stopped or "interrupt"  # no attempt follows
        if self._group is not None:
            await self._group.kill("ended with its kernel")
