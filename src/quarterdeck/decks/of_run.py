"""`run.decks`: the decks that the ranks of a run have written, by rank and name. For users, in the kernel."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from quarterdeck.decks.deck import Deck, detached
from quarterdeck.decks.page import DeckPage
from quarterdeck.decks.reader import StoredDecks
from quarterdeck.public import public


@public
class NoSuchDeck(KeyError):
    """A deck that nobody has written; the text names those that there are."""

    __str__ = Exception.__str__


@public
class RankDecks(Mapping[str, Deck]):
    """One rank's decks by name, in the order they were made, "Input" and "Output" last. Raises NoSuchDeck."""

    def __init__(self, stored: StoredDecks, rank: int) -> None:
        self._stored = stored
        self._rank = rank
        self._names = stored.names(rank)

    def __getitem__(self, name: str) -> Deck:
        body = self._stored.body(name, self._rank)
        if body is None:
            raise NoSuchDeck(f"Rank {self._rank} has no deck {name!r}. {_nearest(name, self._names)}")
        return detached(name, body)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"<decks of rank {self._rank}: {', '.join(self._names) or 'none'}>"


@public
class RunDecks(Mapping[int, RankDecks]):
    """The decks of a run by rank: `run.decks[1]["confusion"]`, as of now. After a restart they are those of a
    rank's latest attempt.

    It can be asked while the run goes on, after it has failed, and for runs of other kernels. Raises
    NoSuchDeck for a rank without decks.
    """

    def __init__(self, folder: Path) -> None:
        self._stored = StoredDecks(folder)
        self._ranks = self._stored.ranks()

    def __getitem__(self, rank: int) -> RankDecks:
        if rank not in self._ranks:
            raise NoSuchDeck(f"Rank {rank} has no decks. Ranks that have: {self._ranks}.")
        return RankDecks(self._stored, rank)

    def merged(self, name: str) -> DeckPage:
        """One page with a deck of all ranks.

        Args:
            name: the deck's name, or "Timeline", "Source Code" or "Environment".

        Returns:
            The page, which shows itself in the notebook and has `save`.

        Raises:
            NoSuchDeck: no rank has a deck of that name.
        """
        names = [head.name for head in self._stored.heads()]
        if name not in names:
            raise NoSuchDeck(f"No rank has a deck {name!r}. {_nearest(name, names)}")
        return DeckPage(name, self._stored.page(name))

    def __iter__(self) -> Iterator[int]:
        return iter(self._ranks)

    def __len__(self) -> int:
        return len(self._ranks)

    def __repr__(self) -> str:
        lines = [f"rank {rank}: {', '.join(self._stored.names(rank))}" for rank in self._ranks]
        return "\n".join(lines) or "<no decks>"


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.lower(), [other.lower() for other in names], 1, 0.5)
    found = [other for other in names if other.lower() in near]
    if found:
        return f"Did you mean {found[0]!r}?"
    return f"There are: {', '.join(names)}." if names else "There are none."
