"""`@qd.distributed(...)`: a function that runs on a group of workers of its own. For users; in the kernel.

On a worker, or undistributed, the function is just called: inside a `%%distributed` cell every rank calls it,
on the group that is there.
"""

from __future__ import annotations

import functools
import inspect
import reprlib
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar, get_args

import msgspec

from quarterdeck.client import notebook as notebooks
from quarterdeck.client.packing import packed_call
from quarterdeck.client.run import Run
from quarterdeck.client.submission import run_blocking, submit
from quarterdeck.client.view import CellView
from quarterdeck.config import ConfigError, Elastic, Launch, PyTorch, launch_of
from quarterdeck.decks.fields import FIELDS, chosen
from quarterdeck.errors import UsageError
from quarterdeck.metrics.tensorboard import event_folder
from quarterdeck.protocol.messages import GroupSpec, Restart, Submit

_ARGUMENT_CHARS = 24

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class CallOptions:
    """What `distributed` takes beside the config; the words are those of the `%%distributed` magic."""

    name: str = ""
    backend: str | None = None
    timeout_s: float | None = None
    collective_timeout_s: float | None = None
    env: tuple[tuple[str, str], ...] = ()
    seed: int | None = None
    session: str = "default"
    tensorboard: str = ""
    deck_fields: tuple[str, ...] = FIELDS
    restart: Restart = "recoverable"


