"""The lines of a file that grows, as far as they are whole. Used by readers of events and of spans."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from quarterdeck import files

LIMIT_BYTES = 256 << 20
LIMIT_LINES = 1_000_000
"""The most lines of a file. A thousand attempts of 256 ranks write a quarter of either limit."""
_LINE_BYTES = 64 << 20
"""A longer one is passed over."""
_BLOCK_BYTES = 4 << 20


class TooLong(ValueError):
    """The file is none that was written here; nothing, or not all, was read of it."""


class Lines:
    """`new` gives each line once. A last one without its newline is still in the making, or torn."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._offset = 0
        self._count = 0
        self._passing_over = False

    def new(self, with_rest: bool = False) -> Iterator[bytes]:
        """`with_rest`: the last one, too, as far as it is there; its writer is gone. Raises OSError,
        TooLong.
        """
        descriptor = files.open_file(self._folder, self._name)
        try:
            size_bytes = os.fstat(descriptor).st_size
            if size_bytes > LIMIT_BYTES:
                raise TooLong(f"its {self._name} has {size_bytes:,} bytes")
            yield from self._whole(descriptor, size_bytes)
            rest_bytes = size_bytes - self._offset
            if with_rest and 0 < rest_bytes <= _LINE_BYTES and not self._passing_over:
                yield os.pread(descriptor, rest_bytes, self._offset)
        finally:
            os.close(descriptor)

    def _whole(self, descriptor: int, size_bytes: int) -> Iterator[bytes]:
        block = _BLOCK_BYTES
        while self._offset < size_bytes:
            data = os.pread(descriptor, min(block, size_bytes - self._offset), self._offset)
            end = data.rfind(b"\n") + 1
            if end:
                yield from self._counted(data[:end].split(b"\n"))
                block = _BLOCK_BYTES
            elif len(data) >= _LINE_BYTES:
                self._passing_over, end = True, len(data)
            elif len(data) < block:
                return
            block = block if end else 2 * block
            self._offset += end

    def _counted(self, lines: list[bytes]) -> Iterator[bytes]:
        """The last is what follows the last newline: nothing."""
        lines.pop()
        self._count += len(lines)
        if self._count > LIMIT_LINES:
            raise TooLong(f"its {self._name} has more than {LIMIT_LINES:,} lines")
        yield from lines[self._passing_over :]
        self._passing_over = False
