"""The magics' lines, parsed before anything starts, with errors that say what to write instead. What options
there are is in `kernel.options`.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import shlex
from collections.abc import Callable
from typing import Any, NoReturn

from quarterdeck.errors import UsageError
from quarterdeck.kernel.options import TABLE, Option, Options, Place, Unfit, one_rank, ranks


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


def _add_options(parser: Parser, place: Place, but: tuple[str, ...] = ()) -> None:
    for option in TABLE:
        if place in option.places and option.word not in but:
            _add(parser, option)


def _add(parser: Parser, option: Option) -> None:
    flags = [flag for flag in (option.short, option.flag) if flag]
    common: dict[str, Any] = {"dest": option.word, "default": argparse.SUPPRESS, "help": option.says}
    if option.is_switch:
        parser.add_argument(*flags, action="store_const", const=not option.default, **common)
    elif option.choices:
        parser.add_argument(*flags, choices=option.choices, **common)
    else:
        action = "extend" if option.is_repeated else "store"
        parser.add_argument(*flags, type=_type(option.fits), metavar=option.metavar, action=action, **common)


def _type(fits: Callable[[Any], Any]) -> Callable[[str], Any]:
    """As argparse wants it."""

    def read(text: str) -> Any:
        try:
            return fits(text)
        except Unfit as unfit:
            raise argparse.ArgumentTypeError(f"{text!r} is not {unfit.what}: {unfit.cure}") from None

    return read


def _add_one(parser: Parser, word: str) -> None:
    _add(parser, next(option for option in TABLE if option.word == word))


@functools.cache
def distributed_parser() -> Parser:
    parser = Parser("%%distributed", "Run the cell on every rank of the session's workers.")
    _add_options(parser, "%%distributed")
    return parser


@functools.cache
def rank_parser() -> Parser:
    parser = Parser("%%rank", "Run the cell on some ranks: %%rank 0 is %%distributed --ranks 0.")
    parser.add_argument("ranks", type=_type(ranks), metavar="LIST", help="the ranks, as in 0 or 0,2-3")
    _add_options(parser, "%%rank")
    return parser


WORKER_VERBS = ("status", "start", "restart", "stop", "interrupt", "stacks", "doctor")


@functools.cache
def workers_parser() -> Parser:
    parser = Parser("%workers", "Look at the session's workers, start and stop them.")
    parser.add_argument("verb", nargs="?", default="status", type=_verb, metavar="|".join(WORKER_VERBS))
    _add_options(parser, "%workers")
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
    parser.add_argument("--ranks", type=_type(ranks), metavar="LIST", help="only to these ranks")
    _add_one(parser, "session")
    return parser


@functools.cache
def pull_parser() -> Parser:
    parser = Parser("%pull", "Copy a worker's value into the notebook: %pull model as trained --rank 1.")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "as_", nargs="*", default=[], metavar="as NAME", help="the notebook's name for it; default: the same"
    )
    parser.add_argument("--rank", type=_type(one_rank), default=0, help="whose value; default: rank 0's")
    _add_one(parser, "session")
    return parser


@functools.cache
def checkpoints_parser() -> Parser:
    parser = Parser("%checkpoints", "Browse checkpoints: those of all runs here, or of one run or folder.")
    parser.add_argument(
        "place", nargs="?", default="", metavar="RUN|PATH", help="a run's name or id, or a folder or URL"
    )
    return parser


def asked_options(asked: argparse.Namespace) -> Options:
    """The options that were written; the others as they are by themselves."""
    words = {field.name for field in dataclasses.fields(Options)}
    given = {word: value for word, value in vars(asked).items() if word in words}
    return Options(**{**given, "env": tuple(given.get("env", ()))})


def pull_target(options: argparse.Namespace) -> str:
    """The notebook's name of `%pull NAME [as NAME]`."""
    words: list[Any] = options.as_
    target = words[1] if len(words) == 2 and words[0] == "as" else options.name if not words else ""
    if not str(target).isidentifier():
        raise UsageError(
            "Write `%pull NAME` or `%pull NAME as OTHER`, with `--rank R` for a rank other than 0."
        )
    return str(target)
