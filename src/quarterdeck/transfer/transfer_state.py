"""What travelled from the notebook to a session's workers, and so what has to travel for the next cell.

Lives in the kernel, one per session; called around each action of a turn: `plan`, then (when
the workers have taken the payload) `sent`, then `bound` with what the cell bound. Reads the notebook's
namespace and never writes it. Holds what travelled weakly wherever Python can.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping

from quarterdeck.protocol.parts import WorkerNames
from quarterdeck.transfer.cell_sources import sources_of
from quarterdeck.transfer.fingerprints import Binding, code_mark, kind_of, state_mark, stateful_parts
from quarterdeck.transfer.identity import TravelIds
from quarterdeck.transfer.names import CellNames
from quarterdeck.transfer.plan import (
    INJECTED,
    Owners,
    Plan,
    Travelled,
    injected_notice,
    may_travel,
    record_of,
    submodules_of,
)
from quarterdeck.transfer.references import referenced_globals, transitive
from quarterdeck.transfer.refusals import partial_name

__all__ = ["INJECTED", "Plan", "TransferState", "sources_of"]


class TransferState:
    """The kernel's memory of one session's names and travel ids. Not for several threads at once."""

    def __init__(self) -> None:
        self._sent: dict[str, Travelled] = {}
        self._seen: dict[str, Binding | None] = {}
        """The notebook's binding of worker-owned names when it was last looked at; None: it had none."""
        self._imported: dict[str, set[str]] = {}
        self._ids = TravelIds()
        self._in_full: set[int] = set()
        """id() of objects that the plan at hand replaces, so that they go in full although they are known."""
        self._replayed: dict[str, Binding] = {}
        """What set-up cells bring along when they run again on a new worker."""
        self._lives: dict[int, str] = {}
        self._notebook: Mapping[str, object] = {}

    def meet(self, workers: list[WorkerNames]) -> None:
        """Take in what the coordinator says at the start of a turn: new lives, objects that are gone."""
        for worker in workers:
            before = self._lives.get(worker.rank, worker.life)
            if before != worker.life:
                self.forget(before)
                self._arrived_with_setup(worker)
            self._lives[worker.rank] = worker.life
            self._ids.dropped(worker.life, worker.dropped)

    def _arrived_with_setup(self, worker: WorkerNames) -> None:
        """A new worker has from its set-up cells what the others have already."""
        for name, owner in worker.names.items():
            record, replayed = self._sent.get(name), self._replayed.get(name)
            if owner != "notebook" or record is None or replayed is None or record.lives is None:
                continue
            value = self._notebook.get(name)
            if record.binding.is_now(value) and replayed.is_now(value):
                record.lives.add(worker.life)

    # ---- before a cell

    def plan(
        self,
        cell: CellNames,
        notebook: Mapping[str, object],
        workers: list[WorkerNames],
        hidden: set[str],
    ) -> Plan:
        """What has to travel for this cell on these workers. `notebook` is the namespace itself, not a
        copy: functions are recognised as the notebook's by it."""
        self._begin(notebook)
        owners = Owners(workers)
        workers_own: set[str] = set()

        def wanted(name: str) -> bool:
            if not may_travel(name, hidden):
                return False
            if "worker" in owners.of(name):
                workers_own.add(name)
                return False
            return True

        def refers(name: str) -> Iterable[str]:
            return self._refers(name, notebook)

        required = transitive(cell.needs, notebook, wanted, refers)
        asked = required | {name for name in cell.needs if may_travel(name, hidden)}
        refusal = self._refusal(asked - cell.guarded, notebook, owners)
        if refusal:
            return Plan(refusal=refusal)
        stale = [name for name in self._sent if self._is_stale(name, notebook, owners)]
        plan = Plan(binds={name: _binding(name, notebook) for name in cell.binds})
        notice = injected_notice(cell.needs, notebook)
        plan.notices += [notice] if notice else []
        for name in sorted(required | transitive(stale, notebook, wanted, refers)):
            self._decide(name, notebook, owners, plan)
        plan.notices += self._overridden(workers_own, notebook)
        self._add_imports(cell, notebook, owners, plan)
        return plan

    def _begin(self, notebook: Mapping[str, object]) -> None:
        self._ids.abandon()
        self._in_full.clear()
        self._notebook = notebook
        self._sent = {name: record for name, record in self._sent.items() if name in notebook}

    def plan_push(
        self,
        names: Iterable[str],
        notebook: Mapping[str, object],
        workers: list[WorkerNames],
        hidden: set[str],
    ) -> Plan:
        """Like `plan`, for `%push`: these names are sent whoever owns them, and in full; what their code
        refers to comes along as it would for a cell. KeyError for a name that the notebook lacks."""
        pushed = {name: notebook[name] for name in names}
        led_to = set().union(*(referenced_globals(value, notebook) for value in pushed.values()))
        plan = self.plan(
            CellNames(frozenset(led_to - set(pushed)), frozenset(led_to)), notebook, workers, hidden
        )
        plan.send.update(pushed)
        for name, value in pushed.items():
            plan.records[name] = record_of(value, kind_of(value), notebook)
            self._in_full.update(map(id, stateful_parts(value)))
        plan.pushed = frozenset(pushed)
        return plan

    def _decide(self, name: str, notebook: Mapping[str, object], owners: Owners, plan: Plan) -> None:
        value, record, there = notebook[name], self._sent.get(name), owners.of(name)
        kind = kind_of(value)
        if owners.partial(name) and kind == "object":
            return
        moved = None in there or self._moved(name, value, notebook, owners)
        if moved:
            plan.send[name] = value
            plan.records[name] = record_of(value, kind, notebook)
            if kind == "object" and None not in there:
                plan.notices.append(
                    f"`{name}` is another object in the notebook now, and the workers have that one"
                )
        elif record and kind == "object" and not record.told and state_mark(value) != record.mark:
            record.told = True
            plan.notices.append(
                f"`{name}` changed in the notebook after it travelled; the workers keep their own "
                f"(`%push {name}` replaces it)"
            )

    def _moved(self, name: str, value: object, notebook: Mapping[str, object], owners: Owners) -> bool:
        """Whether the workers got another value than the notebook has now; changes in place do not count."""
        record = self._sent.get(name)
        if record is None or not record.binding.is_now(value):
            return True
        if record.lives is not None and not owners.lives <= record.lives:
            return True
        return record.kind == "code" and record.mark != code_mark(value, notebook)

    def _is_stale(self, name: str, notebook: Mapping[str, object], owners: Owners) -> bool:
        """Code and scalars stay in step also where the cell does not name them: a worker's function may
        read them."""
        value = notebook[name]
        in_step = kind_of(value) == "object" or owners.of(name) != {"notebook"}
        return not in_step and self._moved(name, value, notebook, owners)

    def _refers(self, name: str, notebook: Mapping[str, object]) -> Iterable[str]:
        record, value = self._sent.get(name), notebook[name]
        if record is not None and record.kind == "object" and record.binding.is_now(value):
            return record.refers
        return referenced_globals(value, notebook)

    def _refusal(self, names: Iterable[str], notebook: Mapping[str, object], owners: Owners) -> str | None:
        refused = []
        for name in sorted(names):
            follows = (
                name in notebook and kind_of(notebook[name]) != "object" and "worker" not in owners.of(name)
            )
            if owners.partial(name) and not follows:
                refused.append(partial_name(name, owners.workers, name in notebook))
        return "\n".join(refused) or None

    def _overridden(self, names: Iterable[str], notebook: Mapping[str, object]) -> Iterator[str]:
        for name in sorted(names):
            value, now = notebook[name], Binding(notebook[name])
            if isinstance(value, types.ModuleType):
                continue  # imported here and there: nobody has another one in mind
            if name not in self._seen:
                self._seen[name] = now
            before = self._seen[name]
            if before is None or not before.is_now(value):
                self._seen[name] = now
                yield (
                    f"`{name}`: the workers' own value is used, not the notebook's newer one "
                    f"(`%push {name}` sends it)"
                )

    def _add_imports(
        self, cell: CellNames, notebook: Mapping[str, object], owners: Owners, plan: Plan
    ) -> None:
        for path in sorted(cell.paths):
            root, *attributes = path.split(".")
            module = notebook.get(root)
            if isinstance(module, types.ModuleType) and "worker" not in owners.of(root):
                names = [name for name in submodules_of(module, attributes) if self._lacks(name, owners)]
                if names:
                    plan.imports += [name for name in names if name not in plan.imports]
                    plan.send[root] = module
                    plan.records.setdefault(root, record_of(module, "code", notebook))

    def _lacks(self, module: str, owners: Owners) -> bool:
        return any(module not in self._imported.get(life, ()) for life in owners.lives)

    # ---- after it

    def sent(self, plan: Plan, workers: list[WorkerNames]) -> None:
        """The plan's payload has arrived in these workers."""
        lives = {worker.life for worker in workers}
        for name, record in plan.records.items():
            before = self._sent.get(name)
            same = before is not None and before.lives is not None and before.binding.is_now(plan.send[name])
            kept = before.lives if before is not None and same and before.mark == record.mark else None
            record.lives = lives | (kept or set())
            self._sent[name] = record
        for life in lives:
            self._imported.setdefault(life, set()).update(plan.imports)
        for name in plan.pushed:
            self._seen.pop(name, None)
        self._ids.confirm(lives)

    def replays(self, plan: Plan) -> None:
        """A set-up cell has succeeded, which will run again with this plan's values."""
        self._replayed.update({name: Binding(value) for name, value in plan.send.items()})

    def bound(self, names: Iterable[str], plan: Plan) -> None:
        """The workers have bound these names themselves, in the cell of this plan. What the notebook has
        bound since that began is newer; a name that the text of the cell does not show counts from now on.
        """
        for name in names:
            known = name in plan.binds
            self._seen[name] = plan.binds[name] if known else _binding(name, self._notebook)

    def pulled(self, name: str, value: object) -> None:
        """The notebook has just bound `name` to the workers' value: in step, whoever owns it."""
        kind = kind_of(value)
        mark = state_mark(value) if kind == "object" else code_mark(value, {})
        self._sent[name] = Travelled(Binding(value), kind, mark, frozenset())
        self._seen[name] = Binding(value)

    def forget(self, life: str) -> None:
        """A worker's life has ended."""
        self._ids.forget(life)
        self._imported.pop(life, None)
        for record in self._sent.values():
            if record.lives is not None:
                record.lives.discard(life)

    # ---- travel ids, for `transfer.pickler.dumps` and the workers' reports

    def known(self, obj: object, lives: Iterable[str]) -> int | None:
        """The travel id of an object that all these lives hold and that the plan at hand does not replace."""
        return None if id(obj) in self._in_full else self._ids.known(obj, lives)

    def remember(self, obj: object) -> int:
        return self._ids.remember(obj)

    def dropped(self, life: str, travel_ids: Iterable[int]) -> None:
        self._ids.dropped(life, travel_ids)


def _binding(name: str, notebook: Mapping[str, object]) -> Binding | None:
    return Binding(notebook[name]) if name in notebook else None
