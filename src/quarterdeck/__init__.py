"""Multi-process PyTorch training as a natural part of the notebook: `%load_ext quarterdeck`, then
`%%distributed` cells.

Public names are loaded when they are used: importing this costs nothing, in particular not torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quarterdeck.checkpointing.checkpoint import Checkpoint, Checkpoints
    from quarterdeck.checkpointing.classes import UnknownClass
    from quarterdeck.checkpointing.errors import CheckpointError, DamagedCheckpoint, UntrustedCheckpoint
    from quarterdeck.checkpointing.load import Loaded
    from quarterdeck.checkpointing.manifest import TensorInfo
    from quarterdeck.checkpointing.save import load_checkpoint, save_checkpoint
    from quarterdeck.context import Context, Decks, Resumption, current
    from quarterdeck.decks import Code, Deck, Markdown, Renderable, renderer, renderers
    from quarterdeck.decks.of_run import NoSuchDeck, RankDecks, RunDecks
    from quarterdeck.decks.page import DeckPage
    from quarterdeck.errors import (
        ArgumentError,
        QuarterdeckError,
        RecoverableError,
        RunFailed,
        RunInterrupted,
        RunTimedOut,
        UsageError,
        WorkersLost,
    )
    from quarterdeck.flyte.checks import CheckpointRefused, MissingWeights
    from quarterdeck.flyte.elastic import Elastic
    from quarterdeck.flyte.job import CleanPodPolicy, Master, PyTorch, RestartPolicy, RunPolicy, Worker
    from quarterdeck.flyte.pytorch_checkpoint import PyTorchCheckpoint
    from quarterdeck.flyte.rules import ConfigError
    from quarterdeck.flyte.schema import CheckpointSchema
    from quarterdeck.flyte.spawn_helper import ElasticWorkerResult, spawn_helper
    from quarterdeck.kernel.checkpoints import ListedCheckpoints, checkpoints
    from quarterdeck.kernel.function import DistributedFunction, distributed
    from quarterdeck.kernel.run import Run
    from quarterdeck.kernel.runs import Runs, runs
    from quarterdeck.kernel.sessions import Session
    from quarterdeck.kernel.stacks import Stacks
    from quarterdeck.kernel.values import Unpicklable
    from quarterdeck.metrics.log import log
    from quarterdeck.metrics.progress import progress
    from quarterdeck.metrics.series import Metrics, OverRanks, Points, Series
    from quarterdeck.metrics.spans import span
    from quarterdeck.protocol.kernel import RankStatus
    from quarterdeck.protocol.worker import Evidence, Outcome
    from quarterdeck.store.folder_checkpoint import FolderCheckpoint
    from quarterdeck.store.reader import NotARun
    from quarterdeck.store.results import UntrustedResult

__version__ = "0.1.1"

_HOMES = {
    "checkpointing.checkpoint": ("Checkpoint", "Checkpoints"),
    "checkpointing.classes": ("UnknownClass",),
    "checkpointing.errors": ("CheckpointError", "DamagedCheckpoint", "UntrustedCheckpoint"),
    "checkpointing.load": ("Loaded",),
    "checkpointing.manifest": ("TensorInfo",),
    "checkpointing.save": ("load_checkpoint", "save_checkpoint"),
    "context": ("Context", "Decks", "Resumption", "current"),
    "decks": ("Code", "Deck", "Markdown", "Renderable", "renderer", "renderers"),
    "decks.of_run": ("NoSuchDeck", "RankDecks", "RunDecks"),
    "decks.page": ("DeckPage",),
    "errors": (
        "ArgumentError", "QuarterdeckError", "RecoverableError", "RunFailed", "RunInterrupted",
        "RunTimedOut", "UsageError", "WorkersLost",
    ),
    "flyte.checks": ("CheckpointRefused", "MissingWeights"),
    "flyte.elastic": ("Elastic",),
    "flyte.job": ("CleanPodPolicy", "Master", "PyTorch", "RestartPolicy", "RunPolicy", "Worker"),
    "flyte.pytorch_checkpoint": ("PyTorchCheckpoint",),
    "flyte.rules": ("ConfigError",),
    "flyte.schema": ("CheckpointSchema",),
    "flyte.spawn_helper": ("ElasticWorkerResult", "spawn_helper"),
    "kernel.checkpoints": ("ListedCheckpoints", "checkpoints"),
    "kernel.function": ("DistributedFunction", "distributed"),
    "kernel.run": ("Run",),
    "kernel.runs": ("Runs", "runs"),
    "kernel.sessions": ("Session",),
    "kernel.stacks": ("Stacks",),
    "kernel.values": ("Unpicklable",),
    "metrics.log": ("log",),
    "metrics.progress": ("progress",),
    "metrics.series": ("Metrics", "OverRanks", "Points", "Series"),
    "metrics.spans": ("span",),
    "protocol.kernel": ("RankStatus",),
    "protocol.worker": ("Evidence", "Outcome"),
    "store.folder_checkpoint": ("FolderCheckpoint",),
    "store.reader": ("NotARun",),
    "store.results": ("UntrustedResult",),
}  # fmt: skip
"""Where each public name lives."""

__all__ = [
    "ArgumentError",
    "Checkpoint",
    "CheckpointError",
    "CheckpointRefused",
    "CheckpointSchema",
    "Checkpoints",
    "CleanPodPolicy",
    "Code",
    "ConfigError",
    "Context",
    "DamagedCheckpoint",
    "Deck",
    "DeckPage",
    "Decks",
    "DistributedFunction",
    "Elastic",
    "ElasticWorkerResult",
    "Evidence",
    "FolderCheckpoint",
    "ListedCheckpoints",
    "Loaded",
    "Markdown",
    "Master",
    "Metrics",
    "MissingWeights",
    "NoSuchDeck",
    "NotARun",
    "Outcome",
    "OverRanks",
    "Points",
    "PyTorch",
    "PyTorchCheckpoint",
    "QuarterdeckError",
    "RankDecks",
    "RankStatus",
    "RecoverableError",
    "Renderable",
    "RestartPolicy",
    "Resumption",
    "Run",
    "RunDecks",
    "RunFailed",
    "RunInterrupted",
    "RunPolicy",
    "RunTimedOut",
    "Runs",
    "Series",
    "Session",
    "Stacks",
    "TensorInfo",
    "UnknownClass",
    "Unpicklable",
    "UntrustedCheckpoint",
    "UntrustedResult",
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
    from quarterdeck.kernel.magics import extension

    extension.load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Called by `%unload_ext quarterdeck`: the workers end, the shell is as before."""
    from quarterdeck.kernel.magics import extension

    extension.unload(shell)


def _hint_without_extension() -> None:
    """In a notebook: let `%%distributed` say what to write, until the extension is loaded."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None:
        import_module("quarterdeck.kernel.magics.hint").register(shell)


_hint_without_extension()
