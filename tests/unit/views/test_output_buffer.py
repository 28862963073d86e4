"""Lines of the live view: what stands in a terminal at the end, plain, in order and bounded."""

from __future__ import annotations

from quarterdeck.store.output import Piece, Stream
from quarterdeck.views.run.messages import Line, Lines
from quarterdeck.views.run.output_buffer import AT_ONCE, KEPT, LINE_CHARS, OutputBuffer

MS = 1_000_000


def said(text: str, rank: int = 0, stream: Stream = "stdout", ms: int = 1) -> Piece:
    return Piece(rank, stream, ms * MS, text)


def texts(messages: list[Lines]) -> list[str]:
    return [line.text for message in messages for line in message.lines]


def test_lines_come_in_order_with_rank_time_and_stream() -> None:
    book = OutputBuffer()
    book.feed([said("a\nb\n", 1, ms=5), said("oops\n", 0, "stderr", ms=6), said("42\n", 1, "result", ms=7)])
    (news,) = book.news()
    assert not news.whole
    assert news.dropped == 0
    assert news.open == []
    assert news.lines == [
        Line(1, 5.0, "stdout", "a"), Line(1, 5.0, "stdout", "b"),
        Line(0, 6.0, "stderr", "oops"), Line(1, 7.0, "result", "42"),
    ]  # fmt: skip
    assert book.news() == []


def test_an_unfinished_line_is_open_until_its_end_comes() -> None:
    book = OutputBuffer()
    book.feed([said("hal", 1), said("x\n", 0)])
    (news,) = book.news()
    assert [line.text for line in news.open] == ["hal"]
    assert texts([news]) == ["x"]
    assert book.last_line(1) == "hal"
    book.feed([said("f\n", 1)])
    (news,) = book.news()
    assert news.open == []
    assert texts([news]) == ["half"]


def test_a_progress_bar_is_one_line_with_what_stands_in_it_last() -> None:
    book = OutputBuffer()
    book.feed([said("\r 10%|#   |"), said("\r 20%|##  |"), said("\r")])
    (news,) = book.news()
    assert [line.text for line in news.open] == [" 20%|##  |"]
    assert news.lines == []
    book.feed([said("\r100%|####|\n")])
    (news,) = book.news()
    assert texts([news]) == ["100%|####|"]
    assert news.open == []


def test_windows_line_ends_are_line_ends() -> None:
    book = OutputBuffer()
    book.feed([said("a\r\nb\r"), said("\n")])
    assert texts(book.news()) == ["a", "b"]


def test_streams_of_one_rank_do_not_mix() -> None:
    book = OutputBuffer()
    book.feed([said("out"), said("err", stream="stderr"), said("put\n"), said("or\n", stream="stderr")])
    assert texts(book.news()) == ["output", "error"]


def test_colours_and_other_codes_are_gone_also_where_a_chunk_cuts_them() -> None:
    book = OutputBuffer()
    book.feed([said("\x1b[31mred\x1b[0m \x1b[2Kend\x07\nnext \x1b[3")])
    (news,) = book.news()
    assert texts([news]) == ["red end"]
    assert [line.text for line in news.open] == ["next "]
    book.feed([said("1mred\x1b[0m\n")])
    assert texts(book.news()) == ["next red"]


def test_a_long_line_is_cut_and_an_endless_one_takes_no_memory() -> None:
    book = OutputBuffer()
    book.feed([said("x" * 5_000 + "\n")])
    (line,) = texts(book.news())
    assert line == "x" * (LINE_CHARS - 1) + "…"
    for _ in range(500):
        book.feed([said("y" * 10_000)])
    (news,) = book.news()
    assert len(news.open[0].text) == LINE_CHARS
    assert sum(len(text) for _, text in book._open.values()) < 20_000
    book.feed([said("\rshort\n")])
    assert texts(book.news()) == ["short"]


def test_of_a_flood_both_ends_are_sent_and_the_rest_is_counted() -> None:
    book = OutputBuffer()
    book.feed([said("before\n")])
    assert texts(book.news()) == ["before"]
    for number in range(5_000):
        book.feed([said(f"{number}\n")])
    news = book.news()
    assert texts(news) == [str(n) for n in (*range(1_000), *range(4_000, 5_000))]
    assert [message.dropped for message in news] == [0, 3_000]
    book.feed([said("after\n")])
    assert texts(book.news()) == ["after"]


def test_just_as_many_lines_as_one_message_takes_come_in_one() -> None:
    book = OutputBuffer()
    book.feed([said("x\n" * AT_ONCE)])
    (news,) = book.news()
    assert len(news.lines) == AT_ONCE
    assert news.dropped == 0


def test_the_whole_has_the_newest_lines_and_counts_the_others() -> None:
    book = OutputBuffer()
    book.feed([said("".join(f"{n}\n" for n in range(KEPT + 500)) + "open")])
    whole = book.whole()
    assert whole.whole
    assert (whole.dropped, len(whole.lines)) == (500, KEPT)
    assert (whole.lines[0].text, whole.lines[-1].text) == ("500", str(KEPT + 499))
    assert [line.text for line in whole.open] == ["open"]
    assert book.news() == []
    book.feed([said("x\n" * 3 * KEPT)])
    assert sum(m.dropped + len(m.lines) for m in book.news()) == 3 * KEPT
    assert book.whole().dropped == 3 * KEPT + 500


def test_what_a_reader_passed_over_counts_as_dropped() -> None:
    book = OutputBuffer()
    book.feed([said("four\n" * 10)])
    book.skipped(500)
    assert book.whole().dropped == 100


def test_at_the_end_an_unfinished_line_is_a_line() -> None:
    book = OutputBuffer()
    book.feed([said("bye")])
    book.news()
    book.finish()
    (news,) = book.news()
    assert texts([news]) == ["bye"]
    assert news.open == []
    book.finish()
    assert book.news() == []


def test_the_last_line_of_a_rank_is_not_a_blank_one() -> None:
    book = OutputBuffer()
    book.feed([said("seen\n\n  \n", 2), said("other\n", 1)])
    assert book.last_line(2) == "seen"
    assert book.last_line(5) == ""
