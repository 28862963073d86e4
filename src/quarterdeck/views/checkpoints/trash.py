"""Deleted checkpoints, until they are swept. One for each kernel; used by `actions`, from any thread.

A deleted checkpoint lies in the folder `.trash` beside the others, where nobody looks for checkpoints, for 10
minutes or until the kernel ends. What a killed kernel has left there goes when the next one looks.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from quarterdeck.checkpointing.checkpoint import Checkpoint
from quarterdeck.checkpointing.manifest import MANIFEST
from quarterdeck.checkpointing.paths import step_of
from quarterdeck.checkpointing.storage import is_url
from quarterdeck.errors import UsageError
from quarterdeck.present.words import number
from quarterdeck.views.checkpoints.messages import Deleted

FOLDER = ".trash"
KEPT_S = 600.0
_THROWN = re.compile(r".+\.[0-9a-f]{12}")


@dataclass(frozen=True)
class _Thrown:
    words: str
    was: Path
    lies: Path
    since_s: float
    album: str
    """The folder it was listed in."""


class Trash:
    def __init__(self, kept_s: float = KEPT_S) -> None:
        self._kept_s = kept_s
        self._lock = threading.Lock()
        self._thrown: dict[str, _Thrown] = {}
        self._pid = os.getpid()
        atexit.register(self.sweep, everything=True)

    def throw(self, checkpoint: Checkpoint) -> None:
        """At once, for readers; one who has it open keeps it. UsageError for what could not come back."""
        if is_url(checkpoint.path):
            raise UsageError(
                f"{checkpoint.path} could not be brought back from there.",
                "Its delete() removes it for good.",
            )
        was = Path(checkpoint.path)
        if step_of(was.name) is None and not (was / MANIFEST).is_file():
            raise UsageError(f"{was} is not a checkpoint: it is left alone.")
        lies = was.parent / FOLDER / f"{was.name}.{uuid.uuid4().hex[:12]}"
        lies.parent.mkdir(exist_ok=True)
        if lies.parent.is_symlink():
            raise UsageError(f"{lies.parent} is a link: nothing is moved through it.")
        with self._lock:
            os.rename(was, lies)
            words = f"step {number(checkpoint.step)}" if checkpoint.step >= 0 else checkpoint.name
            thrown = _Thrown(words, was, lies, time.monotonic(), str(was.parent))
            self._thrown[uuid.uuid4().hex] = thrown
        timer = threading.Timer(self._kept_s + 1, self.sweep)
        timer.daemon = True
        timer.start()

    def restore(self, id: str) -> str:
        """Its words. LookupError if it was swept, or if something stands in its place."""
        with self._lock:
            thrown = self._thrown.get(id)
            if thrown is None or not os.path.lexists(thrown.lies):
                self._thrown.pop(id, None)
                raise LookupError("It was swept away already and cannot come back.")
            if os.path.lexists(thrown.was):
                raise LookupError(f"Meanwhile another checkpoint was saved as {thrown.was.name}.")
            os.rename(thrown.lies, thrown.was)
            del self._thrown[id]
            with suppress(OSError):
                thrown.lies.parent.rmdir()
        return thrown.words

    def of(self, albums: set[str]) -> list[Deleted]:
        """What can still be undone of these folders, the latest first."""
        with self._lock:
            found = [(id, thrown) for id, thrown in self._thrown.items() if thrown.album in albums]
        return [Deleted(id, thrown.words) for id, thrown in reversed(found)]

    def sweep(self, everything: bool = False) -> None:
        if os.getpid() != self._pid:
            return  # a fork of the kernel ends, not the kernel
        limit = time.monotonic() - self._kept_s
        with self._lock:
            due = {id: one for id, one in self._thrown.items() if everything or one.since_s <= limit}
            for id in due:
                del self._thrown[id]
        for thrown in due.values():
            _remove(thrown.lies)

    def sweep_left(self, folder: str) -> None:
        """What kernels that were killed have left in this folder, which is one of a run store."""
        path = f"{folder}/{FOLDER}"
        if os.path.islink(path):
            return  # somebody's trap: what it points to is not ours
        with self._lock:
            ours = {thrown.lies.name for thrown in self._thrown.values()}
        with suppress(OSError):
            for entry in os.scandir(path):
                age_s = time.time() - entry.stat(follow_symlinks=False).st_ctime
                if entry.name not in ours and age_s > self._kept_s and _THROWN.fullmatch(entry.name):
                    _remove(Path(entry.path))


def _remove(path: Path) -> None:
    """A link goes, what it points to stays."""
    if path.is_symlink():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.parent.rmdir()


trash = Trash()
