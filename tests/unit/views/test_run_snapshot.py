"""What the view says of a run in words and numbers: its head, its ranks, its bar, what went wrong."""

from __future__ import annotations

import math
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.metrics.progress import Bar
from quarterdeck.metrics.records import NotFinite
from quarterdeck.metrics.step_timing import Pace
from quarterdeck.protocol.agent import Vitals
from quarterdeck.protocol.worker import Evidence, Outcome
from quarterdeck.store.format import GroupEvent, OutcomeEvent, RunHeader, StateEvent
from quarterdeck.store.reader import StoredRun
from quarterdeck.store.writer import RunWriter
from quarterdeck.views.run.messages import State
from quarterdeck.views.run.progress import progress
from quarterdeck.views.run.snapshot import RunFacts, notes, state
from quarterdeck.views.sink import Control

START_NS = 1_760_000_000_000_000_000
SECOND_NS = 1_000_000_000


class Story:
    """A run on record, told event by event."""

    def __init__(self, home: Path, world_size: int = 4) -> None:
        header = RunHeader(
            title="train()", kind="function", arguments="lr=0.1", created_unix_ns=START_NS, max_restarts=2
        )
        self.recorder = RunWriter(home, header)
        self.world_size = world_size
        self.now_ns = START_NS
        self.facts = RunFacts()
        self.control = Control()

    def state(self, state: Any, attempt: int = 0, reason: str = "", after_s: float = 1, **more: Any) -> None:
        self.now_ns += int(after_s * SECOND_NS)
        self.recorder.event(StateEvent(self.now_ns, state, attempt, reason, **more))

    def running(self, attempt: int = 0) -> None:
        self.state("starting" if not attempt else "restarting", attempt)
        devices = [f"cuda:{rank}" for rank in range(self.world_size)]
        group = GroupEvent(self.now_ns, attempt, self.world_size, "nccl", "cuda", devices)
        self.recorder.event(group)
        self.state("running", attempt)

    def ended(self, rank: int, how: Any, attempt: int = 0, **more: Any) -> None:
        more = {"time_unix_ns": self.now_ns, **more}
        self.recorder.event(OutcomeEvent(self.now_ns, attempt, Outcome(rank=rank, state=how, **more), False))

    def raised(self, rank: int, attempt: int = 0, **more: Any) -> None:
        more = {
            "ename": "ValueError",
            "evalue": "boom",
            "traceback": ["\x1b[31mTraceback\x1b[0m", "x"],
            **more,
        }
        self.ended(rank, "error", attempt, **more)

    def told(self) -> State:
        run = StoredRun.read(self.recorder.folder)
        return state(self.recorder.folder, run, self.facts, self.control, lambda rank: f"line of {rank}")


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path)


def bar(
    desc: str, n: int, total: int | None, done: bool = False, step_ms: int = 100, began_s: int = 0
) -> Bar:
    began = START_NS + began_s * SECOND_NS
    return Bar(desc, n, total, began, began + n * step_ms * 1_000_000, done)


# ---- head


def test_before_it_is_on_record_a_run_is_starting(tmp_path: Path) -> None:
    facts = RunFacts(last_steps={1: 5, 0: 4})
    told = state(tmp_path / "some-run", None, facts, Control(), lambda rank: "")
    assert (told.run.run_id, told.run.state, told.run.words) == ("some-run", "starting", "")
    assert told.run.started_ms is None
    assert [(rank.rank, rank.state, rank.step) for rank in told.ranks] == [
        (0, "running", 4),
        (1, "running", 5),
    ]


def test_the_head_of_a_run_that_goes_on(story: Story) -> None:
    story.running()
    story.control.can_stop = True
    story.control.stopping = "asked, waiting for rank 2"
    head = story.told().run
    assert (head.name, head.state, head.words) == ("train(lr=0.1)", "running", "")
    assert (head.world_size, head.backend) == (4, "nccl")
    assert (head.attempt, head.attempts) == (0, 3)
    assert head.started_ms == (START_NS + 2 * SECOND_NS) / 1e6
    assert head.ended_ms is None
    assert (head.can_stop, head.stopping) == (True, "asked, waiting for rank 2")
    assert abs(head.now_ms / 1000 - time.time()) < 60


def test_a_run_that_is_over_cannot_be_stopped(story: Story) -> None:
    story.running()
    story.control.can_stop, story.control.stopping = True, "asked"
    story.state("stopped", stopped="interrupt")
    head = story.told().run
    assert (head.can_stop, head.stopping) == (False, "")


def test_succeeded(story: Story) -> None:
    story.running()
    story.facts.last_steps = {0: 99}
    story.state("succeeded", after_s=352)
    assert story.told().run.words == "succeeded in 5 min 52 s"


def test_stopped_by_the_user(story: Story) -> None:
    story.running()
    story.facts.last_steps = {0: 1_204, 1: 1_203}
    story.state("stopped", reason="stopped by the user", stopped="interrupt")
    told = story.told()
    assert told.run.words == "stopped by you at step 1,204"
    assert told.faults == []
    assert {rank.state for rank in told.ranks} == {"stopped"}


