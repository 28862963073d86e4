"""Which failures are worth another attempt."""

from __future__ import annotations

import time
from typing import Any

import pytest

from quarterdeck.coordinator.restarts import Restarts
from quarterdeck.protocol.kernel import Finished, Notice, Submit
from quarterdeck.protocol.parts import GroupSpec, KernelContext
from quarterdeck.protocol.worker import Outcome, RunCell

ERROR = {"state": "error", "ename": "ValueError", "evalue": "boom\nmore"}


def _restarts(policy: Any, most: int = 2) -> tuple[Restarts, list[Notice]]:
    cell, context = RunCell(number=1, code=""), KernelContext({}, "", [])
    told: list[Notice] = []
    submit = Submit(GroupSpec(), cell, context, "cell [1]", max_restarts=most, restart=policy)
    return Restarts(submit, told.append), told


def _finished(stopped: Any = "", **outcome: Any) -> Finished:
    failed = Outcome(rank=1, time_unix_ns=time.time_ns(), **outcome)
    return Finished([Outcome(rank=0, state="released"), failed], 1, stopped)


@pytest.mark.parametrize(
    ("policy", "outcome", "again"),
    [
        ("recoverable", {"state": "killed", "evalue": "was killed by SIGKILL"}, True),
        ("recoverable", {**ERROR, "recoverable": True}, True),
        ("recoverable", ERROR, False),
        ("always", ERROR, True),
        ("always", {**ERROR, "ename": "IndentationError"}, False),
        ("always", {**ERROR, "installed": False}, False),
        ("recoverable", {**ERROR, "recoverable": True, "installed": False}, False),
        ("never", {"state": "killed", "evalue": "was killed by SIGKILL"}, False),
    ],
)
def test_the_policy_decides(policy: str, outcome: dict[str, Any], again: bool) -> None:
    restarts, told = _restarts(policy)
    assert restarts.again(_finished(**outcome), 0) is again
    assert len(told) == again


def test_a_stop_a_time_out_a_success_and_the_last_attempt_end_it() -> None:
    restarts, told = _restarts("always")
    assert not restarts.again(_finished("interrupt", **ERROR), 0)
    assert not restarts.again(_finished("timeout", **ERROR), 0)
    assert not restarts.again(Finished([Outcome(rank=0, state="ok")], None), 0)
    assert not restarts.again(_finished(**ERROR), 2)
    assert told == []


def test_one_line_for_each_restart_which_the_second_word_replaces() -> None:
    restarts, told = _restarts("always")
    restarts.begun(0)
    for attempt in range(2):
        assert restarts.again(_finished(**ERROR), attempt)
        restarts.begun(attempt + 1)
    assert [notice.key for notice in told] == ["restart-0", "restart-0", "restart-1", "restart-1"]
    assert told[0].text == "rank 1 raised ValueError: boom: attempt 1 of 3 ended, starting anew."
    assert told[3].text.startswith("rank 1 raised ValueError: boom: attempt 3 of 3 began 0.0")
