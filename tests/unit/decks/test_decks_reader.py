"""Decks as a run's folder has them: their order, their pages, those that are made of the run itself."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from enum import Enum
from html import unescape
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch

import quarterdeck as qd
from quarterdeck.context import Context, working_for
from quarterdeck.decks import renderer, renderers, writer
from quarterdeck.decks.arguments import called
from quarterdeck.decks.automatic import FIELDS, chosen, keep_fields
from quarterdeck.decks.file import Body
from quarterdeck.decks.of_run import RunDecks
from quarterdeck.decks.packages import installed, keep_packages
from quarterdeck.decks.page import CSP, framed, merged, page
from quarterdeck.decks.phases import read_phases
from quarterdeck.decks.reader import StoredDecks
from quarterdeck.flyte.rules import ConfigError
from quarterdeck.protocol.worker import Outcome
from quarterdeck.store.format import Event, GroupEvent, OutcomeEvent, RunHeader, StateEvent, encode

S = 1_000_000_000
START = 1_760_000_000 * S
SRCDOC = r"(?s)srcdoc=(['\"])(.*?)\1"
HOSTILE = "</title></style><script>alert(1)</script><img src=x onerror=alert(1)>\"'"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a run of two ranks that ran from second 2 to 10; rank 1 ended at 8."""
    header = RunHeader(
        run_id="20261122-train", kind="function", title="train()", arguments="lr=0.1",
        source="def train(lr): ...",
        created_unix_ns=START, environment={"python": "3.11", "git": "abc123"},
    )  # fmt: skip
    (tmp_path / "run.json").write_bytes(encode(header))
    write_events(
        tmp_path,
        StateEvent(START, "starting"),
        GroupEvent(START + S, 0, 2, "gloo", "cpu", ["cpu", "cpu"]),
        StateEvent(START + 2 * S, "running"),
        OutcomeEvent(START, 0, Outcome(rank=1, state="ok", time_unix_ns=START + 8 * S), kept=False),
        OutcomeEvent(START, 0, Outcome(rank=0, state="ok", time_unix_ns=START + 10 * S), kept=False),
        StateEvent(START + 10 * S, "succeeded"),
    )
    return tmp_path


def write_events(folder: Path, *events: Event) -> None:
    with (folder / "events.jsonl").open("ab") as file:
        file.writelines(encode(event) + b"\n" for event in events)


def span(folder: Path, rank: int, name: str, start_s: float, end_s: float | None, depth: int = 0) -> None:
    end = None if end_s is None else START + int(end_s * S)
    line = {"name": name, "start_unix_ns": START + int(start_s * S), "end_unix_ns": end, "depth": depth}
    with (folder / f"spans-attempt-0-rank-{rank}.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")


def write(folder: Path, rank: int, attempt: int = 0, **decks: str) -> None:
    with working_for(Context(run_id="run", rank=rank, attempt=attempt, world_size=2, run_dir=folder)):
        for name, html in decks.items():
            qd.Deck(name, html)


def names(folder: Path) -> list[str]:
    return [head.name for head in StoredDecks(folder).heads()]


def without_addresses(html: str) -> bool:
    """No resource from elsewhere: the only addresses are names of XML."""
    found = set(re.findall(r"https?://[^\s\"'<)]+", html))
    return found <= {"http://www.w3.org/2000/svg"} and "@import" not in html


# ---- what there is


def test_decks_come_in_flyte_s_order(folder: Path) -> None:
    with working_for(Context(run_id="run", run_dir=folder, deck_fields=("Input", "Output"))) as context:
        called(lambda x: qd.Deck("second", "2") and qd.Deck("first", "1") and 5, {"x": 1}, context)

    assert names(folder) == ["Timeline", "second", "first", "Source Code", "Environment", "Input", "Output"]


def test_heads_tell_ranks_size_and_whose_they_are(folder: Path) -> None:
    write(folder, 0, loss="x" * 1000)
    write(folder, 1, loss="y" * 1000)
    by_name = {head.name: head for head in StoredDecks(folder).heads()}

    assert by_name["loss"].ranks == [0, 1]
    assert 2000 < by_name["loss"].size_bytes < 2500
    assert not by_name["loss"].automatic
    assert by_name["Timeline"].ranks == []
    assert by_name["Timeline"].automatic