def test_stopped_by_something_else(story: Story) -> None:
    story.running()
    story.state("stopped", reason="its kernel ended")
    assert story.told().run.words == "stopped: its kernel ended"


def test_failed_names_step_and_cause(story: Story) -> None:
    story.running()
    story.facts.paces = {1: Pace(step=1_342), 0: Pace(step=1_343)}
    story.raised(1)
    for rank in (0, 2, 3):
        story.ended(rank, "released")
    story.state("failed", reason="rank 1 raised ValueError: boom", root_cause=1)
    told = story.told()
    assert told.run.words == "failed at step 1,342: rank 1 raised ValueError"
    assert [rank.state for rank in told.ranks] == ["released", "failed", "released", "released"]


def test_a_time_out_and_a_lost_run_say_why(story: Story, tmp_path: Path) -> None:
    story.running()
    story.state("failed", reason="its time-out was over", stopped="timeout")
    told = story.told()
    assert told.run.words == "failed: its time-out was over"
    assert [(fault.title, fault.ranks, fault.root) for fault in told.faults] == [
        ("Its time-out was over", [], True)
    ]
    other = Story(tmp_path / "other")
    other.running()
    other.facts.last_steps = {0: 7}
    other.state("lost", reason="its background process is gone")
    assert other.told().run.words == "lost at step 7: its background process is gone"
    assert {rank.state for rank in other.told().ranks} == {"lost"}


# ---- faults


def test_the_root_cause_comes_first_and_what_followed_after(story: Story) -> None:
    story.running()
    story.raised(0, ename="DistBackendError", evalue="closed by peer\nmore", secondary=True)
    story.now_ns += SECOND_NS
    story.raised(2)
    story.raised(1)
    story.ended(3, "released")
    story.state("failed", root_cause=1)
    first, second = story.told().faults
    assert first.title == "ValueError on ranks 1 and 2: boom"
    assert (first.ranks, first.root) == ([1, 2], True)
    assert first.traceback == "Traceback\nx"
    assert len(first.detail) == len("14:26:37")
    assert second.title == "Also: DistBackendError on rank 0: closed by peer"
    assert not second.root
    assert story.told().run.words == "failed: ranks 1 and 2 raised ValueError"


def test_a_killed_rank_comes_with_its_evidence(story: Story) -> None:
    story.running()
    known = [Evidence("Peak memory", "63.8 GiB"), Evidence("Its last output", "epoch 3\nstep 4")]
    died = "was killed by SIGKILL: by the kernel's out-of-memory killer"
    story.ended(2, "killed", signal=int(signal.SIGKILL), evalue=died, evidence=known)
    story.state("failed", root_cause=2)
    told = story.told()
    assert told.faults[0].title == f"Rank 2 {died}"
    assert told.faults[0].evidence == known
    assert told.run.words == f"failed: rank 2 {died}"
    assert told.ranks[2].state == "killed"


def test_evidence_that_an_earlier_version_stored_as_lines_is_told_with_labels(story: Story) -> None:
    story.running()
    lines = ["peak memory of its process: 0.27 GiB", "its last lines of output:", "  epoch 3", "  step 4"]
    story.ended(2, "killed", signal=int(signal.SIGKILL), evidence=lines)
    story.state("failed", root_cause=2)
    assert story.told().faults[0].evidence == [
        Evidence("Peak memory of its process", "0.27 GiB"),
        Evidence("Its last lines of output", "epoch 3\nstep 4"),
    ]


def test_earlier_attempts_are_told_last(story: Story) -> None:
    story.running()
    story.raised(3, evalue="first")
    story.running(attempt=1)
    told = story.told()
    assert told.run.attempt == 1
    assert [(f.title, f.code, f.root) for f in told.faults] == [
        ("Earlier: ValueError on rank 3: first", "ValueError", False)
    ]
    assert {rank.state for rank in told.ranks} == {"running"}
    story.raised(0, attempt=1, evalue="second")
    story.state("failed", 1, root_cause=0)
    told = story.told()
    assert [fault.title for fault in told.faults] == [
        "ValueError on rank 0: second",
        "Earlier: ValueError on rank 3: first",
    ]
    assert told.faults[0].detail.endswith(", attempt 2")


def test_a_run_without_failure_has_no_faults(story: Story) -> None:
    story.running()
    assert story.told().faults == []
    for rank in range(4):
        story.ended(rank, "ok")
    story.state("succeeded")
    assert story.told().faults == []
    assert {rank.state for rank in story.told().ranks} == {"succeeded"}


# ---- ranks


