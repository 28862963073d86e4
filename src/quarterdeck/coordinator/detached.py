"""A coordinator of one run that outlives its kernel: `--detach`, `submit(detach=True)`. Entered from `main`,
in a process that has no parent but init.

The kernel that started it submits the run as to any coordinator; if it goes away before the run is on record,
that was all. From then on nothing ties the two. Workers and zygote hang on a guard pipe of this process.
Other kernels reach it through a socket, for what `Reach` says and nothing else; all else they read in the run
store.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import msgspec

from quarterdeck import files
from quarterdeck.coordinator import status
from quarterdeck.coordinator.calls import Call
from quarterdeck.coordinator.coordinator import Coordinator
from quarterdeck.coordinator.isolated_run import IsolatedRun
from quarterdeck.coordinator.placement import BadRequest
from quarterdeck.protocol.agent import Agent
from quarterdeck.protocol.async_channel import AsyncChannel
from quarterdeck.protocol.channel import Frame
from quarterdeck.protocol.kernel import Answer, Reach, Refused
from quarterdeck.store import detached_socket
from quarterdeck.store.layout import COORDINATOR_LOG
from quarterdeck.store.owner import RunOwner

ERRORS = COORDINATOR_LOG
"""In the run's folder: what coordinator and zygote have to say."""
_TAKE_LIMIT_S = 60.0
"""For the kernel to take the values of a run that has ended, if it lives."""
_TICK_S = 0.02


async def serve(control: socket.socket, new_agent: Callable[[int], Agent]) -> None:
    """To the end of the run."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # also for the workers
    guard_read, _guard_write = os.pipe()
    here = RunOwner.here()
    listener, path = detached_socket.listen(here)
    keeper = msgspec.structs.replace(here, socket=path)
    try:
        detached = Detached(control, listener, Coordinator([new_agent(guard_read)], None, keeper))
        await detached.ended.wait()
        await detached.coordinator.close()
    finally:
        listener.close()
        detached_socket.remove(keeper)


class Detached:
    """`ended` is set when the run is over, and everybody has what is theirs."""

    def __init__(self, control: socket.socket, listener: socket.socket, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self.coordinator.on_run = self._begin
        self.ended = asyncio.Event()
        self._run: IsolatedRun | None = None
        self._calls: set[Call] = set()
        self._visitors: set[AsyncChannel] = set()
        self._looking: set[asyncio.Task[None]] = set()
        self._last: asyncio.Task[None] | None = None
        self._control = AsyncChannel(control, self._on_call, self._on_kernel_end)
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        loop.add_reader(listener, self._on_visit, listener)
        loop.add_signal_handler(signal.SIGTERM, self._stop)

    # ---- the kernel that started it

    def _on_call(self, frame: Frame) -> None:
        for fd in frame.handles:
            self._calls.add(Call(socket.socket(fileno=fd), self.coordinator, self._on_done))

    def _on_kernel_end(self) -> None:
        if self._run is None:
            self.ended.set()

    def _begin(self, run: IsolatedRun) -> None:
        """It is about to go on record, and this process is its own from now on."""
        self._run = run
        with suppress(OSError):
            run.open()
            errors = files.create(run.folder, ERRORS, flags=os.O_RDWR | os.O_APPEND)
            os.dup2(errors, 1)
            os.dup2(errors, 2)
            os.close(errors)

    def _on_done(self, call: Call) -> None:
        self._calls.discard(call)
        if not call.submits:  # the kernel asked whether somebody is here
            return
        self._last = asyncio.get_running_loop().create_task(self._end(call))

    async def _end(self, call: Call) -> None:
        self.coordinator.close_nodes()
        waited_s = 0.0
        while not call.sent and waited_s < _TAKE_LIMIT_S:
            await asyncio.sleep(_TICK_S)
            waited_s += _TICK_S
        self.ended.set()

    # ---- kernels that come later

    def _on_visit(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:  # it has left again
            return
        if detached_socket.peer(connection)[1] != os.getuid():
            connection.close()
            return
        holder: list[AsyncChannel] = []
        leave = partial(self._on_leave, holder)
        holder.append(AsyncChannel(connection, partial(self._on_word, holder), leave, lambda _: leave()))
        self._visitors.add(holder[0])

    def _on_word(self, holder: list[AsyncChannel], frame: Frame) -> None:
        match frame.message:
            case Reach(run_id=run_id, action=action) if self._run is not None and run_id == self._run.run_id:
                if action == "stacks":
                    task = asyncio.get_running_loop().create_task(self._tell_stacks(holder[0]))
                    self._looking.add(task)
                    task.add_done_callback(self._looking.discard)
                    return
                if action == "stop":
                    self._stop()
                facts = {"attempt": str(self._run.attempt), "pid": str(os.getpid())}
                holder[0].send(Answer(text=run_id, facts=facts))
            case Reach(run_id=run_id):
                holder[0].send(Refused(text=f"{run_id} is not the run of this process."))
            case _:
                holder[0].send(Refused(text="A detached run can be asked for its state and be stopped."))

    async def _tell_stacks(self, visitor: AsyncChannel) -> None:
        assert self._run is not None
        try:
            visitor.send(await status.run_stacks(self.coordinator, self._run.run_id))
        except BadRequest as problem:
            visitor.send(Refused(text=str(problem)))

    def _on_leave(self, holder: list[AsyncChannel]) -> None:
        for channel in holder:
            self._visitors.discard(channel)
            channel.close()

    def _stop(self) -> None:
        if self._run is not None:
            self._run.stop()
