"""What the kernel may ask, each on a channel of its own, and how it is answered.

A call that takes a turn is in `turns`; the others, about the group as a whole or about what is, are here.
Closing the channel gives the place in the queue up while the call waits; while a cell runs, it interrupts it.
"""

from __future__ import annotations

import asyncio
import socket
import traceback
from collections.abc import Callable

from quarterdeck.coordinator import status
from quarterdeck.coordinator.coordinator import Coordinator
from quarterdeck.coordinator.group import GroupFailed
from quarterdeck.coordinator.isolated_run import IsolatedRun
from quarterdeck.coordinator.placement import BadRequest, as_before
from quarterdeck.coordinator.session import Session
from quarterdeck.coordinator.setup_cells import SetupCells
from quarterdeck.coordinator.starting import StartCancelled
from quarterdeck.coordinator.turns import TurnCall
from quarterdeck.protocol.agent import ZygoteLost
from quarterdeck.protocol.async_channel import AsyncChannel
from quarterdeck.protocol.blob import Blob
from quarterdeck.protocol.channel import BadMessage, Frame
from quarterdeck.protocol.kernel import (
    Answer,
    Ask,
    AskSetups,
    Cancel,
    Control,
    Notice,
    Refused,
    SetUp,
    Submit,
    TakeTurn,
)
from quarterdeck.protocol.parts import Message
from quarterdeck.protocol.worker import Complete, Completed, Inspect, Inspected

ASIDE_TIMEOUT_S = 0.7
"""For completion and inspection: after this the kernel's own answer is better than none."""


