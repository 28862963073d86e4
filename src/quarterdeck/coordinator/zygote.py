"""The coordinator's handle of a zygote: start it, ask it for workers, hear of their exits."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

from quarterdeck.protocol import channel
from quarterdeck.protocol.async_channel import AsyncChannel
from quarterdeck.protocol.channel import Frame
from quarterdeck.protocol.messages import Exited, Fork, Forked, Signal, ZygoteReady

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    "from quarterdeck.worker.zygote import main; main(sys.argv[2:])"
)
# Read by torch when it is imported, unless the user has set them. The flight recorder is on, so that a hang
# can be explained and a slow rank named; it is no larger than that takes, as reading it holds the GIL.
# c10d's warnings are off: freeing a stuck rank makes it warn, with pages of C++ frames, of what we have just
# done.
_ENVIRONMENT = {
    "TORCH_FR_BUFFER_SIZE": "512",
    "TORCH_NCCL_TRACE_BUFFER_SIZE": "512",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}


class ZygoteLost(Exception):
    """The zygote is gone; the text holds the last lines it wrote."""


class Zygote:
    """Must be started from the main thread: the zygote's parent-death signal follows the thread that started
    it.
    """

    def __init__(self, guard_fd: int, bare: bool, environ: dict[str, str], sys_path: list[str]) -> None:
        self.ready: asyncio.Future[ZygoteReady] = asyncio.get_running_loop().create_future()
        self.level = ""
        self.environ = environ
        self._forks: dict[str, asyncio.Future[int]] = {}
        self._exits: dict[str, Callable[[Exited], None]] = {}
        self._retired = False
        self._waiting: list[Callable[[], None]] = []
        ours, theirs = channel.pair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, json.dumps(sys_path), str(theirs.fileno()), str(guard_fd),
                 str(os.getpid()), "bare" if bare else "warm"],
                pass_fds=[theirs.fileno(), guard_fd],
                stdin=subprocess.DEVNULL,
                env={**_ENVIRONMENT, **environ},
            )  # fmt: skip
        self._channel = AsyncChannel(ours, self._on_frame, self._on_end)
        if bare:
            self.ready.set_result(ZygoteReady(level="all", gpus=0, torch_version="", import_s=0.0, tasks=1))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._channel.closed

    async def fork(
        self, life: str, spawn: bool, fds: Sequence[int], on_exit: Callable[[Exited], None]
    ) -> int:
        """Start a worker with these descriptors (the caller closes them). Raises ZygoteLost."""
        if not self.alive:
            raise ZygoteLost
        forked: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._forks[life] = forked
        self._exits[life] = on_exit
        self._channel.send(Fork(life=life, start_method="spawn" if spawn else "fork"), fds)
        return await forked

    def when_warm(self, then: Callable[[], None]) -> None:
        """Once it has imported all: for a worker that it has forked before."""
        if self.level != "all":
            self._waiting.append(then)

    def signal(self, life: str, number: int, group: bool = False) -> None:
        """No effect on a worker that has exited: the zygote knows what it has not reaped yet."""
        self._channel.send(Signal(life=life, number=number, group=group))

    def retire(self) -> None:
        """End it once no worker of it lives any more; it is asked for none from now on."""
        self._retired = True
        if not self._exits:
            self.close()

    def close(self) -> None:
        """End the zygote and with it every worker it started."""
        self._channel.close()
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def _on_frame(self, frame: Frame) -> None:
        match frame.message:
            case ZygoteReady() as ready:
                self.level = ready.level
                if ready.level == "all":
                    self._be_warm()
                if not self.ready.done():
                    self.ready.set_result(ready)
            case Forked(life=life, pid=pid):
                forked = self._forks.pop(life)
                if not forked.done():  # its caller may have given up
                    forked.set_result(pid)
            case Exited() as exited:
                self._exits.pop(exited.life)(exited)
                if self._retired and not self._exits:
                    self.close()

    def _be_warm(self) -> None:
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            then()

    def _on_end(self) -> None:
        if not self.ready.done():
            self.ready.set_exception(ZygoteLost())
        self.ready.exception()  # looked at: nobody may be waiting for it
        for forked in self._forks.values():
            if not forked.done():
                forked.set_exception(ZygoteLost())
        for life, on_exit in list(self._exits.items()):
            on_exit(Exited(life=life, pid=0, status=signal.SIGKILL))  # its parent-death signal
        self._exits.clear()