def test_versions_grow_with_every_change_and_only_then(folder: Path) -> None:
    def version() -> int:
        return next(head.version for head in stored.heads() if head.name == "loss")

    stored = StoredDecks(folder)
    with working_for(Context(run_id="run", run_dir=folder)):
        deck = qd.Deck("loss", "0")
        seen = [version()]
        for number in range(20):
            deck.append("1") if number % 2 else deck.replace("2")
            writer.flush()
            seen.append(version())

    assert seen == sorted(set(seen))
    assert version() == seen[-1]
    assert seen[-1] < 1 << 53


def test_of_several_attempts_a_rank_s_latest_counts(folder: Path) -> None:
    write(folder, 0, loss="first try", early="kept")
    write(folder, 1, loss="first try of 1")
    write(folder, 0, attempt=1, loss="second try")
    stored = StoredDecks(folder)

    assert "second try" in stored.page("loss", 0)
    assert "first try of 1" in stored.page("loss", 1)
    assert "kept" in stored.page("early", 0)
    assert [head.name for head in stored.heads(attempt=1) if not head.automatic] == ["loss"]


def test_an_empty_or_missing_folder_has_no_decks(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert StoredDecks(folder).heads() == []
        assert "No rank has written this deck." in StoredDecks(folder).page("loss")
        assert dict(RunDecks(folder)) == {}


def test_looking_again_opens_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, 0, **{f"deck{number}": "x" for number in range(20)})
    stored = StoredDecks(folder)
    stored.heads()
    monkeypatch.setattr("quarterdeck.decks.reader.read_label", None)

    assert len(stored.heads()) == 23


# ---- pages


@pytest.mark.parametrize("name", ["loss", HOSTILE])
def test_every_page_forbids_resources_and_needs_none(folder: Path, name: str) -> None:
    write(folder, 0, **{name: "<p>0</p>"})
    write(folder, 1, **{name: "<p>1</p><script>let x</script>"})
    stored = StoredDecks(folder)
    pages = [stored.page(head.name, rank) for head in stored.heads() for rank in (None, 0, 1, 7)]

    for html in pages:
        policy = html.index(f'<meta http-equiv="Content-Security-Policy" content="{CSP}">')
        assert html.startswith('<!doctype html><html lang="en"><head>')
        assert policy < html.index("<title>")
        assert "alert(1)</script>" not in html
        assert "<img src=x" not in html
        assert without_addresses(html)


def frames_in(html: str) -> list[str]:
    """The pages in its frames."""
    return [unescape(found[1]) for found in re.findall(SRCDOC, html)]


def own(html: str) -> str:
    """What it holds outside of its frames."""
    return re.sub(SRCDOC, "", html)


def test_a_page_holds_the_deck_in_a_frame_alone() -> None:
    html = page("x", Body(("<p>the user's</p>",)))
    assert "the user's" not in own(html)
    (inner,) = frames_in(html)
    assert "<p>the user's</p>" in inner
    assert html.count(CSP) == 1
    assert inner.count(CSP) == 1


def test_a_merged_page_has_a_section_for_each_rank_that_differs(folder: Path) -> None:
    bodies = {0: Body(("same",)), 1: Body(("same",)), 2: Body(("other",)), 3: Body(("same",))}
    (html,) = frames_in(merged("x", bodies))

    assert html.count("same") == 1
    assert html.count('<section class="qd-rank">') == 2
    assert "0–1</b>" in html
    assert ">3</b>" in html


def test_a_page_of_all_ranks_is_bounded() -> None:
    html = merged("x", {rank: Body((str(rank) * 9_000_000,)) for rank in range(4)})

    assert len(html) < 20_100_000
    assert html.count("Left out: a page of all ranks holds 20 MB.") == 2


@pytest.mark.parametrize(
    "reaching",
    ["<img src=x ONERROR = 'x()'>", "<!-- not closed", "</section></main>", '<a href="javascript:x()">'],
)
def test_markup_that_reaches_beyond_its_rank_is_in_a_frame_of_its_own(reaching: str) -> None:
    (html,) = frames_in(merged("x", {0: Body((reaching,)), 1: Body(("<b>position = 3</b>",))}))
    assert reaching not in own(html).replace("</section></main><script>", "", 1)
    assert "<b>position = 3</b>" in own(html)
    assert [reaching in inner for inner in frames_in(html)] == [True]


