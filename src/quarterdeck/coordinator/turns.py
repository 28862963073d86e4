"""A call that takes a turn: TakeTurn -> (Waiting) -> Turn -> RunCell | Install | Fetch -> outputs -> answer.

The kernel builds the payload while it has the turn, so it knows what the workers have; if that fails it
closes the channel, and the session is as it was.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from typing import Literal

import msgspec

from quarterdeck.coordinator.notices import of_death
from quarterdeck.coordinator.placement import BadRequest
from quarterdeck.coordinator.record import RunRecord
from quarterdeck.coordinator.report import RunReport
from quarterdeck.coordinator.run import STEP_S
from quarterdeck.coordinator.session import REPAIR, Session
from quarterdeck.coordinator.stuck import named
from quarterdeck.coordinator.worker import Worker, WorkerDied
from quarterdeck.protocol.async_channel import AsyncChannel
from quarterdeck.protocol.channel import Frame, encode
from quarterdeck.protocol.kernel import Answer, Notice, Pulled, Refused, TakeTurn, Turn, Waiting
from quarterdeck.protocol.parts import RunPlace, WorkerNames
from quarterdeck.protocol.worker import Fetch, Fetched, Install, Output, Raise, RunCell


class TurnCall:
    """`take` once; `interrupt` at any time, from the same loop."""

    def __init__(self, session: Session, channel: AsyncChannel, frames: asyncio.Queue[Frame | None]) -> None:
        self._session = session
        self._channel = channel
        self._frames = frames
        self._phase: Literal["waiting", "preparing", "running", "copying", "settling"] = "waiting"
        self._report: RunReport
        self._workers: Sequence[Worker] = ()
        self._title = ""

    def interrupt(self) -> bool:
        """Stop what it does on the workers; False if there is nothing yet, so that the call can be ended."""
        if self._phase in ("preparing", "running") and self._session.run is not None:
            self._session.run.stop("interrupt")  # a set-up cell that is replayed, too
        elif self._phase == "copying":
            self._stop_copying()
        elif self._phase == "waiting" and self._session.holder == REPAIR:
            self._session.starting.cancel()  # nobody else can; the next turn begins it again
        return self._phase not in ("waiting", "preparing")

    async def take(self, request: TakeTurn) -> None:
        """Raises BadRequest, GroupFailed, StartCancelled and ZygoteLost: nothing was done then."""
        session, self._title = self._session, request.title
        with session.starting.told(self._tell):
            if session.busy:
                self._channel.send(Waiting(behind=session.holder or "another call"))
            async with session.turn(request.title):
                self._phase = "preparing"
                if request.context is not None:
                    session.context = request.context
                started = await session.starting.whole(session.prepare(request.spec))
                self._phase = "waiting"
                await self._held(request, started)

    async def _held(self, request: TakeTurn, started: bool) -> None:
        self._workers = self._session.select(request.ranks)
        for text in self._session.take_notices():
            self._tell(text)
        self._channel.send(self._describe(started))
        frame = await self._frames.get()
        if frame is not None:
            await self._act(frame)

    def _tell(self, text: str) -> None:
        self._channel.send(Notice(text=text, level="warning"))

    def _describe(self, started: bool) -> Turn:
        group = self._session.group
        assert group is not None
        names = []
        for worker in self._workers:
            names.append(WorkerNames(worker.rank, worker.life, dict(worker.names), worker.dropped))
            worker.dropped = []
        return Turn(
            session=self._session.name,
            incarnation=group.incarnation,
            backend=group.placement.backend,
            workers=names,
            world_size=len(group.workers),
            device_type=group.placement.device_type,
            started=started,
        )

    async def _act(self, frame: Frame) -> None:
        try:
            match frame.message:
                case RunCell() as cell:
                    await self._run(cell, frame)
                case Install():
                    await self._install(frame)
                case Fetch() as fetch:
                    await self._fetch(fetch)
        except WorkerDied:
            self._phase = "settling"
            self._channel.send(Refused(text=self._deaths()))
            await self._session.mend()
        finally:
            self._phase = "settling"
            self._session.copying = ()

    def _deaths(self) -> str:
        dead = [worker for worker in self._workers if not worker.alive]
        words = [of_death(worker, f"in `{self._title}`") for worker in dead]
        return "\n".join([*words, "The next cell works."])

    # ---- a cell

    async def _run(self, cell: RunCell, frame: Frame) -> None:
        session = self._session
        record = session.record = RunRecord(session.context, self._title, cell)
        self._report = RunReport(record, self._channel, session.kernel_gone)
        session.sink = self._show
        self._phase = "running"
        run = session.new_run(self._workers, cell, self._tell)
        try:
            if cell.recorded:
                self._open()
            place = RunPlace(record.run_id, cell.name, str(record.folder))
            placed = msgspec.structs.replace(cell, place=place, replay=None)
            finished, broken = await session.run_cell(run, cell, encode(placed), frame.blob)
            await self._report.tidy_up()
            if finished.root_cause is not None:
                self._open()  # a failure is what one looks for later, whether it showed anything or not
            self._report.end(finished)
        finally:
            session.sink = lambda _output, _raw: None
            session.record = None
            self._phase = "settling"
            record.close()
        if broken:
            await session.mend()

    def _open(self) -> None:
        """The run goes on record, and the kernel hears under which name."""
        record, group = self._report.record, self._session.group
        if record.opened:
            return
        record.open()
        if group is not None:
            record.group(group.placement, 0)
        record.state("running", 0)
        self._report.accept()

    def _show(self, output: Output, raw: bytes) -> None:
        if output.text or output.kind in ("result", "logged"):
            self._open()
        self._report.show(output, raw)

    # ---- copies

    async def _install(self, frame: Frame) -> None:
        self._copies(self._workers)
        replaced: dict[str, str] = {}
        asked = [worker.ask(frame.raw, frame.blob) for worker in self._workers]
        async with named(self._busy, "unpickled it", self._tell):
            answers = await asyncio.gather(*asked, return_exceptions=True)
        for worker, answer in zip(self._workers, answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            assert isinstance(answer.message, Fetched)
            if answer.message.error:
                raise BadRequest(f"rank {worker.rank} could not unpickle it: {answer.message.error}")
            worker.apply_names(answer.message.names)
            replaced.update(answer.message.replaced)
        self._channel.send(Answer(text="pushed", facts=replaced))

    async def _fetch(self, fetch: Fetch) -> None:
        worker = next(worker for worker in self._workers if worker.rank == fetch.rank)
        self._copies([worker])
        async with named(self._busy, "pickled it", self._tell):
            answer = await worker.ask(encode(fetch))
        assert isinstance(answer.message, Fetched)
        if answer.message.error:
            raise BadRequest(answer.message.error)
        self._channel.send(Pulled(payload=answer.message.payload), answer.blob)

    def _stop_copying(self) -> None:
        """User code runs in pickling, too, and may never end: interrupt it, kill what does not heed that."""
        for worker in self._busy():
            worker.tell(Raise(reason="interrupted"))
            asyncio.get_running_loop().call_later(STEP_S, self._kill_if_still, worker)

    def _kill_if_still(self, worker: Worker) -> None:
        if self._phase == "copying" and worker.running:
            why = f"did not stop, so quarterdeck ended it (SIGKILL, {STEP_S:g} s after your interrupt)"
            worker.end(signal.SIGKILL, why)

    def _copies(self, workers: Sequence[Worker]) -> None:
        self._phase, self._session.copying = "copying", workers

    def _busy(self) -> list[Worker]:
        return [worker for worker in self._session.copying if worker.running and worker.alive]
