"""The options of the magics: parsed before anything starts, with errors that say what to write instead."""

from __future__ import annotations

import argparse
import difflib
import functools
import shlex
from typing import Any, NoReturn, get_args

from quarterdeck.errors import UsageError
from quarterdeck.kernel.session import CellOptions
from quarterdeck.kernel.sessions import check_name
from quarterdeck.metrics.tensorboard import event_folder
from quarterdeck.protocol.messages import GroupSpec, Restart

_WORDS = ("auto", "gpu", "cpu")


class Parser(argparse.ArgumentParser):
    """argparse that raises UsageError, without abbreviations, naming the nearest option for a wrong one."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            add_help=False,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}", f"`{self.prog}?` shows all options.")

    def parse_line(self, line: str) -> argparse.Namespace:
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise UsageError(f"{self.prog}: {error} in {line!r}") from None
        options, unknown = self.parse_known_args(words)
        if unknown:
            self._reject(unknown[0])
        return options

    def option_names(self) -> list[str]:
        return sorted(name for action in self._actions for name in action.option_strings)

    def _reject(self, word: str) -> NoReturn:
        if not word.startswith("-"):
            raise UsageError(f"{self.prog} takes no `{word}`.", f"`{self.prog}?` shows all options.")
        asked = word.partition("=")[0]
        near = difflib.get_close_matches(asked, self.option_names(), n=1, cutoff=0.5)
        hint = f"Did you mean `{near[0]}`?" if near else f"Options are {', '.join(self.option_names())}."
        raise UsageError(f"{self.prog} has no option `{asked}`.", hint)


def nproc(text: str) -> int | str:
    if text in _WORDS:
        return text
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of ranks: write a number, auto, gpu or cpu")
    if int(text) == 0:
        raise argparse.ArgumentTypeError("a group has at least one rank: write `-n 1` or more")
    return int(text)


def ranks(text: str) -> tuple[int, ...]:
    """ "0,2-3" -> (0, 2, 3)."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or (dash and int(last) < int(first)):
            raise argparse.ArgumentTypeError(f"{text!r} names no ranks: write them as 0 or 0,2-3")
        found.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of restarts: write 0 or more")
    return int(text)


def seconds(text: str) -> float:
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = 0.0
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write seconds, as in 90 or 2.5")
    return value


def variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is no variable: write NAME=VALUE")
    return name, value


def _add_group_options(parser: Parser) -> None:
    parser.add_argument(
        "-n", "--nproc-per-node", type=nproc, metavar="N",
        help="number of ranks: a number, auto (GPUs, else CPU cores), gpu or cpu; "
        "default: as the session has it, first all GPUs, or 2 without any",
    )  # fmt: skip
    parser.add_argument("--backend", choices=("gloo", "nccl"), help="default: nccl with GPUs, else gloo")
    parser.add_argument(
        "--start-method", choices=("fork", "spawn"),
        help="fork (default) takes milliseconds; spawn starts fresh interpreters, for what cannot be forked",
    )  # fmt: skip
    parser.add_argument(
        "--env", type=variable, action="append", default=[], metavar="K=V",
        help="environment variable for this cell (and for a group it starts); may be given several times",
    )  # fmt: skip


def _add_session(parser: Parser) -> None:
    parser.add_argument(
        "--session", type=_session, default="default", metavar="NAME",
        help="the group of workers; a new name starts another one",
    )  # fmt: skip


def _session(text: str) -> str:
    return check_name(text)


def _event_folder(text: str) -> str:
    return event_folder(text)


def _identifier(text: str) -> str:
    if not text.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is no name")
    return text


def _add_cell_options(parser: Parser) -> None:
    _add_group_options(parser)
    parser.add_argument(
        "--timeout", type=seconds, metavar="S", help="end the cell after so many seconds, on all ranks"
    )
    parser.add_argument(
        "--collective-timeout",
        type=seconds,
        metavar="S",
        help="let one collective wait at most so many seconds",
    )
    parser.add_argument(
        "--seed", type=int, help="seed random, numpy and torch from this and the rank before the cell"
    )
    parser.add_argument(
        "--tensorboard", type=_event_folder, default="", metavar="DIR",
        help="also write what is logged as TensorBoard's event files, under DIR/RUN/rank-R",
    )  # fmt: skip
    parser.add_argument("--name", default="", help="a name for the run, in messages and in its log folder")
    parser.add_argument(
        "--setup", action="store_true",
        help="run now, and again on every new worker: after a fault or a restart, in runs of their own",
    )  # fmt: skip
    parser.add_argument(
        "--background", action="store_true",
        help="return a Run at once and leave the kernel free; the session's next cell waits for it",
    )  # fmt: skip
    parser.add_argument(
        "--as", dest="as_", type=_identifier, metavar="NAME", help="bind the Run to this name"
    )
    parser.add_argument(
        "--no-keep-frames", action="store_true",
        help="if it fails, give back at once what its functions held; default: when the next cell begins",
    )  # fmt: skip
    _add_session(parser)
    parser.add_argument(
        "--debug", action="store_true",
        help="run in this process, as the only rank, with the debugger at the first error",
    )  # fmt: skip


