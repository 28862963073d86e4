"""`--resume`: which earlier run a new one continues, and where its checkpoints are. In the kernel, before
anything starts.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from quarterdeck.checkpointing.checkpoint import Checkpoint
from quarterdeck.checkpointing.manifest import MANIFEST
from quarterdeck.checkpointing.paths import step_of
from quarterdeck.checkpointing.storage import is_url, place_of
from quarterdeck.errors import UsageError
from quarterdeck.protocol.parts import KernelContext, Parent
from quarterdeck.store.layout import CHECKPOINTS, HEADER, attempt_of, rank_of
from quarterdeck.store.paths import home, homes
from quarterdeck.store.reader import NotARun, StoredRun, list_runs

_FILES = (".safetensors", ".pt", ".pth", ".bin", ".metadata")
"""One of these makes a folder, or is, a checkpoint of another program."""
_ABOVE = 3
"""Folders between a run's own and a rank's checkpoint in Flyte's form."""
_NEAR = 3


class Wanted(NamedTuple):
    """What the new run is: "latest" is the newest like it."""

    name: str
    title: str
    source: str
    context: KernelContext


def parent_of(which: Any, wanted: Wanted) -> Parent:
    """`which`: "latest", a run (itself, its id, or a name: the newest so called that has a checkpoint), or a
    path: a run's folder, one of checkpoints, or one checkpoint (also itself). UsageError if there is nothing
    to continue from.
    """
    place = getattr(which, "folder", None) or getattr(which, "path", None) or which
    text = os.fspath(place)
    if is_url(text):
        hint = f"Call `qd.load_checkpoint({text!r})` in the code instead."
        raise UsageError(f"--resume takes a run or a local folder, not {text}.", hint)
    context = wanted.context
    if text == "latest":
        return _latest(wanted, _runs(context))
    runs = _runs(context) if isinstance(place, str) else []
    found = [run for run in runs if text in (run.run_id, run.header.name, run.header.title)]
    if found:  # one that died before its first checkpoint is no obstacle
        return _of_run(next((run for run in found if has_checkpoint(run.folder / CHECKPOINTS)), found[0]))
    path = Path(context.cwd) / os.path.expanduser(text)
    if path.exists():
        return _of_path(path.resolve())
    raise UsageError(f"There is no run and no folder {text!r} to resume from.", _near(text, runs))


def _latest(wanted: Wanted, runs: Sequence[StoredRun]) -> Parent:
    like = [run for run in runs if run.header.notebook == wanted.context.notebook and _is_like(run, wanted)]
    found = next((run for run in like if has_checkpoint(run.folder / CHECKPOINTS)), None)
    if found is not None:
        return _of_run(found)
    called = wanted.name or wanted.title
    if like:
        text = f"No earlier run of {called} has a checkpoint. The newest of {len(like)} is {like[0].run_id}."
    else:
        text = f"This notebook has no earlier run of {called} to resume."
    raise UsageError(text, _near(called, runs))


def _is_like(run: StoredRun, wanted: Wanted) -> bool:
    """By name; without one, by the function, or by the cell's number or code."""
    header = run.header
    if wanted.name or header.name:
        return header.name == wanted.name
    same_code = header.kind == "cell" and header.source.strip() == wanted.source.strip()
    return header.title == wanted.title or same_code


def _of_run(run: StoredRun) -> Parent:
    checkpoints = run.folder / CHECKPOINTS
    if not has_checkpoint(checkpoints):
        hint = "`qd.save_checkpoint` and `qd.current().checkpoint` save checkpoints, for the next time."
        raise UsageError(f"{run.run_id} has no checkpoint to resume from: it {run.state}.", hint)
    return Parent(run.run_id, str(run.folder), str(checkpoints))


def _of_path(path: Path) -> Parent:
    with suppress(NotARun):
        return _of_run(StoredRun.read(path))
    if not (_is_checkpoint(path) or has_checkpoint(path)):
        raise UsageError(f"{path} is neither a run nor a checkpoint nor a folder of them.{_what_it_is(path)}")
    for above in list(path.parents)[:_ABOVE]:
        if (above / HEADER).is_file():
            with suppress(NotARun):
                return Parent(StoredRun.read(above).run_id, str(above), str(path))
    return Parent(resume=str(path))


def has_checkpoint(folder: Path) -> bool:
    """Whether a folder of checkpoints has one that is valid, of either form. One of a run is no link."""
    if folder.is_symlink():
        return False
    place = place_of(folder)
    steps = sorted((name for name in place.names() if step_of(name) is not None), reverse=True)
    if any(Checkpoint(place, name).valid for name in steps):
        return True
    own = [folder, *(path for path in _entries(folder) if attempt_of(path.name) is not None)]
    ranks = [
        path for one in own for path in _entries(one) if rank_of(path.name) is not None and path.is_dir()
    ]
    return any(any(_entries(rank)) for rank in ranks)


def _is_checkpoint(path: Path) -> bool:
    if path.is_file():
        return path.suffix in _FILES
    if (path / MANIFEST).exists():
        return Checkpoint(place_of(path.parent), path.name).valid
    if any(entry.name.endswith(_FILES) for entry in _entries(path)):
        return True
    return rank_of(path.name) is not None and any(_entries(path))


def _what_it_is(path: Path) -> str:
    if (path / MANIFEST).exists():
        return f" It is damaged: {Checkpoint(place_of(path.parent), path.name).problem}."
    return ""


def _entries(folder: Path) -> Iterator[Path]:
    """Without saves in the making."""
    with suppress(OSError):
        yield from (path for path in folder.iterdir() if ".qd-tmp" not in path.name)


def _runs(context: KernelContext) -> list[StoredRun]:
    return list_runs(homes(home(context.environ, context.cwd)))


def _near(text: str, runs: Sequence[StoredRun]) -> str:
    """A hint: runs with a checkpoint, those of a similar name first."""
    able = [run for run in runs[:100] if has_checkpoint(run.folder / CHECKPOINTS)]
    names = list(dict.fromkeys(run.header.name or run.run_id for run in able))
    near = difflib.get_close_matches(text, names, n=_NEAR, cutoff=0.4) or names[:_NEAR]
    return f"Runs with a checkpoint: {', '.join(near)}." if near else "No run in this store has a checkpoint."
