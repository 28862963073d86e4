"""Every message between kernel, coordinator, zygote and workers, as msgspec structs. The only truth about the
wire.

    kernel  --(one channel per call)-->  coordinator  -->  zygote (forks, signals, reaps)
                                              |
                                              +-->  worker 0..n-1 (one channel each)

A call from the kernel is a channel of its own: its first message says what is wanted, its end means the
caller is gone. Messages are msgpack; nothing here is ever a pickle. Pickled bytes travel as opaque `bytes`
fields or memfds, and only a worker (from its own coordinator) and the kernel (from its own workers) load
them.
"""

from typing import Literal

import msgspec

from quarterdeck.bounds import Code, Rank, UnixNs
from quarterdeck.errors import shortened
from quarterdeck.public import public

SUMMARY_CHARS = 1000

Restart = Literal["recoverable", "always", "never"]

Owner = Literal["worker", "notebook"]
"""Who a name in a worker's namespace belongs to: bound by a worker cell, or travelled from the notebook."""


class Message(msgspec.Struct, tag=True, omit_defaults=True):
    """Base of everything on the wire."""


# ---- parts


class KernelContext(msgspec.Struct):
    """What a new worker takes over from the kernel."""

    environ: dict[str, str]
    cwd: str
    sys_path: list[str]
    notebook: str = ""
    """Path or name of the notebook's file, as far as it is known; for the run store."""


class RunPlace(msgspec.Struct, omit_defaults=True, frozen=True):
    """Which run a worker works for, and where that run is kept."""

    run_id: str = ""
    name: str = ""
    folder: str = ""
    attempt: int = 0
    closed: bool = False
    """It has a group of its own, so it has checkpoints of its own, attempt by attempt."""
    parent: str = ""
    """Folder of the run that this one continues."""
    resume: str = ""
    """Where that has its checkpoints, or the one that the user named."""


class Parent(msgspec.Struct, omit_defaults=True, frozen=True):
    """The earlier run that a new one continues (`--resume`); all empty without one."""

    run_id: str = ""
    folder: str = ""
    """Of that run; empty for checkpoints that belong to no run."""
    resume: str = ""
    """Folder of its checkpoints, or the one checkpoint that the user named."""


class GroupSpec(msgspec.Struct, omit_defaults=True, frozen=True):
    """The group a cell asks for; None means: as the session has it, or the default for its first group."""

    nproc_per_node: int | Literal["auto", "gpu", "cpu"] | None = None
    backend: str | None = None
    start_method: Literal["fork", "spawn"] | None = None
    environ: dict[str, str] = {}
    """`--env` of the call: also in the environment of a group that it starts."""
    join_timeout_s: float | None = None
    """How long workers that have just started may take to find each other."""


class Payload(msgspec.Struct, omit_defaults=True, frozen=True):
    """Pickled notebook values, by name. Large buffers lie in the memfd that travels with the message."""

    data: bytes = b""
    spans: list[tuple[int, int]] = []
    """(offset, length) in bytes of each out-of-band buffer in the memfd, in pickling order."""
    names: list[str] = []
    sources: dict[str, tuple[int, str]] = {}
    """Source of travelling functions for tracebacks: co_filename -> (notebook cell number, text)."""


class WorkerNames(msgspec.Struct):
    """The public names of one worker, as the coordinator last heard of them."""

    rank: int
    life: str
    """Identifies one life of the worker process; another one after it was replaced."""
    names: dict[str, Owner]
    dropped: list[int] = []
    """Travel ids whose objects this worker no longer holds (see `transfer.pickler`)."""


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


# ---- kernel -> coordinator: a call on the control channel, then its first message


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


class AskSetups(Message):
    """The set-up cells of a session: one SetUp each, then an Answer."""

    session: str = "default"


class Reach(Message):
    """Of a later kernel to the coordinator of a detached run, which answers that it is there. Each stop is a
    step of the ladder.
    """

    run_id: str
    action: Literal["ask", "stop"]


class Complete(Message):
    """Completion of a cell body from rank 0's namespace. Answered by a service thread, also while a cell
    runs.
    """

    code: str
    cursor: int
    session: str = "default"


class Inspect(Message):
    """Documentation of a name from rank 0's namespace."""

    code: str
    cursor: int
    detail_level: int
    session: str = "default"


# ---- kernel -> coordinator -> workers: the action of a turn


