"""The coordinator's handle of one worker: its channel, its output pipes, its names, its end."""

from __future__ import annotations

import asyncio
import codecs
import os
import signal
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from quarterdeck.agent import processes
from quarterdeck.agent.zygote import Zygote, ZygoteLost
from quarterdeck.present.words import end_in_words
from quarterdeck.protocol import channel
from quarterdeck.protocol.async_channel import AsyncChannel
from quarterdeck.protocol.channel import Frame, close_fds, encode
from quarterdeck.protocol.messages import (
    Completed,
    Exited,
    Fetched,
    Importing,
    Inspected,
    Joined,
    Leave,
    Message,
    Outcome,
    Output,
    Owner,
    Started,
    Warm,
)

_READ_BYTES = 32_768  # keeps a message inline in its datagram
_DRAIN_READS = 64  # arbitrary; a subprocess that never stops writing must not hold the loop
_FORK_LIMIT_S = 20.0
_SPAWN_LIMIT_S = 300.0
"""To import torch, on a slow disk, in as many processes as there are ranks."""
_ASIDE_KILL_S = 0.1
"""A zygote that is importing has not heard of it by then."""
_KILL_LIMIT_S = 3.0
"""From SIGKILL to the end: more only where the system holds the process, or the zygote hangs."""
_STACKS_QUIET_S = 0.03
_STACKS_LIMIT_S = 0.5
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
        rank: int,
        zygote: Zygote,
        on_output: Callable[[Output, bytes], None],
        on_death: Callable[[Worker], None],
    ) -> None:
        self.rank = rank
        self.life = uuid.uuid4().hex[:12]
        self.pid = 0
        self.names: dict[str, Owner] = {}
        self.dropped: list[int] = []
        self.group = "none"
        self.device = ""
        self.last_lines: deque[str] = deque(maxlen=6)
        self.last_stacks = ""
        """Of every thread, as faulthandler wrote them when the process crashed."""
        self.exited: Exited | None = None
        self.ended_by = ""
        """What quarterdeck ended it for, as the verb of a sentence about its rank; empty if it did not."""
        self.started = False
        self.running = False
        """Its main thread has something to do, and has not answered yet."""
        self.importing = ""
        """The module whose import an interrupt of its cell waits for."""
        self._zygote = zygote
        self._on_output = on_output
        self._on_death = on_death
        self._loop = asyncio.get_running_loop()
        self._reply: asyncio.Future[Frame] | None = None
        self._aside: asyncio.Future[Frame] | None = None
        self._pipes: dict[int, tuple[str, codecs.IncrementalDecoder]] = {}
        self._gone = self._loop.create_future()
        self._forking = False

    async def start(self, spawn: bool) -> None:
        """Fork it and wait until it serves. Raises ZygoteLost or WorkerDied."""
        ours, theirs = channel.pair()
        pipes = [os.pipe() for _ in range(3)]
        self._channel = AsyncChannel(ours, self._on_frame, lambda: None)
        self._watch(pipes[0][0], "stdout")
        self._watch(pipes[1][0], "stderr")
        self._stacks_fd = pipes[2][0]
        os.set_blocking(self._stacks_fd, False)
        os.set_blocking(pipes[2][1], False)  # a crash must not wait for a reader
        started = self._expect()
        self._forking = True
        try:
            fds = [theirs.fileno(), *(write for _, write in pipes)]
            self.pid = await self._zygote.fork(self.life, spawn, fds, self._on_exit)
            self._zygote.when_warm(self._warm)
        except ZygoteLost:
            self._forking = False  # there is no process, and nobody will tell of its end
            if self.alive:
                self._channel.close()
                self._close_pipes()
            raise
        finally:
            theirs.close()
            close_fds([write for _, write in pipes])
        try:
            await asyncio.wait_for(started, _SPAWN_LIMIT_S if spawn else _FORK_LIMIT_S)
        except TimeoutError:
            await self.kill("did not start in time, so quarterdeck ended it")
            assert self.exited is not None
            raise WorkerDied(self.exited) from None

    @property
    def alive(self) -> bool:
        return self.exited is None

    def _warm(self) -> None:
        if self.alive:
            self.tell(Warm())

    async def ask(self, message: Message, fds: Sequence[int] = ()) -> Frame:
        """Send to the worker's main thread and wait for its answer. Raises WorkerDied."""
        return await self.ask_raw(encode(message), fds)

    async def ask_raw(self, raw: bytes, fds: Sequence[int] = ()) -> Frame:
        """As `ask`, with encoded bytes. When the caller stops waiting, the worker still owes its answer."""
        reply = self._expect()
        self._channel.forward(raw, fds)
        self.running = True
        return await reply

    async def ask_aside(self, message: Message, timeout_s: float) -> Frame | None:
        """Ask the service thread, which answers also while a cell runs; None if it does not in time."""
        if self._aside is not None or not self.alive:
            return None
        self._aside = self._loop.create_future()
        self._channel.send(message)
        try:
            return await asyncio.wait_for(self._aside, timeout_s)
        except (TimeoutError, WorkerDied):
            return None
        finally:
            self._aside = None

    def tell(self, message: Message) -> None:
        self._channel.send(message)

    def signal(self, number: int, group: bool = False) -> None:
        self._zygote.signal(self.life, number, group)

    def end(self, number: int, why: str) -> None:
        """A signal that is meant to end it; SIGKILL with what it had started. `why` as in `ended_by`."""
        if self.alive:
            self.ended_by = why
            self.signal(number, group=number == signal.SIGKILL)

    async def stacks(self, number: int) -> str:
        """Every thread's Python stack as faulthandler writes it on signal `number`: also when the GIL is
        held. Empty where the signal would end it, or do nothing.
        """
        if not processes.catches(self.pid, number):
            return ""
        self._read_stacks()
        self.signal(number)
        text, waited_s = "", 0.0
        while waited_s < _STACKS_LIMIT_S:
            await asyncio.sleep(_STACKS_QUIET_S)
            waited_s += _STACKS_QUIET_S
            more = self._read_stacks()
            text += more
            if text and not more:
                break
        return text

    async def leave(self, grace_s: float) -> None:
        """Ask it to end; kill it, and what it had started, after `grace_s`."""
        self.ended_by = self.ended_by or STOPPED
        self.tell(Leave())
        await self._gone_within(grace_s)
        await self.kill()

    async def kill(self, why: str = STOPPED) -> None:
        """`why` as in `ended_by`, unless something else is ending it already."""
        if self.alive and self._forking:
            self.ended_by = self.ended_by or why
            self.signal(9, group=True)
            self.signal(9)
            if not await self._gone_within(_ASIDE_KILL_S) and self.pid:
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            if not await self._gone_within(_KILL_LIMIT_S):
                self._let_go()

    async def _gone_within(self, limit_s: float) -> bool:
        await asyncio.wait([self._gone], timeout=limit_s)  # unlike `await`, it never cancels it for others
        return self._gone.done()

    def _let_go(self) -> None:
        """It was killed and is not gone: the system holds it, say for a network disk, and it ends when that
        answers; or it was never reaped, as the zygote hangs: then all that has come from there ends with it.
        One that was not forked yet ends as soon as it is.
        """
        if self.pid and processes.state(self.pid) in ("", "Z"):
            self._zygote.close()
        else:
            self._zygote.forget(self.life)
            self._on_exit(Exited(life=self.life, pid=self.pid, status=signal.SIGKILL))

    def drain(self) -> None:
        """Take what it wrote before its last message: that is in the pipes already."""
        for fd in list(self._pipes):
            reads = 0
            while reads < _DRAIN_READS and self._read(fd):
                reads += 1

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

    def _on_frame(self, frame: Frame) -> None:
        match frame.message:
            case Output() as output:
                self._show(output, frame.raw)
            case Completed() | Inspected():
                self._resolve(self._aside, frame)
            case Importing(module=module):
                self.importing = module
            case Started() | Joined() | Outcome() | Fetched():
                self.drain()
                self.started, self.running, self.importing = True, False, ""
                self._resolve(self._reply, frame)

    @staticmethod
    def _resolve(future: asyncio.Future[Frame] | None, frame: Frame) -> None:
        if future is not None and not future.done():
            future.set_result(frame)
        else:
            close_fds(frame.fds)

    def _on_exit(self, exited: Exited) -> None:
        self._channel.drain()
        self.drain()
        self.last_stacks = self._read_stacks()
        self.exited = exited
        if not self.ended_by and exited.status == signal.SIGKILL and self._zygote.kernel_gone():
            self.ended_by = "ended with its kernel"
        if not exited.pid:  # the zygote is gone, which would have done this
            self._end_process_group()
        self._channel.close()
        self._close_pipes()
        for future in (self._reply, self._aside):
            if future is not None and not future.done():
                future.set_exception(WorkerDied(exited))
                future.exception()  # looked at: nobody may be waiting for it
        self._gone.set_result(None)
        self._on_death(self)

    def _end_process_group(self) -> None:
        """What user code had started and left behind; no guard of ours survives an exec."""
        if self.pid:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _watch(self, fd: int, stream: str) -> None:
        os.set_blocking(fd, False)
        self._pipes[fd] = (stream, codecs.getincrementaldecoder("utf-8")("replace"))
        self._loop.add_reader(fd, self._read, fd)

    def _read(self, fd: int) -> bool:
        """Pass on what a pipe holds, at most _READ_BYTES; whether there was something."""
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(fd)
            return False
        stream, decoder = self._pipes[fd]
        text = decoder.decode(data)
        output = Output(rank=self.rank, kind="stderr" if stream == "stderr" else "stdout", text=text)
        self._show(output, encode(output))
        return True

    def _show(self, output: Output, raw: bytes) -> None:
        if output.text:
            self.last_lines.extend(line for line in output.text.splitlines()[-6:] if line.strip())
        self._on_output(output, raw)

    def _read_stacks(self) -> str:
        try:
            return os.read(self._stacks_fd, 4 * _READ_BYTES).decode("utf-8", "replace")
        except (BlockingIOError, OSError):
            return ""

    def _close_pipes(self) -> None:
        for fd in self._pipes:
            self._loop.remove_reader(fd)
            os.close(fd)
        self._pipes.clear()
        os.close(self._stacks_fd)
