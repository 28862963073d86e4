"""`qd.Session`: a kept group of workers under a name, from Python. What the magics do, without magics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from quarterdeck.kernel import notebook as notebooks
from quarterdeck.kernel.options import Options, kept
from quarterdeck.kernel.session import Session as SessionCalls
from quarterdeck.present.failure import failure
from quarterdeck.protocol.kernel import Control, RankStatus
from quarterdeck.protocol.parts import GroupSpec
from quarterdeck.protocol.worker import RunCell
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
        """Start the group, or take hold of the one that runs.

        Args:
            n: number of ranks, or "auto" (one per GPU, without GPUs one per CPU core), "gpu" (one per GPU),
                "cpu" (one per CPU core). None: as many as run already, else one per GPU, or two on the CPU.
            name: letters, digits, - and _.
            backend: "nccl" or "gloo"; None: nccl if there are GPUs, else gloo.
            start_method: "fork" (milliseconds), or "spawn" for what cannot be forked; None: fork.

        Raises:
            UsageError: this machine cannot have such a group, or the running one is another.
            WorkersLost: the processes vanished while they started.
        """
        self.name: str = kept("Session()", "session", name)
        self._control("start", _spec(n, backend=backend, start_method=start_method))

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

        If it fails, its frames and what they hold live until the next cell begins; with `keep_frames=False`,
        and after an out-of-memory, they are gone at once.

        Args:
            code: source without magics.
            ranks: the ranks that run it; None: all.
            timeout_s: seconds until it is interrupted on all ranks; None: no limit.
            collective_timeout_s: seconds that one collective may wait; None: as the process group has it.
            seed: random, numpy and torch are seeded from it and the rank.
            name: a name for the run in `qd.runs()`, which keeps a named cell in any case.
            setup: run it again on every new worker: after a fault or a restart, and in runs with workers of
                their own.
            tensorboard: a folder; what is logged is also written as event files, under FOLDER/RUN/rank-R.
            keep_frames: False frees the frames of a failure at once.

        Raises:
            RunFailed: a rank raised an exception or died. RunTimedOut and RunInterrupted are such errors.
            UsageError: nothing was started: a name that cannot travel, a rank that there is not, no
                tensorboard.
            WorkersLost: the workers vanished, through no failure of the code.
        """
        options = Options().changed(
            "Session.run()",
            ranks=ranks,
            timeout_s=timeout_s,
            collective_timeout_s=collective_timeout_s,
            seed=seed,
            name=name,
            setup=setup,
            tensorboard=tensorboard,
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
        """Copy values of the notebook to the workers, in the place of what these have under the names.

        Args:
            names: names of the notebook's variables.
            ranks: the ranks that get them; None: all.

        Raises:
            UsageError: the notebook has no such name, its value cannot be pickled, or there is no such rank.
            WorkersLost: the workers vanished.
        """
        with notebooks.cell_view() as view:
            self._calls.push(names, ranks, view)

    def pull(self, name: str, rank: int = 0) -> Any:
        """Copy a worker's value.

        Args:
            name: name of a variable of that rank.
            rank: whose.

        Returns:
            A new object. What lay on a GPU is on the notebook's GPU, or on the CPU where there is none.

        Raises:
            UsageError: the rank has no such name, or the value cannot be pickled there or rebuilt here.
            WorkersLost: the workers vanished.
        """
        with notebooks.cell_view() as view:
            return self._calls.pull(name, "", rank, view)

    def status(self) -> list[RankStatus]:
        """Each rank's state, pid, device and memory, also while a cell runs.

        Returns:
            A row per rank, in their order; empty without workers.

        Raises:
            UsageError: the session does not answer.
        """
        return self._calls.ask("status").ranks

    def restart(self, n: int | Literal["auto", "gpu", "cpu"] | None = None) -> None:
        """New workers, without variables, also while a cell runs.

        Args:
            n: as in `Session`; None: as many as before.

        Raises:
            UsageError: this machine cannot have such a group.
            WorkersLost: the processes vanished while they started.
        """
        self._control("restart", _spec(n))

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the cell that runs, on all its ranks. Without one it has no effect.

        Raises:
            UsageError: the session does not answer.
        """
        self._control("interrupt", GroupSpec())

    def stop(self) -> None:
        """End the workers, whatever they do. `run` then starts new ones, without variables."""
        self._control("stop", GroupSpec())

    def _control(self, action: Literal["start", "restart", "interrupt", "stop"], spec: GroupSpec) -> str:
        return self._calls.control(Control(action=action, spec=spec))[0]

    def __repr__(self) -> str:
        return f"<Session {self.name}: {len(self.status())} workers>"


def _spec(n: Any, **words: Any) -> GroupSpec:
    """Raises UsageError for what no group has."""
    return Options().changed("Session()", nproc_per_node=n, **words).spec
