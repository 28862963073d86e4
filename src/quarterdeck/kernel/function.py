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
from typing import Any, Generic, ParamSpec, TypeVar

import msgspec

from quarterdeck.decks.automatic import FIELDS
from quarterdeck.errors import UsageError
from quarterdeck.flyte.elastic import Elastic
from quarterdeck.flyte.job import PyTorch
from quarterdeck.flyte.launch import Launch, launch_of
from quarterdeck.flyte.rules import ConfigError
from quarterdeck.kernel import notebook as notebooks
from quarterdeck.kernel.encode_call import packed_call
from quarterdeck.kernel.options import Options
from quarterdeck.kernel.run import Run
from quarterdeck.kernel.submit import continued, run_blocking, submit
from quarterdeck.protocol.kernel import Submit
from quarterdeck.protocol.parts import GroupSpec, Restart
from quarterdeck.public import public
from quarterdeck.views.cell.cell import CellView

_ARGUMENT_CHARS = 24

P = ParamSpec("P")
R = TypeVar("R")


@public
class DistributedFunction(Generic[P, R]):
    """Calling it runs the function on every rank, shows what the ranks write, and returns rank 0's value.

    Attributes:
        config: the Elastic or PyTorch config that it was made with, or None.
        function: the function itself.
    """

    def __init__(self, function: Callable[P, R], config: Elastic | PyTorch | None, options: Options) -> None:
        self.function = function
        self.config = config
        self._options = options
        functools.update_wrapper(self, function)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it and wait. On a worker the function is just called.

        Returns:
            Rank 0's value.

        Raises:
            Exception: what the run's `result` raises. An interrupt stops the run, which then raises
                RunInterrupted.
            UsageError: nothing was started: an argument cannot be pickled, or `resume` finds no run.
        """
        if _on_worker():
            return self.function(*args, **kwargs)
        value: R = run_blocking(self._start(args, dict(kwargs), awaited=True))
        return value

    def submit(self, /, *args: P.args, **kwargs: P.kwargs) -> Run:
        """Start it and return at once. What the ranks write appears under the cell that submitted it.

        Args:
            args, kwargs: as the function takes them.
            detach: True (unless the function has a parameter of that name): it goes on when this kernel or
                script ends, and `qd.runs()[NAME].attach()` gets it back, from any kernel of this user. What
                it returns is kept in the run store, but for values above 64 MB per rank: those only this
                kernel gets.

        Returns:
            The run, to be waited for, stopped and looked at.

        Raises:
            UsageError: it is called on a worker, an argument cannot be pickled, or `resume` finds no run.
            RunInterrupted: it was stopped before it began.
        """
        if _on_worker():
            raise UsageError("Runs are submitted from the notebook; on a worker, just call the function.")
        given: dict[str, Any] = dict(kwargs)
        detach = not _takes(self.function, "detach") and bool(given.pop("detach", False))
        return self._start(args, given, awaited=False, detach=detach)

    def options(self, **words: Any) -> DistributedFunction[P, R]:
        """The same function with other options: `train.options(resume="latest").submit()`.

        Args:
            words: as `distributed` takes them, except for the config.

        Returns:
            A new distributed function; this one is as it was.

        Raises:
            ConfigError: there is no such option, or it has no such value.
            UsageError: tensorboard is not installed.
        """
        return DistributedFunction(
            self.function, self.config, self._options.changed("distributed()", **words)
        )

    def _start(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], awaited: bool, detach: bool = False
    ) -> Run:
        notebook, options = notebooks.current(), self._options
        launch = launch_of(self.config)
        name = str(getattr(self.function, "__name__", "function"))
        context, title, source = notebook.context(), f"{name}()", _source(self.function)
        parent = continued(options.resume, options.name, title, source, context)
        view = CellView(notebook.new_sink())
        call, blob, notices = packed_call(notebook, self.function, args, kwargs)
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
            context=context,
            title=title,
            source=source,
            arguments=_words(args, kwargs),
            session=options.session,
            max_restarts=launch.max_restarts,
            restart=options.restart or "recoverable",
            parent=parent,
        )
        return submit(request, blob, view, awaited, detach)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """As a method: `self` is an argument like any other."""
        call: Any = self
        return self if instance is None else functools.partial(call, instance)

    def __repr__(self) -> str:
        return f"<distributed function {getattr(self, '__qualname__', self.function)}>"


@public
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
    resume: Any = "",
) -> Callable[[Callable[P, R]], DistributedFunction[P, R]]:
    """Make a function distributed: `@qd.distributed(qd.Elastic(nproc_per_node=2))`.

    Args:
        config: how many processes, and how they start; None: one per GPU, or two on the CPU.
        name: the name of its runs, in messages and in `qd.runs()`.
        backend: "nccl" or "gloo"; None: nccl on GPUs.
        timeout_s: seconds that a run may take, over all its attempts. A config's `active_deadline_seconds`
            bounds it, too.
        collective_timeout_s: seconds that one collective may wait.
        env: environment variables of the workers.
        seed: random, numpy and torch are seeded from it and the rank.
        session: the session whose `--setup` cells run first in the group.
        tensorboard: a folder; what is logged is also written as event files, under FOLDER/RUN/rank-R.
        deck_fields: the automatic decks of its runs, some of "Timeline", "Source Code", "Environment" (also
            called "Dependencies"), "Input" and "Output", or Flyte's `DeckField`s; () for none.
        restart: which failures use up one of the config's `max_restarts`: "recoverable" (a rank was killed or
            lost, or raised RecoverableError), "always" (any error of the function) or "never".
        resume: the earlier run that its runs continue: "latest" (the newest of this function, or name, in
            this notebook that has a checkpoint), a run, its name or id, or a path to a run, a folder of
            checkpoints or one checkpoint. For one call: `function.options(resume="latest")(...)`.

    Returns:
        A decorator, which makes a `DistributedFunction` of a function. It raises ConfigError for a coroutine
        function or a generator.

    Raises:
        ConfigError: `config` or an option has no such value. It is raised here, not at the first call.
        UsageError: tensorboard is not installed.
    """
    if callable(config) and not isinstance(config, type):
        raise ConfigError("distributed() takes a config before the function.", _HOW)
    launch_of(config)
    options = Options().changed(
        "distributed()",
        name=name,
        backend=backend,
        timeout_s=timeout_s,
        collective_timeout_s=collective_timeout_s,
        env=env,
        seed=seed,
        session=session,
        tensorboard=tensorboard,
        deck_fields=deck_fields,
        restart=restart,
        resume=resume,
    )

    def decorate(function: Callable[P, R]) -> DistributedFunction[P, R]:
        _refuse_unfit(function)
        return DistributedFunction(function, config, options)

    return decorate


def _refuse_unfit(function: Any) -> None:
    """What would not have run when its call returns."""
    if not callable(function):
        raise ConfigError(f"distributed(): {function!r} is not a function.", _HOW)
    name = getattr(function, "__name__", "the function")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError(f"distributed(): {name} is `async`.", "Write `def`, and `asyncio.run(...)` inside.")
    if inspect.isgeneratorfunction(function):
        raise ConfigError(f"distributed(): {name} is a generator.", "Return a list, or anything else.")


_HOW = "Write `@qd.distributed()` or `@qd.distributed(qd.Elastic(nproc_per_node=2))`."


def _takes(function: Callable[..., Any], parameter: str) -> bool:
    try:
        return parameter in inspect.signature(function, follow_wrapped=False).parameters
    except ValueError:  # some functions written in C do not tell
        return False


def _on_worker() -> bool:
    return "quarterdeck.worker.serve" in sys.modules


def _spec(launch: Launch, options: Options) -> GroupSpec:
    asked: Any = launch.nproc_per_node
    start_method: Any = launch.start_method
    return msgspec.structs.replace(
        options.spec,
        nproc_per_node=asked,
        start_method=start_method,
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