class _Work(Message, kw_only=True):
    """What cells and functions have in common. Carries a memfd if any of its payloads has spans."""

    number: int
    """The notebook's execution count, for tracebacks ("Cell In[7], line 3")."""
    name: str = ""
    payload: Payload = Payload()
    """Names to bind in the worker's namespace first."""
    place: RunPlace = RunPlace()
    seed: int | None = None
    environ: dict[str, str] = {}
    timeout_s: float | None = None
    """Bounds the whole run; kept by the coordinator."""
    collective_timeout_s: float | None = None
    """Bounds one collective; set on the process group for this run."""
    tensorboard: str = ""
    """Folder for event files of what is logged; none if empty."""


class RunCell(_Work, kw_only=True):
    """Run a cell on the turn's ranks. The coordinator adds the place of the run, and sends it on."""

    code: str
    bare: bool = False
    """It had no magic line in the notebook, which would be its first."""
    plain: bool = False
    """Plain Python: IPython's syntax transformations leave it as it is, so the worker need not try them."""
    binds: list[str] = []
    """Names the cell binds itself: the workers' own afterwards."""
    setup: bool = False
    recorded: bool = False
    """It goes into the run store at once, also if it never shows anything."""
    keep_frames: bool = True
    """If it fails: until the next one begins."""
    replay: Payload | None = None
    """Of a set-up cell: the payload for a worker that has nothing yet, if that is another."""


class CallFunction(_Work, kw_only=True):
    """Call a function through `spawn_helper`. The spans of all three payloads lie in the same memfd."""

    function: Payload
    """`data` is what `spawn_helper` takes as `fn`."""
    kwargs: Payload
    deck_fields: list[str] = []
    """The automatic decks of the run."""


class Submit(Message):
    """A run in a group of its own: forked for it, gone after it. The memfd comes with it."""

    spec: GroupSpec
    work: RunCell | CallFunction
    context: KernelContext
    title: str
    """What it is called where it has to be waited for, and in the store: "train()", "cell [7]"."""
    source: str = ""
    arguments: str = ""
    """Of a function, in words."""
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


class Install(Message):
    """`%push`: bind the payload's names, replacing what is there."""

    payload: Payload


class Fetch(Message):
    """`%pull`: pickle one name of one rank."""

    name: str
    rank: int


class Cancel(Message):
    """Interrupt what this call runs or waits for. A second one skips a step of the ladder."""


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


class Completed(Message):
    matches: list[str]
    start: int
    end: int
    types: list[str] = []


class Inspected(Message):
    found: bool
    data: dict[str, str] = {}


# ---- worker -> coordinator (-> kernel, byte for byte, where it says so)


class Started(Message):
    """A worker is up and waits for its group."""

    pid: int


class Joined(Message):
    """The worker's answer to Join."""

    incarnation: int
    error: str = ""
    not_revived: list[str] = []
    """Descriptions of objects that still hold the old group."""
    checksums: list[str] = []
    """A digest of the parameters of each replicated module, to compare between ranks."""


class Output(Message):
    """Something a rank shows; forwarded to the kernel byte for byte."""

    rank: int
    kind: Literal["stdout", "stderr", "display", "update", "clear", "result", "logged", "loaded"]
    """logged: nothing to show, but the rank has begun to keep metrics in its run's folder.
    loaded: nor here, but the rank has loaded the checkpoint of `step`, in a run that continues another."""
    text: str = ""
    """Of stdout and stderr: as written, may hold \\r and ANSI codes, need not end with a newline."""
    data: dict[str, str] = {}
    """Of display, update and result: the mime bundle, binary types in base64, JSON types as JSON text."""
    metadata: bytes = b""
    """JSON."""
    display_id: str = ""
    wait: bool = False
    """Of clear: only when the next output comes."""
    step: int = -1
    """Of loaded; -1: its code has looked for the files itself."""


class Importing(Message):
    """An interrupt waits on this rank until `module` is imported; "": it does so no longer."""

    module: str


@public
class Evidence(msgspec.Struct, frozen=True):
    """Something that is known of a failure: "Peak memory", "0.27 GiB". The text may have several lines."""

    label: str
    text: str


