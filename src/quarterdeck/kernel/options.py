"""The options of cells and functions: one table, from which come the flags of the magics, the keywords of
`qd.distributed` and of `Session.run`, what each of them takes, and the README's list. In the kernel.

An option is added here: a line in `TABLE`, a field in `Options` (and a keyword in the signature of
`distributed` or `Session.run`, if it is for these; a test compares them with the table).
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import msgspec

from quarterdeck.decks.automatic import FIELDS, chosen
from quarterdeck.errors import QuarterdeckError, UsageError
from quarterdeck.flyte.rules import ConfigError
from quarterdeck.metrics.tensorboard import event_folder
from quarterdeck.protocol.parts import GroupSpec, Restart

Place = Literal["%%distributed", "%%rank", "%workers", "distributed()", "Session.run()", "Session()"]
"""Where an option can be written."""
_CELLS: frozenset[Place] = frozenset({"%%distributed", "%%rank"})
_OWN_GROUP: frozenset[Place] = frozenset({"%%distributed"})
_GROUPS: frozenset[Place] = _CELLS | {"%workers"}
_FUNCTION: frozenset[Place] = frozenset({"distributed()"})
_RUN: frozenset[Place] = frozenset({"Session.run()"})
_SESSION: frozenset[Place] = frozenset({"Session()"})


@dataclass(frozen=True)
class Options:
    """How something is to run, as it was written. None: as the session has it, or as it is by itself.

    A dataclass, as stored values hold it: a distributed function that a run has returned.
    """

    nproc_per_node: int | str | None = None
    backend: str | None = None
    start_method: str | None = None
    env: tuple[tuple[str, str], ...] = ()
    ranks: tuple[int, ...] | None = None
    timeout_s: float | None = None
    collective_timeout_s: float | None = None
    seed: int | None = None
    name: str = ""
    session: str = "default"
    tensorboard: str = ""
    deck_fields: tuple[str, ...] = FIELDS
    keep_frames: bool = True
    setup: bool = False
    background: bool = False
    bind_as: str = ""
    fresh: bool = False
    max_restarts: int | None = None
    restart: Restart | None = None
    resume: Any = ""
    """See `resume.parent_of`."""
    detach: bool = False
    debug: bool = False

    def changed(self, place: Place, **words: Any) -> Options:
        """With these instead, checked. Raises ConfigError or UsageError, as `place` does; UsageError where
        tensorboard is not installed.
        """
        return dataclasses.replace(self, **{word: kept(place, word, value) for word, value in words.items()})

    @property
    def spec(self) -> GroupSpec:
        """The group that is asked for."""
        nproc: Any = self.nproc_per_node
        backend: Any = self.backend
        start_method: Any = self.start_method
        return GroupSpec(
            nproc_per_node=nproc, backend=backend, start_method=start_method, environ=dict(self.env)
        )

    @property
    def is_recorded(self) -> bool:
        """On record in the run store from the start, whether it shows anything or not."""
        return bool(self.name or self.bind_as or self.background)

    @property
    def is_awaited(self) -> bool:
        return not (self.background or self.detach)

    @property
    def own_group(self) -> str:
        """The flag that gives a cell a group of its own; "" if there is none."""
        if self.fresh:
            return "--fresh"
        if self.max_restarts is not None:
            return "--max-restarts"
        return "--resume" if self.resume else "--detach" if self.detach else ""

    def check_together(self, magic: str) -> None:
        """Raises UsageError for options that exclude each other."""
        own = self.own_group
        for one, other, why in (
            (own, self.ranks, f"`{own}` runs on all ranks of a group of its own: leave `--ranks` out."),
            (own, self.setup, f"A `--setup` cell belongs to the session: leave `{own}` out."),
            (own, self.debug, f"`--debug` runs in this process: leave `{own}` out."),
            (self.background, self.debug, "`--debug` runs in this process: leave `--background` out."),
            (
                self.background,
                self.setup,
                "A `--setup` cell has to be over before the next: leave `--background` out.",
            ),
            (
                self.restart,
                self.max_restarts is None,
                "`--restart` says what is worth a restart: add `--max-restarts N`, how many there may be.",
            ),
        ):
            if one and other:
                raise UsageError(f"{magic}: {why}")


_DEFAULTS = Options()


class Unfit(ValueError):
    """A value that an option does not take."""

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(what, cure)
        self.what = what
        """What the value is not: "a duration"."""
        self.cure = cure


class Option(msgspec.Struct, frozen=True):
    """One option. What can be seen of it in a place depends on the place alone."""

    word: str
    """Field of `Options`; the keyword in Python."""
    flag: str
    metavar: str
    """A name for what stands after the flag; "" for a switch, which turns the field's default around."""
    says: str
    """What it does, for the magic's help and the README."""
    places: frozenset[Place]
    fits: Callable[[Any], Any] = lambda value: value
    """The value as it is kept; raises Unfit. Gets a text from a magic, any value from Python."""
    short: str = ""
    choices: tuple[str, ...] = ()
    is_repeated: bool = False

    @property
    def default(self) -> Any:
        """What `Options` has without it."""
        return getattr(_DEFAULTS, self.word)

    @property
    def is_switch(self) -> bool:
        return not self.metavar and bool(self.flag)


