"""The same text is the same lines in a cell's output, in the live view's output tab, and in the browser's
half of that tab: all are held to `transcript.json`, here and in
`labextension/packages/views/test/contract.test.ts`.

`python tests/contract/test_transcript.py` writes the file anew, from what the tab's half in Python says; look
at the difference.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quarterdeck.present import words
from quarterdeck.protocol.worker import Output
from quarterdeck.store.output import Piece, Stream
from quarterdeck.views.cell.cell import CellView
from quarterdeck.views.run.messages import Line
from quarterdeck.views.run.output_rows import OutputRows
from quarterdeck.views.sink import Bundle, PrintSink

CASES = Path(__file__).parent / "transcript.json"
RANKS = 4

Said = tuple[int, Stream, str]
"""Rank, stream and text of a piece."""


def each(text: str, stream: Stream = "stdout") -> list[Said]:
    return [(rank, stream, text) for rank in range(RANKS)]


SAID: dict[str, list[Said]] = {
    "equal lines of all ranks": each("start\n"),
    "different lines": [(rank, "stdout", f"rank {rank}\n") for rank in range(RANKS)],
    "a rank that comes late": [(0, "stdout", "a\nb\nc\n"), (3, "stdout", "a\nc\n"), (2, "stdout", "c\nb\n")],
    "a line that is repeated": [(0, "stdout", "x\nx\nx\n"), (1, "stdout", "x\nx\n")],
    "two streams of the same text": [*each("same\n"), *each("same\n", "stderr")],
    "unfinished lines": [(0, "stdout", "wait"), (1, "stdout", "wait"), (2, "stdout", "other")],
    "lines in pieces": [
        (0, "stdout", "ha"), (1, "stdout", "half\n"), (0, "stdout", "lf\nnext"), (1, "stdout", "next"),
    ],
    "a carriage return leaves what is not overwritten": [(0, "stdout", "a.b\rA\n"), (1, "stdout", "A.b\r\n")],
    "progress bars": [
        (rank, "stderr", f"\r{step:3}%|{'#' * (step // 25):4}|") for step in (0, 50, 100) for rank in (0, 1)
    ] + [(0, "stderr", "\n"), (1, "stderr", "\n")],
    "nested progress bars": [
        (rank, "stderr", text)
        for rank in (0, 1)
        for text in ("\r outer 0/2", "\n\r inner 1\x1b[A", "\r outer 1/2", "\n\r inner 2\x1b[A", "\r outer 2")
    ],
    "a bar that wipes itself": [
        (0, "stderr", "\r50%|##  |"), (0, "stderr", "\r         \r"), (0, "stdout", "done\n"),
    ],
    "colours, coded in two ways": [
        (0, "stdout", "\x1b[31m\x1b[1mred\x1b[m plain \x1b[38;5;208morange\x1b[0m\n"),
        (1, "stdout", "\x1b[1;31mred\x1b[39m\x1b[22m plain \x1b[38;5;208morange\x1b[0m\n"),
        (2, "stdout", "red plain orange\n"),
        (3, "stdout", "\U0001f600 \x1b[7minverse\x1b[27m \x1b[3;4;44mblue\x1b[0m"),
    ],
    "a code that is cut": [
        (0, "stdout", "\x1b[3"), (1, "stdout", "\x1b[32mgreen\n"), (0, "stdout", "2mgreen\n"),
    ],
    "codes that are no colours": [(0, "stdout", "\x1b]0;title\x07\x1b[?25la\tb\x1b[2J\x07\b\bc\n")],
    "results of several lines": [
        (0, "result", "tensor([1,\n        2])"), (1, "result", "tensor([1,\n        3])"),
        (2, "result", "tensor([1,\n        2])"), (3, "stdout", "tensor([1,\n"),
    ],
}  # fmt: skip


def pieces(said: Sequence[Said]) -> list[Piece]:
    """As they are read from a run's log, a second apart."""
    return [
        Piece(rank, stream, (at + 1) * 10**9, text + "\n" * (stream == "result"))
        for at, (rank, stream, text) in enumerate(said)
    ]


