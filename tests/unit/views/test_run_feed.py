"""The live view's news of a run: everything once, at its rate, whatever lies on the disk."""

from __future__ import annotations

import shutil
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from quarterdeck.store.layout import METRICS
from quarterdeck.views.run import feed as feed_module
from quarterdeck.views.run.curve_stream import Sent
from quarterdeck.views.run.feed import Feed
from quarterdeck.views.run.messages import (
    Compare,
    Curves,
    DeckPage,
    Detail,
    Log,
    Runs,
    State,
    Stop,
    Sync,
    Trouble,
    WantDeck,
    WantLog,
    WantRuns,
    Zoom,
)
from quarterdeck.views.sink import Control
from support.run_folder import Clock, Run, Screen

M = TypeVar("M")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def kinds(sent: Sequence[Sent]) -> list[str]:
    return [type(message).__name__ for message, _ in sent]


def only(sent: Sequence[Sent], kind: type[M]) -> M:
    (found,) = [message for message, _ in sent if isinstance(message, kind)]
    return found


def settle(feed: Feed, clock: Clock) -> None:
    """Takes news until there is none."""
    for _ in range(50):
        clock.now += 0.3
        if not feed.news():
            return
    raise AssertionError("a run that nobody writes has news without end")


def test_a_view_gets_everything_and_then_what_changed(run: Run, clock: Clock) -> None:
    run.start()
    run.log(range(10))
    run.say("hello\n")
    feed, screen = Feed(run.folder, clock=clock), Screen()
    whole = feed.whole()
    assert kinds(whole) == ["State", "Curves", "Lines"]
    screen.see(whole)
    assert screen.state is not None
    assert (screen.state.run.name, screen.state.run.state) == ("train()", "running")
    assert screen.steps(run) == list(range(10))
    assert screen.lines == ["hello"]
    settle(feed, clock)

    run.log(range(10, 13))
    run.say("more\n", rank=1)
    clock.now += 1
    news = feed.news()
    assert kinds(news) == ["State", "Curves", "Lines"]
    (head,) = only(news, Curves).series
    assert (head.start, head.count) == (10, 3)
    screen.see(news)
    assert screen.steps(run) == list(range(13))
    assert screen.lines == ["hello", "more"]
    assert screen.state.ranks[1].last_line == "more"
    settle(feed, clock)


def test_points_carry_the_time_since_the_run_began(run: Run, clock: Clock) -> None:
    run.start()
    run.log([0, 250])
    screen = Screen()
    screen.see(Feed(run.folder, clock=clock).whole())
    assert screen.curves[run.folder.name]["loss", 0] == [(0, 0, 0, 0, 0, 0), (250, 250, 250, 250, 250, 250)]


def test_a_screen_that_follows_has_what_a_new_one_gets(run: Run, clock: Clock) -> None:
    """Through doubled widths, a second rank, a restart, and metrics that come later."""
    run.start()
    feed, screen = Feed(run.folder, clock=clock), Screen()
    screen.see(feed.whole())
    widths = []
    for start in range(0, 6_000, 250):
        run.log(range(start, start + 250))
        if start > 1_000:
            run.log(range(start - 700, start - 450), rank=1)
            run.log([start], name="val/loss", rank=1)
        if start > 5_000:
            run.log(range(start - 1_000, start - 900), attempt=1)
        clock.now += 0.3
        screen.see(feed.news())
        widths.append(screen.steps(run)[1])
    assert widths[-1] == 15
    settle(feed, clock)
    new = Screen()
    new.see(Feed(run.folder, clock=clock).whole())
    assert set(new.curves[run.folder.name]) == {(n, r) for n in ("loss",) for r in (None, 0, 1)} | {
        ("val/loss", 1)
    }
    assert screen.names == new.names == ["loss", "val/loss"]
    for key, line in new.curves[run.folder.name].items():
        assert np.array(screen.curves[run.folder.name][key]) == pytest.approx(np.array(line)), key


def test_rates_are_kept_whatever_is_written(run: Run, clock: Clock) -> None:
    run.start()
    feed = Feed(run.folder, clock=clock)
    feed.whole()
    counts = {"State": 0, "Curves": 0, "Lines": 0}
    for number in range(400):
        run.log([number])
        run.say(f"{number}\n")
        clock.now += 0.005
        for kind in set(kinds(feed.news())):
            counts[kind] += 1
    assert 7 <= counts["State"] <= 9
    assert 2 <= counts["Lines"] <= 21  # on a busy machine they come less often
    assert 7 <= counts["Curves"] <= 41


