"""What differs between two sets of hyperparameters, as the checkpoint browser shows it. Runs in the kernel.

Works on their JSON (`hyperparameters.encode`), so nothing is decoded, imported or run for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

_LONGEST = 200
_DEEPEST = 100
_CLASSES = ("$dataclass", "$namedtuple")
_NAMESPACES = ("$namespace", "$argparse")
_PAIRS = ("$dict", "$ordered_dict", "$counter", "$defaultdict")
_SEQUENCES = ("$tuple", "$deque")


class Difference(NamedTuple):
    path: str
    """Such as "optimizer.betas[1]"; empty for the whole."""
    left: str | None
    """A text for people; None where there is nothing at this path."""
    right: str | None


def differences(left: Any, right: Any) -> list[Difference]:
    """Everything that is not the same in two encoded values, in the order of the left one, then of the
    right one. A list and a tuple of equal items are the same."""
    one, two = dict(_leaves(left, "")), dict(_leaves(right, ""))
    found = (Difference(path, one.get(path), two.get(path)) for path in {**one, **two})
    return [difference for difference in found if difference.left != difference.right]


def text(data: Any) -> str:
    """An encoded value in one short line."""
    try:
        words = _text(data)
    except RecursionError:
        return "…"
    return words if len(words) <= _LONGEST else f"{words[: _LONGEST - 1]}…"


def _leaves(data: Any, path: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    name = _class_name(data)
    if name:
        yield path, name
    parts = _parts(data) if depth < _DEEPEST else []
    if parts:
        for step, part in parts:
            yield from _leaves(part, f"{path}{step}".removeprefix("."), depth + 1)
    elif not name:
        yield path, text(data)


def _class_name(data: Any) -> str:
    tag = _tag(data)
    return str(data[tag]).rpartition(":")[2] if tag in _CLASSES else ""


def _parts(data: Any) -> list[tuple[str, Any]]:
    """Steps to what is inside; empty for what is shown as a whole."""
    tag = _tag(data)
    content = data.get("fields") if tag in _CLASSES else data.get(tag) if tag else data
    if isinstance(content, dict) and (not tag or tag in (*_CLASSES, *_NAMESPACES)):
        return [(_step(key), item) for key, item in content.items()]
    if isinstance(content, list) and tag in _PAIRS:
        pairs = [pair for pair in content if isinstance(pair, list) and len(pair) == 2]
        return [(_step(key) if isinstance(key, str) else f"[{text(key)}]", item) for key, item in pairs]
    if isinstance(content, list) and (not tag or tag in _SEQUENCES):
        return [(f"[{index}]", item) for index, item in enumerate(content)]
    return []


def _tag(data: Any) -> str:
    first = next(iter(data), "") if isinstance(data, dict) else ""
    return first if first.startswith("$") else ""


def _step(key: str) -> str:
    return f".{key}" if key.isidentifier() else f"[{key!r}]"


def _text(data: Any) -> str:
    tag = _tag(data)
    if not tag:
        return _plain(data)
    match tag:
        case "$enum":
            return f"{str(data[tag]).rpartition(':')[2]}.{data.get('name')}"
        case "$numpy":
            return _plain(data.get("value"))
        case "$array" | "$tensor":
            return f"{tag[1:]} {data.get('dtype')} {_plain(data.get('shape'))} {_plain(data[tag])}"
        case "$timedelta" if isinstance(data[tag], dict):
            return " ".join(f"{count} {unit}" for unit, count in data[tag].items()) or "0 seconds"
        case "$set" | "$frozenset" if isinstance(data[tag], list):
            return f"{{{', '.join(map(_text, data[tag]))}}}"
        case "$tuple" | "$deque" if isinstance(data[tag], list):
            return f"[{', '.join(map(_text, data[tag]))}]"
        case _:
            return data[tag] if isinstance(data[tag], str) else _plain(data[tag])


def _plain(data: Any) -> str:
    return repr(data) if isinstance(data, bool | str | None) else json.dumps(data)