def in_the_tab(said: Sequence[Said]) -> dict[str, Any]:
    """The messages to the browser, and the rows before and after the end."""
    rows, messages = OutputRows(), []
    for piece in pieces(said):
        rows.feed([piece])
        messages.append(rows.news())
    live = rows.whole().lines
    rows.finish()
    messages.append(rows.news())
    sent = [json.loads(msgspec.json.encode(message)) for message in messages if message is not None]
    return {"messages": sent, "live": told(live), "ended": told(rows.whole().lines)}


def told(lines: Sequence[Line]) -> list[list[Any]]:
    return [[line.ranks, line.stream, line.text] for line in lines]


class Notebook(PrintSink):
    """What a cell's outputs hold, as plain text."""

    live = True

    def __init__(self) -> None:
        self.outputs: dict[str, str] = {}

    def show(self, data: Bundle, metadata: Bundle, display_id: str) -> None:
        self.outputs[display_id] = data["text/plain"]

    update = show

    @property
    def lines(self) -> list[str]:
        return [line for text in self.outputs.values() if text for line in text.split("\n")]


def in_a_cell(said: Sequence[Said]) -> tuple[list[str], list[str]]:
    """The lines before and after the end."""
    notebook = Notebook()
    view = CellView(notebook)
    view.begin(RANKS)
    for rank, stream, text in said:
        plain = {"text/plain": text} if stream == "result" else {}
        view.feed(Output(rank=rank, kind=stream, text="" if plain else text, data=plain))
    view.flush(force=True)
    live = notebook.lines
    view.finish()
    return live, notebook.lines


def as_in_a_cell(rows: Sequence[Sequence[Any]]) -> list[str]:
    return [f"[{words.short(ranks, RANKS)}] {text}" for ranks, _, text in rows]


@pytest.mark.parametrize("name", SAID)
def test_the_tab_tells_the_browser_what_the_cases_say(name: str) -> None:
    kept = json.loads(CASES.read_text())
    assert kept.keys() == SAID.keys()
    assert in_the_tab(SAID[name]) == kept[name], f"python {__file__} writes the cases anew"


@pytest.mark.parametrize("name", SAID)
def test_a_cell_shows_the_same_lines_of_the_same_ranks(name: str) -> None:
    case = json.loads(CASES.read_text())[name]
    assert in_a_cell(SAID[name]) == (as_in_a_cell(case["live"]), as_in_a_cell(case["ended"]))


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_written_cell_and_tab_show_the_same(seed: int) -> None:
    dice = random.Random(seed)
    texts = ["a", "b\n", "c\n", "\r", "\x1b[31m", "\x1b[0m", "\n\rx\x1b[A", "d\ne\n"]
    streams: list[Stream] = ["stdout", "stdout", "stderr"]
    same([(dice.randrange(RANKS), dice.choice(streams), dice.choice(texts)) for _ in range(120)])


def test_what_is_too_long_is_cut_alike() -> None:
    kinds: tuple[Stream, ...] = ("stdout", "result")
    same([(rank, kind, "x" * 20_010) for rank in (0, 1) for kind in kinds])


def same(said: Sequence[Said]) -> None:
    tab = in_the_tab(said)
    assert in_a_cell(said) == (as_in_a_cell(tab["live"]), as_in_a_cell(tab["ended"]))


def test_what_a_reader_is_to_see() -> None:
    kept = json.loads(CASES.read_text())
    assert kept["equal lines of all ranks"]["ended"] == [[[0, 1, 2, 3], "stdout", "start"]]
    assert kept["a rank that comes late"]["ended"] == [
        [[0, 3], "stdout", "a"], [[0], "stdout", "b"], [[0, 2, 3], "stdout", "c"], [[2], "stdout", "b"],
    ]  # fmt: skip
    assert kept["unfinished lines"]["live"] == [
        [[0], "stdout", "wait"], [[1], "stdout", "wait"], [[2], "stdout", "other"],
    ]  # fmt: skip
    assert kept["unfinished lines"]["ended"] == [[[0, 1], "stdout", "wait"], [[2], "stdout", "other"]]
    assert kept["progress bars"]["ended"] == [[[0, 1], "stderr", "100%|####|"]]


if __name__ == "__main__":
    cases = {name: in_the_tab(said) for name, said in SAID.items()}
    lines = (f"{json.dumps(name)}:{json.dumps(case, separators=(',', ':'))}" for name, case in cases.items())
    CASES.write_text("{" + ",\n".join(lines) + "}\n")
