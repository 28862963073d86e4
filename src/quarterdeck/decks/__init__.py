"""Decks: reports of each rank, live, in the run's folder and as pages. In any process.

Public names are loaded when they are used: the kernel imports parts of this for every `%%distributed` cell.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quarterdeck.decks.deck import Deck
    from quarterdeck.decks.registry import Renderable, renderer, renderers
    from quarterdeck.decks.text import Code, Markdown

__all__ = ["Code", "Deck", "Markdown", "Renderable", "renderer", "renderers"]

_HOMES = {
    "Code": "text",
    "Deck": "deck",
    "Markdown": "text",
    "Renderable": "registry",
    "renderer": "registry",
    "renderers": "registry",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
