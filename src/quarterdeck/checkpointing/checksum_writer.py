"""What a file of a checkpoint is written through: it counts and sums up what passes. Used by `storage`; all
that fills files (`safetensors`, torch.save) writes to one.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import IO, Any, cast

from quarterdeck.checkpointing.manifest import File

CHUNK_BYTES = 8 << 20
"""Written at a time; Python's lock is free meanwhile, so that the training loop goes on."""


class Sink:
    """A binary file, as far as torch.save needs one."""

    def __init__(self, put: Callable[[memoryview], int | None]) -> None:
        """`put` writes at the end and may return how many bytes it took; None: all of them."""
        self._put = put
        self.size_bytes = 0
        self.crc32 = 0

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        whole = len(rest)
        while rest:
            piece = rest[:CHUNK_BYTES]
            taken = self._put(piece)
            done = piece if taken is None else piece[:taken]
            self.crc32 = zlib.crc32(done, self.crc32)
            rest = rest[len(done) :]
        self.size_bytes += whole
        return whole

    def flush(self) -> None:
        """torch.save calls it; nothing is held back."""

    def as_file(self) -> IO[bytes]:
        """For torch.save, which asks for more than it uses."""
        return cast(IO[bytes], self)

    @property
    def file(self) -> File:
        return File(self.size_bytes, self.crc32)
