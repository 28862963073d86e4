"""What the notebook holds after outputs of several ranks: a fake notebook checks every message it gets."""

from __future__ import annotations

import random
from typing import Any

import pytest

from quarterdeck.protocol.worker import Output
from quarterdeck.views.cell.cell import BURST, INTERVAL_S, CellView
from quarterdeck.views.cell.segments import RICH_BUDGET, TAIL_ROWS, TEXT_BUDGET
from quarterdeck.views.sink import BYTES_PER_S, Bundle

PNG = {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"}
OTHER_PNG = {"image/png": "b3RoZXI=", "text/plain": "<Figure>"}


class Notebook:
    """A cell's outputs, kept by the rules of the Jupyter protocol."""

    def __init__(self, live: bool = True) -> None:
        self.live = live
        self.outputs: dict[str, Bundle] = {}
        self.messages: list[str] = []
        self.clear_next = False
        self.sent = 0

    def show(self, data: Bundle, metadata: Bundle, display_id: str) -> None:
        if self.clear_next:
            self.outputs, self.clear_next = {}, False
        display_id = display_id or f"printed-{len(self.outputs)}"
        assert display_id not in self.outputs
        self.outputs[display_id] = data
        self.messages.append("show")
        self.sent += sum(len(str(value)) for value in data.values())

    def update(self, data: Bundle, metadata: Bundle, display_id: str) -> None:
        assert display_id in self.outputs, "update of an output that the notebook does not have"
        assert not self.clear_next
        self.outputs[display_id] = data
        self.messages.append("update")
        self.sent += sum(len(str(value)) for value in data.values())

    def clear(self, wait: bool) -> None:
        if wait:
            self.clear_next = True
        else:
            self.outputs = {}
        self.messages.append("clear")

    @property
    def plain(self) -> list[str]:
        """Text of all outputs that show something."""
        texts = [str(data.get("text/plain", "")) for data in self.outputs.values()]
        return "\n".join(text for text in texts if text).split("\n") if any(texts) else []

    @property
    def images(self) -> list[str]:
        return [data["image/png"] for data in self.outputs.values() if "image/png" in data]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Cell:
    """A view on a fake notebook."""

    def __init__(self, world_size: int = 2, live: bool = True, log_dir: str = "/run/log") -> None:
        self.notebook, self.clock = Notebook(live), Clock()
        self.view = CellView(self.notebook, self.clock)
        self.view.begin(world_size, log_dir)

    def out(self, rank: int, text: str, kind: Any = "stdout") -> None:
        self.view.feed(Output(rank=rank, kind=kind, text=text))

    def display(self, rank: int, data: dict[str, str], kind: Any = "display", display_id: str = "") -> None:
        self.view.feed(Output(rank=rank, kind=kind, data=data, display_id=display_id))

    def clear(self, rank: int, wait: bool = False) -> None:
        self.view.feed(Output(rank=rank, kind="clear", wait=wait))

    def flush(self) -> None:
        self.view.flush(force=True)

    def finish(self) -> list[str]:
        self.view.finish()
        return self.notebook.plain


@pytest.fixture
def cell() -> Cell:
    return Cell()


# ---- when


def test_a_burst_is_shown_at_once_and_what_follows_it_after_an_interval(cell: Cell) -> None:
    assert cell.view.next_flush_in() is None
    for rank in range(BURST + 1):
        cell.out(rank, "a\n")
        assert cell.view.next_flush_in() == 0
        cell.view.flush()
    assert cell.notebook.plain == ["[0–8] a"]
    cell.out(0, "b\n")
    cell.view.flush()
    assert cell.notebook.plain == ["[0–8] a"]
    assert cell.view.next_flush_in() == pytest.approx(INTERVAL_S)
    cell.clock.now += INTERVAL_S
    cell.view.flush()
    assert cell.notebook.plain == ["[0–8] a", "[0] b"]
    assert cell.view.next_flush_in() is None


def test_a_steady_stream_costs_at_most_twenty_updates_and_the_byte_rate_a_second(cell: Cell) -> None:
    for number in range(5000):
        cell.out(number % 2, f"line {number} {'x' * 50}\n")
        cell.view.flush()
        cell.clock.now += 0.001
    assert len(cell.notebook.messages) <= 5 * 20 + 60
    assert cell.notebook.sent <= 5 * BYTES_PER_S


def test_an_update_never_sends_the_whole_text_again(cell: Cell) -> None:
    cell.out(0, "".join(f"line {number}\n" for number in range(3000)))
    cell.flush()
    before = cell.notebook.sent
    cell.out(0, "one more\n")
    cell.flush()
    assert cell.notebook.sent - before < 70_000
    assert len(cell.notebook.outputs) > 10


# ---- text and displays


def test_a_group_of_one_rank_has_no_prefix_and_no_chips() -> None:
    cell = Cell(world_size=1)
    cell.out(0, "a\n")
    assert cell.finish() == ["a"]
    (output,) = cell.notebook.outputs.values()
    assert "<b" not in output["text/html"]


def test_one_rank_of_several_keeps_its_chip(cell: Cell) -> None:
    cell.out(1, "a\n")
    assert cell.finish() == ["[1] a"]


def test_a_plain_result_stands_between_the_lines(cell: Cell) -> None:
    cell.out(0, "before\n")
    cell.display(0, {"text/plain": "tensor([[1],\n        [2]])"}, "result")
    cell.display(1, {"text/plain": "tensor([[1],\n        [2]])"}, "result")
    assert cell.finish() == ["[0] before", "[0–1] tensor([[1],", "[0–1]         [2]])"]
    assert len(cell.notebook.outputs) == 1


def test_equal_images_of_several_ranks_are_one_with_a_label_that_grows(cell: Cell) -> None:
    cell.display(0, PNG)
    cell.flush()
    assert cell.notebook.plain == ["[0]", "<Figure>"]
    cell.display(1, PNG)
    cell.flush()
    assert cell.notebook.plain == ["[0–1]", "<Figure>"]
    assert cell.notebook.images == [PNG["image/png"]]
    assert cell.notebook.messages == ["show", "show", "update"], "the image itself is not sent again"


def test_an_image_stands_between_what_its_rank_printed_before_and_after(cell: Cell) -> None:
    for rank in (0, 1):
        cell.out(rank, "a\n")
        cell.display(rank, PNG)
        cell.out(rank, "b\n")
    assert cell.finish() == ["[0–1] a", "[0–1]", "<Figure>", "[0–1] b"]


def test_json_types_reach_the_notebook_as_json(cell: Cell) -> None:
    cell.display(0, {"application/vnd.plotly.v1+json": '{"data": []}', "text/html": "<p>"})
    cell.finish()
    assert {
        "application/vnd.plotly.v1+json": {"data": []},
        "text/html": "<p>",
    } in cell.notebook.outputs.values()


def test_an_update_splits_a_folded_display_and_equal_ones_fold_again_at_the_end(cell: Cell) -> None:
    for rank in (0, 1):
        cell.display(rank, PNG, display_id="one")
    cell.flush()
    cell.display(1, OTHER_PNG, "update", "one")
    cell.flush()
    assert cell.notebook.plain == ["[0]", "<Figure>", "[1]", "<Figure>"]
    assert cell.notebook.images == [PNG["image/png"], OTHER_PNG["image/png"]]
    cell.display(0, OTHER_PNG, "update", "one")
    cell.finish()
    assert cell.notebook.images == [OTHER_PNG["image/png"]]
    assert cell.notebook.plain == ["[0–1]", "<Figure>"]


def test_updates_of_text_stay_at_their_place(cell: Cell) -> None:
    for rank in (0, 1):
        cell.display(rank, {"text/plain": "0 %"}, display_id="bar")
        cell.out(rank, "after\n")
    cell.display(1, {"text/plain": "50 %"}, "update", "bar")
    cell.display(1, {"text/plain": "90 %"}, "update", "bar")
    assert cell.finish() == ["[0] 0 %", "[1] 90 %", "[0–1] after"]


def test_a_thousand_updates_use_one_output(cell: Cell) -> None:
    cell.display(0, PNG, display_id="live")
    for number in range(1000):
        cell.display(0, {"image/png": str(number)}, "update", "live")
        cell.flush()
    cell.finish()
    assert cell.notebook.images == ["999"]
    assert len(cell.notebook.outputs) == 2


# ---- clear_output


def test_clear_of_the_only_rank_that_shows_something_clears_the_cell(cell: Cell) -> None:
    cell.out(0, "a\n")
    cell.flush()
    cell.clear(0)
    cell.flush()
    assert cell.notebook.outputs == {}


def test_clear_with_wait_keeps_the_old_until_the_new_comes(cell: Cell) -> None:
    cell.out(0, "old\n")
    cell.flush()
    cell.clear(0, wait=True)
    cell.flush()
    assert cell.notebook.plain == ["[0] old"]
    cell.out(0, "new\n")
    cell.flush()
    assert cell.notebook.plain == ["[0] new"]


def test_clear_takes_a_rank_out_of_shared_rows_only(cell: Cell) -> None:
    cell.out(0, "shared\nmine\n")
    cell.out(1, "shared\n")
    cell.flush()
    cell.clear(0)
    assert cell.finish() == ["[1] shared"]


def test_clear_ends_an_unfinished_line(cell: Cell) -> None:
    cell.out(1, "x\n")
    cell.out(0, "half")
    cell.clear(0)
    cell.out(0, "new\n")
    assert cell.finish() == ["[1] x", "[0] new"]


def test_notices_survive_a_clear(cell: Cell) -> None:
    cell.view.notice("2 workers started in 0.09 s (gloo, cpu)", key="start")
    cell.out(0, "a\n")
    cell.flush()
    cell.clear(0)
    cell.out(0, "b\n")
    assert cell.finish() == ["2 workers started in 0.09 s (gloo, cpu)", "[0] b"]


@pytest.mark.parametrize("others", ["nothing", "before", "behind", "the same"])
def test_a_thousand_rounds_of_clear_and_display_leave_one_slot(cell: Cell, others: str) -> None:
    if others == "before":
        cell.display(1, OTHER_PNG)
    for number in range(1000):
        ranks = (0, 1) if others == "the same" else (0,)
        for rank in ranks:
            cell.clear(rank, wait=True)
            cell.out(rank, f"round {number} of {rank}\n")
            cell.display(rank, {"image/png": f"{number} of {rank}"})
        if number == 1 and others == "behind":
            cell.display(1, OTHER_PNG)
        if number % 3 == 0:
            cell.flush()
    cell.finish()
    assert "999 of 0" in cell.notebook.images
    assert len(cell.notebook.images) == (1 if others == "nothing" else 2)
    assert len(cell.notebook.outputs) <= 10


# ---- notices


def test_a_notice_with_a_key_is_replaced_in_place_and_taken_away(cell: Cell) -> None:
    cell.view.notice("waiting for cell [7]", key="wait")
    cell.out(0, "a\n")
    cell.flush()
    cell.view.notice("waiting for cell [8]", key="wait")
    cell.flush()
    assert cell.notebook.plain == ["waiting for cell [8]", "[0] a"]
    cell.view.notice("", key="wait")
    cell.view.notice("", key="never shown")
    assert cell.finish() == ["[0] a"]


def test_a_warning_says_that_it_is_one(cell: Cell) -> None:
    cell.view.notice("`x` was rebound", "warning")
    assert cell.finish() == ["Warning: `x` was rebound"]


# ---- bounds


def test_what_exceeds_the_budget_is_a_rolling_tail_with_a_sentence(cell: Cell) -> None:
    cell.out(0, "".join(f"line {number}\n" for number in range(50_000)))
    shown = cell.finish()
    assert shown[-1] == "[0] line 49999"
    (at,) = [number for number, line in enumerate(shown) if line.startswith("Output cut at 1.0 MB: ")]
    assert len(shown) - at - 1 == TAIL_ROWS
    assert (
        shown[at] == f"Output cut at 1.0 MB: {50_000 - at - TAIL_ROWS:,} lines are only in the log: /run/log"
    )
    assert (
        sum(len(str(value)) for data in cell.notebook.outputs.values() for value in data.values())
        < 1.3 * TEXT_BUDGET
    )


def test_a_display_still_shows_when_the_text_is_cut(cell: Cell) -> None:
    cell.out(0, "".join(f"line {number}\n" for number in range(50_000)))
    cell.display(0, PNG)
    cell.finish()
    assert cell.notebook.images


def test_displays_beyond_their_budget_are_shown_as_plain_text(cell: Cell) -> None:
    for number in range(12):
        cell.display(0, {"image/png": str(number) * (RICH_BUDGET // 10), "text/plain": f"<Figure {number}>"})
    cell.finish()
    assert len(cell.notebook.images) < 12
    assert "[0] <Figure 11>" in cell.notebook.plain


def test_a_clear_gives_the_budget_back(cell: Cell) -> None:
    cell.out(0, "".join(f"line {number}\n" for number in range(50_000)))
    cell.flush()
    cell.clear(0)
    cell.out(0, "new\n")
    assert cell.finish() == ["[0] new"]


# ---- terminal


def test_a_terminal_gets_text_once_and_in_order() -> None:
    cell = Cell(live=False)
    cell.out(0, "a\n")
    cell.out(1, "a\n")
    cell.out(0, "\r10%", "stderr")
    cell.view.flush()
    cell.out(1, "b\n")
    cell.out(0, "\r20%", "stderr")
    cell.clock.now += 2
    cell.view.flush()
    cell.display(1, PNG)
    assert cell.finish() == ["[0–1] a", "[1] b", "[0] 20%", "[1]", "<Figure>"]
    assert set(cell.notebook.messages) == {"show"}


def test_a_terminal_never_folds_into_what_it_printed() -> None:
    cell = Cell(live=False)
    cell.out(0, "a\n")
    cell.flush()
    cell.out(1, "a\n")
    assert cell.finish() == ["[0] a", "[1] a"]


# ---- all at once


@pytest.mark.parametrize("seed", range(60))
def test_whatever_comes_the_notebook_shows_each_ranks_last_outputs_in_order(seed: int) -> None:
    dice = random.Random(seed)
    cell = Cell(world_size=3)
    kept: dict[int, list[str]] = {0: [], 1: [], 2: []}
    for number in range(200):
        rank = dice.randrange(3)
        action = dice.choices(["print", "display", "clear"], [6, 3, 1])[0]
        if action == "print":
            kept[rank].append(f"line {number // 10}")
            cell.out(rank, f"line {number // 10}\n")
        elif action == "display":
            kept[rank].append(f"figure {number // 10}")
            cell.display(rank, {"image/png": "x", "text/plain": f"figure {number // 10}"})
        else:
            kept[rank] = []
            cell.clear(rank)
        if dice.random() < 0.2:
            cell.flush()
    shown = cell.finish()
    for rank, expected in kept.items():
        assert of_rank(shown, rank) == expected


def of_rank(plain: list[str], rank: int) -> list[str]:
    """One rank's lines and figures out of the notebook's text."""
    found, mine = [], False
    for line in plain:
        if line.startswith("["):
            ranks, _, rest = line[1:].partition("]")
            first, _, last = ranks.partition("–")
            members = range(int(first), int(last) + 1) if last else [int(part) for part in ranks.split(", ")]
            mine = rank in members
            if rest and mine:
                found.append(rest[1:])
        elif mine:
            found.append(line)
    return found
