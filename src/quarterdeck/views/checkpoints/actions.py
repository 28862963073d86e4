"""What a reader of the browser may do with a checkpoint that is listed. Used by `feed`, from any
thread.

Each gives a sentence that says what has happened, and raises what stood in the way.
"""

from __future__ import annotations

import builtins
import itertools
import keyword
import os
import re
from pathlib import Path
from typing import Any

from quarterdeck.checkpointing.checkpoint import Checkpoint
from quarterdeck.checkpointing.load import Loaded, Request
from quarterdeck.checkpointing.load import load as load_checkpoint
from quarterdeck.errors import UsageError
from quarterdeck.present import words
from quarterdeck.views.checkpoints.messages import ExportForm
from quarterdeck.views.checkpoints.trash import trash

Namespace = dict[str, Any]


def load(checkpoint: Checkpoint, name: str, namespace: Namespace) -> str:
    """Into a new variable, or one that holds a checkpoint already. Nothing of it is run."""
    _check_name(name, namespace)
    loaded = load_checkpoint(checkpoint, None, Request())
    assert loaded is not None
    _check_name(name, namespace)  # loading takes a while
    namespace[name] = loaded
    return f"`{name}` holds {called(checkpoint)}: `{name}.model` is its state dict."


def export(checkpoint: Checkpoint, form: ExportForm, group: str) -> str:
    """Beside the notebook, under a name that is free."""
    stem = re.sub(r"[^\w.-]+", "-", f"{group}-{called(checkpoint)}").strip("-.")
    names = (f"{stem}{end}.{form}" for end in itertools.chain([""], (f"-{n}" for n in itertools.count(2))))
    path = next(path for name in names if not os.path.lexists(path := Path.cwd() / name))
    checkpoint.export(path)
    return f"Exported to {path.name}, {words.size(path.stat().st_size)}, in {path.parent}."


def pin(checkpoint: Checkpoint, pinned: bool) -> str:
    if pinned:
        checkpoint.pin()
    else:
        checkpoint.unpin()
    return f"{called(checkpoint).capitalize()} is {'pinned: nothing removes it' if pinned else 'not pinned'}."


def delete(checkpoint: Checkpoint, confirmed: bool) -> str:
    """Can be undone until it is swept."""
    if checkpoint.pinned and not confirmed:
        text = f"{called(checkpoint).capitalize()} is pinned."
        raise UsageError(text, "Confirm to delete it all the same.")
    trash.throw(checkpoint)
    return f"Deleted {called(checkpoint)}."


def undo(id: str) -> str:
    return f"{trash.restore(id).capitalize()} is back."


def called(checkpoint: Checkpoint) -> str:
    return f"step {words.number(checkpoint.step)}" if checkpoint.step >= 0 else checkpoint.name


def _check_name(name: str, namespace: Namespace) -> None:
    if not name.isidentifier() or keyword.iskeyword(name):
        raise UsageError(f"{name!r:.60} is not a name for a variable.")
    if hasattr(builtins, name) or name.startswith("__"):
        raise UsageError(f"`{name}` is Python's own name.", "Choose another one.")
    if name in namespace and not isinstance(namespace[name], Loaded):
        kind = type(namespace[name]).__name__
        raise UsageError(f"`{name}` is a variable of the notebook already ({kind}).", "Choose another name.")
