"""Dicts, lists, tuples and sets: a tree that unfolds. Bounded in depth, in breadth and in all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from quarterdeck.decks.render.html import brief, escaped, fold

DEPTH = 6
BREADTH = 100
NODES = 2_000
_OPEN = 12
"""What has no more items is unfolded, at the top."""


def nested(value: Any) -> str:
    return f'<div class="qd-tree">{_Tree().node("", value, 0)}</div>'


class _Tree:
    def __init__(self) -> None:
        self.left = NODES
        self.above: set[int] = set()

    def node(self, label: str, value: Any, depth: int) -> str:
        self.left -= 1
        if not isinstance(value, (dict, list, tuple, set, frozenset)) or not value:
            return f"<div>{label}<code>{escaped(brief(value))}</code></div>"
        words = f"{label}<span>{type(value).__name__}, {len(value):,} item{'s' * (len(value) != 1)}</span>"
        if depth >= DEPTH or id(value) in self.above or self.left <= 0:
            return f"<div>{words} …</div>"
        self.above.add(id(value))
        body = "".join(self._items(value, depth))
        self.above.discard(id(value))
        return fold(words, body, opened=depth == 0 and len(value) <= _OPEN)

    def _items(self, value: Any, depth: int) -> Iterator[str]:
        keyed = isinstance(value, dict)
        for place, item in enumerate(value.items() if keyed else value):
            if place >= BREADTH or self.left <= 0:
                yield f"<div><span>first {place:,} of {len(value):,} items</span></div>"
                return
            key, content = item if keyed else (place, item)
            yield self.node(
                f"<b>{escaped(key if isinstance(key, str) else brief(key))}</b>", content, depth + 1
            )