@functools.cache
def distributed_parser() -> Parser:
    parser = Parser("%%distributed", "Run the cell on every rank of the session's workers.")
    parser.add_argument("--ranks", type=ranks, metavar="LIST", help="only on these ranks, as in 0 or 0,2-3")
    parser.add_argument(
        "--fresh", action="store_true",
        help="run in a group of its own, forked for it: it neither sees nor changes the session's variables",
    )  # fmt: skip
    parser.add_argument(
        "--max-restarts", type=_count, metavar="N",
        help="run in a group of its own, as with --fresh, and start it anew up to N times after a failure",
    )  # fmt: skip
    parser.add_argument(
        "--restart", choices=get_args(Restart), metavar="WHEN",
        help="what --max-restarts is for: recoverable (default: a rank was killed or lost, or raised "
        "qd.RecoverableError), always (any error of the cell's code) or never",
    )  # fmt: skip
    parser.add_argument(
        "--resume", default="", metavar="latest|RUN|PATH",
        help="continue an earlier run, in a group of its own: the newest one like this cell that has a "
        "checkpoint, a run by its name or id, or the folder of a run or of checkpoints; "
        'qd.load_checkpoint("latest") finds what it saved',
    )  # fmt: skip
    parser.add_argument(
        "--detach", action="store_true",
        help="run in a group of its own, in the background, also when this kernel ends: "
        "qd.runs()[NAME].attach() gets it back, from any kernel",
    )  # fmt: skip
    _add_cell_options(parser)
    return parser


@functools.cache
def rank_parser() -> Parser:
    parser = Parser("%%rank", "Run the cell on some ranks: %%rank 0 is %%distributed --ranks 0.")
    parser.add_argument("ranks", type=ranks, metavar="LIST", help="the ranks, as in 0 or 0,2-3")
    _add_cell_options(parser)
    return parser


WORKER_VERBS = ("status", "start", "restart", "stop", "interrupt", "stacks", "doctor")


@functools.cache
def workers_parser() -> Parser:
    parser = Parser("%workers", "Look at the session's workers, start and stop them.")
    parser.add_argument("verb", nargs="?", default="status", type=_verb, metavar="|".join(WORKER_VERBS))
    _add_session(parser)
    _add_group_options(parser)
    return parser


def _verb(text: str) -> str:
    if text in WORKER_VERBS:
        return text
    near = difflib.get_close_matches(text, WORKER_VERBS, n=1)
    hint = f"Did you mean `%workers {near[0]}`?" if near else f"Write one of {', '.join(WORKER_VERBS)}."
    raise UsageError(f"There is no `%workers {text}`.", hint)


@functools.cache
def push_parser() -> Parser:
    parser = Parser("%push", "Copy values of the notebook to the workers, replacing what they have.")
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--ranks", type=ranks, metavar="LIST", help="only to these ranks")
    _add_session(parser)
    return parser


@functools.cache
def pull_parser() -> Parser:
    parser = Parser("%pull", "Copy a worker's value into the notebook: %pull model as trained --rank 1.")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "as_", nargs="*", default=[], metavar="as NAME", help="the notebook's name for it; default: the same"
    )
    parser.add_argument("--rank", type=_one_rank, default=0, help="whose value; default: rank 0's")
    _add_session(parser)
    return parser


@functools.cache
def checkpoints_parser() -> Parser:
    parser = Parser("%checkpoints", "Browse checkpoints: those of all runs here, or of one run or folder.")
    parser.add_argument(
        "place", nargs="?", default="", metavar="RUN|PATH", help="a run's name or id, or a folder or URL"
    )
    return parser


def _one_rank(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no rank: write one number")
    return int(text)


def group_spec(options: argparse.Namespace) -> GroupSpec:
    return GroupSpec(
        nproc_per_node=options.nproc_per_node,
        backend=options.backend,
        start_method=options.start_method,
        environ=dict(options.env),
    )


def cell_options(options: argparse.Namespace) -> CellOptions:
    return CellOptions(
        spec=group_spec(options),
        ranks=options.ranks,
        timeout_s=options.timeout,
        collective_timeout_s=options.collective_timeout,
        seed=options.seed,
        name=options.name,
        tensorboard=options.tensorboard,
        keep_frames=not options.no_keep_frames,
        max_restarts=getattr(options, "max_restarts", None),
        restart=getattr(options, "restart", None) or "recoverable",
        resume=getattr(options, "resume", ""),
        detach=getattr(options, "detach", False),
        setup=options.setup,
        recorded=bool(options.name or options.as_ or options.background),
    )


def pull_target(options: argparse.Namespace) -> str:
    """The notebook's name of `%pull NAME [as NAME]`."""
    words: list[Any] = options.as_
    target = words[1] if len(words) == 2 and words[0] == "as" else options.name if not words else ""
    if not str(target).isidentifier():
        raise UsageError(
            "Write `%pull NAME` or `%pull NAME as OTHER`, with `--rank R` for a rank other than 0."
        )
    return str(target)


def closed_by(options: argparse.Namespace) -> str:
    """The option that gives the cell a group of its own; "" if there is none."""
    for option, value in (
        ("--fresh", getattr(options, "fresh", False)),
        ("--max-restarts", getattr(options, "max_restarts", None) is not None),
        ("--resume", getattr(options, "resume", "")),
        ("--detach", getattr(options, "detach", False)),
    ):
        if value:
            return option
    return ""


def check_together(magic: str, options: argparse.Namespace) -> None:
    """Options that exclude each other."""
    own = closed_by(options)
    for one, other, why in (
        (own, options.ranks, f"`{own}` runs on all ranks of a group of its own: leave `--ranks` out."),
        (own, options.setup, f"A `--setup` cell belongs to the session: leave `{own}` out."),
        (options.background, options.debug, "`--debug` runs in this process: leave `--background` out."),
        (
            options.background,
            options.setup,
            "A `--setup` cell has to be over before the next: no `--background`.",
        ),
        (own, options.debug, f"`--debug` runs in this process: leave `{own}` out."),
        (
            getattr(options, "restart", None),
            getattr(options, "max_restarts", None) is None,
            "`--restart` says what is worth a restart: add `--max-restarts N`, how many there may be.",
        ),
    ):
        if one and other:
            raise UsageError(f"{magic}: {why}")