def kept(place: Place, word: str, value: Any) -> Any:
    """`value` as the option `word` keeps it. Raises what `place` raises for one that it does not take."""
    option = next((one for one in TABLE if one.word == word and place in one.places), None)
    if option is None:
        known = [one.word for one in TABLE if place in one.places]
        near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(known)}."
        raise _error(place)(f"{place}: there is no option {word!r}.", hint)
    try:
        return option.fits(value)
    except Unfit as unfit:
        cure = unfit.cure[0].upper() + unfit.cure[1:]
        raise _error(place)(f"{place}: {word} is {value!r}, which is not {unfit.what}.", f"{cure}.") from None


def _error(place: Place) -> Callable[[str, str], QuarterdeckError]:
    return ConfigError if place == "distributed()" else UsageError


# ---- what values fit


def _nproc(value: Any) -> int | str | None:
    if value is None or value in ("auto", "gpu", "cpu"):
        chosen: int | str | None = value
        return chosen
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise Unfit("a number of ranks", "write 1 or more, auto, gpu or cpu")
    return number


def _one_of(*known: str) -> Callable[[Any], Any]:
    *others, last = (f'"{one}"' for one in known)

    def fits(value: Any) -> Any:
        if value is not None and value not in known:
            raise Unfit("one of these", f"write {', '.join(others)} or {last}")
        return value

    return fits


def ranks(value: Any) -> tuple[int, ...] | None:
    """ "0,2-3" -> (0, 2, 3); numbers as they are."""
    if not isinstance(value, str):
        return None if value is None else tuple(value)
    found: set[int] = set()
    for part in value.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise Unfit("a list of ranks", "write them as 0 or 0,2-3")
        found.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))


def one_rank(value: str) -> int:
    if not value.isdecimal():
        raise Unfit("a rank", "write one number")
    return int(value)


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value.removesuffix("s") if isinstance(value, str) else value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not seconds > 0:
        raise Unfit("a duration", "write seconds, as in 90 or 2.5")
    return seconds if isinstance(value, str) else value


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            raise Unfit("a whole number", "write one, as in 42") from None
    return value


def _restarts(value: Any) -> int:
    if not str(value).isdecimal():
        raise Unfit("a number of restarts", "write 0 or more")
    return int(value)


def _variables(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, str):
        pairs = value.items() if hasattr(value, "items") else value or ()
        return tuple((str(name), str(text)) for name, text in pairs)
    name, equals, text = value.partition("=")
    if not equals or not name.isidentifier():
        raise Unfit("a variable", "write NAME=VALUE")
    return ((name, text),)


def session_name(value: str) -> str:
    if not value.replace("-", "_").isidentifier():
        raise Unfit("a name for a session", "write letters, digits, - and _")
    return value


def identifier(value: str) -> str:
    if not value.isidentifier():
        raise Unfit("a name", "write one that Python takes, as in run_1")
    return value


def _deck_fields(value: Iterable[Any]) -> tuple[str, ...]:
    try:
        return chosen(value)
    except ValueError as error:
        raise ConfigError(f"distributed(): {error}.") from None


def _earlier_run(value: Any) -> Any:
    if isinstance(value, (str, os.PathLike)) or hasattr(value, "folder") or hasattr(value, "path"):
        return value
    raise Unfit("an earlier run", 'write "latest", a run or its name, or a path')


# ---- the table

