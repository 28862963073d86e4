"""The coordinator's handle of one worker, whatever node it is on: what it is asked, its names, its end."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections import deque
from collections.abc import Callable, Sequence

from quarterdeck.coordinator.placement import Place
from quarterdeck.present.words import end_in_words
from quarterdeck.protocol.agent import Agent, ZygoteLost
from quarterdeck.protocol.blob import Blob
from quarterdeck.protocol.channel import Frame, encode
from quarterdeck.protocol.parts import Message, Owner
from quarterdeck.protocol.worker import (
    Completed,
    Fetched,
    Importing,
    Inspected,
    Join,
    Joined,
    Leave,
    Outcome,
    Output,
    Started,
)
from quarterdeck.protocol.zygote import Exited

_FORK_LIMIT_S = 20.0
_SPAWN_LIMIT_S = 300.0
"""To import torch, on a slow disk, in as many processes as there are ranks."""
STOPPED = "was ended by quarterdeck"


class WorkerDied(Exception):
    """The worker's process is gone; `exited` says how."""

    def __init__(self, exited: Exited) -> None:
        super().__init__(f"its process (pid {exited.pid}) {end_in_words(exited.status)}")
        self.exited = exited


class Worker:
    """One process. `on_output(output, raw)` gets everything it shows; `on_death(worker)` is called once."""

    def __init__(
        self,
        place: Place,
        agent: Agent,
        on_output: Callable[[Output, bytes], None],
        on_death: Callable[[Worker], None],
    ) -> None:
        self.place = place
        self.rank = place.rank
        self.agent = agent
        self.life = uuid.uuid4().hex[:12]
        self.pid = 0
        self.names: dict[str, Owner] = {}
        self.dropped: list[int] = []
        self.group = "none"
        self.last_lines: deque[str] = deque(maxlen=6)
        self.exited: Exited | None = None
        self.ended_by = ""
        """What quarterdeck ended it for, as the verb of a sentence about its rank; empty if it did not."""
        self.started = False
        self.running = False
        """Its main thread has something to do, and has not answered yet."""
        self.importing = ""
        """The module whose import an interrupt of its cell waits for."""
        self._on_output = on_output
        self._on_death = on_death
        self._loop = asyncio.get_running_loop()
        self._reply: asyncio.Future[Frame] | None = None
        self._aside: asyncio.Future[Frame] | None = None
        self._gone = self._loop.create_future()
        self._starting = False

    async def start(self, key: str, spawn: bool) -> None:
        """Start it in this group of its agent's, and wait until it serves. Raises ZygoteLost, WorkerDied."""
        started = self._expect()
        self._starting = True
        try:
            await self.agent.start(key, self.life, self.rank, self.place.device, self)
        except ZygoteLost:
            self._starting = False  # there is no process, and nobody will tell of its end
            raise
        try:
            await asyncio.wait_for(started, _SPAWN_LIMIT_S if spawn else _FORK_LIMIT_S)
        except TimeoutError:
            await self.kill("did not start in time, so quarterdeck ended it")
            assert self.exited is not None
            raise WorkerDied(self.exited) from None

    @property
    def alive(self) -> bool:
        return self.exited is None

    async def join(self, join: Join) -> Frame:
        """Its answer. Raises WorkerDied."""
        reply = self._expect()
        self.agent.join(self.life, join)
        return await self._answer_of(reply)

    async def ask(self, raw: bytes, blob: Blob | None = None) -> Frame:
        """Send an encoded message to the worker's main thread and wait for its answer. Raises WorkerDied.
        When the caller stops waiting, the worker still owes its answer.
        """
        reply = self._expect()
        self.agent.send(self.life, raw, blob)
        return await self._answer_of(reply)

    async def _answer_of(self, reply: asyncio.Future[Frame]) -> Frame:
        """It is not kept here: its blob may be large."""
        self.running = True
        try:
            return await reply
        finally:
            if self._reply is reply:
                self._reply = None

    async def ask_aside(self, message: Message, timeout_s: float) -> Frame | None:
        """Ask the service thread, which answers also while a cell runs; None if it does not in time."""
        if self._aside is not None or not self.alive:
            return None
        self._aside = self._loop.create_future()
        self.tell(message)
        try:
            return await asyncio.wait_for(self._aside, timeout_s)
        except (TimeoutError, WorkerDied):
            return None
        finally:
            self._aside = None

    def tell(self, message: Message) -> None:
        self.agent.send(self.life, encode(message))

    def end(self, number: int, why: str) -> None:
        """A signal that is meant to end it; SIGKILL with what it had started. `why` as in `ended_by`."""
        if self.alive:
            self.ended_by = why
            self.agent.signal(self.life, number, group=number == signal.SIGKILL)

    async def leave(self, grace_s: float) -> None:
        """Ask it to end; kill it, and what it had started, after `grace_s`."""
        self.ended_by = self.ended_by or STOPPED
        self.tell(Leave())
        await asyncio.wait([self._gone], timeout=grace_s)
        await self.kill()

    async def kill(self, why: str = STOPPED) -> None:
        """`why` as in `ended_by`, unless something else is ending it already."""
        if self.alive and self._starting:
            self.ended_by = self.ended_by or why
            await self.agent.kill(self.life)

    def apply_names(self, names: dict[str, Owner | None], dropped: Sequence[int] = ()) -> None:
        for name, owner in names.items():
            if owner is None:
                self.names.pop(name, None)
            else:
                self.names[name] = owner
        self.dropped.extend(dropped)

    def _expect(self) -> asyncio.Future[Frame]:
        self._reply = self._loop.create_future()
        if self.exited is not None:
            self._reply.set_exception(WorkerDied(self.exited))
        return self._reply

    # ---- what its agent tells

    def on_frame(self, frame: Frame) -> None:
        match frame.message:
            case Output() as output:
                if output.text:
                    self.last_lines.extend(line for line in output.text.splitlines()[-6:] if line.strip())
                self._on_output(output, frame.raw)
            case Completed() | Inspected():
                _resolve(self._aside, frame)
            case Importing(module=module):
                self.importing = module
            case Started(pid=pid):
                self.pid, self.started = pid, True
                self._answered(frame)
            case Joined() | Outcome() | Fetched():
                self._answered(frame)

    def _answered(self, frame: Frame) -> None:
        self.running, self.importing = False, ""
        _resolve(self._reply, frame)

    def on_exit(self, exited: Exited) -> None:
        self.exited = exited
        if exited.kernel_gone and not self.ended_by:
            self.ended_by = "ended with its kernel"
        for future in (self._reply, self._aside):
            if future is not None and not future.done():
                future.set_exception(WorkerDied(exited))
                future.exception()  # looked at: nobody may be waiting for it
        self._gone.set_result(None)
        self._on_death(self)


def _resolve(future: asyncio.Future[Frame] | None, frame: Frame) -> None:
    if future is not None and not future.done():
        future.set_result(frame)
