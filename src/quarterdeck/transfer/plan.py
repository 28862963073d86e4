"""What the transfer state decides for one payload, and what it remembers of each name in it."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from quarterdeck.protocol.parts import Owner, WorkerNames
from quarterdeck.transfer.fingerprints import Binding, Kind, code_mark, state_mark
from quarterdeck.transfer.references import referenced_globals

INJECTED = frozenset({"rank", "local_rank", "world_size", "device"})
"""Names that every worker binds for itself; they never travel."""


@dataclass(slots=True)
class Travelled:
    """One name as it was when it travelled."""

    binding: Binding
    kind: Kind
    mark: object
    refers: frozenset[str]
    lives: set[str] | None = None
    """Workers that got this very value; None: wherever the name is."""
    told: bool = False
    """The reader knows that it has changed in place."""


@dataclass(slots=True)
class Plan:
    """What the next payload holds. With a refusal nothing may be sent or run."""

    send: dict[str, object] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    refusal: str | None = None
    imports: list[str] = field(default_factory=list)
    """Modules that the workers import on arrival (`dumps(imports=...)`); `send` is not empty then."""
    records: dict[str, Travelled] = field(default_factory=dict, repr=False)
    pushed: frozenset[str] = frozenset()
    binds: dict[str, Binding | None] = field(default_factory=dict, repr=False)
    """Names that the cell may bind, with what the notebook has there as it begins; None: no such name."""


class Owners:
    """Who owns a name on the target ranks."""

    def __init__(self, workers: list[WorkerNames]) -> None:
        self.workers = workers
        self.lives = {worker.life for worker in workers}

    def of(self, name: str) -> set[Owner | None]:
        return {worker.names.get(name) for worker in self.workers}

    def partial(self, name: str) -> bool:
        owners = self.of(name)
        return None in owners and len(owners) > 1


def record_of(value: object, kind: Kind, notebook: Mapping[str, object]) -> Travelled:
    mark = state_mark(value) if kind == "object" else code_mark(value, notebook)
    refers = frozenset(referenced_globals(value, notebook)) if kind == "object" else frozenset()
    return Travelled(Binding(value), kind, mark, refers)


def injected_notice(needs: Iterable[str], notebook: Mapping[str, object]) -> str:
    """A line for a notebook that has names of its own where the workers' are meant; once for each name."""
    shadowed = sorted((INJECTED & set(needs) & notebook.keys()) - _told)
    _told.update(shadowed)
    if not shadowed:
        return ""
    names = ", ".join(f"`{name}`" for name in shadowed)
    verb, pronoun = ("is", "its") if len(shadowed) == 1 else ("are", "their")
    return (
        f"{names} {verb} each rank's own on the workers; the notebook's value of {pronoun} name stays here."
    )


_told: set[str] = set()
"""Names that the reader has been told of, in this kernel."""


def may_travel(name: str, hidden: set[str]) -> bool:
    dunder = name.startswith("__") and name.endswith("__")
    return not dunder and name not in hidden and name not in INJECTED


def submodules_of(module: types.ModuleType, attributes: list[str]) -> Iterator[str]:
    name = module.__name__
    for attribute in attributes:
        name = f"{name}.{attribute}"
        if name not in sys.modules:
            return
        yield name
