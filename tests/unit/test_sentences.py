"""The page of texts that users may meet has them all, and nothing that nobody reads."""

import ast
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GENERATOR = runpy.run_path(str(ROOT / "docs" / "make_sentences.py"))
MAKERS_WORDS = re.compile(
    r"\b(zygote|coordinator|incarnation|keeper|nursery|turn|payload|memfd|guard pipe|revive|storage place"
    r"|(closed|isolated) run|transfer state|travel id|travelled object)s?\b",
    re.IGNORECASE,
)
SENTENCES = [
    (f"{folder}/{module}", text) for folder, module, texts in GENERATOR["modules"]() for text in texts
]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ('raise ValueError("There is no run.")', "There is no run."),
        ("tell(f\"rank {worker.rank} {how()} in {frame['file']}\")", "rank {rank} {how} in {file}"),
        ("x = f\"there {'are' if n > 1 else 'is'} {n}\"", "there {are|is} {n}"),
        ("x = f\"one of {', '.join(map(str, known))}\"", "one of {known}"),
        ('x = "<p>It could not be shown.</p>"', "It could not be shown."),
    ],
)
def test_a_text_of_python_is_found(source: str, text: str) -> None:
    tree = ast.parse(source)
    assert text in map(GENERATOR["readable"], GENERATOR["python_texts"](tree))


@pytest.mark.parametrize(
    "source",
    ['"""A docstring of words."""', 'x = "color:red;margin:0 auto"', 'x = "one_word"', 'x = "<b>{name}</b>"'],
)
def test_what_nobody_reads_is_left_out(source: str) -> None:
    tree = ast.parse(source)
    assert not any(map(GENERATOR["readable"], GENERATOR["python_texts"](tree)))


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ('el("b", "Stop this run"); // a comment of words', ["Stop this run"]),
        ("`${size(n)} of ${run.state}`", ["{size} of {state}"]),
        ('`for ${many ? "them all" : "it"}`', ["for {them all|it}", "them all"]),
        ("`a rank${deep ? ` of ${n} ranks` : ''}`", ["a rank{deep}", "of {n} ranks"]),
        ('"qd-btn qd-btn-small"', []),
    ],
)
def test_texts_of_typescript(source: str, texts: list[str]) -> None:
    found = map(GENERATOR["readable"], GENERATOR["typescript_texts"](source))
    assert [text for text in found if text] == texts


def test_it_has_what_each_kind_of_module_says() -> None:
    assert len(SENTENCES) > 800
    modules = {module.split("/")[1] if "/" in module else module for module, _ in SENTENCES}
    assert {"kernel", "coordinator", "agent", "worker", "checkpointing", "present", "packages"} <= modules


def test_users_do_not_meet_the_words_of_those_who_made_it() -> None:
    assert [(module, text) for module, text in SENTENCES if MAKERS_WORDS.search(text)] == []


def test_nothing_is_said_to_be_none() -> None:
    """It "is not a directory": "is none" is not how it is said in English."""
    odd = re.compile(r"(\}|\b(it|this|that)) (is|are) (none|no (?!longer)\w+)\b")
    assert [(module, text) for module, text in SENTENCES if odd.search(text)] == []


def test_no_docstring_is_a_fragment_that_begins_with_of() -> None:
    fragments = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for folder in ("src", "tests", "benchmarks", "labextension")
        for path in (ROOT / folder).rglob("*.py")
        if "node_modules" not in path.parts
        for line in path.read_text().splitlines()
        if re.match(r'\s*"""Of [a-z]', line)
    ]
    assert fragments == []