TABLE = (
    Option(
        "nproc_per_node", "--nproc-per-node", "N",
        "number of ranks: a number, `auto` (GPUs, else CPU cores), `gpu` or `cpu`. Default: as the session "
        "has it; at first one per GPU, or 2 without GPUs",
        _GROUPS | _SESSION, _nproc, short="-n",
    ),
    Option(
        "ranks", "--ranks", "LIST", "only these ranks, as in `0` or `0,2-3`", _OWN_GROUP | _RUN, ranks
    ),
    Option(
        "backend", "--backend", "gloo|nccl", "default: nccl with GPUs, else gloo",
        _GROUPS | _FUNCTION | _SESSION, _one_of("gloo", "nccl"), choices=("gloo", "nccl"),
    ),
    Option(
        "start_method", "--start-method", "fork|spawn",
        "`fork` (default) starts workers in milliseconds, from a process that has imported torch already; "
        "`spawn` starts fresh interpreters, for code that cannot be forked",
        _GROUPS | _SESSION, _one_of("fork", "spawn"), choices=("fork", "spawn"),
    ),
    Option(
        "env", "--env", "NAME=VALUE",
        "environment variable for this cell, and for the workers if it starts them; may be repeated",
        _GROUPS | _FUNCTION, _variables, is_repeated=True,
    ),
    Option(
        "timeout_s", "--timeout", "S", "ends the cell on all ranks after S seconds",
        _CELLS | _FUNCTION | _RUN, _seconds,
    ),
    Option(
        "collective_timeout_s", "--collective-timeout", "S", "lets one collective wait at most S seconds",
        _CELLS | _FUNCTION | _RUN, _seconds,
    ),
    Option(
        "seed", "--seed", "N", "seeds random, numpy and torch before the cell, on every rank differently",
        _CELLS | _FUNCTION | _RUN, _whole,
    ),
    Option(
        "fresh", "--fresh", "",
        "runs the cell in a group of its own, as a function: it neither sees nor changes the session's "
        "variables",
        _OWN_GROUP,
    ),
    Option(
        "background", "--background", "",
        "leaves the notebook free once the cell has begun, and gives a `Run`; the session's next cell "
        "waits for it",
        _CELLS,
    ),
    Option("bind_as", "--as", "NAME", "binds the `Run` to this name", _CELLS, identifier),
    Option(
        "session", "--session", "NAME", "the group of workers; a new name starts another one",
        _GROUPS | _FUNCTION | _SESSION, session_name,
    ),
    Option(
        "name", "--name", "TEXT", "a name for the run, in messages and in `qd.runs()`",
        _CELLS | _FUNCTION | _RUN,
    ),
    Option(
        "max_restarts", "--max-restarts", "N",
        "runs the cell as `--fresh` does, and up to N times anew after a failure",
        _OWN_GROUP, _restarts,
    ),
    Option(
        "restart", "--restart", "WHEN",
        "what `--max-restarts` is for: `recoverable` (default: a rank was killed or lost, or raised "
        "`qd.RecoverableError`), `always` (any error of the cell's code) or `never`",
        _OWN_GROUP | _FUNCTION, _one_of(*get_args(Restart)), choices=get_args(Restart),
    ),
    Option(
        "resume", "--resume", "latest|RUN|PATH",
        "continues an earlier run that has a checkpoint, in a group of its own: the newest like this cell, a "
        'run by its name or id, or a folder; `qd.load_checkpoint("latest")` finds what it saved',
        _OWN_GROUP | _FUNCTION, _earlier_run,
    ),
    Option(
        "detach", "--detach", "",
        "runs as `--fresh --background` do, also when the kernel ends: `qd.runs()[NAME].attach()` gets it "
        "back, from any kernel",
        _OWN_GROUP,
    ),
    Option(
        "tensorboard", "--tensorboard", "DIR",
        "also writes what is logged as TensorBoard's event files, under DIR/RUN/rank-R; needs the package "
        "tensorboard",
        _CELLS | _FUNCTION | _RUN, event_folder,
    ),
    Option("deck_fields", "", "", "the automatic decks of its runs", _FUNCTION, _deck_fields),
    Option(
        "keep_frames", "--no-keep-frames", "",
        "if the cell fails, gives back at once what its functions held; default: when the next cell begins",
        _CELLS | _RUN,
    ),
    Option(
        "setup", "--setup", "",
        "runs the cell now, and again on every worker that is started later in place of these",
        _CELLS | _RUN,
    ),
    Option(
        "debug", "--debug", "",
        "runs the cell in the notebook's own process, as the only rank, with the debugger at the first error",
        _CELLS,
    ),
)  # fmt: skip


def readme_rows() -> list[str]:
    """The README's table of the options of `%%distributed`."""
    rows = ["| option | meaning |", "| --- | --- |"]
    for one in TABLE:
        if "%%distributed" in one.places:
            metavar = f" {one.metavar}".rstrip().replace("|", "\\|")
            flags = [f"`{flag}{metavar}`" for flag in (one.short, one.flag) if flag]
            rows.append(f"| {', '.join(flags)} | {one.says} |")
    return rows