class Call:
    """One call of the kernel, from its first message to the end of its channel."""

    def __init__(self, sock: socket.socket, coordinator: Coordinator, done: Callable[[Call], None]) -> None:
        self._coordinator = coordinator
        self._done = done
        self._frames: asyncio.Queue[Frame | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._turn: TurnCall | None = None
        self._run: IsolatedRun | None = None
        self._cancelled = False
        self._controls = False
        self.submits = False
        """It is the one of a closed run."""
        self._channel = AsyncChannel(sock, self._on_frame, self._on_end, self._on_bad)

    # ---- the channel

    def _on_frame(self, frame: Frame) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._answer(frame))
        elif isinstance(frame.message, Cancel):
            self._cancel()
        elif not self._task.done():
            self._frames.put_nowait(frame)

    def _on_bad(self, bad: BadMessage) -> None:
        """The kernel waits for an answer to whatever it was; what has begun ends as if it had left."""
        self._refuse(f"quarterdeck itself failed: its message could not be read ({bad}).")
        self._channel.close()

    def _on_end(self) -> None:
        self._frames.put_nowait(None)
        if self._task is None:
            self._done(self)
        elif self._run is None or not self._run.detached:
            self._cancel()

    @property
    def sent(self) -> bool:
        """The kernel has taken all, or is gone."""
        return self._channel.closed or not self._channel.queued_bytes

    def _cancel(self) -> None:
        """A turn that waits is given up. What runs is interrupted, or the ladder's next step is taken."""
        self._cancelled = True
        if self._run is not None:
            self._run.stop()
        elif self._task is not None and self._can_leave() and not self._task.cancelling():
            self._task.cancel()

    def _can_leave(self) -> bool:
        if self._turn is not None:
            return not self._turn.interrupt()
        return self._controls

    def _leave_if_cancelled(self) -> None:
        """Before anything was begun."""
        if self._cancelled:
            raise asyncio.CancelledError

    # ---- the answers

    async def _answer(self, frame: Frame) -> None:
        try:
            await self._dispatch(frame)
        except (BadRequest, GroupFailed) as problem:
            self._refuse(str(problem))
        except ZygoteLost as lost:
            self._refuse(f"{lost}\n{status.last_errors()}")
        except (asyncio.CancelledError, StartCancelled):
            self._channel.send(Refused(text="Cancelled before it started.", cancelled=True))
        except Exception as bug:  # ours: without an answer the kernel would wait for ever
            traceback.print_exc()
            self._refuse(f"quarterdeck itself failed ({type(bug).__name__}: {bug}).")
        finally:
            self._done(self)

    def _tell(self, text: str) -> None:
        self._channel.send(Notice(text=text, level="warning"))

    def _refuse(self, text: str) -> None:
        self._channel.send(Refused(text=text))

    async def _dispatch(self, frame: Frame) -> None:
        match frame.message:
            case TakeTurn() as request:
                self._leave_if_cancelled()
                session = self._coordinator.session(request.session)
                self._turn = TurnCall(session, self._channel, self._frames)
                await self._turn.take(request)
            case Submit() as request:
                self.submits = True
                await self._submit(request, frame.blob)
            case Control() as request:
                self._leave_if_cancelled()
                self._controls = request.action != "interrupt"
                session = self._coordinator.session(request.session)
                with session.starting.told(self._tell):
                    await self._control(request, session)
            case AskSetups() as request:
                self._tell_setups(self._coordinator.sessions.get(request.session))
            case Ask() as request:
                self._channel.send(await status.answer(self._coordinator, request))
            case Complete() as request:
                await self._aside(request, Completed(matches=[], start=request.cursor, end=request.cursor))
            case Inspect() as request:
                await self._aside(request, Inspected(found=False))

    async def _submit(self, request: Submit, blob: Blob | None) -> None:
        coordinator = self._coordinator
        setups = coordinator.session(request.session).setup_cells
        await self._take_setups(request.setups, setups)
        run = IsolatedRun(
            coordinator.launcher, self._channel, request, setups, coordinator.kernel_gone, coordinator.keeper
        )
        if not run.detached:
            run.refuse_impossible()
        else:
            self._leave_if_cancelled()
        coordinator.on_run(run)
        self._run = run
        coordinator.runs.add(run)
        if self._cancelled:  # before we came here
            run.stop()
        try:
            await run.execute(blob)
        finally:
            coordinator.runs.discard(run)

    async def _take_setups(self, count: int, setups: SetupCells) -> None:
        """Raises CancelledError if the kernel goes away meanwhile."""
        for _ in range(count):
            frame = await self._frames.get()
            if frame is None or not isinstance(frame.message, SetUp):
                raise asyncio.CancelledError
            setups.take(frame.message, frame.blob)

    def _tell_setups(self, session: Session | None) -> None:
        for cell in session.setup_cells if session is not None else ():
            ranks = None if cell.ranks is None else sorted(cell.ranks)
            self._channel.send(SetUp(cell=cell.cell, ranks=ranks), cell.blob)
        self._channel.send(Answer())

    async def _aside(self, request: Complete | Inspect, otherwise: Message) -> None:
        workers = self._coordinator.session(request.session).workers()
        frame = await workers[0].ask_aside(request, ASIDE_TIMEOUT_S) if workers else None
        self._channel.send(frame.message if frame is not None else otherwise)

    # ---- the group as a whole

    async def _control(self, request: Control, session: Session) -> None:
        if request.context is not None:
            session.context = request.context
        match request.action:
            case "interrupt":
                self._channel.send(Answer(text=_interrupt(session)))
            case "stop":
                starting = session.state == "starting"
                async with session.ending("%workers stop"):
                    n = len(session.workers())
                    await session.starting.whole(session.stop())
                self._channel.send(Answer(text=status.stopped_line(n, starting)))
            case "restart":
                await self._restart(request, session)
            case "start":
                async with session.turn("%workers start"):
                    await self._start(request, session)

    async def _restart(self, request: Control, session: Session) -> None:
        """Refused before anything ends; what the request leaves open stays as it was."""
        if session.group is not None:
            request.spec = as_before(request.spec, session.group.placement)
        session.refuse_impossible(request.spec)
        async with session.ending("%workers restart"):
            await session.starting.whole(session.stop(forget=False))
            session.launcher.leave_hung()
            await self._start(request, session)

    async def _start(self, request: Control, session: Session) -> None:
        started = await session.starting.whole(session.ensure(request.spec))
        for text in session.take_notices():
            self._tell(text)
        self._channel.send(Answer(text=status.group_line(session, started)))


def _interrupt(session: Session) -> str:
    if session.run is not None:
        session.run.stop("interrupt")
        return f"Interrupting {session.holder}."
    return "Ending the workers that start." if session.starting.cancel() else "No cell is running."
