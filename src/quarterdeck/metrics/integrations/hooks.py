"""Modules of others that are changed when user code imports them: tqdm's bars are shown as progress,
TensorBoard's scalars as curves. In workers only; `install` is called before the first line of user code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from quarterdeck.metrics.integrations import tensorboard, tqdm

__all__ = ["install"]

Patch = Callable[[ModuleType], None]


def install() -> None:
    """Once per process."""
    patches: dict[str, Patch] = {**tqdm.PATCHES, **tensorboard.PATCHES}
    sys.meta_path.insert(0, _Finder(patches))
    for name, patch in patches.items():
        module = sys.modules.get(name)
        if module is not None:
            _apply(patch, module)


def _apply(patch: Patch, module: ModuleType) -> None:
    """A version that is made otherwise stays as it is: user code's import must not fail."""
    with suppress(Exception):
        patch(module)


class _Finder(MetaPathFinder):
    """Finds nothing itself: lets the loader that the others find do one thing more."""

    def __init__(self, patches: dict[str, Patch]) -> None:
        self._patches = patches

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        patch = self._patches.get(name)
        if patch is None:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find(name, path, target) if find and finder is not self else None
            if spec is not None:
                _extend(spec, patch)
                return spec
        return None


def _extend(spec: ModuleSpec, patch: Patch) -> None:
    execute = getattr(spec.loader, "exec_module", None)
    if execute is None:
        return

    def exec_module(module: ModuleType) -> None:
        execute(module)
        _apply(patch, module)

    with suppress(AttributeError):
        spec.loader.exec_module = exec_module  # type: ignore[union-attr, method-assign]
