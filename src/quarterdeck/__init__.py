"""Multi-process PyTorch training as a natural part of the notebook: `%load_ext quarterdeck`, then
`%%distributed` cells.

Public names are loaded when they are used: importing this costs nothing, in particular not torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quarterdeck.checkpointing.flyte import PyTorchCheckpoint
    from quarterdeck.client.function import DistributedFunction, distributed
    from quarterdeck.client.run import Run
    from quarterdeck.client.runs import Runs, runs
    from quarterdeck.client.sessions import Session
    from quarterdeck.client.shelf.listed import checkpoints
    from quarterdeck.client.values import Unpicklable
    from quarterdeck.config import (
        CleanPodPolicy,
        ConfigError,
        Elastic,
        Master,
        PyTorch,
        RestartPolicy,
        RunPolicy,
        Worker,
    )
    from quarterdeck.context import Context, current
    from quarterdeck.decks import Code, Deck, Markdown, renderer, renderers
    from quarterdeck.errors import (
        QuarterdeckError,
        RecoverableError,
        RunFailed,
        RunInterrupted,
        RunTimedOut,
        UsageError,
        WorkersLost,
    )
    from quarterdeck.metrics.log import log
    from quarterdeck.metrics.progress import progress
    from quarterdeck.metrics.spans import span
    from quarterdeck.saving import load_checkpoint, save_checkpoint
    from quarterdeck.worker.helper import ElasticWorkerResult, spawn_helper

__version__ = "0.1.1"

_HOMES = {
    "checkpointing.flyte": ("PyTorchCheckpoint",),
    "client.function": ("DistributedFunction", "distributed"),
    "client.run": ("Run",),
    "client.runs": ("Runs", "runs"),
    "client.sessions": ("Session",),
    "client.shelf.listed": ("checkpoints",),
    "client.values": ("Unpicklable",),
    "config": (
        "CleanPodPolicy", "ConfigError", "Elastic", "Master", "PyTorch", "RestartPolicy", "RunPolicy",
        "Worker",
    ),
    "context": ("Context", "current"),
    "decks": ("Code", "Deck", "Markdown", "renderer", "renderers"),
    "errors": (
        "QuarterdeckError", "RecoverableError", "RunFailed", "RunInterrupted", "RunTimedOut", "UsageError",
        "WorkersLost",
    ),
    "metrics.log": ("log",),
    "metrics.progress": ("progress",),
    "metrics.spans": ("span",),
    "saving": ("load_checkpoint", "save_checkpoint"),
    "worker.helper": ("ElasticWorkerResult", "spawn_helper"),
}  # fmt: skip
"""Where each public name lives."""

__all__ = [
    "CleanPodPolicy",
    "Code",
    "ConfigError",
    "Context",
    "Deck",
    "DistributedFunction",
    "Elastic",
    "ElasticWorkerResult",
    "Markdown",
    "Master",
    "PyTorch",
    "PyTorchCheckpoint",
    "QuarterdeckError",
    "RecoverableError",
    "RestartPolicy",
    "Run",
    "RunFailed",
    "RunInterrupted",
    "RunPolicy",
    "RunTimedOut",
    "Runs",
    "Session",
    "Unpicklable",
    "UsageError",
    "Worker",
    "WorkersLost",
    "__version__",
    "checkpoints",
    "current",
    "distributed",
    "load_checkpoint",
    "load_ipython_extension",
    "log",
    "progress",
    "renderer",
    "renderers",
    "runs",
    "save_checkpoint",
    "span",
    "spawn_helper",
    "unload_ipython_extension",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            found = getattr(import_module(f"{__name__}.{module}"), name)
            globals()[name] = found  # `qd.log` is called in training loops
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(shell: Any) -> None:
    """Called by `%load_ext quarterdeck`."""
    from quarterdeck.magics import extension

    extension.load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Called by `%unload_ext quarterdeck`: the workers end, the shell is as before."""
    from quarterdeck.magics import extension

    extension.unload(shell)


def _hint_without_extension() -> None:
    """In a notebook: let `%%distributed` say what to write, until the extension is loaded."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None:
        import_module("quarterdeck.magics.hint").register(shell)


_hint_without_extension()