def test_scripts_of_two_ranks_do_not_meet() -> None:
    bodies = {rank: Body((f"<script>const rank = {rank}</script>",)) for rank in (0, 1)}
    (html,) = frames_in(merged("x", bodies))

    assert html.count('sandbox="allow-scripts" ') == 2
    assert "const rank" not in own(html)
    assert ["const rank = 1" in inner for inner in frames_in(html)] == [False, True]


def test_a_rank_that_has_not_written_it_is_told(folder: Path) -> None:
    write(folder, 0, loss="x")

    assert "Rank 1 has not written this deck." in StoredDecks(folder).page("loss", 1)


def test_plotly_is_in_a_page_once_and_says_its_weight() -> None:
    import plotly.graph_objects as go

    part = renderers.render(go.Figure(go.Scatter(y=[1, 2])))
    html = merged("x", {0: Body((part, part)), 1: Body((part,))})

    assert 4_000_000 < len(html) < 6_000_000
    assert html.count("MB of this page are plotly.js") == 1


def test_without_plotly_a_figure_is_a_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quarterdeck.decks.page.find_spec", lambda name: None)

    assert "plotly is not installed" in page("x", Body(('<div class="qd-plotly" data-figure="{}"></div>',)))


def test_in_a_notebook_a_deck_is_in_a_frame_of_its_own() -> None:
    deck = qd.Deck(HOSTILE, "<script>alert(document.cookie)</script>", auto_add_to_deck=False)
    html = deck._repr_mimebundle_()["text/html"]

    assert own(html).count("<iframe") == 1
    assert 'sandbox="allow-scripts" ' in own(html)
    assert "alert(" in html
    assert "<script>alert" not in own(html)
    assert "allow-same-origin" not in html
    assert framed("x", "").count("<iframe") == 1


def test_a_saved_deck_is_its_page(tmp_path: Path) -> None:
    path = qd.Deck("x", "<b>content</b>\udcff", auto_add_to_deck=False).save(tmp_path / "x.html")

    assert "<b>content</b>" in path.read_text()


# ---- run.decks


def test_decks_are_found_by_rank_and_name(folder: Path) -> None:
    write(folder, 0, confusion="<b>0</b>")
    write(folder, 1, confusion="<b>1</b>", extra="<i>1</i>")
    decks = RunDecks(folder)

    assert decks[1]["confusion"].html == "<b>1</b>"
    assert {rank: list(own) for rank, own in decks.items()} == {0: ["confusion"], 1: ["confusion", "extra"]}
    assert "<b>0</b>" in decks.merged("confusion").html
    assert "def" in decks.merged("Source Code").html
    assert repr(decks) == "rank 0: confusion\nrank 1: confusion, extra"


def test_a_deck_that_is_not_there_names_the_nearest(folder: Path) -> None:
    write(folder, 0, confusion="x")
    decks = RunDecks(folder)

    with pytest.raises(KeyError, match=r"Rank 0 has no deck 'Confuson'\. Did you mean 'confusion'\?"):
        decks[0]["Confuson"]
    with pytest.raises(KeyError, match=r"There are: confusion\."):
        decks[0]["zzz"]
    with pytest.raises(KeyError, match=r"Ranks that have: \[0\]"):
        decks[5]
    with pytest.raises(KeyError, match="Timeline"):
        decks.merged("timelin")


# ---- automatic decks


class DeckField(Enum):
    """As Flyte has it."""

    INPUT = "Input"
    DEPENDENCIES = "Dependencies"


def test_fields_may_be_flyte_s() -> None:
    assert chosen([DeckField.DEPENDENCIES, DeckField.INPUT, "Timeline"]) == (
        "Timeline",
        "Environment",
        "Input",
    )
    assert chosen("Input") == ("Input",)
    assert chosen(()) == ()


def test_an_unknown_field_is_refused_where_it_is_written() -> None:
    with pytest.raises(
        ValueError, match=r"'Inputs'; there are Timeline, Source Code, Environment, Input, Output"
    ):
        qd.distributed(deck_fields=["Inputs"])
    with pytest.raises(ConfigError):
        qd.distributed(deck_fields=[3])


def test_only_chosen_decks_are_there(folder: Path) -> None:
    keep_fields(folder, ("Timeline",))
    assert names(folder) == ["Timeline"]
    assert "No rank has written" in StoredDecks(folder).page("Source Code")
    keep_fields(folder, ())
    assert names(folder) == []