class DistributedFunction(Generic[P, R]):
    """Calling it runs the function on every rank, shows what the ranks write, and returns rank 0's value.

    Attributes:
        config: the Elastic or PyTorch config that it was made with, or None.
        function: the function itself.
    """

    def __init__(
        self, function: Callable[P, R], config: Elastic | PyTorch | None, options: CallOptions
    ) -> None:
        self.function = function
        self.config = config
        self.options = options
        functools.update_wrapper(self, function)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Rank 0's value. Raises what the run's `result` raises; an interrupt stops the run."""
        if _on_worker():
            return self.function(*args, **kwargs)
        value: R = run_blocking(self._start(args, dict(kwargs), awaited=True))
        return value

    def submit(self, /, *args: P.args, **kwargs: P.kwargs) -> Run:
        """Start it and return at once. What the ranks write appears under the cell that submitted it."""
        if _on_worker():
            raise UsageError("Runs are submitted from the notebook; on a worker, just call the function.")
        return self._start(args, dict(kwargs), awaited=False)

    def _start(self, args: tuple[Any, ...], kwargs: dict[str, Any], awaited: bool) -> Run:
        notebook, options = notebooks.current(), self.options
        launch = launch_of(self.config)
        name = str(getattr(self.function, "__name__", "function"))
        view = CellView(notebook.new_sink())
        with packed_call(notebook, self.function, args, kwargs) as (call, fds, notices):
            for text in notices:
                view.notice(text)
            work = msgspec.structs.replace(
                call,
                name=options.name,
                seed=options.seed,
                environ=dict(options.env),
                timeout_s=_least(options.timeout_s, launch.deadline_s),
                collective_timeout_s=options.collective_timeout_s,
                tensorboard=options.tensorboard,
                deck_fields=list(options.deck_fields),
            )
            request = Submit(
                spec=_spec(launch, options),
                work=work,
                context=notebook.context(),
                title=f"{name}()",
                source=_source(self.function),
                arguments=_words(args, kwargs),
                session=options.session,
                max_restarts=launch.max_restarts,
                restart=options.restart,
            )
            return submit(request, fds, view, awaited)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """As a method: `self` is an argument like any other."""
        call: Any = self
        return self if instance is None else functools.partial(call, instance)

    def __repr__(self) -> str:
        return f"<distributed function {getattr(self, '__qualname__', self.function)}>"


def distributed(
    config: Elastic | PyTorch | None = None,
    *,
    name: str = "",
    backend: str | None = None,
    timeout_s: float | None = None,
    collective_timeout_s: float | None = None,
    env: dict[str, str] | None = None,
    seed: int | None = None,
    session: str = "default",
    tensorboard: str = "",
    deck_fields: Iterable[Any] = FIELDS,
    restart: Restart = "recoverable",
) -> Callable[[Callable[P, R]], DistributedFunction[P, R]]:
    """Make a function distributed: `@qd.distributed(qd.Elastic(nproc_per_node=2))`.

    Args:
        config: how many processes, and how they start; None: one per GPU, or two on the CPU.
        name: of its runs, in messages and in `qd.runs()`.
        backend: "nccl" or "gloo"; None: nccl on GPUs.
        timeout_s: bounds a run, over all its attempts. A config's `active_deadline_seconds` does, too.
        collective_timeout_s: bounds one collective.
        env: environment variables of the workers.
        seed: random, numpy and torch are seeded from it and the rank.
        session: whose `--setup` cells run first in the group.
        tensorboard: a folder; what is logged is also written as event files, under FOLDER/RUN/rank-R.
        deck_fields: the automatic decks of its runs: of "Timeline", "Source Code", "Environment" (also called
            "Dependencies"), "Input" and "Output", or Flyte's `DeckField`s; () for none.
        restart: which failures use up one of the config's `max_restarts`: "recoverable" (a rank was killed
            or lost, or raised RecoverableError), "always" (any error of the function) or "never".

    Raises ConfigError, or UsageError where tensorboard is not installed, here and not at the first call.
    """
    if callable(config) and not isinstance(config, type):
        raise ConfigError("distributed() takes a config before the function.", _HOW)
    launch_of(config)
    if backend not in (None, "gloo", "nccl"):
        raise ConfigError(f"distributed(): backend is {backend!r}.", 'Write "gloo" or "nccl".')
    if restart not in get_args(Restart):
        words = '"recoverable", "always" or "never"'
        raise ConfigError(f"distributed(): restart is {restart!r}.", f"Write {words}.")
    for field, value in (("timeout_s", timeout_s), ("collective_timeout_s", collective_timeout_s)):
        if value is not None and not value > 0:
            raise ConfigError(f"distributed(): {field} is {value!r}.", "Write seconds, as in 90 or 2.5.")
    variables = tuple((str(key), str(value)) for key, value in (env or {}).items())
    options = CallOptions(
        name,
        backend,
        timeout_s,
        collective_timeout_s,
        variables,
        seed,
        session,
        event_folder(tensorboard),
        _fields(deck_fields),
        restart,
    )

    def decorate(function: Callable[P, R]) -> DistributedFunction[P, R]:
        _refuse_unfit(function)
        return DistributedFunction(function, config, options)

    return decorate


def _fields(deck_fields: Iterable[Any]) -> tuple[str, ...]:
    try:
        return chosen(deck_fields)
    except ValueError as error:
        raise ConfigError(f"distributed(): {error}.") from None


def _refuse_unfit(function: Any) -> None:
    """What would not have run when its call returns."""
    if not callable(function):
        raise ConfigError(f"distributed(): {function!r} is no function.", _HOW)
    name = getattr(function, "__name__", "the function")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError(f"distributed(): {name} is `async`.", "Write `def`, and `asyncio.run(...)` inside.")
    if inspect.isgeneratorfunction(function):
        raise ConfigError(f"distributed(): {name} is a generator.", "Return a list, or anything else.")


_HOW = "Write `@qd.distributed()` or `@qd.distributed(qd.Elastic(nproc_per_node=2))`."


def _on_worker() -> bool:
    return "quarterdeck.worker.serve" in sys.modules


def _spec(launch: Launch, options: CallOptions) -> GroupSpec:
    asked: Any = launch.nproc_per_node
    start_method: Any = launch.start_method
    return GroupSpec(
        nproc_per_node=asked,
        backend=options.backend,
        start_method=start_method,
        environ=dict(options.env),
        join_timeout_s=launch.join_timeout_s,
    )


def _least(*limits: float | None) -> float | None:
    given = [limit for limit in limits if limit is not None]
    return min(given) if given else None


def _words(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The arguments as the call has them, each shortened; what has no short repr by its type."""
    words = reprlib.Repr()
    words.maxother = words.maxstring = _ARGUMENT_CHARS
    parts = [_word(words, value) for value in args]
    return ", ".join([*parts, *(f"{name}={_word(words, value)}" for name, value in kwargs.items())])


def _word(words: reprlib.Repr, value: object) -> str:
    plain = isinstance(value, (int, float, str, bool, type(None), list, tuple, dict, set))
    return words.repr(value) if plain else f"<{type(value).__name__}>"


def _source(function: Callable[..., Any]) -> str:
    with suppress(OSError, TypeError):
        return inspect.getsource(function)
    return ""
