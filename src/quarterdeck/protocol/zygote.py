"""Agent and zygote."""

from typing import Literal

from quarterdeck.protocol.parts import Message


class Fork(Message):
    """Start one worker; carries the descriptors of its channel, stdout, stderr and stacks."""

    life: str
    start_method: Literal["fork", "spawn"]


class Signal(Message):
    """Send a signal to a worker that has not been reaped yet; to its whole process group with `group`."""

    life: str
    number: int
    group: bool = False


class ZygoteReady(Message):
    """torch is imported (level "torch"), or everything is (level "all")."""

    level: Literal["torch", "all"]
    gpus: int
    torch_version: str
    import_s: float


class Forked(Message):
    life: str
    pid: int


class Exited(Message):
    life: str
    pid: int
    status: int
    """As of os.waitpid."""
    peak_memory_bytes: int = 0
    stacks: str = ""
    """The stacks of every thread, as faulthandler wrote them when the process crashed."""
    zygote_gone: bool = False
    """It ended with the process that it was forked from."""
    kernel_gone: bool = False
    """It was killed as the notebook's kernel ended."""
    out_of_memory: bool = False
    """The system's out-of-memory killer has struck since it was started."""