def run_with_decks(folder: Path, function: Any, rank: int = 0, **kwargs: Any) -> StoredDecks:
    with working_for(Context(run_id="run", rank=rank, run_dir=folder, deck_fields=FIELDS)) as context:
        called(function, kwargs, context)
    return StoredDecks(folder)


def test_input_and_output_are_shown_by_name(folder: Path) -> None:
    def train(lr: float, data: torch.Tensor, tag: str) -> Any:
        return {"loss": 0.5}, torch.ones(3)

    stored = run_with_decks(folder, train, lr=0.25, data=torch.rand(100, 7), tag=HOSTILE)
    given, got = stored.page("Input", 0), stored.page("Output", 0)

    for said in ("lr", "0.25", "data", "100 × 7", "float32"):
        assert said in given
    assert "<script>alert" not in given
    for said in ("o0", "loss", "o1"):
        assert said in got


def test_arguments_without_a_name_of_their_own_get_that_of_the_parameter(folder: Path) -> None:
    def train(steps: int, /, lr: float) -> None: ...

    stored = run_with_decks(folder, functools.partial(train, 1234), lr=0.5)

    assert "<td>steps</td>" in stored.page("Input", 0)
    assert stored.body("Output", 0) is None


class Bold:
    def to_html(self, value: Any) -> str:
        return f"<b>bold {value}</b>"


@renderer("quarterdeck.no_such.Type")
def italic(value: Any) -> str:
    return f"<i>italic {value}</i>"


def test_annotated_renderers_are_asked(folder: Path) -> None:
    def train(a: Annotated[int, Bold()], b: Annotated[int, "unit", italic], c: int) -> Annotated[int, Bold()]:
        return a

    stored = run_with_decks(folder, train, a=1, b=2, c=3)

    assert "<b>bold 1</b>" in stored.page("Input", 0)
    assert "<i>italic 2</i>" in stored.page("Input", 0)
    assert "<b>bold 1</b>" in stored.page("Output", 0)


def test_annotations_that_cannot_be_had_here_cost_nothing(folder: Path) -> None:
    def train(a: NowhereDefined) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert "1234" in run_with_decks(folder, train, a=1234).page("Input", 0)


def test_large_values_are_bounded(folder: Path) -> None:
    big = {f"key {number}": "x" * 1_000 for number in range(100_000)}
    stored = run_with_decks(folder, lambda **kwargs: list(kwargs.values()), a=big, b="y" * 10_000_000)

    assert sum(head.size_bytes for head in stored.heads() if head.name in ("Input", "Output")) < 1_000_000


def test_a_function_s_own_exception_passes_and_its_input_stays(folder: Path) -> None:
    def fails(x: int) -> None:
        raise LookupError(str(x))

    with pytest.raises(LookupError, match="5"):
        run_with_decks(folder, fails, x=5)
    assert StoredDecks(folder).names(0) == ["Input"]


def test_a_repr_that_fails_costs_nothing(folder: Path) -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    assert "whose repr failed" in run_with_decks(folder, lambda x: 1, x=Odd()).page("Input", 0)


def test_a_user_s_deck_named_like_ours_is_theirs(folder: Path) -> None:
    stored = run_with_decks(folder, lambda x: qd.Deck("Output", "mine").html, x=1)

    assert "mine" in stored.page("Output", 0)
    assert [head.automatic for head in stored.heads() if head.name == "Output"] == [False]


def test_automatic_decks_are_not_announced(folder: Path) -> None:
    told: list[int] = []
    context = Context(run_id="run", run_dir=folder, deck_fields=FIELDS, announce=lambda: told.append(1))
    with working_for(context):
        called(lambda x: x, {"x": 1}, context)

    assert not told


def test_source_and_environment_are_those_of_the_run(folder: Path) -> None:
    with working_for(Context(run_id="run", run_dir=folder)) as context:
        keep_packages(context)
    stored = StoredDecks(folder)

    assert "train(lr=0.1)" in stored.page("Source Code")
    environment = stored.page("Environment")
    for said in ("abc123", "gloo", "torch", "packages"):
        assert said in environment


def test_packages_are_those_that_are_installed() -> None:
    from importlib.metadata import version

    found = installed()
    for name in ("torch", "numpy", "msgspec"):
        assert found[name] == version(name)


