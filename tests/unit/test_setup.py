"""What development installs and what is checked before a commit do not come apart from what CI does."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def pins(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_pins_are_names_and_versions_and_nothing_else():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert [line for line in pinned if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*==[0-9a-z.!]+", line)] == []
    assert pinned == sorted(pinned, key=lambda line: line.split("==")[0])
    assert "://" not in "\n".join(lines)


def test_what_is_pinned_by_decision_is_pinned_so():
    assert pins("constraints.in").items() <= pins("constraints.txt").items()


def test_every_requirement_is_pinned_to_a_version_that_it_allows():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pinned = pins("constraints.txt")
    for text in (
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["dev"],
    ):
        wanted = Requirement(text)
        assert wanted.name in pinned, f"{wanted.name} is not pinned: make constraints"
        assert pinned[wanted.name] in wanted.specifier, f"{wanted} is pinned otherwise: make constraints"


def test_hooks_are_the_parts_of_what_ci_checks():
    hooks = re.findall(r"entry: (.*)", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    check = re.search(r"^check: ([^#]*) ##.*\n(.*)\n", MAKEFILE, re.MULTILINE)
    assert check is not None
    assert hooks == [f"make --no-print-directory {part}" for part in check[1].split()]
    assert check[2] == "", "`make check` does something of its own, which the hooks do not"
    assert "step check\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
