"""The merge of several ranks' lines, against a plain oracle and in the cases that programs really produce."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from quarterdeck.views.lines.rows import WINDOW, Row, Rows
from quarterdeck.views.lines.screen import CUT, LINE_LIMIT, Screen

UP = "\x1b[A"


class ListLayout:
    """Rows in one list, numbered by position."""

    def __init__(self) -> None:
        self.shown: list[Row] = []
        self.number = 0

    def add(self, row: Row, after: float) -> None:
        self.number += 1
        row.no, row.place = float(self.number), self
        self.shown.append(row)

    def add_after(self, row: Row, anchor: Row) -> None:
        at = self.shown.index(anchor) + 1
        behind = self.shown[at].no if at < len(self.shown) else anchor.no + 1
        self.number = max(self.number, int(anchor.no) + 1)
        row.no, row.place = (anchor.no + behind) / 2, self
        self.shown.insert(at, row)

    def remove(self, row: Row) -> None:
        self.shown.remove(row)
        row.place = None

    def touch(self, row: Row) -> None:
        assert row.place is self


class Group:
    """Screens of some ranks on one merge."""

    def __init__(self) -> None:
        self.layout = ListLayout()
        self.rows = Rows(self.layout)
        self.screens: dict[tuple[int, str], Screen] = {}

    def write(self, rank: int, text: str, kind: str = "stdout") -> None:
        screen = self.screens.setdefault((rank, kind), Screen(rank, kind, self.rows))  # type: ignore[arg-type]
        screen.feed(text)

    def end(self) -> None:
        for screen in self.screens.values():
            screen.end()

    def seen(self) -> list[tuple[list[int], str]]:
        return [(row.ranks, row.text) for row in self.layout.shown]

    def lines_of(self, rank: int, kind: str = "stdout") -> list[str]:
        return [row.text for row in self.layout.shown if rank in row.ranks and row.kind == kind]


def test_equal_lines_of_two_ranks_are_one_row() -> None:
    group = Group()
    group.write(0, "start\nloss 1\n")
    group.write(1, "start\nloss 2\n")
    assert group.seen() == [([0, 1], "start"), ([0], "loss 1"), ([1], "loss 2")]


def test_a_line_never_joins_a_row_before_its_own_ranks_last_row() -> None:
    group = Group()
    group.write(0, "a\nb\n")
    group.write(1, "b\na\n")
    assert group.seen() == [([0], "a"), ([0, 1], "b"), ([1], "a")]


def test_repeated_lines_of_one_rank_stay_apart_and_are_joined_one_by_one() -> None:
    group = Group()
    group.write(0, "x\n" * 3)
    group.write(1, "x\n" * 4)
    assert group.seen() == [([0, 1], "x")] * 3 + [([1], "x")]


def test_stdout_and_stderr_never_share_a_row() -> None:
    group = Group()
    group.write(0, "x\n", "stdout")
    group.write(1, "x\n", "stderr")
    assert [row.kind for row in group.layout.shown] == ["stdout", "stderr"]


def test_a_rank_that_lags_more_than_the_window_gets_rows_of_its_own() -> None:
    group = Group()
    group.write(0, "".join(f"{number}\n" for number in range(WINDOW + 10)))
    group.write(1, "0\n")
    assert group.seen()[-1] == ([1], "0")


def test_an_unfinished_line_is_shown_and_updated_in_place() -> None:
    group = Group()
    group.write(0, "epoch")
    group.write(1, "other\n")
    group.write(0, " 1")
    assert group.seen() == [([0], "epoch 1"), ([1], "other")]


def test_a_line_written_in_pieces_joins_when_it_is_finished() -> None:
    group = Group()
    for piece in ("a", " ", "b"):
        group.write(0, piece)
        group.write(1, piece)
    assert len(group.seen()) == 2
    group.write(0, "\n")
    group.write(1, "\n")
    assert group.seen() == [([0, 1], "a b")]


def test_equal_unfinished_lines_are_one_row_at_the_end_of_the_cell() -> None:
    group = Group()
    group.write(0, "done")
    group.write(1, "done")
    assert len(group.seen()) == 2
    group.end()
    assert group.seen() == [([0, 1], "done")]


def test_a_finished_line_does_not_jump_over_what_its_rank_wrote_to_the_other_stream() -> None:
    group = Group()
    group.write(0, "bar", "stdout")
    group.write(1, "between\n")
    group.write(0, "warning\n", "stderr")
    group.write(1, "bar\n")
    group.write(0, "\n", "stdout")
    # Rank 1's row "bar" stands behind rank 0's warning, where rank 0's own "bar" must not go.
    assert group.seen() == [([0], "bar"), ([1], "between"), ([0], "warning"), ([1], "bar")]


def test_carriage_return_overwrites() -> None:
    group = Group()
    group.write(0, "10% done")
    group.write(0, "\r20%")
    assert group.seen() == [([0], "20% done")]
    group.write(0, "\r\x1b[K30%\r\n")
    assert group.seen() == [([0], "30%")]


def test_crlf_is_a_newline_also_when_cut_between_two_writes() -> None:
    group = Group()
    group.write(0, "a\r")
    group.write(0, "\nb\r\n")
    assert group.lines_of(0) == ["a", "b"]


def test_backspace_moves_left() -> None:
    group = Group()
    group.write(0, "1\b2\n")
    assert group.lines_of(0) == ["2"]


def test_colours_are_kept_and_other_codes_are_dropped() -> None:
    group = Group()
    group.write(0, "\x1b[?25l\x1b[31mred\x1b[0m plain\x1b]0;title\x07\x1b[2J\x07\n")
    assert group.lines_of(0) == ["\x1b[31mred\x1b[0m plain"]


@pytest.mark.parametrize("cut", range(1, 16))
def test_a_code_may_be_cut_anywhere(cut: int) -> None:
    text = "\x1b[1;38;5;208mA\x1b[0m"
    group = Group()
    group.write(0, text[:cut])
    group.write(0, text[cut:] + "\n")
    assert group.lines_of(0) == [text]


def test_looks_that_are_equal_are_folded_however_they_were_coded() -> None:
    group = Group()
    group.write(0, "\x1b[31m\x1b[1mx\x1b[m\n")
    group.write(1, "\x1b[1;31mx\x1b[39m\x1b[22m\n")
    assert [row.ranks for row in group.layout.shown] == [[0, 1]]


def test_nested_progress_bars_of_tqdm_keep_their_lines() -> None:
    group = Group()
    for rank in (0, 1):
        group.write(rank, "\r outer 0/2", "stderr")
    for step in (1, 2):
        for rank in (0, 1):
            group.write(rank, f"\n\r inner {step}{UP}", "stderr")
            group.write(rank, f"\r outer {step}/2", "stderr")
    assert group.seen() == [
        ([0], " outer 2/2"),
        ([0], " inner 2"),
        ([1], " outer 2/2"),
        ([1], " inner 2"),
    ] or group.lines_of(0, "stderr") == [" outer 2/2", " inner 2"]
    group.end()
    assert group.lines_of(1, "stderr") == [" outer 2/2", " inner 2"]
    assert [row.ranks for row in group.layout.shown] == [[0, 1], [0, 1]]


def test_going_up_into_a_shared_row_splits_it() -> None:
    group = Group()
    group.write(0, "a\n")
    group.write(1, "a\n")
    group.write(1, f"{UP}b")
    assert group.seen() == [([0], "a"), ([1], "b")]


def test_a_bar_that_wipes_itself_leaves_nothing() -> None:
    group = Group()
    group.write(0, "\r50%|##  |", "stderr")
    group.write(0, "\r           \r", "stderr")
    group.end()
    assert group.lines_of(0, "stderr") in ([], [""])


def test_a_line_is_cut_at_its_limit() -> None:
    group = Group()
    group.write(0, "x" * 10_000_000 + "\n")
    for _ in range(100):
        group.write(1, "x" * 100_000)
    group.write(1, "\nnext\n")
    assert group.seen() == [([0, 1], "x" * LINE_LIMIT + CUT), ([1], "next")]


def expected_screen(text: str) -> list[str]:
    """What a terminal of endless width shows, cell by cell."""
    lines, row, column = [""], 0, 0
    at = 0
    while at < len(text):
        if text.startswith(UP, at):
            row, at = max(0, row - 1), at + len(UP)
            continue
        character = text[at]
        at += 1
        if character == "\n":
            row, column = row + 1, 0
            if row == len(lines):
                lines.append("")
        elif character == "\r":
            column = 0
        else:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + character + line[column + 1 :]
            column += 1
    while lines and not lines[-1]:
        lines.pop()
    return lines


def random_text(dice: random.Random, pieces: list[str]) -> str:
    return "".join(dice.choice(pieces) for _ in range(dice.randrange(1, 40)))


def random_chunks(dice: random.Random, text: str) -> list[str]:
    cuts = sorted(dice.randrange(len(text) + 1) for _ in range(dice.randrange(6)))
    return [text[start:end] for start, end in pairwise([0, *cuts, len(text)])]


@pytest.mark.parametrize(
    "pieces",
    [
        ["a", "b\n", "c\n", "\n"],
        ["a", "bb", "\n", "c\n", "\r"],
        ["a", "bb", "\n", "c\n", "\r", UP, "\n\rx" + UP],
    ],
    ids=["lines", "returns", "nested bars"],
)
@pytest.mark.parametrize("seed", range(150))
def test_any_interleaving_keeps_every_ranks_lines_in_order_and_complete(seed: int, pieces: list[str]) -> None:
    dice = random.Random(seed)
    ranks = range(dice.choice([1, 2, 3, 5]))
    texts = {rank: random_text(dice, pieces) for rank in ranks}
    queues = {rank: random_chunks(dice, texts[rank]) for rank in ranks}
    group = Group()
    while any(queues.values()):
        rank = dice.choice([rank for rank in ranks if queues[rank]])
        group.write(rank, queues[rank].pop(0))
        numbers = [row.no for row in group.layout.shown]
        assert numbers == sorted(set(numbers))
    group.end()
    for rank in ranks:
        shown = group.lines_of(rank)
        while shown and not shown[-1]:
            shown.pop()
        assert shown == expected_screen(texts[rank])


@pytest.mark.parametrize("seed", range(100))
def test_two_streams_of_a_rank_are_each_complete_whatever_is_interleaved(seed: int) -> None:
    dice = random.Random(seed)
    sources = [(rank, kind) for rank in range(3) for kind in ("stdout", "stderr")]
    texts = {source: random_text(dice, ["a", "b\n", "c\n", "\r"]) for source in sources}
    queues = {source: random_chunks(dice, texts[source]) for source in sources}
    group = Group()
    while any(queues.values()):
        source = dice.choice([source for source in sources if queues[source]])
        group.write(source[0], queues[source].pop(0), source[1])
    group.end()
    for rank, kind in sources:
        shown = group.lines_of(rank, kind)
        while shown and not shown[-1]:
            shown.pop()
        assert shown == expected_screen(texts[rank, kind])


@pytest.mark.parametrize("seed", range(30))
def test_ranks_that_print_the_same_fold_completely_however_they_interleave(seed: int) -> None:
    dice = random.Random(seed)
    lines = [dice.choice(["a", "b", "c", "d"]) for _ in range(50)]
    todo = {rank: list(lines) for rank in range(4)}
    group = Group()
    group.write(0, "".join(f"{line}\n" for line in todo.pop(0)))
    while any(todo.values()):
        rank = dice.choice([rank for rank in todo if todo[rank]])
        group.write(rank, todo[rank].pop(0) + "\n")
    assert group.seen() == [([0, 1, 2, 3], line) for line in lines]
