"""What the kernel may ask, each on a channel of its own, and how it is answered.

A call that takes a turn goes: TakeTurn -> (Waiting) -> Turn -> RunCell | Install | Fetch -> its outputs ->
its answer. The kernel builds the payload while it has the turn, so it knows what the workers have; if that
fails it closes the channel, and the session is as it was. Closing the channel while waiting gives the place
in the queue up; while a cell runs, it interrupts it.
"""

from __future__ import annotations

import asyncio
import socket
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeVar

from quarterdeck.coordinator import facts
from quarterdeck.coordinator.devices import BadRequest
from quarterdeck.coordinator.group import GroupFailed
from quarterdeck.coordinator.outlet import Outlet
from quarterdeck.coordinator.session import Session
from quarterdeck.coordinator.worker import Worker, WorkerDied
from quarterdeck.coordinator.zygote import ZygoteLost
from quarterdeck.protocol.async_channel import AsyncChannel
from quarterdeck.protocol.channel import Frame, close_fds
from quarterdeck.protocol.messages import (
    Answer,
    Ask,
    Cancel,
    Complete,
    Completed,
    Control,
    Fetch,
    Fetched,
    Inspect,
    Inspected,
    Install,
    Message,
    Notice,
    Output,
    Pulled,
    Refused,
    RunCell,
    TakeTurn,
    Turn,
    Waiting,
    WorkerNames,
)
from quarterdeck.store.logs import RunLog, home

T = TypeVar("T")

ASIDE_TIMEOUT_S = 0.7
"""For completion and inspection: after this the kernel's own answer is better than none."""


