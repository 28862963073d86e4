"""Stacks as faulthandler writes them, for `%workers stacks` and in a crash: a frame a line, newest first."""

from __future__ import annotations

import re

FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+) in (?P<function>.*)$', re.MULTILINE)
_CELL = re.compile(r"<ipython-input-(\d+)-")


def cell_number(file: str) -> int | None:
    """The number of a worker's cell, by the file name IPython gives to its code."""
    found = _CELL.match(file)
    return int(found[1]) if found else None


def main_frames(stacks: str) -> list[re.Match[str]]:
    """The frames of the main thread, which faulthandler lists last."""
    return list(FRAME.finditer(stacks.rpartition("\n\n")[2]))
