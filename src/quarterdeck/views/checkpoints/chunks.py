"""Tensors piece by piece, so that looking into one takes bounded memory and time. Used by `statistics` and
`tensor_diff`, in a thread of the kernel. torch is there already when this is called; tensors come from
`opened`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from quarterdeck.checkpointing.lazy_tensor import Stored

_SLAB_VALUES = 1 << 22
Slab = tuple[Sequence[int], Sequence[int]]
"""Offsets and sizes."""


def slabs(shape: Sequence[int], most_values: int) -> list[Slab]:
    """Regions along the first dimension; evenly spread ones where all of them would be more than
    `most_values`.
    """
    shape = tuple(shape)
    if math.prod(shape) == 0:
        return []
    if not shape:
        return [((), ())]
    row = math.prod(shape[1:])
    rows = max(1, _SLAB_VALUES // row)
    starts = range(0, shape[0], rows)
    n = min(len(starts), max(1, most_values // (rows * row)))
    chosen = [starts[(2 * at + 1) * len(starts) // (2 * n)] for at in range(n)]
    rest = (0,) * (len(shape) - 1)
    return [((at, *rest), (min(rows, shape[0] - at), *shape[1:])) for at in chosen]


def values(stored: Stored, most_values: int) -> Iterator[Any]:
    """As float64, flat; of complex numbers the size."""
    for offsets, sizes in slabs(stored.shape, most_values):
        yield flat(stored, offsets, sizes)


def flat(stored: Stored, offsets: Sequence[int], sizes: Sequence[int]) -> Any:
    tensor: Any = stored.read(offsets, sizes)
    if tensor.is_complex():
        tensor = tensor.abs()
    return tensor.reshape(-1).double()
