"""Every message between the kernel's half of the run view and the browser's, as msgspec structs. The only
truth about it: `labextension/packages/protocol/src/run.ts` is generated from here (`make view`).

Each is a custom message of the widget: JSON, and for numbers that are many one binary buffer of little-endian
float64 columns. A view begins with `Sync`, and gets a whole `State`, all `Curves` and all `Lines`; then only
what changed. Times are milliseconds since 1970. An absent value is null, and shown as nothing at all.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from quarterdeck.protocol.worker import Evidence

RunState = Literal["queued", "starting", "running", "restarting", "succeeded", "failed", "stopped", "lost"]
RankState = Literal[
    "starting",
    "running",
    "succeeded",
    "failed",
    "interrupted",
    "released",
    "killed",
    "stopped",
    "lost",
]


class ViewMessage(msgspec.Struct, tag_field="kind", tag=str.lower):
    """Base of all of them."""


# ---- parts


class RunHead(msgspec.Struct):
    run_id: str
    name: str
    """What the view is headed with: "train(lr=0.1)", "cell [7]", or the name given."""
    state: RunState
    words: str
    """A sentence about a run that is over: "failed at step 1,342: rank 1 raised ValueError"; "" before."""
    attempt: int
    """From 0 on."""
    attempts: int
    """The most there can be; 1 without restarts."""
    world_size: int
    """0 before the ranks have started."""
    backend: str
    resumed: str
    """How a run began that was to continue another: "resumed from step 399", "has loaded nothing"; or ""."""
    started_ms: float | None
    ended_ms: float | None
    now_ms: float
    """The kernel's clock when this was sent; the browser's may differ."""
    can_stop: bool
    """It goes on, and this kernel can stop it."""
    stopping: str
    """How far a stop has come: "asked, waiting for ranks 1 and 2"; "" if nobody asked."""


class Progress(msgspec.Struct):
    """One bar for all ranks: of the loop that they are in, the outermost one that knows its end."""

    desc: str
    n: int
    """Mean over ranks, rounded down."""
    total: int | None
    left_s: float | None
    """Until its end at the present pace; None before 20 steps, or if the total is not known."""
    fastest: int | None
    """Rank that is farthest; None with one rank."""
    fastest_n: int
    slowest: int | None
    slowest_n: int


class Rank(msgspec.Struct):
    """One row of the table of ranks."""

    rank: int
    state: RankState
    step: int | None
    """The last one logged."""
    step_ms: float | None
    """Time for a step, of late, waiting included."""
    wait_ms: float | None
    """The part of it that was spent waiting for other ranks."""
    slowest: bool
    """Its own work for a step exceeds the others' median by more than 15 % for 20 steps."""
    device: str
    cpu_percent: float | None
    """A share of one core; more than 100 with several threads."""
    gpu_percent: float | None
    memory_bytes: int | None
    """Resident."""
    memory_limit_bytes: int | None
    """The machine's, or the container's."""
    gpu_memory_bytes: int | None
    gpu_memory_limit_bytes: int | None
    last_line: str


class Fault(msgspec.Struct):
    """Something that went wrong, in words; the root cause is the first."""

    title: str
    """ "ValueError on rank 1: Expected input batch_size (21) to ...", "Earlier: rank 2 was killed by ..."."""
    code: str
    """The part of the title that is the name of an exception, "" if there is none."""
    detail: str
    """When and where: "14:26:37, attempt 2"."""
    ranks: list[int]
    root: bool
    traceback: str
    """Plain text; "" if there is none."""
    evidence: list[Evidence]


class DeckHead(msgspec.Struct):
    """A deck that can be asked for."""

    name: str
    automatic: bool
    """Made by quarterdeck: Timeline, Source Code, Input, Output, Environment."""
    ranks: list[int]
    """That have written it. Empty: there is only a merged form."""
    version: int
    """Grows with every change of any rank's."""
    size_bytes: int


class SeriesHead(msgspec.Struct):
    """One rank's line of one metric, or their mean, in a buffer: `count` points from `start` on, as six
    columns one after another: step, time (ms since the run began), least, greatest, mean, last value.

    A point stands for all values of `width` steps; where a message goes on with a line that the view has, it
    keeps the points before `start` and drops all others. NaN in all four values: the values were not finite.
    """

    name: str
    rank: int | None
    """None: the mean over ranks."""
    start: int
    count: int


