"""The agent of the node that the coordinator itself runs on: `protocol.agent.Agent` without a hop."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from quarterdeck.agent import processes
from quarterdeck.agent.vitals import watched
from quarterdeck.agent.worker_process import OomCounter, WorkerProcess
from quarterdeck.agent.zygote import Zygote
from quarterdeck.agent.zygote_pool import ZygotePool
from quarterdeck.guard import hung_up
from quarterdeck.protocol.agent import (
    Memory,
    NodeFacts,
    NodeStatus,
    ProcessState,
    Vitals,
    WorkerEvents,
    ZygoteLost,
)
from quarterdeck.protocol.blob import Blob
from quarterdeck.protocol.channel import encode
from quarterdeck.protocol.parts import KernelContext, changed
from quarterdeck.protocol.worker import Join
from quarterdeck.protocol.zygote import Exited


class LocalAgent:
    """One per coordinator. Made and used in its loop, in the main thread: a zygote's parent-death signal
    follows the thread that started it.
    """

    address = "127.0.0.1"

    def __init__(self, guard_fd: int) -> None:
        """`guard_fd`: read end of the pipe whose write end the kernel holds."""
        self._guard_fd = guard_fd
        self._pool = ZygotePool(guard_fd)
        self._groups: dict[str, Zygote] = {}
        self._processes: dict[str, WorkerProcess] = {}
        self._listeners: dict[int, socket.socket] = {}
        self._oom = OomCounter()

    async def ready(self, context: KernelContext) -> NodeFacts:
        ready = await self._pool.ready(context)
        return NodeFacts(core_count(), ready.gpus)

    def status(self, context: KernelContext) -> NodeStatus:
        zygote = self._pool.zygote(context)
        state = _state_of(zygote.pid)
        if not zygote.ready.done() or zygote.ready.exception():
            return NodeStatus(state, "", "", 0.0, None)
        ready = zygote.ready.result()
        facts = NodeFacts(core_count(), ready.gpus)
        return NodeStatus(state, zygote.level, ready.torch_version, ready.import_s, facts)

    def outdated(self, context: KernelContext) -> list[str]:
        return self._pool.outdated(context)

    def renew(self, context: KernelContext) -> list[str]:
        changed = self._pool.outdated(context)
        if changed:
            self._pool.renew()
        return changed

    def leave_hung(self, limit_s: float) -> None:
        self._pool.leave_hung(limit_s)

    # ---- groups

    def open_group(self, key: str, context: KernelContext, start_method: str) -> None:
        self._groups[key] = self._pool.zygote(context, bare=start_method == "spawn")

    def close_group(self, key: str) -> None:
        self._groups.pop(key, None)

    async def start(self, key: str, life: str, rank: int, device: str, events: WorkerEvents) -> None:
        process = WorkerProcess(life, rank, device, self._groups[key], events, self._ending)
        handles = process.open()
        self._processes[life] = process
        self._oom.reset()
        try:
            await process.start(handles)
        except ZygoteLost:
            self._processes.pop(life, None)
            raise

    def _ending(self, exited: Exited) -> Exited:
        """What this node knows of the end of a worker."""
        self._processes.pop(exited.life, None)
        killed = exited.status == signal.SIGKILL
        return msgspec.structs.replace(
            exited,
            kernel_gone=killed and hung_up(self._guard_fd),
            out_of_memory=killed and self._oom.explains_one(),
        )

    def listen(self) -> int:
        listener = socket.create_server((self.address, 0), backlog=128)
        port = int(listener.getsockname()[1])
        self._listeners[port] = listener
        return port

    def stop_listening(self, port: int) -> None:
        self._listeners.pop(port).close()

    # ---- workers

    def join(self, life: str, join: Join) -> None:
        handles = [self._listeners[join.port].fileno()] if join.rank == 0 else []
        environ = changed(os.environ, join.environ) if join.fresh else {}
        whole = msgspec.structs.replace(join, environ=environ)
        if process := self._processes.get(life):
            process.send(encode(whole), None, handles)

    def send(self, life: str, raw: bytes, blob: Blob | None = None) -> None:
        if process := self._processes.get(life):
            process.send(raw, blob)

    def signal(self, life: str, number: int, group: bool = False) -> None:
        if process := self._processes.get(life):
            process.signal(number, group)

    async def kill(self, life: str) -> None:
        if process := self._processes.get(life):
            await process.kill()

    async def stacks(self, life: str) -> ProcessState:
        process = self._processes.get(life)
        if process is None:
            return ProcessState(0, "", "")
        state = _state_of(process.pid)
        return state if state.state in ("", "T") else state._replace(stacks=await process.stacks())

    def memory(self, life: str) -> Memory:
        process = self._processes.get(life)
        return _memory_of(process.pid) if process is not None else Memory(0, 0)

    def watch(self, lives: Sequence[str], told: Callable[[list[Vitals]], None]) -> Callable[[], None]:
        return watched([self._processes[life] for life in lives if life in self._processes], told)

    def close(self) -> None:
        self._pool.close()


def core_count() -> int:
    return len(os.sched_getaffinity(0))


def _state_of(pid: int) -> ProcessState:
    return ProcessState(pid, processes.state(pid), processes.waits_in(pid))


def _memory_of(pid: int) -> Memory:
    """From the proportional set size, and the private pages."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return Memory(0, 0)
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return Memory(sizes.get("Pss", 0), sizes.get("Private_Dirty", 0) + sizes.get("Private_Clean", 0))
