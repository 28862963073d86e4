"""Which names are certainly bound at a point of a cell, and so which reads need the outside. Used by
`transfer.evaluation`.

The set of certain names grows in evaluation order, as in a compiler's definite assignment. Function bodies
run later: their reads are settled at the end of the cell.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class CellNames:
    """What a cell wants from the namespace it runs in, and leaves there."""

    needs: frozenset[str]
    """Names it may read before binding them itself; builtins are among them."""
    guarded: frozenset[str] = frozenset()
    """Those of `needs` that are read only where an `if` (or `and`, `match`, ...) has asked for the rank."""
    binds: frozenset[str] = frozenset()
    """Names it may bind."""
    paths: frozenset[str] = frozenset()
    """Dotted chains that start at a needed name ("xml.etree.ElementTree"): they may name submodules to
    import."""


@dataclass(slots=True)
class Scope:
    kind: Literal["module", "class", "function", "comprehension"]
    local: set[str] = field(default_factory=set)
    """In functions every local name; in modules and classes what is certainly bound so far."""
    declared: set[str] = field(default_factory=set)
    """Names under a `global` statement."""


class NameFlow(ast.NodeVisitor):
    """Keeps the scopes and the reads while a subclass visits a cell in evaluation order."""

    def __init__(self) -> None:
        self._scopes = [Scope("module")]
        self._guards = 0
        self._reads: dict[str, bool] = {}
        """Needed name -> whether all reads so far were guarded."""
        self._later: list[tuple[str, bool]] = []
        """Reads in function bodies: settled when the whole cell has been seen."""
        self._binds: set[str] = set()
        self._paths: set[str] = set()

    def result(self) -> CellNames:
        for name, guarded in self._later:
            if name not in self._scopes[0].local:
                self._need(name, guarded)
        guarded_names = frozenset(name for name, guarded in self._reads.items() if guarded)
        paths = frozenset(path for path in self._paths if path.partition(".")[0] in self._reads)
        return CellNames(frozenset(self._reads), guarded_names, frozenset(self._binds), paths)

    def _need(self, name: str, guarded: bool) -> None:
        self._reads[name] = guarded and self._reads.get(name, True)

    def _read(self, name: str) -> None:
        scopes = self._scopes
        for index in range(len(scopes) - 1, 0, -1):
            scope = scopes[index]
            if name in scope.declared:
                break
            if name in scope.local and (scope.kind != "class" or index == len(scopes) - 1):
                return
        if any(scope.kind == "function" for scope in scopes):
            self._later.append((name, self._guards > 0))
        elif name not in scopes[0].local:
            self._need(name, self._guards > 0)

    def _bind(self, name: str) -> None:
        scope = next(scope for scope in reversed(self._scopes) if scope.kind != "comprehension")
        inside_comprehension = scope is not self._scopes[-1]
        if scope.kind == "module" or name in scope.declared:
            self._binds.add(name)
        if name not in scope.declared and scope.kind != "function" and not inside_comprehension:
            scope.local.add(name)

    def _unbind(self, name: str) -> None:
        if self._scopes[-1].kind in ("module", "class"):
            self._scopes[-1].local.discard(name)

    def _alternatives(self, branches: Sequence[Callable[[], None]], guarded: bool = False) -> None:
        scope = self._scopes[-1]
        before, outcomes = scope.local, []
        self._guards += guarded
        for branch in branches:
            scope.local = set(before)
            branch()
            outcomes.append(scope.local)
        self._guards -= guarded
        scope.local = set.intersection(*outcomes)
