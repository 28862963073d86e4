"""The session as the kernel sees it: take a turn, decide what travels, send the cell, follow it to its end.

Everything here is a call to the coordinator, which owns the workers. Called by the magics; nothing is kept
but the ledger of what travelled, which belongs to one coordinator and ends with it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from quarterdeck.client import coordinator
from quarterdeck.client.coordinator import Call, Coordinator, Refusal
from quarterdeck.client.interruptible import Interruptible
from quarterdeck.client.ledger import Ledger, Plan, sources_of
from quarterdeck.client.view import CellView
from quarterdeck.errors import CellInterrupted, UsageError, WorkersLost
from quarterdeck.payload.culprit import name_culprit
from quarterdeck.payload.memory import map_buffers, pack
from quarterdeck.payload.names import CellNames
from quarterdeck.payload.pickler import dumps, loads
from quarterdeck.protocol.channel import close_fds
from quarterdeck.protocol.messages import (
    Answer,
    Ask,
    Cancel,
    Complete,
    Completed,
    Control,
    Fetch,
    Finished,
    GroupSpec,
    Inspect,
    Inspected,
    Install,
    KernelContext,
    Message,
    Notice,
    Output,
    Payload,
    Pulled,
    RunCell,
    TakeTurn,
    Turn,
    Waiting,
)

_SLOW_START_S = 0.4
_ASIDE_LIMIT_S = 1.5
_GIVE_UP_S = 20.0
"""A coordinator that says nothing for so long after a third interrupt is taken to be lost."""


@dataclass(frozen=True)
class CellOptions:
    """The options of `%%distributed`; None means: as the session has it."""

    spec: GroupSpec = field(default_factory=GroupSpec)
    ranks: tuple[int, ...] | None = None
    timeout_s: float | None = None
    collective_timeout_s: float | None = None
    seed: int | None = None
    name: str = ""
    setup: bool = False


@dataclass
class Session:
    """One per kernel. `namespace` is the notebook's, read and never written; `hidden` are names that are not
    the user's.
    """

    namespace: dict[str, Any]
    hidden: set[str]
    compile_cache: Any = None
    """IPython's, which knows the cell number of a function's code."""
    _ledgers: dict[int, Ledger] = field(default_factory=dict)
    _contexts: dict[int, KernelContext] = field(default_factory=dict)

    # ---- cells

    def run_cell(
        self, cell: RunCell, names: CellNames, options: CellOptions, view: CellView
    ) -> tuple[Finished, int]:
        """Run a cell (its code and number; the rest is filled in here) to its end and return how it ended,
        with the size of the group.

        Raises UsageError when it is refused before the start, WorkersLost when the coordinator is gone, and
        CellInterrupted when the user gave up waiting; nothing was started then.
        """
        title = options.name or f"cell [{cell.number}]"
        with self._turn(title, options.spec, options.ranks, view) as (call, turn, ledger):
            view.begin(turn.world_size, turn.log_dir)
            plan = ledger.plan(names, self.namespace, turn.workers, self.hidden)
            if plan.refusal:
                raise UsageError(plan.refusal)
            for text in plan.notices:
                view.notice(text, level="warning")
            cell = _with_options(cell, options, names)
            self._send_with_payload(call, cell, plan, turn, ledger)
            finished = self._follow(call, view)
            self._settle(finished, plan, turn, ledger)
            return finished, turn.world_size

    def _send_with_payload(
        self, call: Call, message: RunCell | Install, plan: Plan, turn: Turn, ledger: Ledger
    ) -> None:
        """Pickle once; every worker gets the same bytes and maps the same memory."""
        payload, memfd = self._pickle(plan, turn, ledger)
        message.payload = payload
        try:
            call.channel.send(message, [memfd] if memfd is not None else [])
        except OSError as error:
            raise coordinator.current().lost() from error
        finally:
            if memfd is not None:
                os.close(memfd)

    def _pickle(self, plan: Plan, turn: Turn, ledger: Ledger) -> tuple[Payload, int | None]:
        if not plan.send:
            return Payload(), None
        lives = [worker.life for worker in turn.workers]
        try:
            pickled = dumps(
                plan.send,
                self.namespace,
                lambda value: ledger.known(value, lives),
                ledger.remember,
                plan.imports,
            )
        except Exception as error:
            culprit = name_culprit(plan.send, self.namespace, error)
            raise UsageError(culprit, "Create it in the %%distributed cell instead.") from error
        memfd, spans = pack(pickled.buffers) if pickled.buffers else (None, [])
        sources = sources_of(plan.send, self.compile_cache, self.namespace)
        return Payload(data=pickled.data, spans=spans, names=list(plan.send), sources=sources), memfd

    @staticmethod
    def _settle(finished: Finished, plan: Plan, turn: Turn, ledger: Ledger) -> None:
        if all(outcome.installed for outcome in finished.outcomes):
            ledger.sent(plan, turn.workers)
        owned: set[str] = set()
        for outcome in finished.outcomes:
            owned.update(name for name, owner in outcome.names.items() if owner == "worker")
        ledger.bound(owned)

    def _follow(self, call: Call, view: CellView) -> Finished:
        """Show what the ranks send until the cell is over; an interrupt goes to the coordinator, which ends
        it.
        """
        with Interruptible() as interrupts:
            heard_s = time.monotonic()
            while True:
                ready, interrupted = interrupts.wait(call.channel, view.next_flush_in())
                if interrupted:
                    self._interrupt(call, interrupts.count, heard_s)
                if ready:
                    heard_s = time.monotonic()
                    message = call.receive().message
                    if isinstance(message, Finished):
                        return message
                    self._show(message, view)
                view.flush()

    @staticmethod
    def _interrupt(call: Call, count: int, heard_s: float) -> None:
        try:
            call.channel.send(Cancel())
        except OSError:
            pass  # the end of the channel is there to be read
        if count >= 3 and time.monotonic() - heard_s > _GIVE_UP_S:
            raise WorkersLost("The coordinator does not answer. `%workers restart` starts anew.")

    @staticmethod
    def _show(message: Message, view: CellView) -> None:
        match message:
            case Output() as output:
                view.feed(output)
            case Notice(text=text, level=level):
                view.notice(text, level=level)

    # ---- turns

    @contextmanager
    def _turn(
        self, title: str, spec: GroupSpec, ranks: Sequence[int] | None, view: CellView
    ) -> Iterator[tuple[Call, Turn, Ledger]]:
        """Hold the session. Leaving early gives it back, unchanged."""
        process = coordinator.current()
        request = TakeTurn(
            spec=spec,
            ranks=None if ranks is None else list(ranks),
            title=title,
            context=self._new_context(process),
        )
        for text in coordinator.take_notices():
            view.notice(text, level="warning")
        with process.call(request) as call:
            turn = self._await_turn(call, view)
            yield call, turn, self._ledger(process, turn)

    def _await_turn(self, call: Call, view: CellView) -> Turn:
        began_s = time.monotonic()
        words = ""
        try:
            turn = self._until_turn(call, view)
            if turn.started:
                words = _started_words(turn, time.monotonic() - began_s)
        finally:
            view.notice(words, key="waiting")
        return turn

    def _until_turn(self, call: Call, view: CellView) -> Turn:
        """What it waits for is shown only if it takes a moment: a repair after a fault, for one, does not."""
        reason = _STARTING
        deadline_s = time.monotonic() + _SLOW_START_S
        with Interruptible() as interrupts:
            while True:
                ready, interrupted = interrupts.wait(call.channel, max(0.0, deadline_s - time.monotonic()))
                if interrupted:
                    raise CellInterrupted("stopped by you while it waited: nothing was run")
                if not ready:
                    view.notice(reason, key="waiting")
                    deadline_s = float("inf")
                else:
                    message = _refusals_as_usage(call)
                    if isinstance(message, Turn):
                        return message
                    if isinstance(message, Waiting):
                        reason = f"Waiting for {message.behind}."
                    self._show(message, view)
                view.flush()

    def _new_context(self, process: Coordinator) -> KernelContext | None:
        """What the next group takes over from this kernel, if it changed."""
        context = KernelContext(environ=dict(os.environ), cwd=os.getcwd(), sys_path=list(sys.path))
        if self._contexts.get(id(process)) == context:
            return None
        self._contexts = {id(process): context}
        return context

    def _ledger(self, process: Coordinator, turn: Turn) -> Ledger:
        """The ledger of this coordinator; what earlier ones knew is void."""
        key = process.process.pid
        if key not in self._ledgers:
            self._ledgers = {key: Ledger()}
        ledger = self._ledgers[key]
        ledger.meet(turn.workers)
        return ledger

    # ---- push and pull

    def push(self, names: Sequence[str], ranks: Sequence[int] | None, view: CellView) -> dict[str, str]:
        """Bind the notebook's values on the workers; returns what worker-owned values they replaced, in
        words.
        """
        missing = [name for name in names if name not in self.namespace]
        if missing:
            raise UsageError(f"The notebook has no `{missing[0]}`.")
        title = f"%push {' '.join(names)}"
        with self._turn(title, GroupSpec(), ranks, view) as (call, turn, ledger):
            plan = ledger.plan_push(names, self.namespace, turn.workers, self.hidden)
            self._send_with_payload(call, Install(payload=Payload()), plan, turn, ledger)
            answer = _refusals_as_usage(call)
            assert isinstance(answer, Answer)
            ledger.sent(plan, turn.workers)
            return answer.facts

    def pull(self, name: str, rank: int, view: CellView) -> Any:
        """One rank's value, as a new object of the notebook's."""
        with self._turn(f"%pull {name}", GroupSpec(), [rank], view) as (call, _turn, ledger):
            call.channel.send(Fetch(name=name, rank=rank))
            try:
                frame = call.receive()
            except Refusal as refusal:
                raise UsageError(f"`{name}` cannot be pulled: {refusal}") from None
            assert isinstance(frame.message, Pulled)
            try:
                payload = frame.message.payload
                buffers = map_buffers(frame.fds[0], payload.spans) if frame.fds else []
                value = loads(payload.data, buffers, self.namespace)[name]
            finally:
                close_fds(frame.fds)
            ledger.pulled(name, value)
            return value

    # ---- questions

    def control(self, request: Control) -> tuple[str, list[str]]:
        """Start, restart, stop or interrupt; the answer and the notices on the way."""
        process = coordinator.current()
        request.context = self._new_context(process)
        notices = coordinator.take_notices()
        with process.call(request) as call:
            while not isinstance(message := _refusals_as_usage(call), Answer):
                if isinstance(message, Notice):
                    notices.append(message.text)
        return message.text, notices

    def ask(self, what: Any) -> Answer:
        with coordinator.current().call(Ask(what=what)) as call:
            answer = _refusals_as_usage(call)
            assert isinstance(answer, Answer)
            return answer

    def complete(self, code: str, cursor: int) -> Completed | None:
        message = self._aside(Complete(code=code, cursor=cursor))
        return message if isinstance(message, Completed) else None

    def inspect(self, code: str, cursor: int, detail_level: int) -> Inspected | None:
        message = self._aside(Inspect(code=code, cursor=cursor, detail_level=detail_level))
        return message if isinstance(message, Inspected) else None

    def _aside(self, request: Message) -> Message | None:
        """An answer that is nice to have; None rather than an error or a wait."""
        try:
            with coordinator.current().call(request) as call:
                return call.receive().message if call.channel.poll(_ASIDE_LIMIT_S) else None
        except (WorkersLost, Refusal):
            return None


_STARTING = "Starting: torch is being imported for the workers."


def _with_options(cell: RunCell, options: CellOptions, names: CellNames) -> RunCell:
    return msgspec.structs.replace(
        cell,
        name=options.name,
        binds=sorted(names.binds),
        seed=options.seed,
        environ=options.spec.environ,
        setup=options.setup,
        timeout_s=options.timeout_s,
        collective_timeout_s=options.collective_timeout_s,
    )


def _started_words(turn: Turn, took_s: float) -> str:
    n = turn.world_size
    return f"{n} worker{'s' if n > 1 else ''} started in {took_s:.2f} s ({turn.backend}, {turn.device_type})."


def _refusals_as_usage(call: Call) -> Message:
    try:
        return call.receive().message
    except Refusal as refusal:
        raise UsageError(str(refusal)) from None
