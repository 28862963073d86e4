"""What a run depends on beyond its code: versions, machine, commit. Used by the coordinator at a run's start,
so without a subprocess and without importing what it names.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
from pathlib import Path

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


def describe(cwd: str) -> dict[str, str]:
    """Keys: python, quarterdeck, torch, hostname, git (the commit checked out in `cwd`). "" for what is not
    there.
    """
    return {
        "python": platform.python_version(),
        "quarterdeck": _version("quarterdeck"),
        "torch": _version("torch"),
        "hostname": os.uname().nodename,
        "git": _commit(Path(cwd)),
    }


@functools.cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _commit(cwd: Path) -> str:
    for folder in (cwd, *cwd.parents):
        if os.path.exists(folder / ".git"):
            try:
                return _head(_git_folder(folder / ".git"))
            except (OSError, ValueError):
                return ""
    return ""


def _git_folder(found: Path) -> Path:
    """The folder that `.git` is, or names: in a work tree or a submodule it is a file."""
    if found.is_dir():
        return found
    return found.parent / found.read_text().strip().removeprefix("gitdir: ")


def _head(folder: Path) -> str:
    text = (folder / "HEAD").read_text().strip()
    if not text.startswith("ref: "):
        return text if _COMMIT.fullmatch(text) else ""
    reference = text.removeprefix("ref: ")
    return _resolve(folder, reference) or _resolve(_common(folder), reference)


def _common(folder: Path) -> Path:
    """Work trees share their branches: those are in the main folder."""
    try:
        return folder / (folder / "commondir").read_text().strip()
    except OSError:
        return folder


def _resolve(folder: Path, reference: str) -> str:
    """The commit of a branch: in a file of its own, or in `packed-refs` until it moves. "" if it has none."""
    try:
        text = (folder / reference).read_text().strip()
        return text if _COMMIT.fullmatch(text) else ""
    except OSError:
        pass
    try:
        lines = (folder / "packed-refs").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split()[0] for line in lines if line.endswith(f" {reference}")), "")
