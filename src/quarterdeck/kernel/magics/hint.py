"""`import quarterdeck` without `%load_ext quarterdeck`: the cell magics exist, and say what is missing."""

from __future__ import annotations

from typing import Any

from quarterdeck.errors import UsageError

_NAMES = ("distributed", "rank")


def register(shell: Any) -> None:
    """Called when quarterdeck is imported in a notebook; loading it puts the real magics there."""
    known = shell.magics_manager.magics["cell"]
    for name in _NAMES:
        if name not in known:
            shell.register_magic_function(_refusing(name), "cell", name)


def _refusing(name: str) -> Any:
    def refuse(line: str, cell: str = "") -> None:
        raise UsageError(f"%%{name} needs the extension.", "Run `%load_ext quarterdeck` first.")

    return refuse