def test_after_many_lines_a_browser_has_time_to_take_them(run: Run, clock: Clock) -> None:
    run.start()
    feed, screen = Feed(run.folder, clock=clock), Screen()
    screen.see(feed.whole())
    run.say(f"{'x' * 200}\n" * 10_000)
    clock.now += 0.1
    screen.see(feed.news())
    run.say("one more\n")
    clock.now += 1.2
    assert "Lines" not in kinds(feed.news())
    clock.now += 0.3
    screen.see(feed.news())
    assert screen.lines[-1] == "one more"


def test_views_that_come_later_take_nothing_from_the_first(run: Run, clock: Clock) -> None:
    run.start()
    run.log(range(5))
    run.say("a\n")
    feed, first, second = Feed(run.folder, clock=clock), Screen(), Screen()
    first.see(feed.whole())
    run.log(range(5, 9))
    run.say("b\n")
    whole = feed.answer(Sync())
    for screen in (first, second):
        screen.see(whole)
    run.log([9])
    run.say("c\n")
    clock.now += 1
    news = feed.news()
    for screen in (first, second):
        screen.see(news)
        assert screen.steps(run) == list(range(10))
        assert screen.lines == ["a", "b", "c"]


def test_a_run_that_is_not_on_record_yet_is_waited_for(run: Run, clock: Clock) -> None:
    feed, screen = Feed(run.folder, clock=clock), Screen()
    screen.see(feed.whole())
    assert screen.state is not None
    assert screen.state.run.state == "starting"
    run.log(range(3))  # a worker writes before the coordinator has made the folder a run's
    clock.now += 1
    screen.see(feed.news())
    assert screen.steps(run) == [0, 1, 2]
    run.start()
    run.log([3])
    clock.now += 1
    screen.see(feed.news())
    assert screen.state.run.state == "running"
    assert screen.steps(run) == [0, 1, 2, 3]
    assert screen.troubles == []
    assert not feed.over


def test_after_the_end_everything_is_there_and_nothing_more_comes(run: Run, clock: Clock) -> None:
    run.start()
    feed, screen = Feed(run.folder, clock=clock), Screen()
    screen.see(feed.whole())
    run.log(range(7))
    run.say("last words")
    run.end()
    screen.see(feed.news())
    assert feed.over
    assert screen.state is not None
    assert screen.state.run.words.startswith("succeeded in")
    assert screen.lines == ["last words"]
    assert screen.steps(run) == list(range(7))
    clock.now += 10
    assert feed.news() == []
    screen = Screen()
    screen.see(feed.whole())
    assert screen.steps(run) == list(range(7))
    assert screen.lines == ["last words"]


def test_what_comes_just_after_the_end_is_not_missed(run: Run, clock: Clock) -> None:
    run.start()
    feed, screen = Feed(run.folder, clock=clock), Screen()
    screen.see(feed.whole())
    run.end(ago_s=-3_600)  # of a machine with another clock
    clock.now += 0.3
    screen.see(feed.news())
    assert screen.state is not None
    assert screen.state.run.state == "succeeded"
    assert not feed.over
    run.log(range(4))
    clock.now += 0.6
    screen.see(feed.news())
    assert feed.over
    assert screen.steps(run) == [0, 1, 2, 3]


def test_a_run_of_before_is_whole_at_once(run: Run, clock: Clock) -> None:
    run.start()
    run.log(range(4))
    run.say("x")
    run.end("failed")
    (run.folder / "output.bin").unlink()  # an older version has not written it
    feed, screen = Feed(run.folder, clock=clock), Screen()
    screen.see(feed.whole())
    assert feed.over
    assert screen.lines == ["x"]
    assert screen.steps(run) == [0, 1, 2, 3]


def test_a_stop_that_makes_progress_is_told_without_anything_on_disk(run: Run, clock: Clock) -> None:
    run.start()
    control = Control()
    control.can_stop = True
    feed = Feed(run.folder, control, clock)
    assert only(feed.whole(), State).run.can_stop
    settle(feed, clock)
    control.stopping = "asked, waiting for ranks 0 and 1"
    clock.now += 0.3
    assert only(feed.news(), State).run.stopping == "asked, waiting for ranks 0 and 1"


