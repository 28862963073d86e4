"""The large buffers that belong to a message, outside of its bytes. Used by every process."""

from __future__ import annotations

import os
from contextlib import suppress


class Blob:
    """A memfd, which is memory of this machine that processes hand on without a copy. It is filled before it
    is sent and never changed after that. Every holder has a descriptor of its own; it is closed when nothing
    refers to the blob any more, so nobody has to say who is the last one.
    """

    __slots__ = ("_descriptor",)
    _release = staticmethod(os.close)
    """Still there when the interpreter ends and takes modules apart."""

    def __init__(self, descriptor: int) -> None:
        """Takes the descriptor over."""
        self._descriptor = descriptor

    @classmethod
    def new(cls) -> Blob:
        return cls(os.memfd_create("quarterdeck-payload", os.MFD_CLOEXEC))

    def fileno(self) -> int:
        return self._descriptor

    @property
    def size_bytes(self) -> int:
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        """Now; what has been mapped of it stays."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):  # user code may close whatever it finds
                self._release(descriptor)

    def __del__(self) -> None:
        self.close()