@public
class Outcome(Message):
    """How a cell or function ended on one rank.

    Attributes:
        rank: 0 up to the number of ranks - 1.
        state: "ok"; "error" (it raised); "interrupted"; "released" (it waited in a collective and was freed
            because another rank failed); "killed" (the process is gone).
        time_unix_ns: when it ended, in ns since 1970.
        ename: class name of its exception; "" without one.
        evalue: text of its exception.
        traceback: lines with ANSI colours.
        signal: number of the signal that killed it, or 0.
        exitcode: the exit code of a process that ended by itself, else 0.
        evidence: what is known of a failure, such as memory and the last output of a killed worker.
        text: the start of a function's value, as its repr.
        unpicklable: why the value itself did not come; "" if it did.
        annotations: what the rank noted with `qd.current().annotate`, as JSON texts by name.
        recoverable: the exception was a RecoverableError.

    The other fields are for quarterdeck itself and may change.
    """

    rank: Rank
    state: Literal["ok", "error", "interrupted", "released", "killed"]
    """released: it waited in a collective and was freed because another rank failed; killed: the process is
    gone.
    """
    time_unix_ns: UnixNs = 0
    ename: str = ""
    evalue: str = ""
    traceback: list[str] = []
    """ANSI lines as IPython renders them, own frames trimmed."""
    missing_name: str = ""
    """The name a NameError was about, so that the kernel can say that the notebook has it."""
    secondary: bool = False
    """An error that another rank's end causes ("Connection closed by peer"): never the root cause if there is
    another.
    """
    signal: Code = 0
    exitcode: Code = 0
    evidence: list[Evidence | str] = []
    """Memory, place, last output lines of a killed worker. Lines of text: as 0.1 has stored them."""
    names: dict[str, Owner | None] = {}
    """Names bound (with their owner) or removed (None) since the last report."""
    dropped: list[int] = []
    """Travel ids whose objects are gone since the last report."""
    value: Payload = Payload()
    """Of a function: its pickled return value and decks, or its exception; with a memfd if it has spans."""
    text: str = ""
    """Of a function: the start of its value's repr."""
    unpicklable: str = ""
    """Why the value itself did not come: what in it cannot be pickled."""
    annotations: dict[str, str] = {}
    """What the rank noted about its result, as JSON texts."""
    recoverable: bool = False
    """The exception was a RecoverableError."""
    installed: bool = True
    """Whether what travelled with it was unpickled; if not, its first line was not reached."""
    group: Literal["auto", "user", "none"] = "auto"
    """Whose process group the rank is left with."""
    lost: list[str] = []
    """Names that died with a killed worker."""
    cut_imports: list[str] = []
    """Modules that an interrupt has left half imported."""
    by_quarterdeck: bool = False
    """Killed, but not by itself nor from outside: by the stop ladder, a restart, a repair."""

    @property
    def summary(self) -> str:
        """The first line of its text, of a length that fits into a sentence."""
        return shortened(self.evalue.strip().partition("\n")[0], SUMMARY_CHARS)


class Fetched(Message):
    """Answer to Fetch, or to Install (with an empty payload); `error` names what went wrong."""

    payload: Payload = Payload()
    error: str = ""
    names: dict[str, Owner | None] = {}
    replaced: dict[str, str] = {}
    """Of Install: name -> short description of the worker-owned value it replaced."""


# ---- coordinator -> worker


class Join(Message):
    """Become rank `rank` of a new incarnation. Rank 0 receives the store's listening socket with it."""

    incarnation: int
    rank: int
    local_rank: int
    world_size: int
    port: int
    backend: str
    run_id: str
    restart_count: int
    max_restarts: int
    threads: int | None
    environ: dict[str, str]
    """The whole environment of the kernel."""
    cwd: str
    sys_path: list[str]
    device: str
    fresh: bool
    """The worker has just started: apply environment and folders, seed the generators."""


class Release(Message):
    """Shut the sockets of the worker's own process groups, so that a rank stuck in a collective is freed."""


FINISH_GRACE_S = 0.1
"""After one rank failed, the others may end by themselves for this long: often they fail alike."""


class Raise(Message):
    """Raise KeyboardInterrupt in the running cell."""

    reason: Literal["interrupted", "released"]
    force: bool = False
    """Also in the middle of an import, which it breaks."""


class Warm(Message):
    """Import, while there is nothing else to do, what an optimizer, DDP and FSDP need: a worker that was
    forked before the zygote had it would otherwise do so in the first cell that needs it.
    """


class Leave(Message):
    """End the worker."""


# ---- coordinator <-> zygote


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


Anything = (
    Open | TakeTurn | Submit | SetUp | Control | Ask | AskSetups | Reach | Complete | Inspect
    | RunCell | CallFunction | Install | Fetch | Cancel
    | Waiting | Turn | Accepted | Begun | Notice | Refused | Finished
    | Answer | Pulled | Completed | Inspected
    | Started | Joined | Output | Importing | Outcome | Fetched
    | Join | Release | Raise | Warm | Leave
    | Fork | Signal | ZygoteReady | Forked | Exited
)  # fmt: skip
"""Every message type; tags tell them apart, so one decoder serves all channels."""
