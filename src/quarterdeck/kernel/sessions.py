"""`qd.Session`: a kept group of workers under a name, from Python. What the magics do, without magics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from quarterdeck.errors import UsageError
from quarterdeck.kernel import notebook as notebooks
from quarterdeck.kernel.session import CellOptions
from quarterdeck.kernel.session import Session as SessionCalls
from quarterdeck.metrics.tensorboard import event_folder
from quarterdeck.present.failure import failure
from quarterdeck.protocol.messages import Control, GroupSpec, RankStatus, RunCell
from quarterdeck.public import public
from quarterdeck.transfer.names import analyse

_known: dict[str, SessionCalls] = {}


def calls_of(name: str) -> SessionCalls:
    """The one of this name; all that this kernel knows of it."""
    notebook = notebooks.current()
    if name not in _known or _known[name].notebook is not notebook:
        _known[name] = SessionCalls(notebook, name)
    return _known[name]


@public
class Session:
    """A group of workers that keeps its variables from cell to cell: `%%distributed --session NAME` uses it
    too.

    `Session(2, name="eval")` starts it, or is the one that runs already. It ends with `stop`, or with the
    kernel.
    """

    def __init__(
        self,
        n: int | Literal["auto", "gpu", "cpu"] | None = None,
        name: str = "default",
        *,
        backend: str | None = None,
        start_method: Literal["fork", "spawn"] | None = None,
    ) -> None:
        """Raises UsageError for a group that this machine cannot have, or another size than the running one
        has.
        """
        self.name = check_name(name)
        self._control("start", _spec(n, backend, start_method))

    @property
    def _calls(self) -> SessionCalls:
        return calls_of(self.name)

    def run(
        self,
        code: str,
        *,
        ranks: Sequence[int] | None = None,
        timeout_s: float | None = None,
        collective_timeout_s: float | None = None,
        seed: int | None = None,
        name: str = "",
        setup: bool = False,
        tensorboard: str = "",
        keep_frames: bool = True,
    ) -> None:
        """Run Python source as a `%%distributed` cell: shows what it shows, raises what it raises.

        If it fails, its frames and what they hold live until the next cell begins; with
        `keep_frames=False`, and after an out-of-memory, they are gone at once.
        """
        options = CellOptions(
            ranks=None if ranks is None else tuple(ranks),
            timeout_s=timeout_s,
            collective_timeout_s=collective_timeout_s,
            seed=seed,
            name=name,
            setup=setup,
            recorded=bool(name),
            tensorboard=event_folder(tensorboard),
            keep_frames=keep_frames,
        )
        notebook = notebooks.current()
        names, cell = analyse(code), RunCell(code=code, number=notebook.cell_number(), bare=True)
        with notebooks.cell_view() as view:
            finished, world_size = self._calls.run_cell(cell, names, options, view)
        error = failure(finished, notebook.namespace.__contains__, timeout_s, world_size)
        if error is not None:
            raise error

    def push(self, *names: str, ranks: Sequence[int] | None = None) -> None:
        """Copy values of the notebook to the workers, by name."""
        with notebooks.cell_view() as view:
            self._calls.push(names, ranks, view)

    def pull(self, name: str, rank: int = 0) -> Any:
        """A copy of a rank's value."""
        with notebooks.cell_view() as view:
            return self._calls.pull(name, "", rank, view)

    def status(self) -> list[RankStatus]:
        """Each rank's state, pid, device and memory, also while a cell runs. Empty without workers."""
        return self._calls.ask("status").ranks

    def restart(self, n: int | Literal["auto", "gpu", "cpu"] | None = None) -> None:
        """New workers, without variables; as many as before unless `n` says otherwise."""
        self._control("restart", _spec(n))

    def interrupt(self) -> None:
        """KeyboardInterrupt in the cell that runs."""
        self._control("interrupt", GroupSpec())

    def stop(self) -> None:
        """End the workers, whatever they do."""
        self._control("stop", GroupSpec())

    def _control(self, action: Literal["start", "restart", "interrupt", "stop"], spec: GroupSpec) -> str:
        return self._calls.control(Control(action=action, spec=spec))[0]

    def __repr__(self) -> str:
        return f"<Session {self.name}: {len(self.status())} workers>"


def _spec(n: Any, backend: Any = None, start_method: Any = None) -> GroupSpec:
    """Raises UsageError for what no group has."""
    number = isinstance(n, int) and not isinstance(n, bool) and n > 0
    if not number and n not in (None, "auto", "gpu", "cpu"):
        raise UsageError(f"{n!r} is no number of ranks.", 'Write a number, "auto", "gpu" or "cpu".')
    for what, asked, known in (
        ("backend", backend, ("gloo", "nccl")),
        ("start_method", start_method, ("fork", "spawn")),
    ):
        if asked is not None and asked not in known:
            raise UsageError(f"{what} is {asked!r}.", f"Write {' or '.join(map(repr, known))}.")
    return GroupSpec(n, backend, start_method)


def check_name(name: str) -> str:
    if not name.replace("-", "_").isidentifier():
        raise UsageError(f"{name!r} is no name for a session.", "Write letters, digits, - and _.")
    return name
