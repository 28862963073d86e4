"""One table of options: every place where they are written takes the same ones and says the same of them."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest

from quarterdeck import ConfigError, Session, UsageError, distributed
from quarterdeck.kernel.magics.parsers import asked_options, distributed_parser
from quarterdeck.kernel.options import TABLE, Options, Place, readme_rows

README = Path(__file__).resolve().parents[3] / "README.md"
ALIKE = {"restart": (None, "recoverable"), "env": ((), None), "ranks": (None, None)}
"""Defaults that a signature writes otherwise than the table keeps them."""


def words(place: Place) -> dict[str, Any]:
    return {one.word: one.default for one in TABLE if place in one.places}


def test_each_field_is_an_option_and_each_option_a_field() -> None:
    assert sorted(one.word for one in TABLE) == sorted(one.name for one in dataclasses.fields(Options))


@pytest.mark.parametrize(
    ("function", "place"), [(distributed, "distributed()"), (Session.run, "Session.run()")]
)
def test_a_signature_has_the_options_of_its_place_with_their_defaults(function: Any, place: Place) -> None:
    parameters = inspect.signature(function).parameters.values()
    keywords = {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}
    known = words(place)
    assert keywords.keys() == known.keys()
    assert {
        word: (default, keywords[word])
        for word, default in known.items()
        if keywords[word] != default and ALIKE.get(word) != (default, keywords[word])
    } == {}


def test_the_readme_lists_the_options_as_the_table_has_them() -> None:
    rows = "\n".join(readme_rows())
    assert rows in README.read_text(), f"The README's table should be\n{rows}"


def test_a_line_without_options_is_what_runs_by_itself() -> None:
    assert asked_options(distributed_parser().parse_line("")) == Options()


def test_a_line_and_keywords_come_to_the_same() -> None:
    line = "--timeout 90 --seed 3 --name x --ranks 0,2-3 --no-keep-frames --setup"
    written = Options().changed(
        "Session.run()", timeout_s=90, seed=3, name="x", ranks=[0, 2, 3], keep_frames=False, setup=True
    )
    assert asked_options(distributed_parser().parse_line(line)) == written


def test_variables_may_be_repeated() -> None:
    asked = asked_options(distributed_parser().parse_line("--env A=1 --env B=x=y"))
    assert asked.spec.environ == {"A": "1", "B": "x=y"}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("--timeout x", "'x' is not a duration: write seconds, as in 90 or 2.5"),
        ("--timeout 0", "'0' is not a duration"),
        ("--timeout nan", "'nan' is not a duration"),
        ("-n 0", "'0' is not a number of ranks: write 1 or more, auto, gpu or cpu"),
        ("-n all", "'all' is not a number of ranks"),
        ("--ranks 3-1", "'3-1' is not a list of ranks: write them as 0 or 0,2-3"),
        ("--env A", "'A' is not a variable: write NAME=VALUE"),
        ("--as ''", "'' is not a name"),
        ("--session 'a b'", "'a b' is not a name for a session"),
        ("--seed x", "'x' is not a whole number"),
        ("--max-restarts -1", "'-1' is not a number of restarts: write 0 or more"),
        ("--backend mpi", "'mpi'"),
        ("--time-out 3", "Did you mean `--timeout`?"),
    ],
)
def test_a_wrong_line_says_what_to_write(line: str, text: str) -> None:
    with pytest.raises(UsageError, match="%%distributed") as raised:
        distributed_parser().parse_line(line)
    assert text in str(raised.value)


@pytest.mark.parametrize(
    ("place", "word", "value", "text"),
    [
        ("distributed()", "timeout_s", -1, "timeout_s is -1, which is not a duration."),
        ("distributed()", "collective_timeout_s", "soon", "'soon', which is not a duration."),
        ("distributed()", "backend", "mpi", 'Write "gloo" or "nccl".'),
        ("distributed()", "restart", "sometimes", 'Write "recoverable", "always" or "never".'),
        ("distributed()", "resume", 3, 'Write "latest", a run or its name, or a path.'),
        ("distributed()", "timeout", 3, "Did you mean timeout_s?"),
        ("distributed()", "ranks", [0], "there is no option 'ranks'"),
        ("Session.run()", "timeout_s", 0, "which is not a duration."),
        ("Session()", "nproc_per_node", 0, "which is not a number of ranks."),
        ("Session()", "nproc_per_node", True, "which is not a number of ranks."),
        ("Session()", "start_method", "forkserver", 'Write "fork" or "spawn".'),
        ("Session()", "session", "a b", "is 'a b', which is not a name for a session.\nWrite letters, "),
    ],
)
def test_a_wrong_keyword_says_what_to_write(place: Place, word: str, value: Any, text: str) -> None:
    with pytest.raises(ConfigError if place == "distributed()" else UsageError) as raised:
        Options().changed(place, **{word: value})
    assert str(raised.value).startswith(f"{place}: ")
    assert text in str(raised.value)
