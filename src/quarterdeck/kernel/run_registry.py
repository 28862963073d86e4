"""The Runs of this kernel: one object for each run, kept until its end whether anybody holds it or not."""

from __future__ import annotations

import atexit
import sys
from pathlib import Path

import msgspec

from quarterdeck.kernel import notebook as notebooks
from quarterdeck.kernel.active_run import ActiveRun
from quarterdeck.kernel.run import Run, remember, run_of
from quarterdeck.store.format import RunHeader
from quarterdeck.store.reader import NotARun, StoredRun

_running: dict[str, Run] = {}


def begin(live: ActiveRun, known: RunHeader) -> Run:
    """The Run of something that has just begun; it is followed from now on. `known` is what is told of it
    where the store cannot be written.
    """
    run = Run(_read(live.folder, msgspec.structs.replace(known, run_id=live.run_id)), live)
    run_id = run.run_id
    _running[run_id] = run
    remember(run)
    live.ended.add_done_callback(lambda _: _running.pop(run_id, None))  # `run` would hold itself
    live.start()
    if not notebooks.loaded():
        atexit.unregister(_tell_of_unfinished)
        atexit.register(_tell_of_unfinished)
    return run


def _tell_of_unfinished() -> None:
    """A script ends, and with it the runs that nobody has waited for."""
    for run in [run for run in _running.values() if not run.detached]:
        text = f"{run.run_id} was still {run.status} and ends with this process: `run.result()` waits for it."
        print(text, file=sys.stderr)


def at(folder: str, known: RunHeader) -> Run:
    """The Run of that folder."""
    return run_of(_read(folder, known))


def _read(folder: str, known: RunHeader) -> StoredRun:
    try:
        return StoredRun.read(Path(folder))
    except NotARun:
        return StoredRun(Path(folder), known)
