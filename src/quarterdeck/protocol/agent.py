"""The seam between what is decided once, in the coordinator, and what is done on every node, by its agent.

    coordinator --> agent: start, join, send, signal, kill, stacks, memory, watch
                <-- of each worker its frames, in the order in which it wrote them, then its end

The agent of the coordinator's own node is an object in the coordinator's process (`agent.local`): asking it
costs a call. Workers are named by their life, and nothing that is said here is a descriptor or a path of one
machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

import msgspec

from quarterdeck.bounds import Count, Rank, UnixNs
from quarterdeck.protocol.blob import Blob
from quarterdeck.protocol.channel import Frame
from quarterdeck.protocol.parts import KernelContext
from quarterdeck.protocol.worker import Join
from quarterdeck.protocol.zygote import Exited


class ZygoteLost(Exception):
    """The process of a node that workers are forked from is gone; the text says how."""


class NodeFacts(NamedTuple):
    """What a node has for workers."""

    cores: int
    gpus: int


class ProcessState(NamedTuple):
    """What a node's system says of a process at this moment."""

    pid: int
    """0: there is none yet."""
    state: str
    """ "R", "S", "D", "T", "t", "Z" as in proc(5); empty for a process that is not there."""
    waits_in: str
    """The function of the system's kernel that it waits in; empty where that is not told."""
    stacks: str = ""
    """Every thread's Python stack as faulthandler writes it, also where the GIL is held. Empty for a process
    that cannot write it: it is stopped, or has not reached quarterdeck's first line.
    """


class NodeStatus(NamedTuple):
    """What `%workers doctor` tells of a node."""

    zygote: ProcessState
    imported: Literal["", "torch", "all"]
    """How much of what workers need its zygote has."""
    torch_version: str
    import_s: float
    facts: NodeFacts | None
    """None while the GPUs have not been counted."""


class Memory(NamedTuple):
    """What a worker costs."""

    total_bytes: int
    """Its share of common pages counted in part."""
    private_bytes: int


class Vitals(msgspec.Struct, frozen=True):
    """What one rank uses of its node. None is not known: no GPU, no driver library, a process that has just
    begun.
    """

    rank: Rank
    time_unix_ns: UnixNs
    cpu_percent: float | None = None
    """A share of one core; more than 100 with several threads. The worker's children count."""
    memory_bytes: Count | None = None
    """Resident, with the worker's children; pages that they share count for each."""
    memory_limit_bytes: Count | None = None
    """The machine's memory, or less where a cgroup allows less."""
    gpu_percent: float | None = None
    gpu_memory_bytes: Count | None = None
    """What is used of the whole device, whoever uses it."""
    gpu_memory_limit_bytes: Count | None = None


class WorkerEvents(Protocol):
    """What an agent tells of one worker, in the coordinator's loop."""

    def on_frame(self, frame: Frame) -> None:
        """A message of its own, or Output with text that it, or what it started, wrote to stdout or stderr.
        What it wrote before a message comes before that message.
        """

    def on_exit(self, exited: Exited) -> None:
        """Once, after its last frame."""


class Agent(Protocol):
    """One node. Methods that are not async return at once; those about a worker that is gone do nothing."""

    @property
    def address(self) -> str:
        """Where the workers of all nodes of a group reach what listens on this one."""

    async def ready(self, context: KernelContext) -> NodeFacts:
        """Once workers can be forked. Raises ZygoteLost."""

    def status(self, context: KernelContext) -> NodeStatus:
        """At any time."""

    def outdated(self, context: KernelContext) -> list[str]:
        """Variables that were read when torch was imported, and that have changed in the kernel since."""

    def renew(self, context: KernelContext) -> list[str]:
        """Import torch anew for the groups that come, where that is outdated: by which variables."""

    def leave_hung(self, limit_s: float) -> None:
        """End what has let somebody wait for so long, with all workers that came from it."""

    # ---- groups

    def open_group(self, key: str, context: KernelContext, start_method: str) -> None:
        """All workers of a group are started alike, also those that replace others."""

    def close_group(self, key: str) -> None:
        """No worker is started for it any more; those that live are not touched. May be said again."""

    async def start(self, key: str, life: str, rank: int, device: str, events: WorkerEvents) -> None:
        """Start a worker of this group; its first frame is Started. Raises ZygoteLost. May be cancelled:
        `kill` ends it then.
        """

    def listen(self) -> int:
        """Open the listener of a group's store on this node: its port."""

    def stop_listening(self, port: int) -> None:
        """The group's store keeps what it has of it."""

    # ---- workers

    def join(self, life: str, join: Join) -> None:
        """As `send`; the agent adds what is the node's own: to rank 0's the listener of `join.port`, to all
        the node's environment, on which `join.environ` are changes.
        """

    def send(self, life: str, raw: bytes, blob: Blob | None = None) -> None:
        """A message, encoded once for all ranks."""

    def signal(self, life: str, number: int, group: bool = False) -> None:
        """To the worker; with `group` also to what it has started."""

    async def kill(self, life: str) -> None:
        """SIGKILL to it and to what it has started. It is gone afterwards, or let go."""

    async def stacks(self, life: str) -> ProcessState:
        """Where it is. Answered also while the worker's interpreter is stuck."""

    def memory(self, life: str) -> Memory: ...

    def watch(self, lives: Sequence[str], told: Callable[[list[Vitals]], None]) -> Callable[[], None]:
        """`told` hears once a second what these workers use, from the loop, until the function that this
        returns is called.
        """

    def close(self) -> None:
        """End everything on the node."""
