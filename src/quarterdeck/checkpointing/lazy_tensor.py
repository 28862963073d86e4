"""Tensors as they lie in a checkpoint, whole or in pieces, of which any region can be read. Used by `load`
and `export`; nothing is read before `read`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from quarterdeck.checkpointing.errors import DamagedCheckpoint

if TYPE_CHECKING:
    import torch

Region = tuple[Sequence[int], Sequence[int]]
"""Offsets and sizes."""


class Stored(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> torch.dtype: ...

    def read(self, offsets: Sequence[int], sizes: Sequence[int]) -> torch.Tensor:
        """May be a view of a mapped file: copy what is to stay. Raises DamagedCheckpoint."""


class Whole:
    """A mapped tensor."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._tensor.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self._tensor.dtype

    def read(self, offsets: Sequence[int], sizes: Sequence[int]) -> torch.Tensor:
        return narrowed(self._tensor, offsets, sizes)


class Chunk(NamedTuple):
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    read: Callable[[], torch.Tensor]


class Pieces:
    """A tensor that several ranks wrote."""

    def __init__(self, name: str, shape: Sequence[int], dtype: torch.dtype, chunks: Sequence[Chunk]) -> None:
        """Raises DamagedCheckpoint unless the chunks lie within the shape and are as many values as it
        has.
        """
        self._name, self.shape, self.dtype = name, tuple(shape), dtype
        self._chunks = list(chunks)
        covered = sum(math.prod(chunk.sizes) for chunk in chunks)
        if covered != math.prod(self.shape) or not all(map(self._lies_within, chunks)):
            raise DamagedCheckpoint(f"the pieces of {name} do not make up its shape {self.shape}")

    def _lies_within(self, chunk: Chunk) -> bool:
        ends = zip(chunk.offsets, chunk.sizes, self.shape, strict=False)
        right = len(chunk.offsets) == len(chunk.sizes) == len(self.shape)
        return right and all(at >= 0 and size >= 0 and at + size <= whole for at, size, whole in ends)

    def read(self, offsets: Sequence[int], sizes: Sequence[int]) -> torch.Tensor:
        import torch

        found = torch.empty(tuple(sizes), dtype=self.dtype, device="cpu")
        for chunk in self._chunks:
            common = _overlap((offsets, sizes), (chunk.offsets, chunk.sizes))
            if common is None:
                continue
            piece = chunk.read()
            if tuple(piece.shape) != chunk.sizes or piece.dtype != self.dtype:
                raise DamagedCheckpoint(f"a piece of {self._name} is not what its index says")
            starts, lengths = common
            there = narrowed(found, _less(starts, offsets), lengths)
            there.copy_(narrowed(piece, _less(starts, chunk.offsets), lengths))
        return found


def whole(stored: Stored) -> torch.Tensor:
    return stored.read((0,) * len(stored.shape), stored.shape)


def narrowed(tensor: torch.Tensor, offsets: Sequence[int], sizes: Sequence[int]) -> torch.Tensor:
    for dim, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        tensor = tensor.narrow(dim, offset, size)
    return tensor


def local_region(tensor: Any) -> Region | None:
    """Which part of it this rank holds; None: nothing."""
    if not hasattr(tensor, "__create_chunk_list__"):
        return (0,) * tensor.dim(), tuple(tensor.shape)
    if tensor.device_mesh.get_coordinate() is None or tensor.to_local().numel() == 0:
        return None
    chunk = tensor.__create_chunk_list__()[0]
    return tuple(chunk.offsets), tuple(chunk.sizes)


def _overlap(left: Region, right: Region) -> Region | None:
    starts = [max(a, b) for a, b in zip(left[0], right[0], strict=True)]
    ends = [min(a + m, b + n) for a, m, b, n in zip(left[0], left[1], right[0], right[1], strict=True)]
    sizes = [end - start for start, end in zip(starts, ends, strict=True)]
    return (starts, sizes) if all(size > 0 for size in sizes) else None


def _less(left: Sequence[int], right: Sequence[int]) -> list[int]:
    return [a - b for a, b in zip(left, right, strict=True)]
