"""The session as the kernel sees it: take a turn, decide what travels, send the cell, follow it to its end.

Everything here is a call to the coordinator, which owns the workers. Called by the magics; nothing is kept
but the ledger of what travelled, which belongs to one coordinator and ends with it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from quarterdeck.errors import UsageError, WorkersLost
from quarterdeck.kernel import coordinator_process
from quarterdeck.kernel import run_registry as held_runs
from quarterdeck.kernel.active_run import ActiveRun, accept
from quarterdeck.kernel.await_cell import (
    ask,
    await_frame,
    await_turn,
    follow,
    note_silence,
    refuse_silent,
    show,
)
from quarterdeck.kernel.coordinator_process import Call, Coordinator, Refusal
from quarterdeck.kernel.notebook import Notebook
from quarterdeck.kernel.options import Options
from quarterdeck.kernel.run import Run
from quarterdeck.kernel.session_lock import HeldTurn
from quarterdeck.protocol.kernel import (
    Accepted,
    Answer,
    Ask,
    Control,
    Finished,
    Notice,
    Pulled,
    TakeTurn,
    Turn,
)
from quarterdeck.protocol.parts import GroupSpec, KernelContext, Message, Payload
from quarterdeck.protocol.worker import Complete, Completed, Fetch, Inspect, Inspected, Install, RunCell
from quarterdeck.store.format import RunHeader
from quarterdeck.transfer.names import CellNames
from quarterdeck.transfer.pickler import loads
from quarterdeck.transfer.shared_buffers import map_buffers
from quarterdeck.transfer.transfer_state import Plan, TransferState
from quarterdeck.views.cell.cell import CellView

_ASIDE_LIMIT_S = 1.5


@dataclass
class Session:
    """One per name; used by the magics, and by `qd.Session`."""

    notebook: Notebook
    name: str = "default"
    _ledger: tuple[int, TransferState] | None = None
    """What one coordinator's workers have, with that coordinator's pid."""
    _turn_lock: threading.Lock = field(default_factory=threading.Lock)
    """Held through a turn: the coordinator may give the next one a moment before the last is settled here."""
    _sent: tuple[int, KernelContext] | None = None
    """The context that the coordinator has, and which coordinator."""
    _last: tuple[str, RunHeader] | None = None
    """Folder of the last cell that went on record, and what is known of it."""

    # ---- cells

    def run_cell(
        self, cell: RunCell, names: CellNames, options: Options, view: CellView
    ) -> tuple[Finished, int]:
        """Run a cell (its code and number; the rest is filled in here) to its end and return how it ended,
        with the size of the group.

        Raises UsageError when it is refused before the start, WorkersLost when the coordinator is gone, and
        RunInterrupted when the user gave up waiting; nothing was started then.
        """
        with self._turn(_title(cell, options), options.spec, options.ranks, view) as held:
            plan = self._send_cell(cell, names, options, view, held)
            known = _header(cell, options)
            view.stoppable(held.call.cancel)
            finished = follow(
                held.call, view, lambda accepted: self._accepted(accepted, held.turn, view, known)
            )
            held.settle(finished, plan)
            return finished, held.turn.world_size

    def submit_cell(self, cell: RunCell, names: CellNames, options: Options, view: CellView) -> Run:
        """As `run_cell`, but it returns as soon as the cell is on its way; a thread follows it. Waits for its
        turn, though: what travels is decided then.
        """
        with ExitStack() as stack:
            held = stack.enter_context(self._turn(_title(cell, options), options.spec, options.ranks, view))
            plan = self._send_cell(cell, names, options, view, held)
            accepted = accept(held.call, lambda message: show(message, view))
            known = _header(cell, options)
            self._accepted(accepted, held.turn, view, known)
            ending = stack.pop_all()

        def settle(finished: Finished | None) -> None:
            with ending:
                if finished is not None:
                    held.settle(finished, plan)

        try:
            live = ActiveRun(held.call, view, accepted, settle, timeout_s=options.timeout_s, closed=False)
            live.state, live.world_size = "running", held.turn.world_size
            return held_runs.begin(live, known)
        except BaseException:  # nobody follows it, so nobody would give the turn back
            ending.close()
            raise

    @staticmethod
    def _send_cell(cell: RunCell, names: CellNames, options: Options, view: CellView, held: HeldTurn) -> Plan:
        """Decide what travels, and send the cell with it."""
        view.begin(held.turn.world_size)
        plan = held.plan(names)
        for text in plan.notices:
            view.notice(text, level="warning")
        alone = held.plan_alone(names) if options.setup else None
        held.send(with_options(cell, options, names), plan, alone)
        return plan

    def _accepted(self, accepted: Accepted, turn: Turn, view: CellView, known: RunHeader) -> None:
        view.begin(turn.world_size, accepted.folder)
        self._last = accepted.folder, msgspec.structs.replace(known, run_id=accepted.run_id)

    def last_run(self) -> Run | None:
        """The run of the last cell that went on record."""
        return held_runs.at(*self._last) if self._last is not None else None

    # ---- turns

    @contextmanager
    def _turn(
        self, title: str, spec: GroupSpec, ranks: Sequence[int] | None, view: CellView
    ) -> Iterator[HeldTurn]:
        """Hold the session. Leaving early gives it back, unchanged."""
        process = coordinator_process.current()
        context = self.notebook.context()
        request = TakeTurn(
            spec=spec,
            ranks=None if ranks is None else list(ranks),
            title=title,
            context=context if self._sent != (process.process.pid, context) else None,
            session=self.name,
        )
        for text in coordinator_process.take_notices():
            view.notice(text, level="warning")
        with process.call(request) as call:
            turn = await_turn(call, view)
            with self._turn_lock:
                self._sent = (process.process.pid, context)
                yield HeldTurn(self.notebook, call, turn, self._ledger_of(process, turn))

    def _ledger_of(self, process: Coordinator, turn: Turn) -> TransferState:
        """The ledger of this coordinator; what earlier ones knew is void."""
        key = process.process.pid
        if self._ledger is None or self._ledger[0] != key:
            self._ledger = key, TransferState()
        ledger = self._ledger[1]
        ledger.meet(turn.workers)
        return ledger

    # ---- push and pull

    def push(self, names: Sequence[str], ranks: Sequence[int] | None, view: CellView) -> dict[str, str]:
        """Bind the notebook's values on the workers; returns what worker-owned values they replaced, in
        words.
        """
        missing = [name for name in names if name not in self.notebook.namespace]
        if missing:
            raise UsageError(f"The notebook has no `{missing[0]}`.")
        title = f"%push {' '.join(names)}"
        with self._turn(title, GroupSpec(), ranks, view) as held:
            workers = held.turn.workers
            plan = held.ledger.plan_push(names, self.notebook.namespace, workers, self.notebook.hidden)
            held.send(Install(payload=Payload()), plan)
            pushed = await_frame(held.call, note_silence(view)).message
            assert isinstance(pushed, Answer)
            held.ledger.sent(plan, workers)
            return pushed.facts

    def pull(self, name: str, target: str, rank: int, view: CellView) -> Any:
        """One rank's value, as a new object that the caller binds to `target`."""
        with self._turn(f"%pull {name}", GroupSpec(), [rank], view) as held:
            held.call.channel.send(Fetch(name=name, rank=rank))
            try:
                frame = await_frame(held.call, note_silence(view))
            except UsageError as refusal:
                raise UsageError(f"`{name}` cannot be pulled: {refusal}") from None
            assert isinstance(frame.message, Pulled)
            payload = frame.message.payload
            buffers = map_buffers(frame.blob, payload.spans)
            value = _load(name, payload.data, buffers, self.notebook.namespace)
            if target == name:
                held.ledger.pulled(name, value)
            return value

    # ---- questions

    def control(self, request: Control) -> tuple[str, list[str]]:
        """Start, restart, stop or interrupt; the answer and the notices on the way."""
        process = coordinator_process.current()
        request.context, request.session = self.notebook.context(), self.name
        notices = coordinator_process.take_notices()
        try:
            with process.call(request) as call:
                while not isinstance(message := await_frame(call, _end_silent(request)).message, Answer):
                    if isinstance(message, Notice):
                        notices.append(message.text)
        except WorkersLost as lost:
            if not process.ended_by:
                raise
            return self._control_anew(request, [*notices, str(lost)])
        self._sent = (process.process.pid, request.context)
        return message.text, notices

    def _control_anew(self, request: Control, notices: list[str]) -> tuple[str, list[str]]:
        """With another coordinator, if it has something to do."""
        if request.action == "stop":
            return "", notices
        text, more = self.control(request)
        return text, [*notices, *more]

    def ask(self, what: Any) -> Answer:
        return ask(coordinator_process.current(), Ask(what=what, session=self.name))

    def complete(self, code: str, cursor: int) -> Completed | None:
        message = self._aside(Complete(code=code, cursor=cursor, session=self.name))
        return message if isinstance(message, Completed) else None

    def inspect(self, code: str, cursor: int, detail_level: int) -> Inspected | None:
        message = self._aside(Inspect(code=code, cursor=cursor, detail_level=detail_level, session=self.name))
        return message if isinstance(message, Inspected) else None

    def _aside(self, request: Message) -> Message | None:
        """An answer that is nice to have; None rather than an error or a wait."""
        try:
            with coordinator_process.current().call(request) as call:
                return call.receive().message if call.channel.poll(_ASIDE_LIMIT_S) else None
        except (WorkersLost, Refusal):
            return None


