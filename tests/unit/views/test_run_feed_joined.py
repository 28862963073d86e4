"""A run that continues others, live: their curves up to where it begins, as `run.metrics` joins them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quarterdeck.metrics.history import History
from quarterdeck.metrics.series import Metrics
from quarterdeck.metrics.thinned import ThinnedMetrics
from quarterdeck.store.reader import StoredRun
from quarterdeck.views.cell.run_output import RunOutput
from quarterdeck.views.run.curve_stream import CurveStream
from quarterdeck.views.run.feed import Feed
from quarterdeck.views.sink import Bundle, Control, Sink
from support.metric_files import Files, check_line
from support.run_folder import Clock, Run, Screen


def chain(tmp_path: Path, count: int) -> list[Files]:
    """Runs, the oldest first; each continues the one before."""
    found = []
    for number in range(count):
        folder = tmp_path / str(number)
        folder.mkdir()
        found.append(Files(folder))
        found[-1].now_ns += number * 10**12
    return found


def joined(runs: list[Files]) -> ThinnedMetrics:
    metrics = ThinnedMetrics(History(runs[-1].folder))
    metrics.history.follow(run.folder for run in reversed(runs[:-1]))
    return metrics


def full(runs: list[Files]) -> Metrics:
    found: Metrics | None = None
    for run in runs:
        found = Metrics.read(run.folder, parent=found)
    assert found is not None
    return found


def check(runs: list[Files], metrics: ThinnedMetrics, rank: int = 0) -> None:
    check_line(metrics.grids["loss"], full(runs)["loss"].points(rank), rank)


def test_a_chain_of_three_runs_is_one_curve(tmp_path: Path) -> None:
    runs = chain(tmp_path, 3)
    for run, start in zip(runs, (0, 6, 4), strict=True):
        run.log([(step, 10.0 * int(run.folder.name) + step) for step in range(start, start + 6)])
    metrics = joined(runs)
    assert metrics.refresh()
    line = metrics.grids["loss"].lines[0]
    assert line.steps.tolist() == list(range(10))
    assert line.values[2].tolist() == [0, 1, 2, 3, *(20 + step for step in range(4, 10))]
    assert float(line.values[3].sum()) == sum(full(runs)["loss"].values(0))
    assert metrics.last_steps == {0: 9}


def test_a_long_chain_is_thinned_as_one_curve(tmp_path: Path) -> None:
    runs = chain(tmp_path, 3)
    for run, start in zip(runs, (0, 2_500, 3_777), strict=True):
        for rank in range(2):
            run.log([(step, float(step % 97 + rank)) for step in range(start, start + 3_000)], rank=rank)
    metrics = joined(runs)
    metrics.refresh()
    for rank in range(2):
        check(runs, metrics, rank)
    assert metrics.grids["loss"].bits > 0
    zoomed = metrics.zoom("loss", 2_400, 2_600)
    assert zoomed is not None
    assert zoomed.lines[0].steps.tolist() == list(range(2_400, 2_601))


def test_the_runs_before_are_cut_when_it_is_known_where_this_one_begins(tmp_path: Path) -> None:
    runs = chain(tmp_path, 3)
    runs[0].log([(step, 1.0) for step in range(3_000)])
    metrics = joined(runs)
    metrics.refresh()
    assert metrics.grids["loss"].lines[0].steps[-1] == 2_999
    assert not metrics.last_steps, "this run itself has logged nothing"
    runs[2].log([(2_000, 3.0)])
    assert metrics.refresh()
    assert metrics.renewed
    check(runs, metrics)
    runs[2].log([(2_001, 3.0)], rank=1)
    runs[2].log([(1_000, 3.0)], name="val")
    metrics.refresh()
    check(runs, metrics)
    runs[1].log([(500, 2.0), (600, 2.0)])
    metrics.renewed = False
    metrics.refresh()
    assert metrics.renewed
    check(runs, metrics)
    assert not metrics.refresh()


def test_a_parent_that_still_runs_adds_nothing_beyond_its_end(tmp_path: Path) -> None:
    runs = chain(tmp_path, 2)
    runs[0].log([(0, 1.0), (1, 1.0)])
    runs[1].log([(4, 2.0)])
    metrics = joined(runs)
    metrics.refresh()
    metrics.renewed = False
    runs[0].log([(step, 1.0) for step in range(2, 9)])
    assert metrics.refresh()
    assert metrics.grids["loss"].lines[0].steps.tolist() == [0, 1, 2, 3, 4]
    assert not metrics.renewed


def test_what_was_not_a_number_before_it_is_no_note_of_this_run(tmp_path: Path) -> None:
    runs = chain(tmp_path, 2)
    runs[0].log([(0, float("nan"))])
    runs[1].log([(1, 1.0)])
    metrics = joined(runs)
    metrics.refresh()
    assert metrics.not_finite == {}
    assert metrics.began_unix_ns == runs[0].now_ns


def test_a_run_may_be_found_to_continue_another_after_it_has_logged(tmp_path: Path) -> None:
    runs = chain(tmp_path, 2)
    runs[0].log([(step, 1.0) for step in range(5_000)], rank=1)
    runs[0].log([(step, 1.0) for step in range(5_000)])
    runs[1].log([(step, 2.0) for step in range(3_000, 6_000)])
    metrics = ThinnedMetrics(History(runs[1].folder))
    metrics.refresh()
    metrics.history.follow([runs[0].folder])
    assert metrics.refresh()
    for rank in range(2):
        check(runs, metrics, rank)


# ---- the feed, and the picture beside it


def resumed(tmp_path: Path) -> tuple[Run, Run]:
    first = Run(tmp_path)
    first.start()
    for rank in range(2):
        first.log(range(10), rank=rank)
    first.end()
    second = Run(tmp_path)
    second.recorder.header.parent = first.folder.name
    second.started_ns = first.started_ns + 10**10
    second.start()
    return first, second


def test_a_resumed_run_shows_its_parent_s_curves_before_its_first_step(tmp_path: Path) -> None:
    _, run = resumed(tmp_path)
    clock, screen = Clock(), Screen()
    feed = Feed(run.folder, Control(), clock)
    screen.see(feed.whole())
    assert screen.steps(run) == screen.steps(run, rank=None) == list(range(10))
    assert screen.state is not None
    assert [rank.step for rank in screen.state.ranks] == [None, None], "they have not done one"
    for rank in range(2):
        run.log(range(6, 8), rank=rank)
    clock.now += 1
    screen.see(feed.news())
    assert screen.steps(run) == screen.steps(run, rank=None) == list(range(8))
    times = [point[1] for point in screen.curves[run.folder.name]["loss", 0]]
    assert times == [0, 1, 2, 3, 4, 5, 10_006, 10_007], "ms since the first value"
    assert [rank.step for rank in screen.state.ranks] == [7, 7]
    clock.now += 1
    assert not [data for _, data in feed.news() if data], "nothing changed"


def test_a_run_that_is_compared_with_is_joined_too(tmp_path: Path) -> None:
    _, run = resumed(tmp_path)
    run.log([8])
    book = CurveStream(run.folder.name, History(run.folder), only_means=True)
    [(_, data)] = book.whole(StoredRun.read(run.folder))
    steps = np.frombuffer(data, "<f8").reshape(6, -1)[0]
    assert steps.tolist() == list(range(9))


def test_the_picture_is_of_the_joined_curves_and_the_table_of_this_run_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, run = resumed(tmp_path)
    for rank in range(2, 4):
        first.log(range(10), rank=rank)
    drawn: list[Metrics] = []
    monkeypatch.setattr(
        "quarterdeck.views.cell.run_output._picture_of",
        lambda metrics, title: (drawn.append(metrics), ({}, {}))[1],
    )
    sink = _Page()
    display = RunOutput(sink, Control())
    display.draw(run.folder, 0.0, last=True)
    assert list(drawn[-1]["loss"].steps(0)) == list(range(10))
    run.log([5])
    display.draw(run.folder, 1.0, last=True)
    assert list(drawn[-1]["loss"].steps(0)) == list(range(6))
    assert "step 5 " in sink.text
    run.end()
    display.draw(run.folder, 2.0, last=True)
    assert "\n2 " not in sink.text, "ranks that only the run before had are not this one's"


class _Page(Sink):
    """The last table that was shown."""

    live = True
    text = ""

    def live_view(self, *_: object) -> None:
        return None

    def show(self, data: Bundle, *_: object) -> None:
        self.text = str(data.get("text/plain", self.text))

    update = show
