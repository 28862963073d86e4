"""The source of what is defined in cells, of the notebook's and of the workers' own: for tracebacks and for
`inspect.getsource`. Main thread of the worker.
"""

from __future__ import annotations

import functools
import inspect
import linecache
from typing import Any

from quarterdeck.protocol.parts import Payload
from quarterdeck.transfer.sources import file_of
from quarterdeck.worker.shell import WorkerShell


def know(shell: WorkerShell, payload: Payload) -> None:
    """Functions of ordinary notebook cells: their tracebacks show "Cell In[3], line 5" with source lines here
    too.
    """
    for filename, (number, text) in payload.sources.items():
        linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
        shell.compile._filename_map.pop(filename, None)  # it ran last: the newest of two classes of one name
        shell.compile._filename_map[filename] = number


def teach_inspect(shell: WorkerShell) -> None:
    """`inspect` asks a class for its module's file, and `__main__` has none."""
    original = inspect.getfile

    @functools.wraps(original)
    def getfile(object: Any) -> str:
        try:
            return original(object)
        except (OSError, TypeError):
            file = file_of(object, shell.compile._filename_map) if isinstance(object, type) else ""
            if not file:
                raise
            return file

    inspect.getfile = getfile
