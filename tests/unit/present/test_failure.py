"""What a failed cell says, word by word."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from quarterdeck.errors import (
    QuarterdeckError,
    RunFailed,
    RunInterrupted,
    RunTimedOut,
    UsageError,
    WorkersLost,
)
from quarterdeck.present.ansi import strip
from quarterdeck.present.failure import failure
from quarterdeck.protocol.kernel import Finished
from quarterdeck.protocol.worker import Evidence, Outcome

START_NS = 1_700_000_000_000_000_000
BOOM = ["\x1b[31mTraceback\x1b[0m (most recent call last)", "Cell In[7], line 3", "ValueError: boom"]


def raised(rank: int, **changes: Any) -> Outcome:
    fields: dict[str, Any] = {
        "ename": "ValueError",
        "evalue": "boom",
        "traceback": BOOM,
        "time_unix_ns": START_NS,
    }
    return Outcome(rank=rank, state="error", **{**fields, **changes})


def released(rank: int, after_s: float = 0.21) -> Outcome:
    return Outcome(rank=rank, state="released", time_unix_ns=START_NS + int(after_s * 1e9))


def killed(rank: int, number: int, **changes: Any) -> Outcome:
    return Outcome(rank=rank, state="killed", signal=number, time_unix_ns=START_NS, **changes)


def told(outcomes: list[Outcome], root_cause: int | None = None, **options: Any) -> RunFailed:
    asked = {
        name: options.pop(name) for name in ("notebook_has", "timeout_s", "world_size") if name in options
    }
    error = failure(Finished(outcomes=outcomes, root_cause=root_cause, **options), **asked)
    assert error is not None
    return error


def text(error: QuarterdeckError) -> str:
    return strip("\n".join(error._render_traceback_()))


def test_a_cell_that_succeeded_has_no_failure() -> None:
    assert failure(Finished(outcomes=[Outcome(0, "ok")], root_cause=None)) is None


def test_one_rank_raises_and_the_others_are_released() -> None:
    error = told(
        [released(0, 0.1), raised(1), released(2), Outcome(3, "ok")], root_cause=1, log_dir="/run/log"
    )
    assert text(error).split("\n") == [
        "rank 1 raised ValueError: boom",
        "",
        *[strip(line) for line in BOOM],
        "",
        "ranks 0 and 2 were released after 0.21 s; variables kept",
        "rank 3 finished",
        "",
        "Full log: /run/log",
        "The variables of all ranks are kept. The next cell works.",
    ]
    assert (str(error), error.ename, error.root_cause) == ("rank 1 raised ValueError: boom", "ValueError", 1)


def test_the_root_causes_traceback_keeps_its_colours() -> None:
    assert BOOM[0] in told([raised(0)], root_cause=0)._render_traceback_()


def test_all_ranks_raise_the_same_and_one_traceback_is_shown() -> None:
    error = told([raised(rank) for rank in range(4)], root_cause=2)
    assert str(error) == "ranks 0–3 raised ValueError: boom"
    assert text(error).count("Cell In[7]") == 1
    assert "after rank" not in text(error)


def test_another_error_is_one_line_that_says_it_came_later() -> None:
    other = raised(3, ename="RuntimeError", evalue="no {braces}\nsecond line", traceback=["long", "story"])
    lines = text(told([raised(1), other], root_cause=1, world_size=4)).split("\n")
    assert "rank 3 raised RuntimeError: no {braces} (after rank 1)" in lines
    assert "story" not in lines


@pytest.mark.parametrize("named", [None, 1])
def test_a_lost_connection_is_never_the_root_cause(named: int | None) -> None:
    echo = raised(
        0,
        ename="RuntimeError",
        evalue="[pair.cc:547] Connection closed by peer [127.0.0.1]:4",
        secondary=True,
        time_unix_ns=START_NS - 9,
    )
    error = told([echo, raised(1)], root_cause=named)
    assert str(error) == "rank 1 raised ValueError: boom"
    assert "rank 0 lost its connection to rank 1; variables kept" in text(error)
    assert "pair.cc" not in text(error)


def test_a_rank_killed_for_memory() -> None:
    gone = killed(
        2,
        signal.SIGKILL,
        ename="WorkerKilled",
        evalue="was killed by SIGKILL, most likely by the OOM killer",
        evidence=[Evidence("Peak memory", "17.4 GiB"), Evidence("Its last output", "epoch 3\nstep 4")],
        cure="Take a smaller batch.",
        lost=["model", "opt", "a", "b", "c", "d", "e"],
    )
    error = told([released(0), released(1), gone], root_cause=2, kept=False)
    assert text(error).split("\n") == [
        "rank 2 was killed by SIGKILL, most likely by the OOM killer",
        "",
        "ranks 0 and 1 were released after 0.21 s; variables kept",
        "",
        "Evidence on rank 2:",
        "  Peak memory: 17.4 GiB",
        "  Its last output:",
        "    epoch 3",
        "    step 4",
        "  What to do: Take a smaller batch.",
        "",
        "Lost: rank 2's variables (`model`, `opt`, `a`, `b`, `c` and 2 more).",
        "Rank 2 is replaced by an empty worker; the other ranks keep their variables.",
        "Run their cells again, or `%push` them from the notebook. The next cell works.",
    ]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGFPE, "rank 0 was killed by SIGFPE: an integer division by zero in C or C++ code"),
        (signal.SIGTERM, "rank 0 was killed by SIGTERM: somebody, or a batch system, asked it to end"),
        (250, "rank 0 was killed by signal 250"),
        (0, "rank 0 ended its process with exit code 3 (os._exit, or exit in C)"),
    ],
)
def test_a_death_without_a_sentence_of_the_coordinator_is_named_by_its_signal(
    number: int, words: str
) -> None:
    assert str(told([killed(0, number, exitcode=3)], root_cause=0)) == words


def test_an_interrupt_says_where_the_ranks_were() -> None:
    where = ["Cell In[3], line 2", "KeyboardInterrupt: "]
    stopped = [Outcome(rank, "interrupted", traceback=where) for rank in (0, 1)]
    error = told(stopped, stopped="interrupt", duration_s=2.3)
    assert text(error).split("\n") == [
        "stopped by you after 2.3 s",
        "",
        "Ranks 0–1 were here:",
        *where,
        "",
        "ranks 0–1 were interrupted; variables kept",
        "",
        "The variables of all ranks are kept. The next cell works.",
    ]
    assert isinstance(error, RunInterrupted)
    assert isinstance(error, KeyboardInterrupt)
    assert isinstance(error, Exception)


def test_a_time_out_names_the_option() -> None:
    error = told([Outcome(0, "interrupted")], stopped="timeout", timeout_s=10.0)
    assert isinstance(error, RunTimedOut)
    assert str(error) == "ran longer than its time-out of 10 s"


def test_a_rank_that_had_to_be_killed_for_a_stop_is_told_as_lost() -> None:
    error = told(
        [Outcome(0, "interrupted"), killed(1, signal.SIGKILL, lost=["x"])], stopped="interrupt", kept=False
    )
    assert "rank 1 was killed by SIGKILL" in text(error)
    assert "Lost: rank 1's variables (`x`)." in text(error)


def test_a_missing_name_that_the_notebook_has_comes_with_the_push() -> None:
    missing = raised(0, ename="NameError", evalue="name 'x' is not defined", missing_name="x")
    hint = "`x` exists in the notebook: `%push x` sends it to the workers."
    assert hint in text(told([missing], root_cause=0, notebook_has=lambda name: name == "x"))
    assert hint not in text(told([missing], root_cause=0))


def test_a_usage_error_is_its_text_and_its_hint() -> None:
    assert text(UsageError("unknown option --bakend", "Did you mean --backend?")) == (
        "UsageError: unknown option --bakend\nDid you mean --backend?"
    )
    assert text(WorkersLost("the workers are gone")) == "WorkersLost: the workers are gone"
