"""What all widgets need of the line to their page. In the kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BUNDLE = Path(__file__).parent / "static" / "run_view.js"
"""The page's half of every view, built by `make view`."""


def hear_at_once(comm: Any) -> None:
    """ipykernel 7.4 serves a comm in the thread that last sent on it: the one that is busy with the cell.
    Left to the page's own choice, a message is heard while the cell runs.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda data, default: default
