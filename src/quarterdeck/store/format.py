"""What the files of a run hold: `run.json` and the lines of `events.jsonl`, as msgspec structs. The only
truth about the store's format. Pure; used by every process.

Later versions may add events and fields: a reader skips a line that it does not understand, and ignores
fields that it does not know. `FORMAT` grows only where an old reader would misread a run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from quarterdeck import files
from quarterdeck.bounds import Attempt, Count, LoadedStep, Rank, UnixNs, WorldSize
from quarterdeck.protocol.worker import Outcome
from quarterdeck.store.layout import HEADER
from quarterdeck.store.owner import RunOwner

__all__ = [
    "FORMAT",
    "TERMINAL",
    "Event",
    "GroupEvent",
    "LoadEvent",
    "OutcomeEvent",
    "RunHeader",
    "RunOwner",
    "RunState",
    "StateEvent",
    "decode_event",
    "decode_header",
    "encode",
    "read_header",
]

FORMAT = 1

RunState = Literal["queued", "starting", "running", "restarting", "succeeded", "failed", "stopped", "lost"]
TERMINAL: frozenset[RunState] = frozenset(("succeeded", "failed", "stopped", "lost"))
"""The first of these that a run reaches is its last state, whatever is written after it."""

_HEADER_BYTES = 64 << 20
"""The most that is read of `run.json`, which holds the code of its cell."""

T = TypeVar("T")


class RunHeader(msgspec.Struct):
    """`run.json`: all that is known of a run when it starts."""

    format: int = FORMAT
    run_id: str = ""
    name: str = ""
    kind: Literal["cell", "function"] = "cell"
    title: str = ""
    """What readers call it: "cell [7]", "train()"."""
    source: str = ""
    arguments: str = ""
    """A function's arguments as its call has them, shortened: "lr=0.1, epochs=5"."""
    notebook: str = ""
    cwd: str = ""
    created_unix_ns: UnixNs = 0
    keeper: RunOwner | None = None
    """Who writes the run; None: nobody knows, so nobody may call it lost."""
    environment: dict[str, str] = {}
    """Versions, commit, machine: see `environment.describe`."""
    parent: str = ""
    """The run that this one continues, by its id."""
    parent_folder: str = ""
    """Where that was then; see `resume_chain.parent_of`."""
    resumed_from: str = ""
    """The folder of checkpoints, or the one checkpoint, that it began with."""
    max_restarts: Count = 0
    """How many attempts an isolated run may have after the first."""


class _Event(msgspec.Struct, tag_field="event"):
    time_unix_ns: UnixNs


class StateEvent(_Event, tag="state"):
    state: RunState
    attempt: Attempt = 0
    reason: str = ""
    stopped: Literal["", "interrupt", "timeout"] = ""
    """Who brought about a terminal state, if not a rank."""
    root_cause: Rank | None = None
    """The rank that failed first, if the run failed."""


class GroupEvent(_Event, tag="group"):
    """A group of workers is up: who runs this attempt, and where."""

    attempt: Attempt
    world_size: WorldSize
    backend: str
    device_type: str
    devices: list[str]


class LoadEvent(_Event, tag="load"):
    """A rank of a run that continues an earlier one has loaded a checkpoint."""

    attempt: Attempt
    rank: Rank
    step: LoadedStep
    """-1: not known, its code has looked for the files itself."""


class OutcomeEvent(_Event, tag="outcome"):
    """A rank ended an attempt. Its value is not here but, if it was kept, in the attempt's result file."""

    attempt: Attempt
    outcome: Outcome
    kept: bool
    note: str = ""
    """Why the value was not kept."""


Event = StateEvent | GroupEvent | LoadEvent | OutcomeEvent

_events = msgspec.json.Decoder(Event)
_headers = msgspec.json.Decoder(RunHeader)
_BROKEN = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding arbitrary bytes can raise; the last for garbage of a thousand brackets."""


def encode(value: Any) -> bytes:
    """JSON without a newline in it, also of text that UTF-8 cannot hold (a path of other bytes)."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_encodable(msgspec.to_builtins(value)))


def decode_event(line: bytes) -> Event | None:
    """None for a line that is cut, damaged or of a later version."""
    if not line:
        return None
    try:
        event: Event = _events.decode(line)
    except _BROKEN:
        return None
    return event


def decode_header(text: bytes) -> RunHeader:
    """Raises ValueError with the reason, for what is no header or one of a later format."""
    try:
        header = _headers.decode(text)
    except _BROKEN as error:
        raise ValueError(str(error)) from None
    if header.format > FORMAT:
        raise ValueError(f"it has format {header.format}; this version of quarterdeck reads {FORMAT}")
    if not header.run_id or not header.created_unix_ns:
        raise ValueError("it does not say which run it is of")
    return header


def read_header(folder: Path) -> RunHeader:
    """The header of the run in that folder. Raises OSError, and ValueError as `decode_header`."""
    return decode_header(files.read(folder, HEADER, limit_bytes=_HEADER_BYTES))


def _encodable(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_encodable(key): _encodable(item) for key, item in value.items()}
        case list() | tuple():
            return [_encodable(item) for item in value]
    return value
