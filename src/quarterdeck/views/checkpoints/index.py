"""All checkpoints that a browser shows, by id. Used by `feed` and by the sequence that users hold."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

from quarterdeck.checkpointing.checkpoint import Checkpoint
from quarterdeck.views.checkpoints import trust
from quarterdeck.views.checkpoints.folder import CheckpointFolder
from quarterdeck.views.checkpoints.location import Location, Place
from quarterdeck.views.checkpoints.messages import Group


class CheckpointIndex:
    """As of the last `refresh`. Not thread-safe."""

    def __init__(self, scope: Location) -> None:
        self.where = scope.where
        self._scope = scope
        self._albums: dict[Place, CheckpointFolder] = {}
        self._by_id: dict[str, tuple[CheckpointFolder, Checkpoint]] = {}
        self._numbers = itertools.count()
        self._to_look_into: list[str] = []

    def refresh(self, always: bool = False) -> tuple[list[CheckpointFolder], list[str]]:
        """What is new or changed, and the ids of what is gone. `always`: whatever the folders' times say."""
        places = self._scope.places()
        gone = [self._albums.pop(place).id for place in self._albums.keys() - set(places)]
        changed = []
        for place in places:
            album = self._albums.get(place)
            if album is None:
                album = self._albums[place] = CheckpointFolder(place, f"g{next(self._numbers)}")
            if album.refresh(always):
                changed.append(album)
        if changed or gone:
            self._index()
        return changed, gone

    @property
    def all(self) -> list[CheckpointFolder]:
        """Also the empty ones."""
        return list(self._albums.values())

    @property
    def albums(self) -> list[CheckpointFolder]:
        """Those that have something, the newest first."""
        some = [album for album in self._albums.values() if album.checkpoints]
        return sorted(some, key=lambda album: (album.created_unix_ns, album.place.path), reverse=True)

    def get(self, id: str) -> tuple[CheckpointFolder, Checkpoint]:
        """LookupError, with a sentence, for what is not listed."""
        try:
            return self._by_id[id]
        except KeyError:
            raise LookupError("That checkpoint is no longer there.") from None

    def group(self, album: CheckpointFolder) -> Group:
        return album.group({one.name: _id(album, one) for one in album.checkpoints})

    def look_into_some(self, limit_s: float) -> list[CheckpointFolder]:
        """Go on looking for pickles that would run something, for so long; gives the albums in which there
        are.
        """
        end = time.monotonic() + limit_s
        found: dict[str, CheckpointFolder] = {}
        while self._to_look_into and time.monotonic() < end:
            album, checkpoint = self._by_id[self._to_look_into.pop()]
            if trust_of(album, checkpoint):
                found[album.id] = album
        return list(found.values())

    def _index(self) -> None:
        self._by_id = {_id(album, one): (album, one) for album, one in self._pairs()}
        self._to_look_into = [
            id for id, (album, one) in self._by_id.items() if one.valid and one.name not in album.needs
        ]

    def _pairs(self) -> Iterator[tuple[CheckpointFolder, Checkpoint]]:
        for album in self._albums.values():
            for checkpoint in album.checkpoints:
                yield album, checkpoint


def trust_of(album: CheckpointFolder, checkpoint: Checkpoint) -> list[str]:
    """What loading it would run; looked for once."""
    if checkpoint.name not in album.needs:
        album.needs[checkpoint.name] = trust.needs(checkpoint)
    return album.needs[checkpoint.name]


def _id(album: CheckpointFolder, checkpoint: Checkpoint) -> str:
    return f"{album.id}/{checkpoint.name}"