class Look(msgspec.Struct, array_like=True, gc=False):
    """How a line's text looks from a place on, up to the next such place."""

    start: int
    """As JavaScript counts characters."""
    css: str


class Line(msgspec.Struct, array_like=True, gc=False):
    """A line of output, of one rank or of several that wrote the same."""

    no: float
    """Its position, and its name: the same line may be sent again, with more ranks or another text."""
    ranks: list[int]
    time_ms: float
    """When the first of these ranks wrote it; 0 if that is not known."""
    until_ms: float
    """When it last changed."""
    stream: Literal["stdout", "stderr", "result"]
    text: str
    """As a terminal shows it, without codes."""
    looks: list[Look]
    """Empty where nothing but text was written."""


class OtherRun(msgspec.Struct):
    run_id: str
    name: str
    started_ms: float
    state: RunState
    last: dict[str, float]
    """Last value of the metrics that this run has, too."""


# ---- kernel -> browser


class State(ViewMessage):
    """All that is small, whole. At most 4 times a second."""

    run: RunHead
    steps_per_s: float | None
    progress: Progress | None
    ranks: list[Rank]
    faults: list[Fault]
    decks: list[DeckHead]
    notes: list[str]
    """Such as "nan since step 812 on rank 1"."""


class Curves(ViewMessage):
    """Carries one buffer: the points of all `series`, in their order."""

    run_id: str
    """The id of this view's run, or of one that it is compared with (then only means)."""
    names: list[str]
    """All metrics, in the order in which they are shown; those of one prefix ("train/") stand together."""
    whole: bool
    """Replaces all that the view knows of this run."""
    series: list[SeriesHead]


class Detail(ViewMessage):
    """Answers `Zoom`: one metric between two steps, thinned for that range alone. One buffer."""

    name: str
    first_step: float
    last_step: float
    series: list[SeriesHead]


class Lines(ViewMessage):
    """Output, folded as in a cell. At most 10 times a second."""

    whole: bool
    """Replaces all lines of the view."""
    left_out: int
    """Lines of the run that came before `first`: they are shown no more, or never were."""
    first: float
    """Lines before this position are gone."""
    gone: list[float]
    """Lines that are no more: they were unfinished, and have become the same as others'."""
    lines: list[Line]
    """New and changed ones, by position."""


class Log(ViewMessage):
    """Answers `WantLog`. One buffer: the bytes of the log."""

    rank: int
    path: str
    """On the kernel's machine; all there is if the log is too large to be sent."""
    sent: bool


class DeckPage(ViewMessage):
    """Answers `WantDeck`."""

    name: str
    rank: int | None
    version: int
    html: str
    """A whole page, to be shown in a sandboxed frame and nowhere else."""


class Runs(ViewMessage):
    """Answers `WantRuns`: earlier runs of the same notebook that have a metric of this one, newest first."""

    runs: list[OtherRun]


class Trouble(ViewMessage):
    """A request that could not be answered, in words."""

    about: str
    text: str


# ---- browser -> kernel


class Sync(ViewMessage):
    """A view was drawn: in a new output, or after the page was loaded again."""


class Alive(ViewMessage):
    """Every 20 seconds: somebody looks. Where nobody has for three minutes, nothing more is sent."""


class Stop(ViewMessage):
    """The first asks; each further one skips a step of the ladder."""


class Zoom(ViewMessage):
    name: str
    first_step: float
    last_step: float


class WantLog(ViewMessage):
    rank: int


class WantDeck(ViewMessage):
    name: str
    rank: int | None
    """None: merged over ranks."""


class WantRuns(ViewMessage):
    pass


class Compare(ViewMessage):
    """Send the means of these runs, and nothing any more of others."""

    run_ids: list[str]


ToBrowser = State | Curves | Detail | Lines | Log | DeckPage | Runs | Trouble
ToKernel = Sync | Alive | Stop | Zoom | WantLog | WantDeck | WantRuns | Compare
