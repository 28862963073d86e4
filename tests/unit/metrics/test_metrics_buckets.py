"""Curves of a live view: exact while they are short, bounded however long they get."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from quarterdeck.metrics.buckets import LIMIT
from quarterdeck.metrics.format import Layout, definition
from quarterdeck.metrics.history import History
from quarterdeck.metrics.series import Metrics
from quarterdeck.metrics.thinned import ThinnedMetrics, packed
from quarterdeck.store.layout import METRICS
from support.metric_files import Files, check_line, points


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def live(folder: Path) -> ThinnedMetrics:
    metrics = ThinnedMetrics(History(folder))
    metrics.refresh()
    return metrics


def check(folder: Path, metrics: ThinnedMetrics, name: str = "loss", rank: int = 0) -> None:
    """Each bucket is what the full data, as `run.metrics` has it, gives for its steps."""
    check_line(metrics.grids[name], Metrics.read(folder)[name].points(rank), rank)


def test_a_short_line_is_exact(files: Files) -> None:
    files.log([(step, step / 7) for step in range(LIMIT)])
    metrics = live(files.folder)
    found = points(metrics.grids["loss"])
    assert metrics.grids["loss"].bits == 0
    assert found["step"] == list(range(LIMIT))
    assert found["least"] == found["greatest"] == found["mean"] == found["last"]
    assert found["last"] == [step / 7 for step in range(LIMIT)]
    assert found["time"] == [1000 + step + 1 for step in range(LIMIT)]


def test_of_several_values_of_a_step_the_last_one_counts(files: Files) -> None:
    files.log([(0, 1.0), (1, 2.0), (1, 3.0)])
    metrics = live(files.folder)
    files.log([(1, 4.0), (2, 5.0), (0, 6.0)])
    metrics.refresh()
    assert points(metrics.grids["loss"])["last"] == [6.0, 4.0, 5.0]
    check(files.folder, metrics)


@pytest.mark.parametrize("count", [1, LIMIT + 1, 3 * LIMIT, 50_000])
def test_a_long_line_keeps_its_extremes_in_few_points(files: Files, count: int) -> None:
    rows = [(step, math.sin(step / 300)) for step in range(count)]
    rows[count // 3] = (count // 3, 99.0)
    files.log(rows)
    metrics = live(files.folder)
    found = points(metrics.grids["loss"])
    assert len(found["step"]) <= LIMIT
    assert len(found["step"]) > LIMIT / 2 or count < LIMIT
    assert max(found["greatest"]) == 99.0
    check(files.folder, metrics)


def test_a_line_is_the_same_however_it_came(files: Files) -> None:
    """In one piece, or in small ones of any size."""
    chance = random.Random(4)
    rows = [(step, chance.random()) for step in range(7_000)]
    metrics = live(files.folder)
    while rows:
        size = chance.choice([1, 2, 50, 700])
        files.log(rows[:size])
        rows = rows[size:]
        metrics.refresh()
    at_once = live(files.folder)
    for one, other in zip(points(metrics.grids["loss"]).values(), points(at_once.grids["loss"]).values(),
                          strict=True):  # fmt: skip
        assert one == pytest.approx(other)
    check(files.folder, metrics)


@pytest.mark.parametrize("count", [300, 20_000])
@pytest.mark.parametrize("seed", range(3))
def test_steps_may_come_in_any_order_and_again(files: Files, count: int, seed: int) -> None:
    chance = random.Random(seed)
    metrics = live(files.folder)
    for _ in range(12):
        first = chance.randrange(-count, count)
        rows = [(first + chance.randrange(count // 4), chance.random()) for _ in range(count // 12)]
        files.log(rows)
        metrics.refresh()
        check(files.folder, metrics)


@pytest.mark.parametrize("count", [500, 30_000])
def test_steps_that_come_again_after_a_restart_replace_what_was(files: Files, count: int) -> None:
    files.log([(step, 1.0) for step in range(count)])
    metrics = live(files.folder)
    resumed = count * 2 // 3
    size = count // 80
    for start in range(resumed, count + 200, size):
        files.log([(step, 2.0) for step in range(start, start + size)], attempt=1)
        metrics.refresh()
        check(files.folder, metrics)
    found = points(metrics.grids["loss"])
    assert found["time"] == sorted(found["time"])
    width = 1 << metrics.grids["loss"].bits
    assert all(value == 2.0 for step, value in zip(found["step"], found["least"], strict=True)
               if step >= resumed + width)  # fmt: skip


def test_huge_sparse_and_negative_steps_take_no_memory_of_their_span(files: Files) -> None:
    steps = [-(1 << 63), -(10**12), -1, 0, 10**12, 2 * 10**12, (1 << 63) - 1]
    files.log([(step, float(place)) for place, step in enumerate(steps)])
    metrics = live(files.folder)
    assert points(metrics.grids["loss"])["last"] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    files.log([(number * 10**12, 1.0) for number in range(-3 * LIMIT, 3 * LIMIT)])
    metrics.refresh()
    check(files.folder, metrics)


def test_what_is_not_finite_breaks_the_line_and_nothing_else(files: Files) -> None:
    nan, inf = math.nan, math.inf
    files.log([(0, 1.0), (1, nan), (2, inf), (3, -inf), (4, 2.0)])
    metrics = live(files.folder)
    found = points(metrics.grids["loss"])
    assert [math.isnan(value) for value in found["mean"]] == [False, True, True, True, False]
    chance = random.Random(1)
    files.log([(step, chance.choice([nan, inf, 1.0, 2.0])) for step in range(5, 6_000)])
    files.log([(step, nan) for step in range(6_000, 6_500)])
    metrics.refresh()
    check(files.folder, metrics)


def test_the_mean_is_that_of_the_ranks_that_have_the_step(files: Files) -> None:
    files.log([(0, 1.0), (1, 2.0), (2, math.nan)], rank=0)
    metrics = live(files.folder)
    assert list(metrics.grids["loss"].everything()) == [0]
    files.log([(0, 3.0), (2, 5.0), (3, 7.0)], rank=1)
    metrics.refresh()
    grid = metrics.grids["loss"]
    assert list(grid.everything()) == [None, 0, 1]
    assert grid.changes() == {0: 0, 1: 0, None: 0}
    found = points(grid, None)
    assert found["step"] == [0, 1, 2, 3]
    assert found["mean"] == pytest.approx([2.0, 2.0, math.nan, 7.0], nan_ok=True)
    expected = Metrics.read(files.folder)["loss"].mean()
    assert found["mean"] == pytest.approx(expected.values, nan_ok=True)


def test_ranks_share_one_grid_of_bounded_size(files: Files) -> None:
    """Also where they log at different steps."""
    for rank in range(4):
        files.log([(4 * number + rank, 1.0 + rank) for number in range(LIMIT)], rank=rank)
    metrics = live(files.folder)
    grid = metrics.grids["loss"]
    assert grid.bits == 2
    assert len(grid.keys) == LIMIT
    assert points(grid, None)["mean"] == [2.5] * LIMIT
    for rank in range(4):
        check(files.folder, metrics, rank=rank)


def test_changes_name_the_first_point_that_is_another_one(files: Files) -> None:
    files.log([(step, 1.0) for step in range(100)])
    metrics = live(files.folder)
    grid = metrics.grids["loss"]
    assert grid.changes() == {0: 0}
    assert grid.changes() == {}
    files.log([(100, 1.0), (101, 1.0)])
    metrics.refresh()
    assert grid.changes() == {0: 100}
    files.log([(40, 2.0), (102, 1.0)])
    metrics.refresh()
    assert grid.changes() == {0: 40}
    files.log([(step, 1.0) for step in range(103, LIMIT + 1)])
    metrics.refresh()
    assert grid.changes() == {0: 0}  # the width has doubled: all points are others
    assert grid.bits == 1
    files.log([(LIMIT + 1, 1.0)])
    metrics.refresh()
    (key,) = grid.changes().values()
    assert grid.part(0, key).start == LIMIT // 2


def test_the_mean_changes_from_where_a_rank_does(files: Files) -> None:
    for rank in range(3):
        files.log([(step, float(rank)) for step in range(3_000)], rank=rank)
    metrics = live(files.folder)
    grid = metrics.grids["loss"]
    whole = points(grid, None)
    grid.changes()
    files.log([(3_000, 10.0)], rank=1)
    metrics.refresh()
    changes = grid.changes()
    assert set(changes) == {None, 1}
    part = grid.part(None, changes[None])
    rest = np.frombuffer(packed(part, 0), "<f8").reshape(6, -1).tolist()
    now = points(grid, None)
    for old, new, column in zip(whole.values(), rest, now.values(), strict=True):
        assert old[: part.start] + new == pytest.approx(column)


def test_a_zoom_is_finer_than_the_whole(files: Files) -> None:
    for rank in range(2):
        files.log([(step, float(step)) for step in range(20_000)], rank=rank)
    metrics = live(files.folder)
    grid = metrics.zoom("loss", 99.5, 600.2)
    assert grid is not None
    assert points(grid, 1)["step"] == points(grid, None)["step"] == list(range(99, 602))
    nowhere = metrics.zoom("loss", math.inf, -math.inf)
    assert nowhere is not None
    assert not nowhere.lines
    everything = metrics.zoom("loss", -math.inf, math.inf)
    assert everything is not None
    assert points(everything) == points(metrics.grids["loss"])
    assert metrics.zoom("acc", math.nan, 1) is None


def test_names_stand_as_in_the_runs_metrics(files: Files) -> None:
    for name in ("val/loss", "zeta", "train/loss", "acc", "a/b/c", "val"):
        files.log([(0, 1.0)], name=name)
    assert live(files.folder).names == Metrics.read(files.folder).names


def test_what_is_not_a_number_is_told_with_its_step(files: Files) -> None:
    nan = math.nan
    files.log([(0, 1.0), (1, nan), (2, 1.0)], name="a")
    files.log([(5, 1.0), (6, math.inf), (7, nan)], name="b", rank=1)
    metrics = live(files.folder)
    assert metrics.not_finite["a", 0][1:] == (1, False)
    assert metrics.not_finite["b", 1] == (math.inf, 6, True)
    files.log([(8, nan)], name="b", rank=1)
    metrics.refresh()
    assert metrics.not_finite["b", 1] == (math.inf, 6, True)
    files.log([(9, 1.0)], name="b", rank=1)
    metrics.refresh()
    assert metrics.not_finite["b", 1] == (math.inf, 6, False)


def test_a_file_that_begins_anew_is_read_anew(files: Files) -> None:
    files.log([(step, 1.0) for step in range(50)])
    metrics = live(files.folder)
    (files.folder / METRICS.name(0, 0)).unlink()
    again = Files(files.folder)
    again.log([(7, 3.0)])
    metrics.refresh()
    assert metrics.renewed
    assert points(metrics.grids["loss"])["step"] == [7.0]


def test_a_million_values_are_taken_in_less_than_a_second(files: Files) -> None:
    """0.1 s on an idle machine; other tests may run beside this one."""
    names = ("loss", "acc")
    layout = Layout(names)
    for rank in range(8):
        with (files.folder / METRICS.name(0, rank)).open("wb") as file:
            file.write(definition(layout, 0, rank))
            file.write(b"".join(layout.pack(layout.id, t, t, 1.0, 2.0, ~t) for t in range(62_500)))
    metrics = ThinnedMetrics(History(files.folder))
    begin = time.process_time()
    metrics.refresh()
    assert time.process_time() - begin < 10
    assert _lengths(metrics) == {"loss": 8, "acc": 8}


def _lengths(metrics: ThinnedMetrics) -> dict[str, int]:
    found: dict[str, Sequence[int]] = {name: list(grid.lines) for name, grid in metrics.grids.items()}
    return {name: len(ranks) for name, ranks in found.items()}
