"""One cell or function on its ranks, from the same bytes for all to the outcome of each. Nobody waits for
ever.

A failure on one rank releases the others; an interrupt or a time-out walks down the stop ladder:
KeyboardInterrupt, shutting the group's sockets, SIGTERM, SIGKILL. Every way ends with one outcome per rank.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from typing import Literal

from quarterdeck.coordinator.exit_report import killed_outcome
from quarterdeck.coordinator.record import Answer
from quarterdeck.coordinator.worker import Worker, WorkerDied
from quarterdeck.present.words import ranks_in_words
from quarterdeck.protocol.blob import Blob
from quarterdeck.protocol.kernel import Finished
from quarterdeck.protocol.worker import FINISH_GRACE_S, Outcome, Raise, Release

PYTHON_GRACE_S = 0.05
"""Python code gets KeyboardInterrupt within this; a rank that still runs is taken to be stuck in a
collective.
"""
STEP_S = 5.0
"""Between the harder steps of the ladder."""
SAVE_LIMIT_S = 300.0
"""For a checkpoint that is being written when the ranks are stopped."""
IMPORT_LIMIT_S = 31.0
"""For the import that a rank is in the middle of; the rank itself waits for 30 s."""
_LOOK_S = 0.2

Reason = Literal["failure", "interrupt", "timeout"]
_BEGINNINGS = {"failure": "another rank failed", "interrupt": "your interrupt", "timeout": "the time-out"}


class CellRun:
    """`execute` once; `stop` at any time, from the same loop. `tell` shows the notebook's reader a line;
    every worker's own outcome, with the blob of its value, goes to `answers`; `saving` says whether a
    checkpoint of theirs is being written.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        timeout_s: float | None,
        tell: Callable[[str], None],
        answers: list[Answer] | None = None,
        saving: Callable[[], bool] = lambda: False,
    ) -> None:
        self._workers = {worker.rank: worker for worker in workers}
        self._timeout_s = timeout_s
        self._tell = tell
        self._answers = answers
        self._saving = saving
        self._outcomes: dict[int, Outcome] = {}
        self._stopped: Reason | None = None
        self._ladder: asyncio.Task[None] | None = None
        self._skip = asyncio.Event()
        self._ladder_s = 0.0

    async def execute(self, raw: bytes, blob: Blob | None) -> Finished:
        began_s = time.monotonic()
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._timeout_s, self.stop, "timeout") if self._timeout_s else None
        try:
            await asyncio.gather(*(self._follow(worker, raw, blob) for worker in self._workers.values()))
        finally:
            if timer is not None:
                timer.cancel()
            if self._ladder is not None:
                self._ladder.cancel()
        return self._finished(time.monotonic() - began_s)

    @property
    def disturbed(self) -> bool:
        """Ranks were interrupted or their sockets shut, also if user code caught that and went on."""
        return self._ladder is not None

    def waits_for(self, worker: Worker) -> bool:
        return worker in self.running()

    def stop(self, reason: Reason) -> None:
        """Begin the ladder; when it is under way already, skip to its next step."""
        if self._stopped in (None, "failure") and reason != "failure":
            self._stopped = reason
        if self._ladder is None:
            self._stopped = self._stopped or reason
            self._ladder_s = time.monotonic()
            self._ladder = asyncio.get_running_loop().create_task(self._walk_down(reason))
        elif reason != "failure":
            self._skip.set()

    def cut(self) -> None:
        """A stop or restart of the user's is about to kill its workers: that is a stop, and not a failure."""
        self._stopped = "interrupt"

    async def _follow(self, worker: Worker, raw: bytes, blob: Blob | None) -> None:
        worker.last_lines.clear()
        try:
            frame = await worker.ask(raw, blob)
        except WorkerDied as death:
            outcome = killed_outcome(worker, death.exited, time.time_ns())
        else:
            assert isinstance(frame.message, Outcome)
            outcome = frame.message
            if self._answers is not None:
                self._answers.append((outcome, frame.blob))
            worker.group = outcome.group
            worker.apply_names(outcome.names, outcome.dropped)
        self._outcomes[worker.rank] = outcome
        if outcome.state in ("error", "killed"):
            self.stop("failure")

    # ---- the ladder

    async def _walk_down(self, reason: Reason) -> None:
        if reason == "failure":
            await self._wait(FINISH_GRACE_S)
            self._raise("released")
        else:
            self._raise("interrupted")
            await self._wait(PYTHON_GRACE_S)
        for worker in self.running():
            worker.tell(Release())
        await self._wait(1.0)
        await self._wait_for_saves()
        await self._wait_for_imports()
        self._announce("not stopped yet: SIGTERM follows in 4 s, interrupt again to do it now")
        await self._wait(STEP_S - 1.0)
        self._end(signal.SIGTERM)
        await self._wait(STEP_S)
        self._end(signal.SIGKILL)

    async def _wait(self, seconds: float) -> bool:
        """Whether somebody asked for the next step meanwhile."""
        self._skip.clear()
        try:
            return await asyncio.wait_for(self._skip.wait(), seconds)
        except TimeoutError:
            return False

    async def _wait_for_saves(self) -> None:
        """What a rank has saved before it was stopped is worth more than a quick end."""
        limit_s = time.monotonic() + SAVE_LIMIT_S
        if self._saving():
            self._announce(
                "not stopped yet: a checkpoint is being written, interrupt again not to wait for it"
            )
        while self.running() and self._saving() and time.monotonic() < limit_s:
            if await self._wait(_LOOK_S):
                return

    async def _wait_for_imports(self) -> None:
        """An exception in the middle of one would break every later cell. Somebody may want that."""
        for worker in self._importing():
            self._tell(
                f"rank {worker.rank} is importing {worker.importing}, and stops when that is done; "
                f"interrupt again to stop it now, which leaves {worker.importing} half imported"
            )
        limit_s = time.monotonic() + IMPORT_LIMIT_S
        while self._importing() and time.monotonic() < limit_s:
            if await self._wait(_LOOK_S):
                self._raise("interrupted", force=True)
                return

    def _importing(self) -> list[Worker]:
        return [worker for worker in self.running() if worker.importing]

    def running(self) -> list[Worker]:
        return [worker for rank, worker in self._workers.items() if rank not in self._outcomes]

    def _raise(self, why: Literal["interrupted", "released"], force: bool = False) -> None:
        for worker in self.running():
            worker.tell(Raise(reason=why, force=force))

    def _announce(self, what: str) -> None:
        if ranks := [worker.rank for worker in self.running()]:
            self._tell(f"{ranks_in_words(ranks)} {'have' if len(ranks) > 1 else 'has'} {what}")

    def _end(self, number: signal.Signals) -> None:
        if ranks := [worker.rank for worker in self.running()]:
            do, their = ("do", "their") if len(ranks) > 1 else ("does", "its")
            lost = f"{their} variables are lost"
            self._tell(f"{ranks_in_words(ranks)} {do} not stop: {number.name} sent, {lost}")
        after = f"{time.monotonic() - self._ladder_s:.0f} s after {_BEGINNINGS[self._stopped or 'failure']}"
        for worker in self.running():
            worker.end(number, f"did not stop, so quarterdeck ended it ({number.name}, {after})")

    # ---- the end

    def _finished(self, duration_s: float) -> Finished:
        outcomes = [self._outcomes[rank] for rank in sorted(self._outcomes)]
        return Finished(
            outcomes=outcomes,
            root_cause=self._root_cause(outcomes),
            stopped=self._stopped if self._stopped in ("interrupt", "timeout") else "",
            duration_s=duration_s,
            kept=all(outcome.state != "killed" for outcome in outcomes),
        )

    def _root_cause(self, outcomes: list[Outcome]) -> int | None:
        """The first failure by time; one that another rank's end explains, or that we caused, only if there
        is no other.
        """
        failed = [o for o in outcomes if o.state in ("error", "killed")]
        if not failed:
            return None
        first = min(failed, key=lambda o: (o.by_quarterdeck, o.secondary, o.time_unix_ns))
        return None if first.by_quarterdeck else first.rank
