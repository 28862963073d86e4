"""Imports: which are made ahead of user code, and whether one is under way that an exception would break.

An exception in the middle of an import takes the module out of `sys.modules`, but not the submodules that
were done: from then on the package is half there, and no later import mends it.
"""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
from types import FrameType
from typing import NamedTuple

LATER = (
    "sympy",
    "torch.fx.experimental.symbolic_shapes",
    "torch.distributed.tensor",
    "torch.distributed.fsdp",
    "torch._dynamo",
    "torch.nn.parallel.distributed",
    "torch.optim",
    "torch.utils.data",
    "torch.distributed.device_mesh",
    "torch.distributed.checkpoint",
    "quarterdeck.decks.arguments",
    "quarterdeck.checkpointing.save",
)
"""Imported lazily, by torch above all: 2-3 s at the first DDP() or optimizer of a worker that does not have
them. What torch._dynamo needs stands before it, so that a request waits for one import and not for all.
"""
_KINDS = ("purelib", "platlib", "stdlib", "platstdlib")
_PATHS = {path for kind in _KINDS if (path := sysconfig.get_path(kind))}
_INSTALLED = tuple(f"{one}{os.sep}" for path in _PATHS for one in {path, os.path.realpath(path)})
_IMPORTLIB = ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>")


def import_next() -> bool:
    """The next of `LATER` that this process lacks; False if it has all. No interrupt comes here."""
    missing = next((name for name in LATER if name not in sys.modules), None)
    if missing is not None:
        importlib.import_module(missing)
    return missing is not None


class Import(NamedTuple):
    """The outermost import of an installed module that is under way."""

    module: str
    importer: FrameType
    """The frame whose import it is: of the cell, of a script, or of a function of a library."""


def under_way(frame: FrameType | None) -> Import | None:
    """`frame` is the innermost one. None if there is none, or only one of the user's own modules: those may
    never end, and are read again the next time.
    """
    found: Import | None = None
    inner: FrameType | None = None
    """Next inside the frames of importlib that are being passed."""
    name = ""
    while frame is not None:
        outer = frame.f_back
        if not _is_importlib(frame):
            inner = frame
        else:
            name = str(frame.f_locals.get("name", name))
            if outer is not None and not _is_importlib(outer) and (inner is None or _is_installed(inner)):
                found = Import(name, outer)
        frame = outer
    return found


def _is_importlib(frame: FrameType) -> bool:
    return frame.f_code.co_filename in _IMPORTLIB


def _is_installed(frame: FrameType) -> bool:
    """The body of an installed module, or an import hook of one."""
    return frame.f_code.co_filename.startswith(_INSTALLED)
