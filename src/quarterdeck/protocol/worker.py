"""Coordinator and workers, through the agent of their node. What the kernel has done on workers, and what
these show, passes through the coordinator, which forwards it as it is, but for the place of the run.
"""

from typing import Literal

import msgspec

from quarterdeck.bounds import Code, Rank, UnixNs
from quarterdeck.errors import shortened
from quarterdeck.protocol.parts import Changes, Message, Owner, Payload, RunPlace
from quarterdeck.public import public

SUMMARY_CHARS = 1000

FINISH_GRACE_S = 0.1
"""After one rank failed, the others may end by themselves for this long: often they fail alike."""


# ---- from the kernel, by way of the coordinator


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
    """For a set-up cell: the payload for a worker that has nothing yet, if that is another."""


class CallFunction(_Work, kw_only=True):
    """Call a function through `spawn_helper`. The spans of all three payloads lie in the same memfd."""

    function: Payload
    """`data` is what `spawn_helper` takes as `fn`."""
    kwargs: Payload
    deck_fields: list[str] = []
    """The automatic decks of the run."""


class Install(Message):
    """`%push`: bind the payload's names, replacing what is there."""

    payload: Payload


class Fetch(Message):
    """`%pull`: pickle one name of one rank."""

    name: str
    rank: int


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


# ---- from a worker to the kernel, by way of the coordinator


class Output(Message):
    """Something a rank shows; forwarded to the kernel byte for byte."""

    rank: int
    kind: Literal["stdout", "stderr", "display", "update", "clear", "result", "logged", "loaded"]
    """logged: nothing to show, but the rank has begun to keep metrics in its run's folder.
    loaded: nor here, but the rank has loaded the checkpoint of `step`, in a run that continues another."""
    text: str = ""
    """For stdout and stderr: as written, may hold \\r and ANSI codes, need not end with a newline."""
    data: dict[str, str] = {}
    """For display, update and result: the mime bundle, binary types in base64, JSON types as JSON text."""
    metadata: bytes = b""
    """JSON."""
    display_id: str = ""
    wait: bool = False
    """For clear: only when the next output comes."""
    step: int = -1
    """For loaded; -1: its code has looked for the files itself."""


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
        cause: why it was killed, most likely.
        cure: what to do about that.
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
    cause: str = ""
    """Why it was killed, most likely, as it stands in `evalue`."""
    cure: str = ""
    """What to do about that: sentences."""
    names: dict[str, Owner | None] = {}
    """Names bound (with their owner) or removed (None) since the last report."""
    dropped: list[int] = []
    """Travel ids whose objects are gone since the last report."""
    value: Payload = Payload()
    """A function's pickled return value and decks, or its exception; with a blob if it has spans."""
    text: str = ""
    """The start of the repr of a function's value."""
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
    """For Install: name -> short description of the worker-owned value it replaced."""


class Completed(Message):
    matches: list[str]
    start: int
    end: int
    types: list[str] = []


class Inspected(Message):
    found: bool
    data: dict[str, str] = {}


# ---- from the coordinator


class Join(Message):
    """Become rank `rank` of a new incarnation. The agent of rank 0's node adds the store's listener."""

    incarnation: int
    rank: int
    local_rank: int
    world_size: int
    local_world_size: int
    node_rank: int
    nnodes: int
    master_addr: str
    """The address of the node of rank 0, where the store listens."""
    port: int
    backend: str
    run_id: str
    restart_count: int
    max_restarts: int
    threads: int | None
    environ: Changes
    """From the coordinator to the agent; the worker gets the whole environment."""
    cwd: str
    sys_path: list[str]
    device: str
    fresh: bool
    """The worker has just started: apply environment and folders, seed the generators."""

    @property
    def whole_environ(self) -> dict[str, str]:
        """In the worker."""
        return {name: value for name, value in self.environ.items() if value is not None}


class Release(Message):
    """Shut the sockets of the worker's own process groups, so that a rank stuck in a collective is freed."""


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


# ---- to the coordinator


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


class Importing(Message):
    """An interrupt waits on this rank until `module` is imported; "": it does so no longer."""

    module: str
