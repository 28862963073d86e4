"""Where ranks are in their code, in words: `%workers stacks` and `run.stacks()`."""

from __future__ import annotations

import linecache
import os
import re
from itertools import dropwhile
from pathlib import Path

from quarterdeck.kernel.notebook import Notebook
from quarterdeck.protocol.kernel import Answer
from quarterdeck.protocol.stacks import cell_number, main_frames
from quarterdeck.public import public

_PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"
_RUNS_IT = (_PACKAGE, "IPython/core/", "<string>", "<frozen ", "runpy.py")
"""Parts of file names of what calls user code: it is left out up to the first call of that."""
_NEVER = f"{_PACKAGE}worker{os.sep}"
"""Left out wherever it is, as where a print goes through it."""


@public
class Stacks(dict[int, str]):
    """Where each rank of a run is in its code, by rank: the calls of its main thread, the innermost last as
    in a traceback. "" for a rank that runs no user code. Prints itself as `%workers stacks` does.
    """

    def __init__(self, told: Answer, notebook: Notebook | None) -> None:
        """`notebook`: the one whose cells the ranks run; None: another one's, whose lines are not known."""
        super().__init__({rank: _place(stack, notebook) for rank, stack in sorted(told.stacks.items())})
        self._head = told.text

    def __str__(self) -> str:
        places = [
            f"rank {rank}:\n{place}" if place else f"rank {rank}: no user code is running"
            for rank, place in self.items()
        ]
        return "\n".join([self._head, *places])

    __repr__ = __str__


def _place(stack: str, notebook: Notebook | None) -> str:
    return "\n".join(f"  {_frame_words(frame, notebook)}" for frame in _main_thread(stack))


def _main_thread(stack: str) -> list[re.Match[str]]:
    """The user's calls in it, the innermost last."""
    frames = reversed(main_frames(stack))
    called = dropwhile(lambda frame: any(part in frame["file"] for part in _RUNS_IT), frames)
    return [frame for frame in called if _NEVER not in frame["file"]]


def _frame_words(frame: re.Match[str], notebook: Notebook | None) -> str:
    file, line = frame["file"], int(frame["line"])
    number = cell_number(file)
    if number is None and notebook is not None:
        number = getattr(notebook.compile_cache, "_filename_map", {}).get(file)
    where = f"Cell In[{number}], line {line}" if number is not None else f"{file}:{line}"
    source = _source_line(file, line, notebook)
    return f"{where}, in {frame['function']}" + (f"\n      {source}" if source else "")


def _source_line(file: str, line: int, notebook: Notebook | None) -> str:
    """A line of a worker's cell, from the notebook's input history, where the magic line is the first."""
    number = cell_number(file)
    if number is None:
        return linecache.getline(file, line).strip()
    lines = notebook.cell_source(number).splitlines() if notebook is not None else []
    return lines[line - 1].strip() if 0 < line <= len(lines) else ""
