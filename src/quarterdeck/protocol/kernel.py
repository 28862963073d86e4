"""Kernel and coordinator: a channel for each call. Its first message says what is wanted, its end means that
the caller is gone.
"""

from typing import Literal

import msgspec

from quarterdeck.protocol.parts import (
    GroupSpec,
    KernelContext,
    Message,
    Parent,
    Payload,
    Restart,
    WorkerNames,
)
from quarterdeck.protocol.worker import CallFunction, Outcome, RunCell
from quarterdeck.public import public


class Open(Message):
    """A new call: the descriptor that comes with it is the coordinator's end of its channel."""


class TakeTurn(Message):
    """Wait for the session (starting its group if need be), then hold it for one action on this channel."""

    spec: GroupSpec
    ranks: list[int] | None
    title: str
    """What a waiting cell is told it waits for: "cell [7]", "%pull model"."""
    context: KernelContext | None = None
    """Sent when it changed since the last call; reaches the next new group."""
    session: str = "default"


class Control(Message):
    """`%workers start|restart|stop|interrupt`."""

    action: Literal["start", "restart", "stop", "interrupt"]
    spec: GroupSpec = GroupSpec()
    context: KernelContext | None = None
    session: str = "default"


class Ask(Message):
    """`%workers status|stacks|doctor`, answered at once, also while a cell runs. A ping asks for no more."""

    what: Literal["status", "stacks", "doctor", "ping"]
    session: str = "default"
    run_id: str = ""
    """For stacks: of this run, in the place of a session's."""


class AskSetups(Message):
    """The set-up cells of a session: one SetUp each, then an Answer."""

    session: str = "default"


class Reach(Message):
    """From a later kernel to the coordinator of a detached run, which answers that it is there. Each stop is
    a step of the ladder.
    """

    run_id: str
    action: Literal["ask", "stop", "stacks"]


class Submit(Message):
    """A run in a group of its own: forked for it, gone after it. The memfd comes with it."""

    spec: GroupSpec
    work: RunCell | CallFunction
    context: KernelContext
    title: str
    """What it is called where it has to be waited for, and in the store: "train()", "cell [7]"."""
    source: str = ""
    arguments: str = ""
    """A function's arguments, in words."""
    session: str = "default"
    """Whose set-up cells are run first."""
    max_restarts: int = 0
    restart: Restart = "recoverable"
    """What is worth another attempt. recoverable: a rank was killed or lost, or raised RecoverableError;
    always: whatever user code did, unless it could not run at all.
    """
    parent: Parent = Parent()
    setups: int = 0
    """So many SetUp messages follow: for a coordinator that has no sessions."""


class SetUp(Message):
    """A set-up cell of a session as it is run on new workers, with its memfd."""

    cell: RunCell
    ranks: list[int] | None
    """Those that it ran on; None: all."""


class Cancel(Message):
    """Interrupt what this call runs or waits for. A second one skips a step of the ladder."""


@public
class RankStatus(msgspec.Struct, omit_defaults=True):
    """One row of `%workers status`.

    Attributes:
        rank: 0 up to the number of workers - 1.
        pid: the worker's process.
        state: "idle", "running" or "dead".
        device: "cuda:N" or "cpu".
        names: how many variables user code has there.
        memory_bytes: what it takes of the machine's memory, pages that it shares with others counted in part.
        private_bytes: what it shares with nobody.
    """

    rank: int
    pid: int
    state: str
    device: str
    names: int
    memory_bytes: int
    private_bytes: int


# ---- coordinator -> kernel


class Waiting(Message):
    """The call is queued behind another."""

    behind: str


class Turn(Message):
    """The session is the caller's until the next answer or until it closes the channel."""

    session: str
    incarnation: int
    backend: str
    workers: list[WorkerNames]
    """Those of the turn's ranks."""
    world_size: int
    device_type: str
    started: bool = False
    """A group was started for this turn."""


class Accepted(Message):
    """The run is on record: a submitted one, or a cell that is named or shows something."""

    run_id: str
    folder: str


class Begun(Message):
    """The group of a submitted run is up."""

    attempt: int
    world_size: int
    backend: str
    device_type: str
    took_s: float


class Notice(Message):
    """One line for the reader of the notebook."""

    text: str
    level: Literal["info", "warning"] = "info"
    key: str = ""
    """It replaces the line that this call has sent with this key."""


class Refused(Message):
    """The call ended before anything started. The session is as it was."""

    text: str
    cancelled: bool = False
    """The caller wanted it so, with Cancel, or a restart or stop did."""


class Finished(Message):
    """A cell is over on all its ranks."""

    outcomes: list["Outcome"]
    root_cause: int | None
    """Rank whose failure came first, None if the cell succeeded."""
    stopped: Literal["", "interrupt", "timeout"] = ""
    duration_s: float = 0.0
    kept: bool = True
    """Whether every rank's variables survived."""
    group_lost: bool = False
    """The group is gone and is not repaired: the next cell starts another."""
    log_dir: str = ""


class Answer(Message):
    """Result of a call that has no cell: text and, for tables, data."""

    text: str = ""
    ranks: list[RankStatus] = []
    facts: dict[str, str] = {}
    stacks: dict[int, str] = {}


class Pulled(Message):
    """`%pull`'s value; carries a memfd if there are spans."""

    payload: Payload