def _end_silent(request: Control) -> Callable[[Call], None]:
    """What is done about a coordinator that does not answer."""

    def end(call: Call) -> None:
        if request.action not in ("stop", "restart"):
            refuse_silent(call)
        raise call.coordinator.end(f"did not answer, and was ended by `%workers {request.action}`")

    return end


def _title(cell: RunCell, options: Options) -> str:
    return options.name or f"cell [{cell.number}]"


def _header(cell: RunCell, options: Options) -> RunHeader:
    return RunHeader(
        name=options.name,
        title=f"cell [{cell.number}]",
        source=cell.code,
        created_unix_ns=time.time_ns(),
    )


def _load(name: str, data: bytes, buffers: list[memoryview], namespace: dict[str, Any]) -> Any:
    try:
        return loads(data, buffers, namespace)[name]
    except Exception as error:
        hint = "Pull the plain module: `net = model.module` on the workers, then `%pull net`."
        about_groups = "rocess group" in str(error)
        text = f"`{name}` cannot be rebuilt in the notebook: {type(error).__name__}: {error}"
        raise UsageError(text, hint if about_groups else "") from None


def with_options(cell: RunCell, options: Options, names: CellNames) -> RunCell:
    return msgspec.structs.replace(
        cell,
        name=options.name,
        binds=sorted(names.binds),
        seed=options.seed,
        environ=options.spec.environ,
        setup=options.setup,
        recorded=options.is_recorded,
        timeout_s=options.timeout_s,
        collective_timeout_s=options.collective_timeout_s,
        keep_frames=options.keep_frames,
        tensorboard=options.tensorboard,
    )
