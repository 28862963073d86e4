"""`qd.progress` and `qd.span`: what a reader finds at any moment, and that loops are neither changed nor
slowed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from quarterdeck.context import Context, working_for
from quarterdeck.metrics.progress import Bar, finish, progress, read_progress
from quarterdeck.metrics.spans import LIMIT, span
from quarterdeck.store.layout import PROGRESS, SPANS
from quarterdeck.store.slot_file import Slots, read_slots
from quarterdeck.store.spans import Span, read_spans
from support.notebook import in_child


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Context]:
    """The context of rank 1, whose run has no folder yet."""
    with working_for(Context(rank=1, world_size=2, run_dir=tmp_path / "runs" / "r")) as context:
        yield context
        finish()


def _bars(context: Context) -> list[Bar]:
    return read_progress(context.run_dir, context.attempt).get(context.rank, [])


# ---- loops


def test_a_loop_is_seen_while_it_goes_and_at_its_end(here: Context) -> None:
    began_ns = time.time_ns()
    seen = []
    for item in progress("abcd", "letters"):
        seen.append(item)
        if len(seen) == 3:
            [bar] = _bars(here)
            assert (bar.desc, bar.n, bar.total, bar.done) == ("letters", 2, 4, False)
            assert began_ns <= bar.started_unix_ns <= bar.updated_unix_ns <= time.time_ns()
    assert seen == list("abcd")
    [bar] = _bars(here)
    assert (bar.n, bar.done) == (4, True)


def test_a_slow_loop_is_never_far_behind(here: Context) -> None:
    for number in progress(range(8)):
        if number > 2:
            assert _bars(here)[0].n == number
        time.sleep(0.11)


def test_a_loop_that_becomes_slow_is_never_far_behind(here: Context) -> None:
    for number in progress(range(200_004)):
        if number >= 200_000:
            time.sleep(0.11)
        if number > 200_001:
            assert _bars(here)[0].n == number


@pytest.mark.parametrize(
    ("iterable", "total", "expected"),
    [
        (range(3), None, 3),
        ((n for n in range(3)), None, None),
        ((n for n in range(3)), 3, 3),
        (range(3), 9, 9),
    ],
)
def test_the_total_is_given_or_asked_for(here: Context, iterable: object, total: int, expected: int) -> None:
    assert list(progress(iterable, total=total)) == [0, 1, 2]  # type: ignore[call-overload]
    assert (_bars(here)[0].n, _bars(here)[0].total) == (3, expected)


def test_a_broken_len_is_no_len(here: Context) -> None:
    class Stream:
        def __len__(self) -> int:
            raise TypeError("an IterableDataset has none")

        def __iter__(self) -> Iterator[int]:
            return iter([1, 2])

    assert list(progress(Stream())) == [1, 2]
    assert _bars(here)[0].total is None


def test_break_and_exceptions_end_a_loop_where_it_was(here: Context) -> None:
    for number in progress(range(10), "broken"):
        if number == 4:
            break
    assert (_bars(here)[0].n, _bars(here)[0].done) == (4, True)

    def fails() -> None:
        for number in progress(range(10), "failed"):
            if number == 6:
                raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fails()
    finish()  # at the end of a cell; the traceback may hold the frame till then
    assert [(bar.desc, bar.n, bar.done) for bar in _bars(here)] == [("failed", 6, True)]


def test_an_error_of_the_iterable_comes_through(here: Context) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(progress(broken()))
    assert (_bars(here)[0].n, _bars(here)[0].done) == (1, True)


def test_loops_in_loops_have_places_of_their_own(here: Context) -> None:
    for epoch in progress(range(3), "epoch"):
        for batch in progress(range(4), f"train {epoch}"):
            if batch == 2:
                assert [(b.desc, b.done) for b in _bars(here)] == [
                    ("epoch", False),
                    (f"train {epoch}", False),
                ]
        for _ in progress(range(2), f"eval {epoch}"):
            pass
        assert [(b.desc, b.done) for b in _bars(here)] == [("epoch", False), (f"eval {epoch}", True)]
    for _ in progress(range(1), "test"):
        assert [bar.desc for bar in _bars(here)] == ["test"]


def test_very_deep_loops_go_on_unseen(here: Context) -> None:
    def nest(depth: int) -> int:
        return depth and sum(nest(depth - 1) for _ in progress(range(1), f"{depth}")) + 1

    assert nest(20) == 20
    assert len(_bars(here)) == 8
    assert (here.run_dir / PROGRESS.name(0, 1)).stat().st_size <= 8 * 1024


def test_threads_have_loops_side_by_side(here: Context) -> None:
    barrier, done = threading.Barrier(4, timeout=20), threading.Barrier(5, timeout=20)

    def work(number: int) -> None:
        for _ in progress(range(5000), f"t{number}"):
            if _ == 2500:
                barrier.wait()
        done.wait()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    done.wait()
    for thread in threads:
        thread.join()
    bars = _bars(here)
    assert sorted(bar.desc for bar in bars) == ["t0", "t1", "t2", "t3"]
    assert all(bar.n == 5000 and bar.done for bar in bars)


def test_forked_children_leave_the_rank_s_loops_alone(here: Context) -> None:
    for number in progress(range(3), "parent"):
        if number == 1:

            def child() -> None:
                assert list(progress(range(1000), "child")) == list(range(1000))
                finish()

            in_child(child)
    assert [(bar.desc, bar.n) for bar in _bars(here)] == [("parent", 3)]


def test_a_child_that_goes_on_with_the_parent_s_loop_writes_nothing(here: Context) -> None:
    loop = progress(range(100), "shared")
    next(loop)
    before = (here.run_dir / PROGRESS.name(0, 1)).read_bytes()
    in_child(lambda: list(loop))
    assert (here.run_dir / PROGRESS.name(0, 1)).read_bytes() == before
    assert len(list(loop)) == 99


def test_forks_while_threads_have_loops(here: Context) -> None:
    end = threading.Event()

    def work() -> None:
        while not end.is_set():
            list(progress(range(10), "thread"))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        in_child(lambda: list(progress(range(10), "child")))
    end.set()
    for thread in threads:
        thread.join(20)
    assert all(bar.desc == "thread" for bar in _bars(here))


def test_the_run_is_announced_before_there_is_a_file(here: Context) -> None:
    told: list[bool] = []
    here.announce = lambda: told.append((here.run_dir / PROGRESS.name(0, 1)).exists())
    for _ in range(2):
        list(progress(range(10)))
    assert told == [False]


def test_a_place_that_cannot_be_written_costs_nothing_but_the_bar(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with working_for(Context(run_dir=tmp_path / "file" / "r")):
        assert list(progress(range(100))) == list(range(100))
        with span("eval"):
            pass
        finish()


def test_descriptions_of_all_kinds(here: Context) -> None:
    for desc in ("x" * 10_000, "\ud800", "\u03bb" * 5000, "a\nb", 3):
        list(progress(range(2), desc))  # type: ignore[arg-type]
        [bar] = _bars(here)
        assert (bar.n, bar.done) == (2, True)
        assert len(bar.desc) <= 120


def test_writing_stays_below_ten_times_a_second(here: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[int] = []
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda *args: writes.append(1) or real(*args))
    began_s = time.monotonic()
    for _ in progress(range(500)):
        time.sleep(0.001)
    assert len(writes) <= 10 * (time.monotonic() - began_s) + 5


def test_an_item_costs_less_than_a_microsecond(here: Context) -> None:
    def took_s(iterable: object) -> float:
        began_s = time.process_time()
        for _ in iterable:  # type: ignore[attr-defined]
            pass
        return time.process_time() - began_s

    items = 300_000
    plain = min(took_s(range(items)) for _ in range(3))
    shown = min(took_s(progress(range(items))) for _ in range(3))
    assert (shown - plain) / items < 1e-5


# ---- readers


def test_readers_never_see_half_a_bar(here: Context) -> None:
    """A writer at full speed beside a reader that checks every value."""
    path = here.run_dir / PROGRESS.name(0, 1)
    here.run_dir.mkdir(parents=True)
    code = (
        "import sys, time; from pathlib import Path; from quarterdeck.store.slot_file import Slots\n"
        "slots = Slots(Path(sys.argv[1]), 1024); end = time.monotonic() + 2; n = 0\n"
        "while time.monotonic() < end:\n"
        "    n += 1; slots.write(n % 3, str(n).encode() * (1 + n % 100))"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)]) as writer:
        seen = 0
        while writer.poll() is None:
            for content in read_slots(path, 1024).values():
                number = next(
                    size
                    for size in range(1, 9)
                    if content == content[:size] * (1 + int(content[:size]) % 100)
                )
                seen += bool(number)
        assert writer.returncode == 0
    assert seen > 100


def test_torn_and_foreign_files_are_no_bars(tmp_path: Path) -> None:
    path = tmp_path / PROGRESS.name(0, 0)
    path.write_bytes(os.urandom(5000))
    assert read_progress(tmp_path, 0) == {}
    slots = Slots(path, 1024)
    slots.write(0, b"not JSON")
    slots.write(1, json.dumps({"desc": "x"}).encode())
    with pytest.raises(ValueError, match="do not fit"):
        slots.write(2, b"x" * 1024)
    slots.close()
    assert read_progress(tmp_path, 0) == {}
    assert read_progress(tmp_path / "none", 0) == {}
    path.write_bytes(path.read_bytes()[:1030])
    assert read_progress(tmp_path, 0) == {}


def test_a_kill_leaves_what_was_written(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, time, quarterdeck as qd\n"
        "with qd.span('train'):\n"
        "    with qd.span('load'): pass\n"
        "    for i in qd.progress(range(100), 'x'):\n"
        "        if i == 5: time.sleep(0.12)\n"
        "        if i == 6: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    folder = tmp_path / ".quarterdeck" / "local"
    [bar] = read_progress(folder, 0)[0]
    assert (bar.n, bar.done) == (6, False)
    spans = read_spans(folder, 0)[0]
    assert [(s.name, s.depth, s.end_unix_ns is None) for s in spans] == [
        ("train", 0, True),
        ("load", 1, False),
    ]
    assert (tmp_path / ".quarterdeck" / ".gitignore").read_text() == "*\n"


# ---- spans


def _spans(context: Context) -> list[Span]:
    return read_spans(context.run_dir, context.attempt).get(context.rank, [])


def test_spans_in_spans(here: Context) -> None:
    told: list[int] = []
    here.announce = lambda: told.append(1)
    with span("outer"):
        for _ in range(2):
            with span("inner"):
                time.sleep(0.01)
    assert [(s.name, s.depth) for s in _spans(here)] == [("outer", 0), ("inner", 1), ("inner", 1)]
    outer, first, second = _spans(here)
    assert outer.start_unix_ns <= first.start_unix_ns
    assert first.end_unix_ns is not None
    assert first.end_unix_ns - first.start_unix_ns >= 10_000_000
    assert first.end_unix_ns <= second.start_unix_ns
    assert second.end_unix_ns is not None
    assert outer.end_unix_ns is not None
    assert second.end_unix_ns <= outer.end_unix_ns
    assert told == [1]


def test_a_function_that_is_a_span(here: Context) -> None:
    @span("eval")
    def evaluate(depth: int) -> int:
        """Its own words."""
        return evaluate(depth - 1) + 1 if depth else 0

    assert evaluate(2) == 2
    assert [(s.name, s.depth) for s in _spans(here)] == [("eval", 0), ("eval", 1), ("eval", 2)]
    assert evaluate.__doc__ == "Its own words."


def test_a_span_ends_with_the_exception_that_leaves_it(here: Context) -> None:
    with pytest.raises(KeyError), span("fails"):
        raise KeyError
    assert _spans(here)[0].end_unix_ns is not None
    with span("next"):
        pass
    assert [s.depth for s in _spans(here)] == [0, 0]


def test_names_of_spans_of_all_kinds(here: Context) -> None:
    for name in ("\ud800", "x" * 1000, "a\nb", ""):
        with span(name):
            pass
    assert [s.name for s in _spans(here)] == ["?", "x" * 200, "a\nb", ""]


def test_a_span_needs_a_name() -> None:
    with pytest.raises(TypeError, match="named by a text"):
        span(3)  # type: ignore[arg-type]


def test_threads_and_children_have_spans_too(here: Context) -> None:
    def work() -> None:
        for _ in range(50):
            with span("thread"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    in_child(work)
    for thread in threads:
        thread.join(20)
    spans = _spans(here)
    assert len(spans) == 250
    assert all(s.depth == 0 and s.end_unix_ns is not None for s in spans)


def test_ten_thousand_spans_are_enough(here: Context) -> None:
    began_s = time.perf_counter()
    for number in range(LIMIT + 500):
        with span(f"s{number}"):
            pass
    took_s = time.perf_counter() - began_s
    spans = _spans(here)
    assert len(spans) == LIMIT + 1
    assert spans[-1].name == "more than 10,000 spans: the others are not kept"
    assert took_s / LIMIT < 2e-3
    lines = (here.run_dir / SPANS.name(0, 1)).read_bytes()
    assert lines.count(b"\n") == 2 * LIMIT + 1


def test_spans_that_two_threads_begin_in_the_same_instant_are_two(here: Context) -> None:
    path = here.run_dir / SPANS.name(0, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    begun, ended = Span("s", 1, None, 0), [Span("s", 1, end, 0) for end in (2, 3)]
    lines = [begun, begun, *ended, Span("only its end", 2, 3, 0)]
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    assert _spans(here) == [*ended, lines[-1]]


def test_torn_lines_of_spans_are_left_out(here: Context) -> None:
    with span("whole"):
        pass
    path = here.run_dir / SPANS.name(0, 1)
    path.write_bytes(path.read_bytes() + b'{"name":"torn","start_un')
    assert [s.name for s in _spans(here)] == ["whole"]
    assert read_spans(here.run_dir / "none", 0) == {}
