"""Pieces of HTML that renderers are made of; all text is escaped. Pure. Their looks are in `style`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from html import escape
from typing import Any

from quarterdeck.present.tables import Raw

TEXT_CHARS = 20_000
BRIEF_CHARS = 200


def escaped(text: str, limit: int = TEXT_CHARS) -> str:
    """Also what UTF-8 cannot hold, and not beyond a limit."""
    left_out = len(text) - limit
    cut = f"{text[:limit]}… ({left_out:,} more characters)" if left_out > 0 else text
    return escape(cut.encode("utf-8", "backslashreplace").decode())


def cell(value: object) -> str:
    return value if isinstance(value, Raw) else escaped(str(value), 1000)


def table(heads: Sequence[object], rows: Iterable[Sequence[object]], right: Iterable[int] = ()) -> Raw:
    """`right`: the columns of numbers."""
    numeric = set(right)

    def line(tag: str, cells: Sequence[object]) -> str:
        marked = (' class="qd-r"' if place in numeric else "" for place in range(len(cells)))
        return "".join(f"<{tag}{mark}>{cell(one)}</{tag}>" for one, mark in zip(cells, marked, strict=True))

    head = f"<thead><tr>{line('th', heads)}</tr></thead>" if heads else ""
    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return Raw(f'<div class="qd-scroll"><table>{head}<tbody>{body}</tbody></table></div>')


def card(title: str, facts: Sequence[str], body: str) -> str:
    """A block with a line above it: what it is, and its facts."""
    words = "".join(f"<span>{cell(fact)}</span>" for fact in facts if fact)
    return f'<div class="qd-card"><div class="qd-cap"><b>{cell(title)}</b>{words}</div>{body}</div>'


def note(text: str, kind: str = "") -> Raw:
    """A line beside the matter. Kinds: "", "warn", "err"."""
    return Raw(f'<p class="qd-note {kind}">{cell(text)}</p>')


def trouble(type_name: str, error: BaseException) -> str:
    """In the place of a value whose renderer failed."""
    try:
        why = f"{type(error).__name__}: {error}"
    except Exception:
        why = type(error).__name__
    return note(f"A value of type {type_name} is not shown: its renderer raised {why}", "err")


def fold(summary: str, body: str, opened: bool = False) -> Raw:
    """`summary` and `body` are HTML."""
    return Raw(f"<details{' open' if opened else ''}><summary>{summary}</summary>{body}</details>")


# ---- words


def number(value: float) -> str:
    """Four digits that matter; whole numbers as they are."""
    if abs(value) < 1e15 and value == int(value):
        return f"{int(value):,}"
    return f"{value:.4g}"


def dims(shape: Iterable[int]) -> str:
    return " × ".join(map(str, shape)) or "scalar"


def first_of(shown: int, total: int, what: str) -> str:
    """ "first 10 of 1,000 rows"; "" if all are shown."""
    return f"first {shown:,} of {total:,} {what}" if shown < total else ""


def brief(value: Any, limit: int = BRIEF_CHARS) -> str:
    """A value in a few words, as text: of an array what it is, of anything else the start of its repr."""
    text = f"<{type(value).__name__}, whose repr failed>"
    with suppress(Exception):
        text = _brief(value, limit)
    return text if len(text) <= limit + 40 else f"{text[: limit - 1]}…"


def _brief(value: Any, limit: int) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple) and dtype is not None and len(shape) > 0:
        return f"{type(value).__name__} {str(dtype).removeprefix('torch.')} {dims(shape)}"
    if isinstance(value, (str, bytes)) and len(value) > limit:
        return f"{value[: limit - 1]!r}… ({len(value):,} long)"
    return repr(value)
