"""A run as the store keeps it: what the coordinator knows, in the store's words. Used by sessions' cells and
by closed runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from quarterdeck.checkpointing import ended
from quarterdeck.checkpointing.storage import place_of
from quarterdeck.coordinator.placement import Placement
from quarterdeck.present.failure import sentence
from quarterdeck.protocol.blob import Blob
from quarterdeck.protocol.kernel import Finished
from quarterdeck.protocol.parts import KernelContext, Payload
from quarterdeck.protocol.worker import CallFunction, Outcome, Output, RunCell
from quarterdeck.store.environment import describe
from quarterdeck.store.format import GroupEvent, LoadEvent, OutcomeEvent, RunHeader, RunState, StateEvent
from quarterdeck.store.layout import CHECKPOINTS
from quarterdeck.store.paths import home
from quarterdeck.store.results import write_result
from quarterdeck.store.writer import RunWriter

KERNEL_ENDED = "its kernel ended"

Answer = tuple[Outcome, Blob | None]
"""A worker's outcome with the blob of its value."""


class RunRecord:
    """One run. Nothing is on disk before `open`, or the first text that a rank writes."""

    def __init__(
        self,
        context: KernelContext,
        title: str,
        work: RunCell | CallFunction,
        source: str = "",
        arguments: str = "",
        **more: Any,
    ) -> None:
        """`more`: further fields of the header."""
        code = work.code if isinstance(work, RunCell) else source
        header = RunHeader(
            name=work.name,
            kind="function" if isinstance(work, CallFunction) else "cell",
            title=title,
            source=code,
            arguments=arguments,
            notebook=context.notebook,
            cwd=context.cwd,
            **more,
        )
        environ = context.environ
        self._recorder = RunWriter(home(environ, context.cwd), header, environ)
        self._notes: dict[int, str] = {}
        self._logged: set[int] = set()

    @property
    def run_id(self) -> str:
        return self._recorder.run_id

    @property
    def folder(self) -> Path:
        return self._recorder.folder

    def saving(self) -> bool:
        """Whether a rank is writing a checkpoint of the run."""
        return bool(place_of(self.folder / CHECKPOINTS).in_the_making())

    @property
    def notice(self) -> str:
        return self._recorder.notice

    @property
    def opened(self) -> bool:
        return self._recorder.opened

    @property
    def has_logs(self) -> bool:
        """Some rank wrote text."""
        return bool(self._logged)

    def open(self) -> None:
        if not self._recorder.opened:  # most cells never get here: they need not look for a commit
            header = self._recorder.header
            header.environment = describe(header.cwd)
        self._recorder.open()

    def close(self) -> None:
        self._recorder.close()

    # ---- on the way

    def write(self, output: Output) -> None:
        """Text of a rank, into its log."""
        if output.text or output.kind == "result":
            self._logged.add(output.rank)
        self._recorder.write(output)

    def state(self, state: RunState, attempt: int, reason: str = "") -> None:
        self._recorder.event(StateEvent(time.time_ns(), state, attempt, reason))

    def loaded(self, rank: int, step: int, attempt: int) -> None:
        self._recorder.event(LoadEvent(time.time_ns(), attempt, rank, step))

    def group(self, placement: Placement, attempt: int) -> None:
        self._recorder.event(
            GroupEvent(
                time_unix_ns=time.time_ns(),
                attempt=attempt,
                world_size=placement.world_size,
                backend=placement.backend,
                device_type=placement.device_type,
                devices=[place.device for place in placement.places],
            )
        )

    # ---- the end

    async def tidy_up(self) -> None:
        """All ranks have ended: what they have left among the run's checkpoints, from another thread."""
        folder = self.folder / CHECKPOINTS
        if ended.has_traces(folder):
            await asyncio.to_thread(ended.tidy_up, folder)

    async def results(self, answers: Sequence[Answer], attempt: int) -> None:
        """The ranks' values, large ones from another thread."""
        for outcome, blob in answers:
            value = outcome.value
            if not value.data:
                continue
            path = self._recorder.result_path(attempt, outcome.rank)
            if blob is not None:
                note = await asyncio.to_thread(write_result, path, value.data, value.spans, blob)
            else:
                note = write_result(path, value.data, value.spans, None)
            self._notes[outcome.rank] = note

    def outcomes(self, outcomes: Sequence[Outcome], attempt: int) -> None:
        for outcome in outcomes:
            note = self._notes.get(outcome.rank)
            stripped = msgspec.structs.replace(outcome, value=Payload(), names={}, dropped=[])
            self._recorder.event(
                OutcomeEvent(
                    time_unix_ns=time.time_ns(),
                    attempt=attempt,
                    outcome=stripped,
                    kept=note == "",
                    note=note or "",
                )
            )

    def end(self, finished: Finished, attempt: int, kernel_gone: bool = False) -> None:
        """The terminal state. Without its kernel a run cannot but end, whatever that looks like."""
        if kernel_gone:
            self.state("stopped", attempt, KERNEL_ENDED)
            return
        state, reason = _terminal(finished)
        self._recorder.event(
            StateEvent(
                time.time_ns(),
                state,
                attempt,
                reason,
                stopped=finished.stopped,
                root_cause=finished.root_cause,
            )
        )


def _terminal(finished: Finished) -> tuple[RunState, str]:
    if finished.stopped == "interrupt":
        return "stopped", "stopped by the user"
    if finished.stopped:
        return "failed", "its time-out was over"
    root = next((o for o in finished.outcomes if o.rank == finished.root_cause), None)
    if root is None:
        return "succeeded", ""
    return "failed", sentence(root)[:300]
