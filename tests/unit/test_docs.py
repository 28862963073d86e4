"""What the pages about the code name is there: paths, and modules or what is in them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src"
PACKAGE = SOURCES / "quarterdeck"
PAGES = ("architecture.md", "glossary.md")

_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_PATH = re.compile(r"[\w.-]+(/[\w.-]+)+/?|[\w.-]+/|[\w-]+\.(py|md|toml|ts|ipynb)")
_MODULE = re.compile(r"quarterdeck(\.\w+)+")


def named(page: str) -> list[str]:
    """What stands in backticks, outside of blocks of text."""
    return re.findall(r"`([^`\n]+)`", _BLOCK.sub("", (ROOT / "docs" / page).read_text(encoding="utf-8")))


def is_there(path: str) -> bool:
    """From the root of the repository, or below the package."""
    return (ROOT / path).exists() or (PACKAGE / path).exists()


def is_found(name: str) -> bool:
    """A module, a package, or a name in one of these."""
    place = SOURCES.joinpath(*name.split("."))
    if place.is_dir() or place.with_suffix(".py").is_file():
        return True
    files = (place.parent.with_suffix(".py"), place.parent / "__init__.py")
    texts = [file.read_text(encoding="utf-8") for file in files if file.is_file()]
    return any(re.search(rf"\b{place.name}\b", text) for text in texts)


@pytest.mark.parametrize("page", PAGES)
def test_paths_on_the_page_exist(page: str) -> None:
    paths = {name for name in named(page) if _PATH.fullmatch(name)}
    assert [path for path in sorted(paths) if not is_there(path)] == []


@pytest.mark.parametrize("page", PAGES)
def test_modules_on_the_page_exist(page: str) -> None:
    modules = {name for name in named(page) if _MODULE.fullmatch(name)}
    assert [name for name in sorted(modules) if not is_found(name)] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_of_the_page_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


def test_the_pages_name_what_they_are_about() -> None:
    """Else the checks above would hold for pages in which they recognise nothing."""
    assert len({name for name in named("architecture.md") if _PATH.fullmatch(name)}) > 100
    assert len({name for name in named("glossary.md") if _MODULE.fullmatch(name)}) > 30
