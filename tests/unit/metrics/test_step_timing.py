"""How fast the ranks are and who is slow, from what they have written: computed runs with known answers."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from quarterdeck.context import Context, working_for
from quarterdeck.metrics import collectives
from quarterdeck.metrics.collectives import ArrivalFile, ArrivalReader, Entry, Recorded
from quarterdeck.metrics.format import Layout, definition
from quarterdeck.metrics.history import History
from quarterdeck.metrics.progress import progress, read_progress
from quarterdeck.metrics.step_timing import Pace, Paces
from quarterdeck.metrics.thinned import ThinnedMetrics
from quarterdeck.store.layout import ARRIVALS, METRICS

MS = 1_000_000
START = 1_700_000_000_000_000_000
GROUP = ["0", "default_pg"]


class Run:
    """Ranks that do steps in lock step, on a clock of its own. Each step: own work, then `buckets`
    collectives 1 ms apart, which are waited for together (as DDP does) or one by one.
    """

    def __init__(self, folder: Path, world_size: int, buckets: int = 1, together: bool = True) -> None:
        self.folder, self.world_size, self.buckets, self.together = folder, world_size, buckets, together
        self.now = [START] * world_size
        self.entries: list[list[Entry]] = [[] for _ in range(world_size)]
        self.logged: list[list[tuple[int, int]]] = [[] for _ in range(world_size)]
        self.seq = 0
        self.step = 0
        contexts = [Context(rank=r, world_size=world_size, run_dir=folder) for r in range(world_size)]
        self.files = [ArrivalFile(context, START - 1) for context in contexts]
        self.written = [0] * world_size

    def steps(self, count: int, work_ms: Sequence[float], log_every: int = 1) -> None:
        for _ in range(count):
            self.now = [now + int(ms * MS) for now, ms in zip(self.now, work_ms, strict=True)]
            for _ in range(self.buckets):
                self._collective()
            self.now = [max(self.now)] * self.world_size
            self.step += 1
            if self.step % log_every == 0:
                for rank in range(self.world_size):
                    self.logged[rank].append((self.step, self.now[rank]))

    def _collective(self) -> None:
        self.seq += 1
        self.now = [now + MS for now in self.now]
        for rank, now in enumerate(self.now):
            self.entries[rank].append(Entry(now, self.seq, GROUP))
        if not self.together:
            self.now = [max(self.now)] * self.world_size

    def write(self, logging: Sequence[int] | None = None) -> None:
        """All so far, as workers do."""
        for rank in range(self.world_size):
            until_ns = max(self.now) + MS
            self.files[rank].take(Recorded(until_ns, self.entries[rank][-2000:]))
            if logging is None or rank in logging:
                self._write_metrics(rank)

    def _write_metrics(self, rank: int) -> None:
        layout = Layout(("loss",))
        with (self.folder / METRICS.name(0, rank)).open("ab") as file:
            if not self.written[rank]:
                file.write(definition(layout, 0, rank))
            for step, ns in self.logged[rank][self.written[rank] :]:
                file.write(layout.pack(layout.id, ns, step, 1.0, ~ns))
        self.written[rank] = len(self.logged[rank])

    def close(self) -> None:
        for file in self.files:
            file.close()


Make = Callable[..., Run]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Make]:
    made: list[Run] = []

    def make(*args: Any, **kwargs: Any) -> Run:
        made.append(Run(tmp_path, *args, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.close()


def _paces(run: Run) -> dict[int, Pace]:
    return Paces(History(run.folder)).refresh(0)


def test_equal_ranks_neither_wait_nor_are_marked(run: Make) -> None:
    ranks = run(3)
    ranks.steps(40, [10, 10, 10])
    ranks.write()
    paces = Paces(History(ranks.folder))
    for rank, pace in paces.refresh(0).items():
        assert pace == Pace(40, pytest.approx(11.0), 0.0, False), rank
    assert paces.steps_per_s == pytest.approx(1000 / 11)


@pytest.mark.parametrize("buckets", [1, 4, 20])
def test_a_rank_that_works_longer_is_marked_and_the_others_wait(run: Make, buckets: int) -> None:
    """However many collectives a step has, the same lead is waited for once."""
    ranks = run(3, buckets=buckets)
    ranks.steps(40, [50, 70, 50])
    ranks.write()
    paces = _paces(ranks)
    assert [paces[rank].wait_ms for rank in range(3)] == pytest.approx([20.0, 0.0, 20.0])
    assert [paces[rank].step_ms for rank in range(3)] == pytest.approx([70.0 + buckets] * 3)
    assert [paces[rank].slowest for rank in range(3)] == [False, True, False]


def test_waiting_at_one_of_several_collectives_is_found(run: Make) -> None:
    ranks = run(2, buckets=3, together=False)
    ranks.steps(40, [20, 30])
    ranks.write()
    paces = _paces(ranks)
    assert paces[0].wait_ms == pytest.approx(10.0)
    assert paces[1].wait_ms == pytest.approx(0.0)
    assert paces[1].slowest


@pytest.mark.parametrize(("work_ms", "marked"), [(113, False), (118, True)])
def test_fifteen_percent_is_the_limit(run: Make, work_ms: float, marked: bool) -> None:
    ranks = run(4)
    ranks.steps(30, [100, 99, work_ms, 101])
    ranks.write()
    assert _paces(ranks)[2].slowest is marked


def test_a_mark_needs_twenty_steps_and_goes_when_the_rank_is_as_fast_again(run: Make) -> None:
    ranks = run(2)
    ranks.steps(19, [10, 20])
    ranks.write()
    paces = Paces(History(ranks.folder))
    assert not paces.refresh(0)[1].slowest
    ranks.steps(3, [10, 20])
    ranks.write()
    assert paces.refresh(0)[1].slowest
    ranks.steps(21, [10, 10])
    ranks.write()
    assert not any(pace.slowest for pace in paces.refresh(0).values())


def test_one_slow_step_of_many_is_no_slow_rank(run: Make) -> None:
    ranks = run(2)
    ranks.steps(20, [10, 10])
    ranks.steps(1, [10, 30])
    ranks.steps(10, [10, 10])
    ranks.write()
    assert not _paces(ranks)[1].slowest


def test_it_is_enough_that_one_rank_logs_and_not_every_step(run: Make) -> None:
    ranks = run(2, buckets=3)
    ranks.steps(100, [10, 20], log_every=10)
    ranks.write(logging=[0])
    paces = _paces(ranks)
    assert paces[0].step == 100
    assert paces[1].step is None
    assert paces[0].wait_ms == pytest.approx(10.0)
    assert [pace.slowest for pace in paces.values()] == [False, True]


def test_without_the_recorder_steps_are_known_and_waiting_is_not(run: Make) -> None:
    ranks = run(2)
    ranks.steps(40, [10, 30])
    ranks.write()
    for rank in range(2):
        (ranks.folder / ARRIVALS.name(0, rank)).unlink()
    assert _paces(ranks) == {0: Pace(40, 31.0, None, False), 1: Pace(40, 31.0, None, False)}


def test_a_rank_whose_arrivals_are_missing_marks_nobody(run: Make) -> None:
    ranks = run(3)
    ranks.steps(40, [10, 30, 10])
    ranks.write()
    (ranks.folder / ARRIVALS.name(0, 2)).unlink()
    assert all(pace.wait_ms is None and not pace.slowest for pace in _paces(ranks).values())


def test_what_the_recorder_has_forgotten_is_not_taken_for_no_waiting(run: Make) -> None:
    """2,000 collectives later, with a step log from before: only the steps that are covered count."""
    ranks = run(2, buckets=100)
    ranks.steps(5, [100, 100])
    ranks.write()
    ranks.steps(30, [100, 400])  # 3,000 collectives
    ranks.write()
    paces = _paces(ranks)
    assert paces[0].wait_ms == pytest.approx(300.0)


def test_attempts_are_apart(run: Make) -> None:
    ranks = run(2)
    ranks.steps(30, [10, 20])
    ranks.write()
    paces = Paces(History(ranks.folder))
    assert paces.refresh(0)[0].step == 30
    assert paces.refresh(1) == {}
    assert paces.steps_per_s is None


def test_a_file_that_began_anew_is_looked_at_anew(run: Make) -> None:
    ranks = run(2)
    ranks.steps(40, [10, 10])
    ranks.write()
    paces = Paces(History(ranks.folder))
    assert paces.refresh(0)[0].step == 40
    path = ranks.folder / METRICS.name(0, 0)
    layout = Layout(("acc",))
    path.write_bytes(definition(layout, 0, 0) + layout.pack(layout.id, START, 3, 1.0, ~START))
    assert paces.refresh(0)[0].step == 3


def test_live_curves_look_at_the_same_history(run: Make) -> None:
    """Whoever looks first takes nothing away from the other."""
    ranks = run(2)
    history = History(ranks.folder)
    paces, curves = Paces(history), ThinnedMetrics(history)
    for look in range(1, 4):
        ranks.steps(10, [10, 10])
        ranks.write()
        if look % 2:
            assert curves.refresh()
        assert [pace.step for pace in paces.refresh(0).values()] == [10 * look] * 2
        assert curves.refresh() == (look % 2 == 0)
        assert not curves.refresh()
        assert curves.grids["loss"].lines[1].steps.tolist() == list(range(1, 10 * look + 1))


def test_nothing_there_is_nothing_known(tmp_path: Path) -> None:
    paces = Paces(History(tmp_path / "none"))
    assert paces.refresh(0) == {}
    (tmp_path / ARRIVALS.name(0, 0)).write_bytes(b"rubbish")
    (tmp_path / ARRIVALS.name(0, 1)).write_bytes(b"")
    (tmp_path / METRICS.name(0, 0)).write_bytes(os.urandom(100))
    assert all(pace == Pace() for pace in Paces(History(tmp_path)).refresh(0).values())


def test_steps_may_come_from_a_loop_with_progress(tmp_path: Path) -> None:
    paces = Paces(History(tmp_path))
    with working_for(Context(run_dir=tmp_path)):
        for number in progress(range(40)):
            time.sleep(0.01)
            if number % 10 == 9:
                paces.refresh(0)
        assert read_progress(tmp_path, 0)[0][0].n == 40
    pace = paces.refresh(0)[0]
    assert pace.step == 40
    assert pace.step_ms is not None
    assert 9 < pace.step_ms < 60
    assert paces.steps_per_s == pytest.approx(1000 / pace.step_ms)


def test_losses_every_step_count_rather_than_accuracies_every_epoch(tmp_path: Path) -> None:
    ns, data = START, b""
    loss, accuracy = Layout(("loss",)), Layout(("acc",))
    data = definition(loss, 0, 0) + definition(accuracy, 0, 0)
    for step in range(100):
        ns += 5 * MS
        data += loss.pack(loss.id, ns, step, 1.0, ~ns)
        if step % 25 == 24:
            data += accuracy.pack(accuracy.id, ns, step // 25, 1.0, ~ns)
    (tmp_path / METRICS.name(0, 0)).write_bytes(data)
    pace = Paces(History(tmp_path)).refresh(0)[0]
    assert pace.step == 99
    assert pace.step_ms == pytest.approx(5.0)


def test_the_ring_keeps_the_newest_and_readers_never_see_a_mixture(tmp_path: Path) -> None:
    """Written in chunks of any size, read at any time, over several turns of the ring."""
    file = ArrivalFile(Context(world_size=2, run_dir=tmp_path), 0)
    reader, seen, seq, chooser = ArrivalReader(tmp_path / ARRIVALS.name(0, 0)), 0, 0, random.Random(1)
    while seq < 3 * collectives.CAPACITY:
        chunk = [Entry(1_000 * s, s, GROUP) for s in range(seq + 1, seq + chooser.randint(2, 1_900))]
        seq = chunk[-1].collective_seq_id
        file.take(Recorded(1_000 * seq + 1, chunk))
        if chooser.random() < 0.5 or seq >= 3 * collectives.CAPACITY:
            reader.refresh()
            known = reader.arrivals
            newest = range(seq, seq - len(known), -1)
            assert len(known) >= min(seq, 2_000)
            assert [key & (1 << 39) - 1 for key in reversed(known.keys)] == list(newest)
            assert [ns // 1_000 for ns in reversed(known.times_ns)] == list(newest)
            seen += 1
    file.close()
    assert seen > 5
    size = (tmp_path / ARRIVALS.name(0, 0)).stat().st_size
    assert size <= 64 + 32 * collectives.CAPACITY


def test_a_torch_without_a_recorder_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert collectives.recorded() is None
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(_C=SimpleNamespace()))
    assert collectives.recorded() is None


def test_a_look_at_eight_ranks_is_cheap(run: Make) -> None:
    """As in a run: five collectives and a value a step, 100 steps between two dumps, a look every 25."""
    ranks = run(8, buckets=5)
    ranks.steps(400, [10, 11, 10, 10, 10, 14, 10, 10])
    ranks.write()
    paces, took = Paces(History(ranks.folder)), []
    paces.refresh(0)
    for look in range(24):
        ranks.steps(25, [10, 11, 10, 10, 10, 14, 10, 10])
        for rank in range(8):
            ranks._write_metrics(rank)
        if look % 4 == 3:
            ranks.write()
        began = time.perf_counter()
        found = paces.refresh(0)
        took.append(time.perf_counter() - began)
    assert found[5].slowest
    assert sorted(took)[len(took) // 2] < 0.2, took  # 5 ms on a machine that has nothing else to do
