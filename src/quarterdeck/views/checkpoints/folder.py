"""The checkpoints of one folder, read again only where something changed. Used by `index`."""

from __future__ import annotations

import os
from pathlib import Path

from quarterdeck.checkpointing.checkpoint import Checkpoint
from quarterdeck.checkpointing.storage import is_url, place_of
from quarterdeck.store.layout import CHECKPOINTS
from quarterdeck.store.reader import NotARun, StoredRun
from quarterdeck.views.checkpoints import ranking
from quarterdeck.views.checkpoints.location import Place
from quarterdeck.views.checkpoints.messages import Group, Row
from quarterdeck.views.run import faults
from quarterdeck.views.run.runs_html import called

_Sign = tuple[int, int]
"""Time of the last change, and which file it is."""


class CheckpointFolder:
    """`checkpoints`, the highest step first, and `run`, as of the last `refresh`."""

    def __init__(self, place: Place, id: str) -> None:
        self.place = place
        self.id = id
        self.checkpoints: list[Checkpoint] = []
        self.run: StoredRun | None = None
        self.needs: dict[str, list[str]] = {}
        """By name of a checkpoint, as far as it was looked into."""
        self._folder = place_of(place.path)
        self._remote = is_url(place.path)
        self._sign: _Sign | None = None
        self._known: dict[str, tuple[_Sign | None, Checkpoint]] = {}
        self._words = ""

    def refresh(self, always: bool = False) -> bool:
        """Whether something is another than it was. Without that it costs two calls of stat; of a URL only
        where it is asked for `always`.
        """
        changed = self._refresh_run()
        if self._remote and self._known and not always:
            return changed
        sign = None if self._remote else _sign(self.place.path)
        if not always and sign is not None and sign == self._sign:
            return changed
        self._sign = sign
        return self._read() or changed

    def expire(self) -> None:
        """Something in it was changed from here: the next `refresh` reads it."""
        self._sign = None

    def group(self, ids: dict[str, str]) -> Group:
        """`ids`: by name of a checkpoint."""
        best = ranking.best(self.checkpoints)
        return Group(
            id=self.id,
            name=self._name,
            words=self._words,
            path=self.place.path,
            created_ms=self.created_unix_ns / 1e6,
            live=self.run is not None and not self.run.terminal,
            rows=[self._row(one, ids[one.name], best.get(one.name, [])) for one in self.checkpoints],
        )

    @property
    def _name(self) -> str:
        if self.run is not None:
            return called(self.run.header)
        folder = Path(self.place.path)
        return folder.parent.name if folder.name == CHECKPOINTS else folder.name

    @property
    def created_unix_ns(self) -> int:
        """When the run was created; for a folder, when its newest checkpoint was saved."""
        if self.run is not None:
            return self.run.created_unix_ns
        return max((one.created_unix_ns for one in self.checkpoints), default=0)

    # ---- reading

    def _refresh_run(self) -> bool:
        folder = self.place.run_folder
        if folder is None or (self.run is not None and self.run.terminal):
            return False
        try:
            if self.run is None:
                self.run = StoredRun.read(folder)
            else:
                self.run.refresh()
        except NotARun:
            return False
        before, self._words = self._words, faults.sentence(self.run, None) or self.run.state
        return before != self._words

    def _read(self) -> bool:
        names = [name for name in self._folder.names() if not self.place.only or name == self.place.only]
        before, self._known = self._known, {}
        for name in names:
            sign = None if self._remote else _sign(f"{self.place.path}/{name}")
            old = before.get(name)
            same = old is not None and sign is not None and old[0] == sign
            self._known[name] = old if old is not None and same else (sign, Checkpoint(self._folder, name))
        found = [checkpoint for _, checkpoint in self._known.values()]
        self.checkpoints = sorted(found, key=lambda one: (one.step, one.name), reverse=True)
        changed = {name for name, known in self._known.items() if before.get(name) != known}
        for name in changed | before.keys() - self._known.keys():
            self.needs.pop(name, None)
        return bool(changed) or before.keys() != self._known.keys()

    def _row(self, one: Checkpoint, id: str, best: list[str]) -> Row:
        return Row(
            id=id,
            step=one.step,
            name=one.name,
            epoch=one.epoch,
            created_ms=one.created_unix_ns / 1e6,
            size_bytes=one.size_bytes,
            metrics=one.manifest.metrics,
            problem=one.problem,
            needs=self.needs.get(one.name, []),
            pinned=one.valid and one.pinned,
            best=best,
        )


def _sign(path: str) -> _Sign | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
