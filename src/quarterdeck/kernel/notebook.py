"""What the client needs of the process that the user works in: a notebook's kernel, or a script."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from quarterdeck.protocol.parts import Changes, KernelContext
from quarterdeck.views.cell.cell import CellView
from quarterdeck.views.sink import PrintSink, Sink


@dataclass
class Notebook:
    """Its namespace is read and never written; `hidden` are names in it that are not the user's."""

    namespace: dict[str, Any]
    hidden: set[str] = field(default_factory=set)
    compile_cache: Any = None
    """IPython's, which knows the cell number of a function's code."""
    new_sink: Callable[[], Sink] = PrintSink
    """For the outputs of the cell that runs now."""
    cell_number: Callable[[], int] = lambda: 0
    cell_source: Callable[[int], str] = lambda number: ""
    """The text of the cell of this number, with its magic line; "" if it is not known."""

    def context(self) -> KernelContext:
        """What a new group takes over from this process."""
        return KernelContext(
            changes=changes_since_import(), cwd=os.getcwd(), sys_path=list(sys.path), notebook=self.file()
        )

    def file(self) -> str:
        """The notebook's path as the server or the editor tells it, or the script's."""
        found = (
            self.namespace.get("__vsc_ipynb_file__")
            or os.environ.get("JPY_SESSION_NAME")
            or self.namespace.get("__file__")
        )
        return str(found or "")


_current: Notebook | None = None

AT_IMPORT = dict(os.environ)
"""The environment that every coordinator of this process starts with."""


def changes_since_import() -> Changes:
    """What user code has set and removed in this process's environment."""
    now = dict(os.environ)
    gone: Changes = {name: None for name in AT_IMPORT if name not in now}
    return gone | {name: value for name, value in now.items() if AT_IMPORT.get(name) != value}


def use(notebook: Notebook | None) -> None:
    """Called when the extension is loaded, with its notebook, and when it is unloaded."""
    global _current
    _current = notebook


def loaded() -> bool:
    """Whether this is a notebook with the extension in it."""
    return _current is not None


def current() -> Notebook:
    """The loaded extension's, else the script that runs."""
    return _current or Notebook(vars(sys.modules["__main__"]))


@contextmanager
def cell_view() -> Iterator[CellView]:
    """A view for the cell that runs now, which shows everything at the end, however that comes."""
    view = CellView(current().new_sink())
    try:
        yield view
    finally:
        view.finish()
