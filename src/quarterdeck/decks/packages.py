"""The packages that a run's workers had: kept by rank 0 beside its decks, read for the deck "Environment".

Their names and versions are those of the folders that installers leave beside them, so this costs a
millisecond, where reading the metadata of a few hundred packages takes a tenth of a second.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

from quarterdeck import files
from quarterdeck.context import LOCAL, Context
from quarterdeck.store.layout import PACKAGES

_READ_BYTES = 4 << 20
_FOLDER = re.compile(r"(?P<name>.+?)-(?P<version>[^-]+)(?:-py[\d.]+)?\.(?:dist|egg)-info")


def keep_packages(context: Context) -> None:
    """Once for a run; never raises OSError: a deck without its packages is no reason to stop."""
    run_folder = context.run_dir
    if context.rank != 0 or context.run_id == LOCAL or files.size_of(run_folder, *PACKAGES) is not None:
        return
    with suppress(OSError):
        files.make_private(run_folder)
        files.make_folder(run_folder, *PACKAGES[:-1])
        files.write(run_folder, *PACKAGES, content=_listed())


def kept_packages(run_folder: Path) -> dict[str, str]:
    """Version by name; empty if nobody has kept them."""
    try:
        found = json.loads(files.read(run_folder, *PACKAGES, limit_bytes=_READ_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return {str(name): str(version) for name, version in found.items()} if isinstance(found, dict) else {}


@functools.cache
def _listed() -> bytes:
    return json.dumps(installed()).encode()


def installed() -> dict[str, str]:
    """The packages on this process's path; the first one of a name is the one that is imported."""
    found: dict[str, str] = {}
    for folder in sys.path:
        for name in _entries(folder):
            if match := _FOLDER.fullmatch(name):
                found.setdefault(match["name"].replace("_", "-"), match["version"])
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder) if os.path.basename(folder).endswith("-packages") else []
    except OSError:
        return []