def test_a_run_without_new_bytes_has_no_news_and_costs_next_to_nothing(tmp_path: Path, clock: Clock) -> None:
    run = Run(tmp_path)
    run.start(8)
    for rank in range(8):
        run.log(range(1_000), rank=rank)
        run.say("x\n", rank)
    feed = Feed(run.folder, clock=clock)
    feed.whole()
    settle(feed, clock)
    costs = []
    for _ in range(40):
        clock.now += 0.3
        begin = time.thread_time()
        assert feed.news() == []
        costs.append(time.thread_time() - begin)
    assert sorted(costs)[20] < 0.05  # 0.5 ms on an idle machine


# ---- answers


def test_a_run_whose_folder_was_removed_is_not_followed_for_ever(run: Run, clock: Clock) -> None:
    run.start()
    feed = Feed(run.folder, clock=clock)
    feed.whole()
    shutil.rmtree(run.folder)
    clock.now += 1
    feed.news()
    assert feed.over


def test_a_zoom_is_answered_with_every_step(run: Run, clock: Clock) -> None:
    run.start()
    for rank in range(2):
        run.log(range(5_000), rank=rank)
    feed = Feed(run.folder, clock=clock)
    feed.whole()
    ((detail, data),) = feed.answer(Zoom("loss", 100, 200))
    assert isinstance(detail, Detail)
    assert [(head.rank, head.start, head.count) for head in detail.series] == [
        (r, 0, 101) for r in (None, 0, 1)
    ]
    assert struct.unpack("<101d", data[: 101 * 8]) == tuple(range(100, 201))
    (nothing,) = feed.answer(Zoom("no such metric", 0, 1))
    assert isinstance(nothing[0], Detail)
    assert nothing[0].series == []


