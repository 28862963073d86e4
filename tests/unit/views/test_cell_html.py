"""The HTML and the plain text of rows: complete, escaped, and readable without styles."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser

import pytest

from quarterdeck.present import ansi, words
from quarterdeck.views.cell import html
from quarterdeck.views.lines.rows import Row


def row(text: str, *ranks: int, kind: str = "stdout") -> Row:
    return Row(kind, text, sum(1 << rank for rank in ranks))  # type: ignore[arg-type]


def stripped(page: str) -> str:
    """What is left when a sanitizer takes styles and the browser shows plain text."""
    return unescape(re.sub(r"<[^>]+>", "", re.sub(r"<(style|svg).*?</\1>", "", page)))


class Balance(HTMLParser):
    """Fails on tags that do not match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("kind", ["stdout", "stderr", "result", "info", "warning"])
def test_markup_in_text_is_shown_and_not_run(kind: str) -> None:
    evil = "<script>alert(1)</script></pre></style><img src=x onerror=y>&amp;"
    ranks = () if kind in ("info", "warning") else (0, 1)
    page = html.segment([row(evil, *ranks, kind=kind)], 2)
    assert not Balance(page).tags & {"script", "img"}
    assert evil in stripped(page)


def test_markup_between_colours_is_escaped_too() -> None:
    page = html.segment([row("\x1b[31m<script>\x1b[0m<b onclick=x>", 0)], 2)
    assert "script" not in Balance(page).tags
    assert "<script><b onclick=x>" in stripped(page)


def test_labels_hold_nothing_but_digits_and_words() -> None:
    assert stripped(html.label([0, 2], 4)) == "ranks 0, 2"
    assert stripped(html.label([1], 4)) == "rank 1"
    assert "<script" not in html.label([0], 2)


def test_without_styles_every_block_is_announced_by_its_ranks() -> None:
    page = html.segment([row("a", 0, 1, 2, 3), row("b", 0, 1, 2, 3), row("c", 1)], 4)
    assert stripped(page).split("\n") == ["ranks 0–3", "a", "b", "rank 1", "c", ""]


def test_neighbouring_rows_of_the_same_ranks_share_one_chip() -> None:
    page = html.segment([row("a", 0), row("b", 0, kind="stderr"), row("c", 0)], 2)
    assert page.count("<b ") == 1
    assert page.count("<pre") == 3


def test_an_empty_first_line_is_kept() -> None:
    assert "<pre>\n\na\n</pre>" in html.segment([row("", 0), row("a", 0)], 1)


def test_nothing_is_fetched_and_no_script_is_there() -> None:
    page = html.segment([row("\x1b[1;31;44mx\x1b[0m", 0), row("w", kind="warning")], 8)
    assert "url(" not in page
    assert "http" not in page
    assert "<script" not in page


def test_the_cost_of_a_segment_is_small() -> None:
    page = html.segment([row("a", 0)], 2)
    assert len(page) < 2600


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("\x1b[1mx\x1b[0m", "<b>x</b>"),
        ("\x1b[31mx\x1b[0m", '<span class="f1">x</span>'),
        ("\x1b[91mx\x1b[0m", '<span class="f1">x</span>'),
        ("\x1b[38;5;208mx\x1b[0m", '<span style="color:#ff8700">x</span>'),
        ("\x1b[38;2;1;2;3mx\x1b[0m", '<span style="color:#010203">x</span>'),
        ("\x1b[3;4mx\x1b[0my", "<i><u>x</u></i>y"),
        ("\x1b[48;5;240mx\x1b[0m", '<span style="background:#585858">x</span>'),
        ("\x1b[38;5mx\x1b[0m", "x"),
        ("\x1b[38;2;999;0;0mx\x1b[0m", "x"),
    ],
)
def test_colours_become_html(code: str, expected: str) -> None:
    assert ansi.to_html(code) == expected


def test_plain_text_carries_the_ranks_before_every_line() -> None:
    rows = [row("started", kind="info"), row("a\nb", 0, 1), row("\x1b[31mc\x1b[0m", 0, 2)]
    assert html.plain(rows, 4).split("\n") == ["started", "[0, 1] a", "[0, 1] b", "[0, 2] c"]
    assert html.plain(rows[1:2], 1) == "a\nb"


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([2], "rank 2"),
        ([0, 1, 3], "ranks 0, 1 and 3"),
        ([0, 1, 2, 5], "ranks 0-2 and 5"),
        ([0, 1], "ranks 0 and 1"),
    ],
)
def test_ranks_in_running_text(ranks: list[int], expected: str) -> None:
    assert words.ranks_in_words(ranks, 8).replace(words.DASH, "-") == expected
