"""Decks: reports of each rank, live, in the run's folder and as pages. Public names; what renderers need is
loaded when it is used. In any process.
"""

from __future__ import annotations

from quarterdeck.decks.deck import Deck
from quarterdeck.decks.registry import Renderable, renderer, renderers
from quarterdeck.decks.words import Code, Markdown

__all__ = ["Code", "Deck", "Markdown", "Renderable", "renderer", "renderers"]
