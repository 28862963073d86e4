"""`qd.runs()`: the history of runs, of this kernel and of those before it. For users; reads the run store."""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args, overload

from quarterdeck.errors import UsageError
from quarterdeck.kernel.run import Run, run_of
from quarterdeck.public import public
from quarterdeck.store.format import TERMINAL, RunState
from quarterdeck.store.paths import home, homes
from quarterdeck.store.reader import StoredRun, delete, list_runs
from quarterdeck.views.run import runs_html

_SHOWN = 20
_STATES: tuple[str, ...] = get_args(RunState)


@public
class Runs(Sequence[Run]):
    """Runs, newest first, as they were when it was made. Shows itself as a table.

    `runs[0]` is the newest; `runs["name"]` is the newest with that name or title, or the run of that id.
    Raises KeyError, which names the nearest one, if none has it, and IndexError.
    """

    def __init__(self, stored: Sequence[StoredRun], shown: int = _SHOWN, of: int = 0) -> None:
        """`of`: how many there were to choose from."""
        self._stored = list(stored)
        self._shown = shown
        self._of = of or len(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    @overload
    def __getitem__(self, which: int | str) -> Run: ...
    @overload
    def __getitem__(self, which: slice) -> Runs: ...
    def __getitem__(self, which: int | str | slice) -> Run | Runs:
        if isinstance(which, slice):
            return Runs(self._stored[which], self._shown)
        if isinstance(which, int):
            return run_of(self._stored[which])
        found = next((s for s in self._stored if which in (s.run_id, s.header.name, s.header.title)), None)
        if found is None:
            names = sorted({s.header.name or s.header.title for s in self._stored})
            near = difflib.get_close_matches(which, names, n=1, cutoff=0.5)
            raise KeyError(f"no run is called {which!r}" + (f": did you mean {near[0]!r}?" if near else ""))
        return run_of(found)

    def __iter__(self) -> Iterator[Run]:
        return map(run_of, self._stored)

    def filter(self, name: str | None = None, state: str | None = None, notebook: str | None = None) -> Runs:
        """The runs among these that fit all that is given.

        Args:
            name: the run's name, title ("train()") or id.
            state: "queued", "starting", "running", "restarting", "succeeded", "failed", "stopped" or "lost".
            notebook: the path of the notebook or script, or the end of it.

        Returns:
            Those runs, newest first.

        Raises:
            UsageError: there is no such state.
        """
        if state is not None and state not in _STATES:
            raise UsageError(f"{state!r} is not a state of a run.", f"States are {', '.join(_STATES)}.")
        chosen = [s for s in self._stored if _matches(s, name, state, notebook)]
        return Runs(chosen, self._shown, self._of)

    def prune(self, keep: int | None = None, older_than: timedelta | float | None = None) -> list[str]:
        """Delete runs that are over, except for those that `keep` or `older_than` spares.

        Args:
            keep: spare so many of these runs, the newest, those that still run counted.
            older_than: spare those that ended within this time, in seconds or as a timedelta.

        Returns:
            The ids of the deleted runs, which are no longer among these.

        Raises:
            UsageError: neither is given, or `keep` is negative.
            OSError: a folder cannot be moved.
        """
        if keep is None and older_than is None:
            raise UsageError(
                "Say which runs may go: `prune(keep=20)`, or `prune(older_than=timedelta(days=30))`."
            )
        if keep is not None and keep < 0:
            raise UsageError(f"{keep} runs cannot be kept: write 0 or more.")
        limit_s = older_than.total_seconds() if isinstance(older_than, timedelta) else older_than
        deleted = []
        for stored in self._stored[keep or 0 :]:
            if stored.state in TERMINAL and (limit_s is None or _age_s(stored) > limit_s):
                with suppress(ValueError):  # somebody else has deleted it meanwhile
                    delete(stored)
                    deleted.append(stored.run_id)
        gone = set(deleted)
        self._stored = [stored for stored in self._stored if stored.run_id not in gone]
        return deleted

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return runs_html.history(self._stored[: self._shown], len(self._stored), self._of)

    def __repr__(self) -> str:
        return self._repr_mimebundle_()["text/plain"]


@public
def runs(
    name: str | None = None,
    *,
    state: str | None = None,
    notebook: str | None = None,
    home: str | os.PathLike[str] | None = None,
    limit: int = _SHOWN,
) -> Runs:
    """The history: the runs in the store of this folder, newest first.

    Args:
        name: only runs with this name, title ("train()") or id.
        state: only runs in this state, see `Runs.filter`.
        notebook: only runs of this notebook or script: its path, or the end of it.
        home: another store: the path of a `.quarterdeck` folder.
        limit: how many rows are shown. All runs are there, however many.

    Returns:
        A sequence of runs, as they are now: `runs[0]` is the newest, `runs["name"]` the newest of that name.

    Raises:
        UsageError: there is no such state.
    """
    places = [Path(home)] if home is not None else homes(_home())
    return Runs(list_runs(places), limit).filter(name, state, notebook)


def _home() -> Path:
    return home(dict(os.environ), os.getcwd())


def _matches(stored: StoredRun, name: str | None, state: str | None, notebook: str | None) -> bool:
    header = stored.header
    return (
        (name is None or name in (header.name, header.title, stored.run_id))
        and (state is None or stored.state == state)
        and (notebook is None or header.notebook.endswith(notebook))
    )


def _age_s(stored: StoredRun) -> float:
    return time.time() - (stored.ended_unix_ns or stored.created_unix_ns) / 1e9