async def _whole(work: Coroutine[Any, Any, T]) -> T:
    """All of it, also when the caller leaves meanwhile: the next call must not meet a half-made group."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        task.exception()
        raise


class Call:
    """One call of the kernel, from its first message to the end of its channel."""

    def __init__(self, sock: socket.socket, session: Session, done: Callable[[Call], None]) -> None:
        self._session = session
        self._done = done
        self._frames: asyncio.Queue[Frame | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._phase: Literal["waiting", "running", "settling"] = "waiting"
        self._log: RunLog | None = None
        self._channel = AsyncChannel(sock, self._on_frame, self._on_end)
        self._outlet = Outlet(self._channel)

    # ---- the channel

    def _on_frame(self, frame: Frame) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._answer(frame))
        elif isinstance(frame.message, Cancel):
            self._cancel()
        else:
            self._frames.put_nowait(frame)

    def _on_end(self) -> None:
        self._frames.put_nowait(None)
        if self._task is None:
            self._done(self)
        else:
            self._cancel()

    def _cancel(self) -> None:
        """Of a waiting call: give up. Of a running one: interrupt, or take the next step of the ladder."""
        if self._phase == "running" and self._session.run is not None:
            self._session.run.stop("interrupt")
        elif self._phase == "waiting" and self._task is not None:
            self._task.cancel()

    def _send(self, message: Message) -> None:
        self._channel.send(message)

    # ---- the answers

    async def _answer(self, frame: Frame) -> None:
        try:
            await self._dispatch(frame)
        except (BadRequest, GroupFailed) as problem:
            self._send(Refused(text=str(problem)))
        except ZygoteLost:
            self._send(Refused(text=f"The workers' Python could not import torch:\n{facts.last_errors()}"))
        except asyncio.CancelledError:
            self._send(Refused(text="Cancelled before it started."))
        except Exception as bug:  # ours: without an answer the kernel would wait for ever
            traceback.print_exc()
            self._send(Refused(text=f"quarterdeck itself failed ({type(bug).__name__}: {bug})."))
        finally:
            close_fds(frame.fds)
            self._finish()

    def _finish(self) -> None:
        """Let what is queued go out; the kernel closes its end when it has read the answer."""
        self._phase = "settling"
        if self._log is not None:
            self._log.close()
        self._done(self)

    async def _dispatch(self, frame: Frame) -> None:
        match frame.message:
            case TakeTurn() as request:
                await self._turn(request)
            case Control() as request:
                await self._control(request)
            case Ask(what=what):
                self._send(await facts.answer(self._session, what))
            case Complete() as request:
                await self._aside(request, Completed(matches=[], start=request.cursor, end=request.cursor))
            case Inspect() as request:
                await self._aside(request, Inspected(found=False))

    async def _aside(self, request: Message, otherwise: Message) -> None:
        workers = self._session.workers()
        frame = await workers[0].ask_aside(request, ASIDE_TIMEOUT_S) if workers else None
        self._send(frame.message if frame is not None else otherwise)

    async def _control(self, request: Control) -> None:
        session = self._session
        self._phase = "settling"
        if request.context is not None:
            session.context = request.context
        if request.action == "interrupt":
            self._interrupt()
            return
        if request.action == "restart":
            session.refuse_impossible(request.spec)
        if request.action in ("stop", "restart"):
            await session.kill_running()
        n = len(session.workers())
        spec = request.spec
        if request.action == "restart" and spec.nproc_per_node is None and n:
            spec = facts.with_nproc(spec, n)
        async with session.turn(f"%workers {request.action}"):
            if request.action in ("stop", "restart"):
                await session.stop()
            if request.action == "stop":
                self._send(Answer(text=facts.stopped_line(n)))
                return
            started = await session.ensure(spec)
            self._tell_notices()
            self._send(Answer(text=facts.group_line(session, started)))

    def _interrupt(self) -> None:
        run = self._session.run
        if run is None:
            self._send(Answer(text="No cell is running."))
            return
        run.stop("interrupt")
        self._send(Answer(text=f"Interrupting {self._session.holder}."))

    # ---- a turn

    async def _turn(self, request: TakeTurn) -> None:
        session = self._session
        if session.busy:
            self._send(Waiting(behind=session.holder or "another call"))
        async with session.turn(request.title):
            if request.context is not None:
                session.context = request.context
            started = await _whole(session.ensure(request.spec))
            if any(not worker.alive for worker in session.workers()):
                await _whole(session.mend())
                started = await _whole(session.ensure(request.spec))
            workers = session.select(request.ranks)
            self._tell_notices()
            self._log = RunLog(home(session.context.environ, session.context.cwd), request.title)
            self._send(self._describe(workers, started))
            frame = await self._frames.get()
            if frame is not None:
                await self._act(frame, workers)

    def _tell_notices(self) -> None:
        for text in self._session.take_notices():
            self._send(Notice(text=text, level="warning"))

    def _describe(self, workers: list[Worker], started: bool) -> Turn:
        session = self._session
        assert session.group is not None
        assert self._log is not None
        names = []
        for worker in workers:
            names.append(WorkerNames(worker.rank, worker.life, dict(worker.names), worker.dropped))
            worker.dropped = []
        return Turn(
            session="default",
            incarnation=session.group.incarnation,
            backend=session.group.plan.backend,
            workers=names,
            world_size=len(session.workers()),
            device_type=session.group.plan.device_type,
            started=started,
            log_dir=str(self._log.folder),
        )

    async def _act(self, frame: Frame, workers: list[Worker]) -> None:
        self._phase = "settling"
        try:
            match frame.message:
                case RunCell() as cell:
                    await self._run(cell, frame, workers)
                case Install():
                    await self._install(frame, workers)
                case Fetch() as fetch:
                    await self._fetch(fetch, workers)
        except WorkerDied as death:
            self._send(Refused(text=f"A worker ended meanwhile ({death}). The next cell works."))
            await self._session.mend()
        finally:
            close_fds(frame.fds)

    async def _run(self, cell: RunCell, frame: Frame, workers: list[Worker]) -> None:
        session, log = self._session, self._log
        assert log is not None
        session.sink = self._show
        self._phase = "running"
        run = session.new_run(workers, cell, lambda text: self._send(Notice(text=text, level="warning")))
        try:
            finished, broken = await session.run_cell(run, cell, frame.raw, frame.fds)
        finally:
            session.sink = lambda _output, _raw: None
            self._phase = "settling"
        self._outlet.finish()
        self._tell_left_out(log)
        finished.log_dir = str(log.folder) if log.written else ""
        self._send(finished)
        if broken:
            await session.mend()

    def _show(self, output: Output, raw: bytes) -> None:
        assert self._log is not None
        self._log.write(output)
        self._outlet.show(output, raw)

    def _tell_left_out(self, log: RunLog) -> None:
        left_out = self._outlet.left_out
        if left_out:
            self._send(
                Notice(text=f"{left_out:,} characters came too fast to be shown: they are in {log.folder}.")
            )
        if log.notice:
            self._send(Notice(text=log.notice, level="warning"))

    async def _install(self, frame: Frame, workers: list[Worker]) -> None:
        replaced: dict[str, str] = {}
        answers = await asyncio.gather(*(worker.ask_raw(frame.raw, frame.fds) for worker in workers))
        for worker, answer in zip(workers, answers, strict=True):
            assert isinstance(answer.message, Fetched)
            if answer.message.error:
                raise BadRequest(f"rank {worker.rank} could not unpickle it: {answer.message.error}")
            worker.apply_names(answer.message.names)
            replaced.update(answer.message.replaced)
        self._send(Answer(text="pushed", facts=replaced))

    async def _fetch(self, fetch: Fetch, workers: list[Worker]) -> None:
        worker = next(worker for worker in workers if worker.rank == fetch.rank)
        answer = await worker.ask(fetch)
        assert isinstance(answer.message, Fetched)
        try:
            if answer.message.error:
                raise BadRequest(answer.message.error)
            self._channel.send(Pulled(payload=answer.message.payload), answer.fds)
        finally:
            close_fds(answer.fds)
