"""Decks: a rank's reports. Pure; used by user code, in any process."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quarterdeck.context import LOCAL, Context, current
from quarterdeck.decks import writer
from quarterdeck.decks.file import LIMIT_BYTES, Body, Label
from quarterdeck.decks.registry import renderers
from quarterdeck.public import public

if TYPE_CHECKING:
    from quarterdeck.decks.page import DeckPage

_lock = threading.RLock()
"""For all decks: what it guards takes microseconds."""

_OWN = ("name", "_parts", "_size_bytes", "_cut", "_generation", "_writer", "_joined", "_live")


@public
class Deck:
    """A named report of this rank, as flytekit's `Deck`: `qd.Deck("confusion").append(figure)`.

    The same name is the same deck: `Deck("loss")` twice gives one object, whose content goes on growing. What
    is appended is in the run's folder at once (of many changes within 0.1 s, the last one in time), so it can
    be looked at while the run goes on, and after it, however it ended: `run.decks[rank][name]`. The decks of
    every rank come back with its result, too (`run.results[rank].decks`). One that a cell finds in a variable
    and adds to becomes that cell's, with all that it holds.

    HTML that a deck is given is shown in a frame of its own that can reach neither the notebook nor the
    network. A deck holds 10 MB; what is appended beyond that is left out, and counted in its page. In a
    forked child (a DataLoader's worker) a deck can be filled, but nobody sees it.

    Args:
        name: what it is called, and found by.
        html: the first part, if there is one: HTML or anything else that `append` takes.
        auto_add_to_deck: False gives one that only the caller has: not in the run's folder, not in
            `qd.current().decks`.

    Raises:
        TypeError: the name is not a str.
    """

    name: str

    def __new__(cls, name: str, html: Any = "", auto_add_to_deck: bool = True) -> Deck:
        if not isinstance(name, str):
            raise TypeError(f"a deck's name is a str, not {type(name).__name__}")
        if not auto_add_to_deck:
            return super().__new__(cls)._begin(name, None)
        context = current()
        with _lock:
            made = next((deck for deck in context.decks if deck.name == name), None)
            if made is None:
                made = super().__new__(cls)._begin(name, context)
                context.decks.append(made)
        return made

    def __init__(self, name: str, html: Any = "", auto_add_to_deck: bool = True) -> None:
        if not (isinstance(html, str) and not html):
            self.append(html)

    def _begin(self, name: str, context: Context | None) -> Deck:
        self.name = name
        self._parts: list[str] = []
        self._size_bytes = self._cut = self._generation = 0
        self._joined: str | None = None
        self._writer: writer.Writer | None = None
        self._live = False
        if context is not None:
            self._attach(context)
        return self

    def _attach(self, context: Context) -> None:
        """From here on the run's folder follows what it holds. Not for a forked child's."""
        if context.pid == os.getpid():
            self._live = context.run_id != LOCAL
            self._writer = writer.Writer(context, Label(self.name, time.time_ns(), False), self._snapshot)

    # ---- content

    @property
    def html(self) -> str:
        """All parts, in order, a newline between them."""
        with _lock:
            if self._joined is None:
                self._joined = "\n".join(self._parts)
            return self._joined

    def append(self, value: Any, renderer: Any = None) -> Deck:
        """Add something at the end: HTML as a str, or any object.

        Tables, figures, images, tensors, modules, `qd.Markdown(text)` and many more have a form of their own,
        and `qd.renderer` adds others. What has none is shown as its repr.

        Args:
            value: what is added.
            renderer: makes the HTML of this value alone: a function, or an object with `to_html`. A renderer
                that fails raises nothing here: the deck says so.

        Returns:
            This deck.

        Raises:
            TypeError: `renderer` is neither.
        """
        self._add(renderers.render(value, renderer))
        return self._changed()

    def replace(self, value: Any, renderer: Any = None) -> Deck:
        """Put something in the place of all that the deck held. Otherwise as `append`.

        Returns:
            This deck.

        Raises:
            TypeError: `renderer` is neither a function nor an object with `to_html`.
        """
        html = renderers.render(value, renderer)
        with _lock:
            self._empty()
            self._add(html)
        return self._changed()

    def clear(self) -> Deck:
        """Take everything out, and count what is appended from 0 again.

        Returns:
            This deck.
        """
        with _lock:
            self._empty()
        return self._changed()

    def _add(self, html: str) -> None:
        if not html:
            return
        size_bytes = len(html) if html.isascii() else len(html.encode("utf-8", "replace"))
        with _lock:
            if self._cut or self._size_bytes + size_bytes > LIMIT_BYTES:
                self._cut += 1
            else:
                self._parts.append(html)
                self._size_bytes += size_bytes
                self._joined = None

    def _empty(self) -> None:
        self._parts = []
        self._size_bytes = self._cut = 0
        self._generation += 1
        self._joined = None

    def _changed(self) -> Deck:
        """Not with the lock held: the thread that writes takes its own first."""
        if self._writer is not None:
            self._follow()
            self._writer.changed()
        return self

    def _follow(self) -> None:
        """Where the run that it was made in is over, into the one that goes on, unless that has its own."""
        context = current()
        if self._writer is None or self._writer.is_of(context) or context.run_id == LOCAL:
            return
        with _lock:
            if context.pid != os.getpid() or any(deck.name == self.name for deck in context.decks):
                return
            context.decks.append(self)
        self._attach(context)

    def _snapshot(self) -> tuple[int, Body]:
        with _lock:
            return self._generation, Body(tuple(self._parts), self._cut)

    # ---- kept, shown

    @staticmethod
    def publish() -> None:
        """Write all decks of the context out now. They are live anyway: this is for one that was put into
        `qd.current().decks` by hand, and for code that was written for Flyte.
        """
        context = current()
        for deck in context.decks:
            if deck._writer is None:
                deck._attach(context)
            if deck._writer is not None:
                deck._writer.write()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as a page that needs nothing else: to be sent, or opened by itself.

        Returns:
            The path.

        Raises:
            OSError: the file cannot be written.
        """
        return self._page().save(path)

    def _page(self) -> DeckPage:
        from quarterdeck.decks.page import DeckPage, page

        return DeckPage(self.name, page(self.name, self._snapshot()[1]))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """Only the name of a run's deck, for `qd.Deck("x").append(y)` as a cell's last line: the run's view
        shows it, and the notebook need not hold it, once for each rank.
        """
        if self._live:
            return {"text/plain": repr(self)}
        return {"text/plain": repr(self), "text/html": self._page()._repr_html_()}

    def __repr__(self) -> str:
        return f"Deck({self.name!r}, {len(self.html):,} characters)"

    # ---- on its way with a result: no file follows it there

    def __getnewargs__(self) -> tuple[Any, ...]:
        return self.name, "", False

    def __getstate__(self) -> dict[str, Any]:
        others = {name: value for name, value in vars(self).items() if name not in _OWN}
        return {**others, "name": self.name, "parts": self._snapshot()[1].parts, "cut": self._cut}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._begin(state.pop("name"), None)
        for part in state.pop("parts"):
            self._add(part)
        self._cut = state.pop("cut")
        vars(self).update(state)


def detached(name: str, body: Body) -> Deck:
    """One that holds what was read from a run's folder."""
    deck = Deck(name, auto_add_to_deck=False)
    for part in body.parts:
        deck._add(part)
    deck._cut = body.cut
    return deck


def _in_child() -> None:
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_in_child)
