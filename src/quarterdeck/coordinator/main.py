"""Entry of the coordinator process. Started by the kernel in a session of its own; ends when the kernel does.

    python -c BOOT SYS_PATH CONTROL_FD GUARD_FD [detached]

`quarterdeck.start` gives it the agent of its own node.

Each message on the control channel carries the coordinator's end of a new call's channel. End of file on it
means that the kernel is gone; workers and zygote hold the guard pipe and are killed by the system at the same
moment, so all that is left to do here is to take along what user code had started and to exit.

With `detached` it is the coordinator of one run that outlives the kernel: see `detached`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from functools import partial

from quarterdeck.coordinator import detached
from quarterdeck.coordinator.calls import Call
from quarterdeck.coordinator.coordinator import Coordinator
from quarterdeck.guard import hung_up
from quarterdeck.protocol.agent import Agent
from quarterdeck.protocol.async_channel import AsyncChannel
from quarterdeck.protocol.channel import Channel, Frame

_CLOSE_LIMIT_S = 5


NewAgent = Callable[[int], Agent]
"""Makes the agent of the node from the read end of the guard pipe."""


def main(arguments: list[str], new_agent: NewAgent) -> None:
    control_fd, guard_fd = int(arguments[0]), int(arguments[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = Channel.from_fd(control_fd).sock
    detach = "detached" in arguments
    asyncio.run(detached.serve(control, new_agent) if detach else _serve(control, guard_fd, new_agent))


async def _serve(control: socket.socket, guard_fd: int, new_agent: NewAgent) -> None:
    coordinator = Coordinator([new_agent(guard_fd)], partial(hung_up, guard_fd))
    calls: set[Call] = set()
    ended = asyncio.Event()

    def on_call(frame: Frame) -> None:
        for fd in frame.handles:
            calls.add(Call(socket.socket(fileno=fd), coordinator, calls.discard))

    AsyncChannel(control, on_call, ended.set)
    _end_with_kernel(ended)
    await ended.wait()
    signal.setitimer(signal.ITIMER_REAL, _CLOSE_LIMIT_S)  # its default action ends this process
    await coordinator.close()


def _end_with_kernel(ended: asyncio.Event) -> None:
    """A process that user code had forked from the kernel holds copies of our descriptors: ends of file do
    not come then, the end of the kernel does.
    """
    kernel = os.getppid()
    try:
        pidfd = os.pidfd_open(kernel)
    except ProcessLookupError:
        ended.set()
        return
    asyncio.get_running_loop().add_reader(pidfd, ended.set)
    if os.getppid() != kernel:
        ended.set()
