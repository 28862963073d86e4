"""What the small files of a run tell, read again only where one of them changed. Used by `feed`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quarterdeck.decks.reader import StoredDecks
from quarterdeck.metrics.history import History
from quarterdeck.metrics.progress import read_progress
from quarterdeck.metrics.step_timing import Paces
from quarterdeck.store.layout import HEADER
from quarterdeck.store.reader import NotARun, StoredRun
from quarterdeck.store.vitals import read_vitals
from quarterdeck.views.run.snapshot import RunFacts

Safely = Callable[[str, Callable[[], Any], Any], Any]
"""What it is about, how it is read, what stands for it if that fails."""

_Seen = dict[str, tuple[int, int]]
"""By file: size and time of its last change."""


class RunFiles:
    """`run` and `facts`, as of the last `refresh`."""

    def __init__(self, history: History, safely: Safely) -> None:
        folder = history.own.folder
        self.run: StoredRun | None = None
        self.gone = False
        """Somebody has removed the run's folder."""
        self.facts = RunFacts()
        self._folder = folder
        self._safely = safely
        self._paces = Paces(history)
        self.decks = StoredDecks(folder)
        self._seen: _Seen = {}
        self._again = True

    def refresh(self) -> bool:
        """True if something may be another than it was. Without that it costs a few calls of stat."""
        before = (self.run.state, self.run.attempt) if self.run is not None else None
        self._safely("record", self._refresh_run, None)
        run = self.run
        heads = self._safely("decks", self.decks.heads, [])
        seen = _look(self._folder)
        self.gone = run is not None and not seen and _is_gone(self._folder)
        changed = (
            self._again
            or seen != self._seen
            or heads != self.facts.decks
            or before != ((run.state, run.attempt) if run is not None else None)
        )
        # Once more after each change: a file's time is a few milliseconds coarse.
        self._again, self._seen = seen != self._seen, seen
        if changed:
            self._read(run.attempt if run is not None else 0)
            self.facts.decks = heads
        return changed

    def _refresh_run(self) -> None:
        if self.run is not None:
            if not self.run.terminal:
                self.run.refresh()
            return
        try:
            self.run = StoredRun.read(self._folder)
        except NotARun:
            if (self._folder / HEADER).exists():
                raise

    def _read(self, attempt: int) -> None:
        facts, folder = self.facts, self._folder
        facts.vitals = self._safely("vitals", lambda: read_vitals(folder), {})
        facts.paces = self._safely("pace", lambda: self._paces.refresh(attempt), {})
        facts.steps_per_s = self._paces.steps_per_s
        facts.bars = self._safely("progress", lambda: read_progress(folder, attempt), {})


def _is_gone(folder: Path) -> bool:
    """Not where it only cannot be read at the moment."""
    try:
        os.stat(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _look(folder: Path) -> _Seen:
    found: _Seen = {}
    try:
        for entry in os.scandir(folder):
            status = entry.stat(follow_symlinks=False)
            found[entry.name] = status.st_size, status.st_mtime_ns
    except OSError:
        pass
    return found
