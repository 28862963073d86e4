"""tqdm in a worker: its bars are loops with progress, and print nothing. Bars that user code sends to a file
of its own go there, too; `tqdm.write` prints; a bar that is disabled stays so. Called by `hooks`.
"""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import Any

from quarterdeck.metrics.progress import Loop, open_loop

_FILE_PLACE = 4
"""The place of `file` among the arguments of `tqdm`."""


class _Nowhere:
    """Where the text of a bar goes."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


def _patch_std(module: ModuleType) -> None:
    bar: Any = module.tqdm
    init, display, close = bar.__init__, bar.display, bar.close

    @functools.wraps(init)
    def quiet_init(self: Any, *args: Any, **kwargs: Any) -> None:
        if len(args) <= _FILE_PLACE and _is_screen(kwargs.get("file")):
            kwargs["file"] = _Nowhere()
        elif len(args) > _FILE_PLACE and _is_screen(args[_FILE_PLACE]):
            args = (*args[:_FILE_PLACE], _Nowhere(), *args[_FILE_PLACE + 1 :])
        init(self, *args, **kwargs)

    @functools.wraps(display)
    def shown(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.disable:
            _put(self)
        if isinstance(getattr(self.fp, "_wrapped", self.fp), _Nowhere):
            return True
        return display(self, *args, **kwargs)

    @functools.wraps(close)
    def closed(self: Any) -> None:
        if not self.disable and "_quarterdeck_loop" in self.__dict__:
            _put(self)
        close(self)
        loop: Loop | None = self.__dict__.pop("_quarterdeck_loop", None)
        if loop is not None:
            loop.close(self.n)

    bar.__init__, bar.display, bar.close = quiet_init, shown, closed


def _is_screen(file: object) -> bool:
    return file is None or file in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)


def _put(bar: Any) -> None:
    """What the bar has been told of late. One that lives on from an earlier cell begins again."""
    desc = (bar.desc or "").removesuffix(": ")
    loop: Loop | None = bar.__dict__.get("_quarterdeck_loop")
    if loop is None or loop.closed:
        loop = bar._quarterdeck_loop = open_loop(desc, bar.total)
    loop.put(bar.n, desc, bar.total)


def _patch_notebook(module: ModuleType) -> None:
    """A worker has no widgets: the plain bar stands in for the one that wants some."""
    from tqdm.std import tqdm  # type: ignore[import-untyped]

    class tqdm_notebook(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("display", None)
            super().__init__(*args, **kwargs)

    def tnrange(*args: Any, **kwargs: Any) -> Any:
        return tqdm_notebook(range(*args), **kwargs)

    names: Any = module
    names.tqdm_notebook = names.tqdm = tqdm_notebook
    names.tnrange = names.trange = tnrange


PATCHES = {"tqdm.std": _patch_std, "tqdm.notebook": _patch_notebook}
