"""The output tab's rows: what there is, what has changed, and how much of it is kept."""

from __future__ import annotations

import pytest

from quarterdeck.store.output import Piece, Stream
from quarterdeck.views.run import output_rows
from quarterdeck.views.run.messages import Line, Lines, Look
from quarterdeck.views.run.output_rows import AT_ONCE, KEPT, OutputRows
from support.run_folder import Screen

MS = 1_000_000


def said(text: str, rank: int = 0, stream: Stream = "stdout", ms: int = 1) -> Piece:
    return Piece(rank, stream, ms * MS, text)


def texts(message: Lines | None) -> list[str]:
    return [line.text for line in message.lines] if message else []


def test_lines_come_in_order_with_ranks_time_and_stream() -> None:
    rows = OutputRows()
    rows.feed([said("a\nb\n", 1, ms=5), said("oops\n", 0, "stderr", ms=6), said("42\n", 1, "result", ms=7)])
    news = rows.news()
    assert news is not None
    assert not news.whole
    assert (news.left_out, news.gone) == (0, [])
    assert news.lines == [
        Line(1, [1], 5.0, 5.0, "stdout", "a", []), Line(2, [1], 5.0, 5.0, "stdout", "b", []),
        Line(3, [0], 6.0, 6.0, "stderr", "oops", []), Line(4, [1], 7.0, 7.0, "result", "42", []),
    ]  # fmt: skip
    assert rows.news() is None


def test_a_line_that_another_rank_writes_later_is_sent_again_with_both_ranks_and_times() -> None:
    rows = OutputRows()
    rows.feed([said("a\nb\n", 2, ms=5)])
    rows.news()
    rows.feed([said("a\n", 0, ms=90_000)])
    news = rows.news()
    assert news is not None
    assert news.lines == [Line(1, [0, 2], 5.0, 90_000.0, "stdout", "a", [])]


def test_an_unfinished_line_is_sent_as_it_grows_and_goes_where_it_becomes_the_same_as_anothers() -> None:
    rows = OutputRows()
    rows.feed([said("half\n", 0), said("hal", 1)])
    assert texts(rows.news()) == ["half", "hal"]
    assert rows.last_line(1) == "hal"
    rows.feed([said("f\n", 1)])
    news = rows.news()
    assert news is not None
    assert [(line.no, line.ranks, line.text) for line in news.lines] == [(1, [0, 1], "half")]
    assert news.gone == [2]


def test_a_result_of_several_lines_folds_as_a_whole() -> None:
    rows = OutputRows()
    rows.feed([said("tensor([[1],\n[2]])\n", 0, "result"), said("tensor([[1],\n[3]])\n", 1, "result")])
    rows.feed([said("tensor([[1],\n[2]])\n", 2, "result"), said("next\n", 0)])
    assert [(line.no, line.ranks, line.text) for line in rows.whole().lines] == [
        (1, [0, 2], "tensor([[1],"), (2, [0, 2], "[2]])"),
        (3, [1], "tensor([[1],"), (4, [1], "[3]])"),
        (5, [0], "next"),
    ]  # fmt: skip


def test_colours_travel_beside_the_text_counted_as_javascript_counts() -> None:
    rows = OutputRows()
    rows.feed([said("\U0001f600 \x1b[1;31mred\x1b[0m \x1b[44mon blue\n")])
    (line,) = rows.whole().lines
    assert line.text == "\U0001f600 red on blue"
    assert line.looks == [
        Look(3, "font-weight:bold;color:var(--qd-a1)"),
        Look(6, ""),
        Look(7, "background:color-mix(in srgb,var(--qd-a4) 27%,transparent)"),
    ]


def test_the_newest_rows_are_kept_and_the_others_counted() -> None:
    rows = OutputRows()
    rows.feed([said("".join(f"{n}\n" for n in range(KEPT + 500)) + "open")])
    whole = rows.whole()
    assert whole.whole
    assert (whole.left_out, len(whole.lines)) == (501, KEPT)
    assert (whole.lines[0].text, whole.lines[-1].text) == ("501", "open")
    assert whole.first == whole.lines[0].no
    assert rows.news() is None


def test_of_long_rows_fewer_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_rows, "KEPT_CHARS", 1_000)
    rows = OutputRows()
    for number in range(50):
        rows.feed([said(f"{number:03}" + "x" * 97 + "\n")])
        rows.feed([said("\r" + "y" * (number * 10) + "\n", 1)])
    whole = rows.whole()
    assert sum(len(line.text) for line in whole.lines) <= 1_000
    assert whole.left_out + len(whole.lines) == 100
    assert whole.lines[-1].text == "y" * 490


def test_of_more_than_is_folded_in_one_go_the_end_is_shown_and_nothing_folds_across_the_gap() -> None:
    rows, screen = OutputRows(), Screen()
    rows.feed([said("before\nhalf")])
    screen.see([(rows.whole(), b"")])
    many = "".join(f"{n:05}\n" for n in range(AT_ONCE))
    rows.feed([said(many), said(many, 1), said("before\nend\n", 2)])
    news = rows.news()
    assert news is not None
    screen.see([(news, b"")])
    assert [(line.ranks, line.text) for line in screen.rows.values()][-3:] == [
        ([1], f"{AT_ONCE - 1:05}"), ([2], "before"), ([2], "end"),
    ]  # fmt: skip
    assert len(screen.rows) == KEPT
    assert news.left_out + KEPT == pytest.approx(2 * AT_ONCE + 4, abs=5)
    assert rows.last_line(0) == "half"


def test_an_unfinished_line_that_scrolled_out_of_what_is_kept_costs_nothing_any_more() -> None:
    rows = OutputRows()
    rows.feed([said("bar", 1), said("".join(f"{n}\n" for n in range(KEPT))), said("\rbaz\nend\n", 1)])
    assert "end" in texts(rows.whole())
    assert rows.whole().left_out == 2
    assert rows.last_line(1) == "end"


def test_a_view_that_hears_all_news_has_what_a_new_one_gets() -> None:
    rows, screen = OutputRows(), Screen()
    for number in range(40):
        rows.feed([said(f"\rstep {number}\x1b[K" + ("\n" if number % 7 == 0 else ""), number % 3)])
        rows.feed([said(f"{number // 5}\n" * 400, number % 4, "stderr")])
        if number % 2 and (news := rows.news()):
            screen.see([(news, b"")])
    rows.finish()
    if news := rows.news():
        screen.see([(news, b"")])
    new = Screen()
    new.see([(rows.whole(), b"")])
    assert screen.rows == new.rows
    assert screen.left_out == new.left_out


def test_what_a_reader_passed_over_counts_as_left_out() -> None:
    rows = OutputRows()
    rows.feed([said("four\n" * 10), said("four\n" * 10, 1)])
    rows.skipped(500)
    assert rows.whole().left_out == 50  # one row for the 10 bytes of two ranks


def test_the_last_line_of_a_rank_is_not_a_blank_one() -> None:
    rows = OutputRows()
    rows.feed([said("\x1b[31mseen\x1b[0m\n\n  \n", 2), said("other\n", 1), said("a\nb\n", 3, "result")])
    assert [rows.last_line(rank) for rank in (2, 1, 3, 5)] == ["seen", "other", "b", ""]
