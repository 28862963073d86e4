"""The names of a run's files stand in one module."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import quarterdeck
from quarterdeck.store.layout import (
    ARRIVALS,
    METRICS,
    PROGRESS,
    RESULT,
    SPANS,
    RankFile,
    attempts_in,
    rank_of_log,
)

SOURCES = Path(quarterdeck.__file__).parent
OTHERS = {SOURCES / "store" / "layout.py", SOURCES / "checkpointing" / "snapshot.py"}
"""The second has files of a checkpoint, which may lie anywhere, and no file of a run."""
NAMES = re.compile(
    r"(^|[/-])(attempt|rank)-$|\b(run\.json|events\.jsonl|output\.bin|vitals\.bin|coordinator\.log)$"
)


def texts(tree: ast.AST) -> Iterator[ast.Constant]:
    """The texts of the code, not its docstrings and messages."""
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node


def test_no_other_module_spells_one() -> None:
    spelled = [
        f"{path.relative_to(SOURCES)}:{one.lineno}: {one.value!r}"
        for path in SOURCES.rglob("*.py")
        if path not in OTHERS
        for one in texts(ast.parse(path.read_text()))
        if NAMES.search(str(one.value))
    ]
    assert spelled == []


@pytest.mark.parametrize("kind", [METRICS, PROGRESS, ARRIVALS, SPANS, RESULT])
def test_a_name_is_read_as_it_was_made_and_no_other_kind_is(kind: RankFile) -> None:
    kinds = [METRICS, PROGRESS, ARRIVALS, SPANS, RESULT]
    name = kind.name(3, 12)
    assert [one.read(name) for one in kinds] == [(3, 12) if one is kind else None for one in kinds]
    assert kind.read(f"{name}.tmp") is None
    assert kind.read(name.replace("12", "-1")) is None
    assert kind.read(name.replace("12", "9" * 30)) is None


def test_files_of_ranks_come_in_order(tmp_path: Path) -> None:
    for attempt, rank in ((1, 0), (0, 10), (0, 2)):
        (tmp_path / METRICS.name(attempt, rank)).touch()
    (tmp_path / SPANS.name(0, 0)).touch()
    assert [(attempt, rank) for attempt, rank, _ in METRICS.all_in(tmp_path)] == [(0, 2), (0, 10), (1, 0)]
    assert METRICS.all_in(tmp_path / "gone") == []


def test_the_latest_attempt_comes_first(tmp_path: Path) -> None:
    for name in ("attempt-2", "attempt-10", "attempt-x", "rank-3"):
        (tmp_path / name).mkdir()
    assert [path.name for path in attempts_in(tmp_path)] == ["attempt-10", "attempt-2"]


def test_logs_are_told_from_other_files() -> None:
    assert [rank_of_log(name) for name in ("rank-7.log", "rank-7.log.old", "rank-x.log")] == [7, None, None]
