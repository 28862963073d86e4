"""Where runs are kept, and where if that place cannot be written. Pure; used by every process."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from quarterdeck import files


def home(environ: dict[str, str], cwd: str) -> Path:
    """QUARTERDECK_HOME, else `.quarterdeck` in the notebook's folder. Relative paths count from there, not
    from where the asking process happens to be.
    """
    return Path(cwd) / os.path.expanduser(environ.get("QUARTERDECK_HOME") or ".quarterdeck")


def keep_out_of_git(home: Path) -> None:
    """Runs are not for version control, unless somebody has said so."""
    with suppress(OSError):
        ignore = files.create(home, ".gitignore", flags=os.O_WRONLY | os.O_EXCL)
        os.write(ignore, b"*\n")
        os.close(ignore)


def fallback(home: Path) -> Path:
    """The same private folder for the same home, in every process of this user; made if it is not there.

    /tmp belongs to everybody: somebody else may have made a folder of that name, to read runs or to plant
    some. Raises OSError then.
    """
    place = _fallback_path(home)
    for folder in (place.parent, place):
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            pass
        check_private(folder)
    return place


def homes(home: Path) -> list[Path]:
    """Where a reader finds the runs of a home: those that exist of itself and its fallback."""
    place = _fallback_path(home)
    found = [home] if os.path.isdir(home) else []
    try:
        check_private(place.parent)
        check_private(place)
    except OSError:
        return found
    return [*found, place]


def _fallback_path(home: Path) -> Path:
    digest = hashlib.sha256(os.path.abspath(home).encode("utf-8", "surrogateescape")).hexdigest()
    return Path(tempfile.gettempdir()) / f"quarterdeck-{os.getuid()}" / digest[:16]


def check_private(folder: Path) -> None:
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a private folder of this user")
