"""The agent's handle of a zygote: start it, ask it for workers, hear of their exits."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Literal

from quarterdeck.guard import dying_with_us
from quarterdeck.present.words import signal_name
from quarterdeck.protocol import channel
from quarterdeck.protocol.agent import ZygoteLost
from quarterdeck.protocol.async_channel import AsyncChannel
from quarterdeck.protocol.channel import Frame
from quarterdeck.protocol.zygote import Exited, Fork, Forked, Signal, ZygoteReady

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


_END_LIMIT_S = 0.2
"""From the end of its channel to the end of its process."""


class Zygote:
    """Must be started from the main thread: the zygote's parent-death signal follows the thread that started
    it.
    """

    def __init__(self, guard_fd: int, bare: bool, environ: dict[str, str], sys_path: list[str]) -> None:
        self.ready: asyncio.Future[ZygoteReady] = asyncio.get_running_loop().create_future()
        self.level: Literal["", "torch", "all"] = ""
        self.environ = environ
        self._asked_s = time.monotonic()
        self._forks: dict[str, asyncio.Future[int]] = {}
        self._exits: dict[str, Callable[[Exited], None]] = {}
        self._retired = False
        self.bare = bare
        self._waiting: list[Callable[[], None]] = []
        ours, theirs = channel.pair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, json.dumps(sys_path), str(theirs.fileno()), str(guard_fd),
                 str(os.getpid()), "bare" if bare else "warm"],
                pass_fds=[theirs.fileno(), guard_fd],
                stdin=subprocess.DEVNULL,
                env={**_ENVIRONMENT, **environ},
                preexec_fn=dying_with_us(),
            )  # fmt: skip
        self._channel = AsyncChannel(ours, self._on_frame, self._on_end)
        if bare:
            self.ready.set_result(ZygoteReady(level="all", gpus=0, torch_version="", import_s=0.0))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self._channel.closed

    async def fork(self, life: str, handles: Sequence[int], on_exit: Callable[[Exited], None]) -> int:
        """Start a worker with these descriptors (the caller closes them). Raises ZygoteLost."""
        if not self.alive:
            raise self._lost()
        forked: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._asked_s = self._asked_s if self._forks else time.monotonic()
        self._forks[life] = forked
        self._exits[life] = on_exit
        self._channel.send(Fork(life=life, start_method="spawn" if self.bare else "fork"), handles=handles)
        return await forked

    @property
    def waited_s(self) -> float:
        """How long it has owed an answer."""
        return time.monotonic() - self._asked_s if self._forks or not self.ready.done() else 0.0

    def when_warm(self, then: Callable[[], None]) -> None:
        """Once it has imported all: for a worker that it has forked before. A bare one never does."""
        if self.level != "all" and not self.bare:
            self._waiting.append(then)

    def signal(self, life: str, number: int, group: bool = False) -> None:
        """No effect on a worker that has exited: the zygote knows what it has not reaped yet."""
        self._channel.send(Signal(life=life, number=number, group=group))

    def retire(self) -> None:
        """End it once no worker of it lives any more; it is asked for none from now on."""
        self._retired = True
        self._end_if_idle()

    def forget(self, life: str) -> None:
        """Nobody waits for the end of this worker any more."""
        self._exits.pop(life, None)
        self._end_if_idle()

    def close(self) -> None:
        """End the zygote and with it every worker it started."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._channel.close()

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
                self._asked_s = time.monotonic()
                if not forked.done():  # its caller may have given up
                    forked.set_result(pid)
            case Exited() as exited:
                self._exits.pop(exited.life, _nobody)(exited)
                self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._retired and not self._exits:
            self.close()

    def _be_warm(self) -> None:
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            then()

    def _on_end(self) -> None:
        lost = self._lost()
        if not self.ready.done():
            self.ready.set_exception(lost)
        self.ready.exception()  # looked at: nobody may be waiting for it
        for forked in self._forks.values():
            if not forked.done():
                forked.set_exception(lost)
        for life, on_exit in list(self._exits.items()):
            # by its parent-death signal
            on_exit(Exited(life, pid=0, status=int(signal.SIGKILL), zygote_gone=True))
        self._exits.clear()

    def _lost(self) -> ZygoteLost:
        try:
            code = self._process.wait(_END_LIMIT_S)
            how = f"was killed by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        except subprocess.TimeoutExpired:
            how = "does not answer"
        does = "starts the workers" if self.ready.done() else "imports torch for the workers"
        return ZygoteLost(f"The process that {does} (pid {self.pid}) {how}.")


def _nobody(_: Exited) -> None:
    """Hears of the end of a worker that was let go."""
