"""Which checkpoint is "latest" or "best", answered once for all ranks of an attempt that ask at the same
place of their program: between the same two saves of their own. Used by `load`.

The first one that asks looks, and leaves what it found in a small file. A rank whose place is not known (it
does not save) looks for itself.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from quarterdeck import files
from quarterdeck.checkpointing import marks
from quarterdeck.checkpointing.manifest import MANIFEST
from quarterdeck.checkpointing.storage import is_url


class Answer(msgspec.Struct):
    paths: list[str]
    """Paths of checkpoints: the first one that is whole counts. Empty if there is nothing."""
    passed_over: list[str] = []
    """In words, what was not looked at."""
    foreign: str = ""
    """A file or folder of any make that the run began with: there is nothing else yet."""
    place: str = ""
    """Where it was looked for; the checkpoints may be those of the run before."""
    asked_after: int = -1
    """The last step that who asked had offered."""


@dataclass(frozen=True)
class Asked:
    """Where a rank is in its program when it asks."""

    place: str
    folder: Path = Path()
    key: str = ""
    """"": nobody knows."""
    after: int = -1

    def once(self, question: str, find: Callable[[], Answer]) -> Answer:
        """Answered by `find` if nobody has asked before."""
        if not self.key:
            return find()
        name = zlib.crc32(f"{question} {self.place}".encode())
        path = self.folder / f"{name:08x}.{self.key}"
        with suppress(OSError):  # where nothing can be written each one looks for itself
            files.make_folders(self.folder)
            with marks.alone(self.folder / "lock"):
                return self._answered(path) or self._found(path, find)
        return find()

    def _answered(self, path: Path) -> Answer | None:
        data = marks.read(path)
        answer = None if data is None else msgspec.json.decode(data, type=Answer)
        return answer if answer is not None and all(map(_is_there, answer.paths[:1])) else None

    def _found(self, path: Path, find: Callable[[], Answer]) -> Answer:
        answer = msgspec.structs.replace(find(), place=self.place, asked_after=self.after)
        marks.put(path, msgspec.json.encode(answer))
        return answer


def _is_there(path: str) -> bool:
    return is_url(path) or os.path.exists(f"{path}/{MANIFEST}") or os.path.isfile(path)


def about_to_be_loaded(folder: Path, place: str, is_open: Callable[[int], bool]) -> Iterator[str]:
    """Names of checkpoints of a place. `is_open` tells whether some rank may still ask after a step of its
    own; what was answered at others is forgotten.
    """
    for path in list(folder.glob("[!.]*.*")):
        data = marks.read(path)
        answer = None if data is None else msgspec.json.decode(data, type=Answer)
        if answer is None or answer.place != place:
            continue
        if not is_open(answer.asked_after):
            path.unlink(missing_ok=True)
        elif answer.paths and answer.paths[0].rpartition("/")[0] == place:
            yield answer.paths[0].rpartition("/")[2]
