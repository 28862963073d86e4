"""One worker's process, as its node has it: the fork, the channel, the output pipes, the end."""

from __future__ import annotations

import asyncio
import codecs
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from quarterdeck.agent import processes
from quarterdeck.agent.zygote import Zygote
from quarterdeck.protocol import channel
from quarterdeck.protocol.agent import WorkerEvents, ZygoteLost
from quarterdeck.protocol.async_channel import AsyncChannel
from quarterdeck.protocol.blob import Blob
from quarterdeck.protocol.channel import Frame, close_all, encode
from quarterdeck.protocol.worker import Fetched, Joined, Outcome, Output, Started, Warm
from quarterdeck.protocol.zygote import Exited

_READ_BYTES = 32_768  # keeps a message inline in its datagram
_DRAIN_READS = 64  # arbitrary; a subprocess that never stops writing must not hold the loop
_ASIDE_KILL_S = 0.1
"""A zygote that is importing has not heard of it by then."""
_KILL_LIMIT_S = 3.0
"""From SIGKILL to the end: more only where the system holds the process, or the zygote hangs."""
_STACKS_QUIET_S = 0.03
_STACKS_LIMIT_S = 0.5

Stream = Literal["stdout", "stderr"]


class WorkerProcess:
    """`ending(exited)` completes what is told of its end; `events` hears everything."""

    def __init__(
        self,
        life: str,
        rank: int,
        device: str,
        zygote: Zygote,
        events: WorkerEvents,
        ending: Callable[[Exited], Exited],
    ) -> None:
        self.life = life
        self.rank = rank
        self.device = device
        self.pid = 0
        self._zygote = zygote
        self._events = events
        self._ending = ending
        self._loop = asyncio.get_running_loop()
        self._pipes: dict[int, tuple[Stream, codecs.IncrementalDecoder]] = {}
        self._gone = self._loop.create_future()

    @property
    def alive(self) -> bool:
        return not self._gone.done()

    @property
    def visible_gpus(self) -> str | None:
        """CUDA_VISIBLE_DEVICES of its process; None: all."""
        return self._zygote.environ.get("CUDA_VISIBLE_DEVICES")

    def open(self) -> list[int]:
        """Channel and pipes: the ends that it is forked with. Raises OSError."""
        ours, theirs = channel.pair()
        pipes = [os.pipe() for _ in range(3)]
        self._channel = AsyncChannel(ours, self._on_frame, lambda: None)
        self._watch(pipes[0][0], "stdout")
        self._watch(pipes[1][0], "stderr")
        self._stacks_fd = pipes[2][0]
        os.set_blocking(self._stacks_fd, False)
        os.set_blocking(pipes[2][1], False)  # a crash must not wait for a reader
        return [theirs.detach(), *(write for _, write in pipes)]

    async def start(self, handles: Sequence[int]) -> None:
        """Fork it with what `open` gave. Raises ZygoteLost: it is as if it had never been."""
        try:
            self.pid = await self._zygote.fork(self.life, handles, self._on_exit)
            self._zygote.when_warm(self._warm)
        except ZygoteLost:
            if self.alive:
                self._close()
            raise
        finally:
            close_all(handles)

    def _warm(self) -> None:
        self.send(encode(Warm()))

    def send(self, raw: bytes, blob: Blob | None = None, handles: Sequence[int] = ()) -> None:
        if self.alive:
            self._channel.forward(raw, blob, handles)

    def signal(self, number: int, group: bool = False) -> None:
        self._zygote.signal(self.life, number, group)

    async def stacks(self) -> str:
        """Empty where the signal that asks for them would end it, or do nothing."""
        if not processes.catches(self.pid, signal.SIGUSR1):
            return ""
        self._read_stacks()
        self.signal(signal.SIGUSR1)
        text, waited_s = "", 0.0
        while self.alive and waited_s < _STACKS_LIMIT_S:
            await asyncio.sleep(_STACKS_QUIET_S)
            waited_s += _STACKS_QUIET_S
            more = self._read_stacks()
            text += more
            if text and not more:
                break
        return text

    async def kill(self) -> None:
        self.signal(signal.SIGKILL, group=True)
        self.signal(signal.SIGKILL)
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

    def _on_frame(self, frame: Frame) -> None:
        if isinstance(frame.message, (Started, Joined, Outcome, Fetched)):
            self._drain()
        self._events.on_frame(frame)

    def _on_exit(self, exited: Exited) -> None:
        self._channel.drain()
        self._drain()
        told = self._ending(msgspec.structs.replace(exited, stacks=self._read_stacks()))
        if not exited.pid:  # the zygote is gone, which would have done this
            self._end_process_group()
        self._close()
        self._gone.set_result(None)
        self._events.on_exit(told)

    def _end_process_group(self) -> None:
        """What user code had started and left behind; no guard of ours survives an exec."""
        if self.pid:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    # ---- pipes

    def _drain(self) -> None:
        """Take what it wrote before its last message: that is in the pipes already."""
        for fd in list(self._pipes):
            reads = 0
            while reads < _DRAIN_READS and self._read(fd):
                reads += 1

    def _watch(self, fd: int, stream: Stream) -> None:
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
        output = Output(rank=self.rank, kind=stream, text=decoder.decode(data))
        self._events.on_frame(Frame(output, encode(output)))
        return True

    def _read_stacks(self) -> str:
        try:
            return os.read(self._stacks_fd, 4 * _READ_BYTES).decode("utf-8", "replace")
        except (BlockingIOError, OSError):
            return ""

    def _close(self) -> None:
        self._channel.close()
        for fd in self._pipes:
            self._loop.remove_reader(fd)
            os.close(fd)
        self._pipes.clear()
        os.close(self._stacks_fd)
        self._stacks_fd = -1


class OomCounter:
    """Counts the kernel's out-of-memory kills in this cgroup, the only direct evidence there is of one."""

    def __init__(self) -> None:
        self._explained = self._read()

    def reset(self) -> None:
        """What was killed up to now were others."""
        self._explained = self._read()

    def explains_one(self) -> bool:
        """Whether a process that has just been killed may be one of those: each kill explains one."""
        more = self._read() > self._explained
        self._explained += more
        return more

    @staticmethod
    def _read() -> int:
        for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
            try:
                lines = Path(path).read_text().splitlines()
            except OSError:
                continue
            return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
        return 0
