"""`Run`: one execution of a cell or a function, on its way or from the store. For users; in the kernel."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Generator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from quarterdeck.errors import RunFailed, RunInterrupted, UsageError, WorkersLost
from quarterdeck.flyte.spawn_helper import ElasticWorkerResult
from quarterdeck.kernel import detached
from quarterdeck.kernel import notebook as notebooks
from quarterdeck.kernel.active_run import ActiveRun
from quarterdeck.kernel.stacks import Stacks
from quarterdeck.kernel.values import Values, raise_as_it_was
from quarterdeck.metrics.series import Metrics
from quarterdeck.present.failure import failure
from quarterdeck.protocol.kernel import Answer, Finished
from quarterdeck.protocol.worker import Outcome
from quarterdeck.public import public
from quarterdeck.store.format import TERMINAL
from quarterdeck.store.layout import HEADER
from quarterdeck.store.reader import LOG_BYTES, StoredRun, delete
from quarterdeck.store.resume_chain import parent_of
from quarterdeck.views.cell.run_output import RunOutput, in_thread
from quarterdeck.views.run import static_html
from quarterdeck.views.sink import Bundle, Control

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from quarterdeck.decks.of_run import RunDecks
    from quarterdeck.kernel.checkpoints import ListedCheckpoints

_POLL_S = 0.2


@public
class Run:
    """A run that one can hold, wait for, stop and look at; usable from any thread.

    `%%distributed --background`, `function.submit(...)` and `qd.runs()[NAME]` give one. What it tells comes
    from the run store, so a run of an earlier kernel tells the same, except that nobody can stop it.
    """

    def __init__(self, stored: StoredRun, live: ActiveRun | None = None) -> None:
        self._stored = stored
        self._live = live
        self._lock = threading.RLock()
        self._values = Values(stored, live)

    # ---- what it is

    @property
    def run_id(self) -> str:
        """Name of its folder: time, and the name or title."""
        return self._stored.run_id

    @property
    def name(self) -> str:
        """As the user named it, else what it is called: "train()", "cell [7]"."""
        return self._stored.header.name or self._stored.header.title

    @property
    def kind(self) -> str:
        """ "cell" or "function"."""
        return self._stored.header.kind

    @property
    def source(self) -> str:
        """The cell's code, or the function's, as it was."""
        return self._stored.header.source

    @property
    def arguments(self) -> str:
        """The arguments of a function's call, each shortened: "lr=0.1, epochs=5". Empty for a cell."""
        return self._stored.header.arguments

    @property
    def notebook(self) -> str:
        """Path of the notebook or script, as far as it was known."""
        return self._stored.header.notebook

    @property
    def environment(self) -> dict[str, str]:
        """Versions, machine, git commit, backend and devices."""
        stored = self._fresh()
        found = dict(stored.header.environment)
        if stored.world_size:
            found |= {"backend": stored.backend, "devices": ", ".join(stored.devices)}
        return found

    @property
    def detached(self) -> bool:
        """It outlives the kernel that started it."""
        return self._stored.detached

    @property
    def folder(self) -> Path:
        """Where the run store keeps it."""
        return self._stored.folder

    @property
    def parent(self) -> Run | None:
        """The run that this one continues (`--resume`); None if there is none, or not any more."""
        folder = parent_of(self.folder, self._stored.header)
        return run_of(StoredRun.read(folder)) if folder is not None else None

    # ---- how it is

    @property
    def status(self) -> str:
        """queued, starting, running, restarting; in the end succeeded, failed, stopped or lost."""
        live = self._live
        if live is not None and not (live.ended.done() and live.state == "lost"):
            return live.state
        stored = self._fresh()
        return stored.state if stored.terminal or (stored.folder / HEADER).exists() else "lost"

    @property
    def reason(self) -> str:
        """Why it ended as it did, in a few words."""
        return self._fresh().reason

    @property
    def attempt(self) -> int:
        """The number of the latest attempt, counted from 0."""
        return self._fresh().attempt

    @property
    def world_size(self) -> int:
        """Number of ranks; 0 before they have started."""
        return self._fresh().world_size or (self._live.world_size if self._live else 0)

    @property
    def created(self) -> datetime:
        """When it was submitted, local time."""
        return datetime.fromtimestamp(self._stored.created_unix_ns / 1e9).astimezone()

    @property
    def duration_s(self) -> float:
        """Seconds since its first line ran, up to its end or to now."""
        return self._fresh().duration_s

    @property
    def outcomes(self) -> list[Outcome]:
        """How each rank ended, by rank, in the last attempt: state, exception, signal, `time_unix_ns`. Ranks
        that have not ended are missing.
        """
        finished = self._live_end()
        return finished.outcomes if finished is not None else self._fresh().outcomes()

    @property
    def size_bytes(self) -> int:
        """How many bytes its files take in the run store."""
        return self._stored.size_bytes

    def logs(self, rank: int | None = None) -> str:
        """All that the ranks wrote to stdout and stderr, in all attempts.

        Args:
            rank: whose; None for all ranks one after another, each under a line with its number.

        Returns:
            The text, "" where nothing was written. Where there are more than 256 MiB, the last of them, after
            a line that says so.
        """
        if rank is not None:
            return self._stored.log(rank)
        parts, room = [], LOG_BYTES
        for r in range(max(1, self.world_size)):
            text = self._stored.log(r, room)
            room = max(0, room - len(text))
            parts += [f"--- rank {r}\n{text.rstrip()}\n"] if text else []
        return "\n".join(parts)

    @property
    def metrics(self) -> Metrics:
        """What its ranks kept with `qd.log`, as of now: `run.metrics["loss"]`, `.to_pandas()`, `.last()`.

        A run that continues another (`--resume`) has that one's values too, up to where it began itself.
        """
        return Metrics.of_run(self.folder, self._stored.header, self.world_size)

    def plot(self, names: str | Sequence[str] | None = None, **style: Any) -> Figure:
        """The curves as a matplotlib figure, a chart for each metric.

        Ranks are thin lines and their mean is a thick one; above 8 ranks there is a band from least to
        greatest.

        Args:
            names: a metric or several; "val/" stands for all that begin so. None: all, up to 12.
            title: stands above the charts; the run's name if it is not given.
            x: "step", or "time" in seconds, minutes or hours since the first value shown.
            smoothing: the weight of the past, from 0 (none) to below 1.
            log_scale: True for a logarithmic axis of values.

        Returns:
            A figure that shows itself in a notebook and has `savefig`. pyplot does not know of it.

        Raises:
            UsageError: matplotlib is missing, no metric has that name, or an option is out of its range.
        """
        from quarterdeck.metrics.plot import plot

        return plot(self.metrics, names, **{"title": self.name, **style})

    @property
    def checkpoints(self) -> ListedCheckpoints:
        """What it has saved with `qd.save_checkpoint`, as of now: `run.checkpoints.best("loss")`, `.latest`,
        `[-1].metrics`. Shows itself as the checkpoint browser.
        """
        from quarterdeck.kernel.checkpoints import ListedCheckpoints
        from quarterdeck.views.checkpoints import location

        return ListedCheckpoints(location.of_run(self.folder, self.name))

    @property
    def decks(self) -> RunDecks:
        """What its ranks have reported, as of now: `run.decks[1]["confusion"]`, or for all ranks on one page
        `run.decks.merged("confusion")`.
        """
        from quarterdeck.decks.of_run import RunDecks

        return RunDecks(self.folder)

    def _fresh(self) -> StoredRun:
        with self._lock:
            if not self._stored.terminal:
                self._stored.refresh()
            return self._stored

    # ---- wait, stop

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for its end. Raises nothing, however it ended; a KeyboardInterrupt ends the waiting only.

        Args:
            timeout: seconds to wait at most; None: as long as it takes.

        Returns:
            Whether it is over.
        """
        if self._live is not None:
            return self._live.wait(timeout)
        limit = None if timeout is None else time.monotonic() + timeout
        while self.status not in TERMINAL:
            if limit is not None and time.monotonic() >= limit:
                return False
            time.sleep(_POLL_S)
        return True

    def result(self, timeout: float | None = None, *, trust: bool = False) -> Any:
        """Rank 0's return value, as soon as all ranks have ended.

        Args:
            timeout: seconds to wait for the end at most; None: as long as it takes.
            trust: unpickle also a value that this user's quarterdeck did not write. That may run any code.

        Returns:
            The value, None for a cell, an `Unpicklable` where the value could not leave its worker.

        Raises:
            Exception: the one that ended the run, with its own type, its rank (`.rank`) and time
                (`.timestamp`, in seconds since 1970).
            RunFailed: there is no such exception: a worker was killed, or the exception cannot be pickled.
            RunInterrupted: the run was stopped.
            RunTimedOut: the run took longer than it may.
            TimeoutError: the run is not over within `timeout`.
            UntrustedResult: the value on record is not of this user's quarterdeck, and `trust` is False.
            UsageError: the value was not kept, or cannot be rebuilt here.
            WorkersLost: the run is lost: its processes vanished.
        """
        self._wait_and_raise(timeout, trust)
        return self._result(0, trust).return_value if self.kind == "function" else None

    @property
    def results(self) -> list[ElasticWorkerResult]:
        """What each rank returned, with its decks, by rank. Waits for the end.

        Raises:
            Exception: as `result`.
        """
        self._wait_and_raise(None, trust=False)
        return [self._result(outcome.rank, trust=False) for outcome in self.outcomes]

    def __await__(self) -> Generator[Any, None, Any]:
        """`await run` is `run.result()` with the event loop free. An interrupt ends the waiting only."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[Any]
        if self._live is not None:
            waiting = asyncio.shield(asyncio.wrap_future(self._live.ended))
        else:
            waiting = loop.run_in_executor(None, self.wait)
        while not waiting.done():  # an interrupt ends the await only where the loop wakes up by itself
            yield from asyncio.wait([waiting], timeout=_POLL_S).__await__()
        return self.result()

    def stop(self) -> None:
        """End it: interrupt, abort the process group, SIGTERM, SIGKILL, 5 s apart; called again, it skips a
        step.

        Returns at once; `wait` waits. It has no effect on a run that is over.

        Raises:
            UsageError: the run is another kernel's and not detached, or detached and out of reach: on another
                machine, or without an answer.
        """
        if self.status in TERMINAL:
            return
        if self._live is not None:
            self._live.stop()
        else:
            self._reach("stop")

    def attach(self) -> Run:
        """Take hold of a detached run (`--detach`, `submit(detach=True)`) from this kernel: `stop` works, and
        what it shows in the notebook is live.

        What it returned is in the run store, except for values above 64 MB per rank: those only the kernel
        that started it gets.

        Returns:
            The run itself, also one that is over.

        Raises:
            UsageError: as `stop`.
        """
        if self._live is None and self.status not in TERMINAL:
            self._reach("ask")
        return self

    def _reach(self, action: Literal["ask", "stop", "stacks"]) -> Answer:
        keeper = self._stored.header.keeper
        if not self.detached:
            whose = f" (its background process is pid {keeper.pid})" if keeper is not None else ""
            what = "look at it" if action == "stacks" else "stop it"
            raise UsageError(f"{self.run_id} runs under another kernel{whose}: {what} there.")
        try:
            return detached.reach(self._stored, action)
        except UsageError:
            if action == "stacks" or self.status not in TERMINAL:  # it may have ended meanwhile
                raise
            return Answer()

    def stacks(self) -> Stacks:
        """Where each rank is in its code right now. To look disturbs nobody.

        Returns:
            By rank the calls of its main thread, the innermost last; prints itself.

        Raises:
            UsageError: the run is over, or it is another kernel's and not detached, or it is out of reach.
            WorkersLost: its processes have vanished.
        """
        if self.status in TERMINAL:
            raise UsageError(f"{self.run_id} is over: no rank is in its code any more.")
        if self._live is not None:
            return Stacks(self._live.stacks(), notebooks.current())
        return Stacks(self._reach("stacks"), None)

    def delete(self) -> None:
        """Remove it from the run store, with its logs and values.

        Raises:
            UsageError: it still runs, or its folder is not one that a run has.
            OSError: its folder cannot be moved. The run is whole then.
        """
        try:
            delete(self._fresh())
        except ValueError as error:
            raise UsageError(str(error)) from None

    # ---- values

    def _wait_and_raise(self, timeout: float | None, trust: bool) -> None:
        if not self.wait(timeout):
            raise TimeoutError(f"{self.run_id} is not over after {timeout:g} s: it is {self.status}")
        if self._live is not None:
            error = self._live.failure(self._live.ended.result())
        else:
            error = self._failure_on_record()
        if error is None:
            return
        rank = error.root_cause
        original = self._values.error(rank, trust) if rank is not None else None
        raise_as_it_was(original, error, self.run_id)

    def _failure_on_record(self) -> RunFailed | None:
        stored = self._fresh()
        if self.status == "lost":
            raise WorkersLost(f"{self.run_id} is lost: {stored.reason or 'its folder is gone'}.")
        last = stored.last
        if last is not None and last.state == "stopped" and not last.stopped:
            return RunInterrupted(f"{self.run_id} was stopped: {last.reason}", outcomes=stored.outcomes())
        has = notebooks.current().namespace.__contains__
        error = failure(stored.finished(), has, stored.duration_s, self.world_size, closed=True)
        if error is not None or stored.state == "succeeded":
            return error
        return RunFailed(f"{self.run_id} {stored.state}: {stored.reason}", outcomes=stored.outcomes())

    def _live_end(self) -> Finished | None:
        """As its coordinator told it, whatever the store could keep."""
        ended = self._live.ended if self._live is not None else None
        return ended.result() if ended is not None and ended.done() and not ended.exception() else None

    def _result(self, rank: int, trust: bool) -> ElasticWorkerResult:
        outcome = next((one for one in self.outcomes if one.rank == rank), None)
        if outcome is None:
            raise UsageError(f"{self.run_id} has no result of rank {rank} on record.")
        return self._values.result(outcome, trust)

    # ---- shown

    def show(self) -> None:
        """Show it in the notebook, and keep that up to date until its end: the live view, and beside it the
        form that a saved notebook keeps.
        """
        sink = notebooks.current().new_sink()
        if not sink.live or not (self.folder / HEADER).exists():
            sink.show(self._repr_mimebundle_(), {}, "")
            return
        display = RunOutput(
            sink, _StopOf(self) if self._live is not None or self.detached else Control(), opens_output=True
        )
        now = time.monotonic()
        display.seen(now)
        display.draw(self.folder, now, last=True)
        if self.status not in TERMINAL:
            in_thread(f"quarterdeck-show-{self.run_id}", lambda: self._redraw(display))

    def _redraw(self, display: RunOutput) -> None:
        while not self.wait(display.due_in(time.monotonic())):
            display.draw(self.folder, time.monotonic())
        display.draw(self.folder, time.monotonic(), last=True)

    _ipython_display_ = show

    def _repr_mimebundle_(self, **_: Any) -> Bundle:
        return static_html.of(self._fresh(), self.metrics, self.status, self.outcomes)

    def __repr__(self) -> str:
        return f"<Run {self.run_id}: {self.status}>"


class _StopOf(Control):
    """The live view's way to stop it."""

    can_stop = True

    def __init__(self, run: Run) -> None:
        self._run = run

    def stop(self) -> None:
        self.stopping = "asked"
        self._run.stop()


_known: weakref.WeakValueDictionary[str, Run] = weakref.WeakValueDictionary()
"""By the id of the run, those that this kernel has started."""


def remember(run: Run) -> None:
    """From now on it is the Run of its folder."""
    _known[run.run_id] = run


def run_of(stored: StoredRun) -> Run:
    """The Run of a run in the store: the same object for one that this kernel has."""
    known = _known.get(stored.run_id)
    return known if known is not None and _is_same(known.folder, stored.folder) else Run(stored)


def _is_same(one: Path, other: Path) -> bool:
    """Another folder may claim the id of a run of ours."""
    return one == other or os.path.realpath(one) == os.path.realpath(other)
