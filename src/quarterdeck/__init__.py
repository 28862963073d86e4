"""Multi-process PyTorch training as a natural part of the notebook: `%load_ext quarterdeck`, then
`%%distributed` cells.

Public names are loaded when they are used: importing this costs nothing, in particular not torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quarterdeck.errors import (
        QuarterdeckError,
        RunFailed,
        RunInterrupted,
        RunTimedOut,
        UsageError,
        WorkersLost,
    )

__version__ = "0.1.0"

__all__ = [
    "QuarterdeckError",
    "RunFailed",
    "RunInterrupted",
    "RunTimedOut",
    "UsageError",
    "WorkersLost",
    "__version__",
    "load_ipython_extension",
    "unload_ipython_extension",
]

_HOMES = {name: "quarterdeck.errors" for name in __all__ if name[0].isupper()}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