# ---- timeline


def test_phases_are_what_the_events_tell(folder: Path) -> None:
    found = read_phases(folder)

    assert [(p.rank, p.name, (p.end_unix_ns - p.start_unix_ns) / S) for p in found.phases] == [
        (0, "running", 8.0),
        (0, "start-up", 2.0),
        (1, "running", 6.0),
        (1, "start-up", 2.0),
    ]
    assert not found.live


def test_spans_are_phases(folder: Path) -> None:
    span(folder, 0, "start-up", 0, 1)
    span(folder, 0, "train", 2, None)
    span(folder, 0, "train", 2, 5)
    span(folder, 0, "eval", 3, 4, depth=1)
    span(folder, 0, "never ended", 6, None)
    found = {p.name: p for p in read_phases(folder).phases if p.rank == 0}

    assert found["start-up"].end_unix_ns == START + S
    assert not found["train"].open
    assert found["train"].end_unix_ns == START + 5 * S
    assert found["eval"].depth == 1
    assert found["never ended"].open
    assert found["never ended"].end_unix_ns == START + 10 * S


def test_what_was_before_the_run_is_not_on_its_axis(folder: Path) -> None:
    span(folder, 0, "start-up", -3600, -3590)
    span(folder, 0, "first step", -1, 3)
    found = read_phases(folder)

    assert found.start_unix_ns == START
    assert "start-up" not in [p.name for p in found.phases if p.rank == 0]


def test_the_timeline_has_a_row_and_sums_for_each_rank(folder: Path) -> None:
    span(folder, 0, HOSTILE, 3, 4.5)
    span(folder, 1, "wait", 3, 5)
    html = StoredDecks(folder).page("Timeline")

    assert html.count("<svg data-rank=") == 2
    assert "1.5 s" in html
    assert 'class="pw"' in html
    assert "<script>alert" not in html


def test_a_span_of_every_step_is_not_a_bar_of_every_step(folder: Path) -> None:
    for step in range(10_000):
        span(folder, 0, "step", 2 + step * 0.0008, 2 + step * 0.0008 + 0.0007)
    html = StoredDecks(folder).page("Timeline")

    assert len(html) < 40_000
    assert "7 s" in html


def test_torn_and_strange_lines_are_passed_over(folder: Path) -> None:
    span(folder, 0, "train", 2, 5)
    with (folder / "spans-attempt-0-rank-0.jsonl").open("a") as file:
        file.write('[]\n{"name": 3}\n{"name": "x", "start_unix_ns": "y"}\n{"name": "torn", "start_un')
    (folder / "events.jsonl").open("ab").write(b'{"event": "state", "ti')

    assert {p.name for p in read_phases(folder).phases} == {"running", "start-up", "train"}


def test_a_run_that_goes_on_ends_now(tmp_path: Path) -> None:
    write_events(tmp_path, StateEvent(START, "starting"), GroupEvent(START, 0, 1, "gloo", "cpu", ["cpu"]))
    write_events(tmp_path, StateEvent(START + S, "running"))
    found = read_phases(tmp_path)

    assert found.live
    assert found.phases[0].open
    assert "The run goes on" in StoredDecks(tmp_path).page("Timeline")


def test_attempts_share_one_axis(tmp_path: Path) -> None:
    write_events(
        tmp_path,
        StateEvent(START, "starting"),
        GroupEvent(START, 0, 1, "gloo", "cpu", ["cpu"]),
        StateEvent(START + S, "running"),
        StateEvent(START + 4 * S, "restarting", attempt=1),
        StateEvent(START + 5 * S, "running", attempt=1),
        GroupEvent(START + 5 * S, 1, 1, "gloo", "cpu", ["cpu"]),
        StateEvent(START + 9 * S, "succeeded", attempt=1),
    )
    found = read_phases(tmp_path)

    assert found.attempts == {1: START + 4 * S}
    assert [(p.end_unix_ns - p.start_unix_ns) / S for p in found.phases if p.name == "running"] == [3.0, 4.0]


@pytest.fixture(autouse=True)
def only_built_in() -> Iterator[None]:
    kept = [dict(held) for held in (renderers._by_type, renderers._by_name)]
    yield
    renderers._by_type, renderers._by_name = kept  # type: ignore[assignment]
