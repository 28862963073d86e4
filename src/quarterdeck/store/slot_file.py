"""A file of slots of one size that are overwritten in place: what is true now, not what happened. Written by
one process per file, read by any at any time: `vitals.bin`, `progress-attempt-A-rank-R.bin`.

A slot is a checked record (see `records`), and whatever was there before. Length 0 is an empty slot. A reader
that meets a slot in the middle of its change reads it again; one that a crash has torn is left out.
"""

from __future__ import annotations

import os
from pathlib import Path

from quarterdeck import files
from quarterdeck.store.records import CHECK_BYTES, checked, content_at

_READS = 5
_LIMIT_BYTES = 4 << 20


class Slots:
    """Writes; not for several threads at once. The file is made by the first `write`."""

    def __init__(self, path: Path, slot_bytes: int) -> None:
        self._path = path
        self._slot_bytes = slot_bytes
        self._descriptor = -1

    @property
    def room_bytes(self) -> int:
        """The most that one slot takes."""
        return self._slot_bytes - CHECK_BYTES

    def write(self, index: int, content: bytes) -> None:
        """One write. ValueError if it is too long; OSError."""
        if len(content) > self.room_bytes:
            raise ValueError(f"{len(content)} bytes do not fit into a slot of {self.room_bytes}")
        if self._descriptor < 0:
            self._descriptor = files.create(self._path.parent, self._path.name, flags=os.O_WRONLY)
        os.pwrite(self._descriptor, checked(content), index * self._slot_bytes)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def read_slots(path: Path, slot_bytes: int) -> dict[int, bytes]:
    """The whole ones that hold something, by place. {} for a file that is not there; never raises OSError."""
    found: dict[int, bytes] = {}
    try:
        descriptor = files.open_file(path.parent, path.name)
    except OSError:
        return found
    try:
        data = os.pread(descriptor, _LIMIT_BYTES, 0)
        for start in range(0, len(data), slot_bytes):
            content = content_at(data[start : start + slot_bytes])
            reads = 1
            while content is None and reads < _READS:
                content = content_at(os.pread(descriptor, slot_bytes, start))
                reads += 1
            if content:
                found[start // slot_bytes] = content
    except OSError:
        pass
    finally:
        os.close(descriptor)
    return found
