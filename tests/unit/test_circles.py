"""No module of the package imports itself by a detour, not even inside a function."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import quarterdeck

ROOT = Path(quarterdeck.__file__).parent
MEANT = {("context", "decks")}
"""`qd.current().default_deck` makes a deck at its first use."""


def modules() -> dict[str, Path]:
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(tree: ast.Module, known: dict[str, Path]) -> Iterator[str]:
    """Not what only type checkers see."""
    unseen = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in unseen and node.module:
            package, _, rest = node.module.partition(".")
            if package == "quarterdeck":
                for one in node.names:
                    module = f"{rest}.{one.name}".strip(".")
                    yield module if module in known else rest


def test_there_is_no_circle() -> None:
    known = modules()
    graph = {
        name: {other for other in imported(ast.parse(path.read_text()), known) if (name, other) not in MEANT}
        - {name, ""}
        for name, path in known.items()
        if name
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise AssertionError(f"a circle of imports: {circle}") from None