def test_a_row_of_a_rank(story: Story) -> None:
    story.running()
    vitals = Vitals(1, START_NS, 97.5, 10, 100, 88.0, 20, 200)
    story.facts = RunFacts(vitals={1: vitals}, paces={1: Pace(12, 30.5, 1.5, True)}, steps_per_s=33.0)
    told = story.told()
    assert told.steps_per_s == 33.0
    row = told.ranks[1]
    assert (row.state, row.step, row.step_ms, row.wait_ms, row.slowest) == ("running", 12, 30.5, 1.5, True)
    assert (row.device, row.last_line) == ("cuda:1", "line of 1")
    assert (row.cpu_percent, row.gpu_percent) == (97.5, 88.0)
    assert (row.memory_bytes, row.memory_limit_bytes) == (10, 100)
    assert (row.gpu_memory_bytes, row.gpu_memory_limit_bytes) == (20, 200)
    bare = told.ranks[0]
    assert (bare.step, bare.step_ms, bare.cpu_percent, bare.memory_bytes) == (None, None, None, None)


def test_after_the_end_nobody_is_busy_or_slow(story: Story) -> None:
    story.running()
    vitals = Vitals(1, START_NS, 97.5, 10, 100, 88.0, 20, 200)
    story.facts = RunFacts(
        vitals={1: vitals}, paces={1: Pace(12, 30.5, 1.5, True)}, steps_per_s=33.0, bars={1: [bar("x", 1, 9)]}
    )
    story.state("succeeded")
    told = story.told()
    assert (told.steps_per_s, told.progress) == (None, None)
    row = told.ranks[1]
    assert (row.cpu_percent, row.gpu_percent, row.slowest) == (None, None, False)
    assert (row.memory_bytes, row.step) == (10, 12)


def test_ranks_of_a_run_that_starts_again_are_starting(story: Story) -> None:
    story.running()
    story.raised(1)
    story.state("restarting", 1)
    assert {rank.state for rank in story.told().ranks} == {"starting"}


# ---- one bar


def test_no_loop_no_bar() -> None:
    assert progress({}, START_NS) is None
    assert progress({0: []}, START_NS) is None


def test_the_outermost_loop_with_an_end_is_shown() -> None:
    told = progress({0: [bar("epochs", 1, 3), bar("batches", 40, 100)]}, START_NS)
    assert told is not None
    assert (told.desc, told.n, told.total) == ("epochs", 1, 3)
    assert (told.fastest, told.slowest) == (None, None)
    told = progress({0: [bar("stream", 5, None), bar("batches", 40, 100)]}, START_NS)
    assert told is not None
    assert told.desc == "batches"


def test_without_any_known_end_the_innermost_is_shown() -> None:
    told = progress({0: [bar("outer", 1, None), bar("inner", 40, None)]}, START_NS)
    assert told is not None
    assert (told.desc, told.total, told.left_s) == ("inner", None, None)


def test_ranks_are_one_bar_with_the_first_and_the_last_of_them() -> None:
    told = progress({rank: [bar("batches", n, 100)] for rank, n in enumerate([51, 40, 60, 52])}, START_NS)
    assert told is not None
    assert told.n == 50
    assert (told.fastest, told.fastest_n, told.slowest, told.slowest_n) == (2, 60, 1, 40)


def test_ranks_that_are_equally_far_have_no_first_and_no_last() -> None:
    told = progress({rank: [bar("epochs", 2, 3)] for rank in range(4)}, START_NS)
    assert told is not None
    assert (told.n, told.fastest, told.slowest) == (2, None, None)


def test_the_time_left_is_that_of_the_last_rank_and_not_guessed_early() -> None:
    bars = {0: [bar("x", 20, 100, step_ms=100)], 1: [bar("x", 20, 100, step_ms=200)]}
    told = progress(bars, START_NS)
    assert told is not None
    assert told.left_s == pytest.approx(16)
    told = progress(bars, START_NS + 6 * SECOND_NS)
    assert told is not None
    assert told.left_s == pytest.approx(14)
    told = progress({0: [bar("x", 19, 100)]}, START_NS)
    assert told is not None
    assert told.left_s is None


def test_a_loop_that_is_over_gives_way_to_one_that_goes_on() -> None:
    told = progress({0: [bar("train", 9, 9, done=True), bar("eval", 1, 5)]}, START_NS)
    assert told is not None
    assert told.desc == "eval"
    told = progress({0: [bar("train", 9, 9, done=True)]}, START_NS)
    assert told is not None
    assert (told.n, told.total) == (9, 9)


def test_most_ranks_decide_which_loop_it_is() -> None:
    told = progress({0: [bar("eval", 1, 5)], 1: [bar("train", 8, 9)], 2: [bar("train", 9, 9)]}, START_NS)
    assert told is not None
    assert (told.desc, told.n, told.fastest, told.slowest) == ("train", 8, 2, 1)
    told = progress({0: [bar("train", 8, 9)], 1: [bar("eval", 1, 5, began_s=9)]}, START_NS)
    assert told is not None
    assert told.desc == "eval"


# ---- notes


def test_notes_name_metric_step_and_rank_once() -> None:
    found = {
        ("loss", 1): NotFinite(math.nan, 812, True),
        ("loss", 0): NotFinite(math.inf, 1_813, True),
        ("acc", 0): NotFinite(-math.inf, 7, False),
    }
    assert notes(found) == ["loss: nan since step 812 on rank 1", "acc: -inf at step 7 on rank 0"]
