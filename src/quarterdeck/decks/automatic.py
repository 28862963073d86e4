"""The automatic decks, and which of them a run has. Pure; used by the kernel, workers and readers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from quarterdeck import files
from quarterdeck.store.layout import DECK_FIELDS

TIMELINE, SOURCE, ENVIRONMENT = "Timeline", "Source Code", "Environment"
INPUT, OUTPUT = "Input", "Output"
FIELDS = (TIMELINE, SOURCE, ENVIRONMENT, INPUT, OUTPUT)
"""Those before `INPUT` are made by the reader, of what the run store has anyway."""
_ALIASES = {"Dependencies": ENVIRONMENT}
_READ_BYTES = 1 << 16


def chosen(fields: Iterable[Any]) -> tuple[str, ...]:
    """Names of automatic decks, or Flyte's `DeckField`s, which are their names. ValueError for another."""
    found = []
    for field in [fields] if isinstance(fields, str) else fields:
        name = str(getattr(field, "value", field))
        if _ALIASES.get(name, name) not in FIELDS:
            raise ValueError(f"there is no automatic deck {name!r}; there are {', '.join(FIELDS)}")
        found.append(_ALIASES.get(name, name))
    return tuple(field for field in FIELDS if field in found)


def keep_fields(run_folder: Path, fields: tuple[str, ...]) -> None:
    """For readers, if it is not all of them. By rank 0. Raises OSError."""
    if fields == FIELDS:
        return
    files.make_private(run_folder)
    files.make_folder(run_folder, *DECK_FIELDS[:-1])
    files.write(run_folder, *DECK_FIELDS, content=json.dumps(fields).encode())


def kept_fields(run_folder: Path) -> tuple[str, ...]:
    """The fields that a run keeps; all, if it says nothing."""
    try:
        return chosen(json.loads(files.read(run_folder, *DECK_FIELDS, limit_bytes=_READ_BYTES)))
    except (OSError, ValueError, TypeError, RecursionError):
        return FIELDS
