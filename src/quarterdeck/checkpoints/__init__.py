"""Checkpoints: saving, listing, loading. In every process; the part that users see is `quarterdeck.saving`.

The package can be called: `qd.checkpoints(path)` is a public function that has its name.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Package(ModuleType):
    def __call__(self, path: Any = None) -> Any:
        """All checkpoints of the runs in this folder's store, or those in a folder (or behind a URL)."""
        return import_module("quarterdeck.client.shelf.listed").checkpoints(path)


sys.modules[__name__].__class__ = _Package
