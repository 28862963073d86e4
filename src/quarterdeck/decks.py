"""Decks: a rank's HTML reports, which come to the notebook with its result. Pure; used by user code."""

from __future__ import annotations

from typing import Any

from quarterdeck.context import current


class Deck:
    """A named report of this rank, as in Flyte: what is appended is HTML.

    The same name is the same deck: `Deck("loss")` twice gives one object, whose content goes on growing. The
    decks of every rank come back with its result (`run.results[rank].decks`).
    """

    name: str
    html: str

    def __new__(cls, name: str, html: str = "", auto_add_to_deck: bool = True) -> Deck:
        made = next((deck for deck in current().decks if deck.name == name and auto_add_to_deck), None)
        if made is not None:
            return made
        deck = super().__new__(cls)
        deck.name, deck.html = name, ""
        if auto_add_to_deck:
            current().decks.append(deck)
        return deck

    def __init__(self, name: str, html: str = "", auto_add_to_deck: bool = True) -> None:
        if html:
            self.append(html)

    def __getnewargs__(self) -> tuple[Any, ...]:
        return self.name, "", False

    def append(self, html: str) -> Deck:
        """Add HTML at the end. TypeError for anything but text."""
        self.html = "\n".join(filter(None, (self.html, _text(html))))
        return self

    def replace(self, html: str) -> Deck:
        """Put HTML in the place of all that the deck held."""
        self.html = _text(html)
        return self

    def clear(self) -> Deck:
        self.html = ""
        return self

    def __repr__(self) -> str:
        return f"Deck({self.name!r}, {len(self.html):,} characters)"


def _text(html: object) -> str:
    if not isinstance(html, str):
        raise TypeError(f"a deck takes HTML as a str, not {type(html).__name__}")
    return html