def test_a_log_comes_whole_or_by_its_place(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.start()
    run.say("\x1b[31mred\n", rank=1)
    feed = Feed(run.folder)
    ((log, data),) = feed.answer(WantLog(1))
    assert log == Log(rank=1, path=str(run.folder / "rank-1.log"), sent=True)
    assert data == b"\x1b[31mred\n"
    monkeypatch.setattr("quarterdeck.views.run.requests.LOG_BYTES", 3)
    ((log, data),) = feed.answer(WantLog(1))
    assert (isinstance(log, Log) and log.sent, data) == (False, b"")
    ((trouble, _),) = feed.answer(WantLog(5))
    assert trouble == Trouble(about="log", text="Rank 5 has written nothing.")


def test_a_deck_that_nobody_has_written_is_a_trouble_in_words(run: Run) -> None:
    run.start()
    ((trouble, _),) = Feed(run.folder).answer(WantDeck("<confusion>", None))
    assert isinstance(trouble, Trouble)
    assert "<confusion>" in trouble.text


def test_an_automatic_deck_is_listed_and_answered(run: Run) -> None:
    run.start()
    feed = Feed(run.folder)
    listed = only(feed.whole(), State).decks
    assert "Timeline" in [deck.name for deck in listed]
    ((page, _),) = feed.answer(WantDeck("Timeline", None))
    assert isinstance(page, DeckPage)
    assert "<html" in page.html


def test_earlier_runs_of_the_notebook_with_a_common_metric_are_offered(tmp_path: Path) -> None:
    day_ns = 86_400 * 10**9
    now = time.time_ns()
    runs = {
        "older": Run(tmp_path, "older", now - 2 * day_ns),
        "other-metric": Run(tmp_path, "other-metric", now - day_ns),
        "other-notebook": Run(tmp_path, "other-notebook", now - day_ns, notebook="b.ipynb"),
        "old": Run(tmp_path, "old", now - day_ns),
        "mine": Run(tmp_path, "mine", now),
        "later": Run(tmp_path, "later", now + day_ns),
    }
    for name, one in runs.items():
        one.start()
        one.log(range(9), name="acc" if name == "other-metric" else "loss")
        one.log([1], name="only here" if name == "mine" else "elsewhere")
        one.end()
    feed = Feed(runs["mine"].folder)
    feed.whole()
    ((offered, _),) = feed.answer(WantRuns())
    assert isinstance(offered, Runs)
    assert [(one.name, one.state, one.last) for one in offered.runs] == [
        ("old", "succeeded", {"loss": 8.0}),
        ("older", "succeeded", {"loss": 8.0}),
    ]


def test_runs_to_compare_with_come_as_means_until_they_are_not_wanted(tmp_path: Path, clock: Clock) -> None:
    old, mine = Run(tmp_path, "old"), Run(tmp_path, "mine")
    for one in (old, mine):
        one.start()
        for rank in range(2):
            one.log(range(5), rank=rank)
    feed, screen = Feed(mine.folder, clock=clock), Screen()
    screen.see(feed.whole())
    screen.see(feed.answer(Compare([old.folder.name])))
    assert list(screen.curves[old.folder.name]) == [("loss", None)]
    assert screen.steps(old, rank=None) == list(range(5))
    old.log([5], rank=1)  # it goes on, too
    clock.now += 1
    screen.see(feed.news())
    assert screen.steps(old, rank=None) == list(range(6))
    assert {curves.run_id for curves, _ in feed.whole() if isinstance(curves, Curves)} == {
        old.folder.name, mine.folder.name,
    }  # fmt: skip
    assert feed.answer(Compare([])) == []
    assert {curves.run_id for curves, _ in feed.whole() if isinstance(curves, Curves)} == {mine.folder.name}


@pytest.mark.parametrize("run_id", ["../../../etc", "gone", "", ".", "/etc", "a\0b"])
def test_a_run_to_compare_with_is_one_of_the_store(run: Run, run_id: str) -> None:
    run.start()
    ((trouble, _),) = Feed(run.folder).answer(Compare([run_id]))
    assert isinstance(trouble, Trouble)


def test_a_stop_is_not_for_the_feed(run: Run) -> None:
    assert Feed(run.folder).answer(Stop()) == []


# ---- what may go wrong


def test_a_part_that_cannot_be_read_is_told_once_and_the_rest_goes_on(
    run: Run, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr("quarterdeck.views.run.run_files.read_vitals", broken)
    run.start()
    run.log(range(3))
    feed, screen = Feed(run.folder, clock=clock), Screen()
    screen.see(feed.whole())
    for step in range(3, 9):
        run.log([step])
        clock.now += 0.3
        screen.see(feed.news())
    assert screen.steps(run) == list(range(9))
    (trouble,) = screen.troubles
    assert trouble.about == "vitals"
    assert "no such luck" in trouble.text


def test_garbage_in_every_file_is_no_reason_to_raise(run: Run, clock: Clock) -> None:
    run.start()
    run.log(range(3))
    names = ["rank-0.log", "output.bin", "vitals.bin", "progress-attempt-0-rank-0.bin", "events.jsonl",
             "spans-attempt-0-rank-0.jsonl", "arrivals-attempt-0-rank-0.bin", METRICS.name(0, 1)]  # fmt: skip
    for name in names:
        with (run.folder / name).open("ab") as file:
            file.write(bytes(range(256)) * 9)
    feed, screen = Feed(run.folder, clock=clock), Screen()
    screen.see(feed.whole())
    clock.now += 1
    screen.see(feed.news())
    assert screen.steps(run) == [0, 1, 2]


def test_a_folder_that_is_deleted_meanwhile_ends_nothing(run: Run, clock: Clock) -> None:
    run.start()
    run.log(range(3))
    run.say("x\n")
    feed = Feed(run.folder, clock=clock)
    feed.whole()
    for path in run.folder.iterdir():
        path.unlink()
    run.folder.rmdir()
    for _ in range(5):
        clock.now += 1
        feed.news()
    assert kinds(feed.whole())[0] == "State"


def test_a_run_of_a_hundred_metrics_comes_in_messages_of_bounded_size(
    run: Run, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quarterdeck.views.run.curve_stream.MESSAGE_BYTES", 20_000)
    run.start()
    for number in range(100):
        run.log(range(50), name=f"layer/{number:03}")
    feed, screen = Feed(run.folder, clock=clock), Screen()
    sent = feed.whole()
    curves = [(message, data) for message, data in sent if isinstance(message, Curves)]
    assert len(curves) > 5
    assert max(len(data) for _, data in curves) <= 20_000
    assert [message.whole for message, _ in curves] == [True] + [False] * (len(curves) - 1)
    screen.see(sent)
    assert len(screen.curves[run.folder.name]) == 100


def test_threads_may_ask_at_once(run: Run) -> None:
    run.start()
    feed, errors = Feed(run.folder, clock=time.monotonic), list[BaseException]()

    def ask() -> None:
        try:
            for _ in range(20):
                feed.whole()
                feed.news()
                feed.answer(Zoom("loss", 0, 50))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for step in range(200):
        run.log([step])
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert errors == []
    screen = Screen()
    screen.see(feed.whole())
    assert screen.steps(run) == list(range(200))


def test_the_rates_are_those_that_are_promised() -> None:
    assert feed_module.STATE_EVERY_S >= 1 / 4
    assert feed_module.LINES_EVERY_S >= 1 / 10
    assert feed_module.CURVES_EVERY_S >= 1 / 20
