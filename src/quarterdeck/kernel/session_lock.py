"""A turn that the kernel holds: the right to act on a session, with what is known of its workers' names."""

from __future__ import annotations

from dataclasses import dataclass

from quarterdeck.errors import UsageError
from quarterdeck.kernel.coordinator_process import Call
from quarterdeck.kernel.encode_call import named, naming_culprit, packed, plan_for_empty
from quarterdeck.kernel.notebook import Notebook
from quarterdeck.protocol.kernel import Finished, Turn
from quarterdeck.protocol.parts import Payload
from quarterdeck.protocol.worker import Install, RunCell
from quarterdeck.transfer.names import CellNames
from quarterdeck.transfer.pickler import Pickled, dumps
from quarterdeck.transfer.transfer_state import Plan, TransferState


@dataclass
class HeldTurn:
    """Made when the coordinator has given the turn; void when its call is closed."""

    notebook: Notebook
    call: Call
    turn: Turn
    ledger: TransferState

    def plan(self, names: CellNames) -> Plan:
        """What has to travel for a cell. Raises UsageError for one that cannot run."""
        notebook = self.notebook
        plan = self.ledger.plan(names, notebook.namespace, self.turn.workers, notebook.hidden)
        if plan.refusal:
            raise UsageError(plan.refusal)
        return plan

    def plan_alone(self, names: CellNames) -> Plan:
        """What a worker that has nothing yet needs for a set-up cell."""
        alone = plan_for_empty(names, self.notebook)
        self.ledger.replays(alone)
        return alone

    def send(self, message: RunCell | Install, plan: Plan, alone: Plan | None = None) -> None:
        """Pickle once; every worker gets the same bytes and maps the same memory."""
        pickled = [self._pickle(plan)]
        if alone is not None:
            pickled.append(dumps(alone.send, self.notebook.namespace, imports=alone.imports))
        payloads, blob = packed(pickled)
        message.payload = self._named(payloads[0], plan)
        if alone is not None and isinstance(message, RunCell):
            message.replay = self._named(payloads[1], alone)
        try:
            self.call.channel.send(message, blob)
        except OSError as error:
            raise self.call.lost() from error

    def settle(self, finished: Finished, plan: Plan) -> None:
        """Remember what arrived, and what the cell bound."""
        if all(outcome.installed for outcome in finished.outcomes):
            self.ledger.sent(plan, self.turn.workers)
        owned: set[str] = set()
        for outcome in finished.outcomes:
            owned.update(name for name, owner in outcome.names.items() if owner == "worker")
        self.ledger.bound(owned, plan)

    def _pickle(self, plan: Plan) -> Pickled:
        if not plan.send:
            return Pickled(b"", [])
        lives = [worker.life for worker in self.turn.workers]
        with naming_culprit(plan.send, self.notebook, "Create it in the %%distributed cell instead."):
            return dumps(
                plan.send,
                self.notebook.namespace,
                lambda value: self.ledger.known(value, lives),
                self.ledger.remember,
                plan.imports,
            )

    def _named(self, payload: Payload, plan: Plan) -> Payload:
        return named(payload, plan, self.notebook, plan.send)
