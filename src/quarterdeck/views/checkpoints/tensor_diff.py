"""Two checkpoints side by side: what their values are, and how far each tensor has moved. Used by `feed`, in
a thread of the kernel.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

from quarterdeck.checkpointing.checkpoint import Checkpoint
from quarterdeck.checkpointing.lazy_tensor import Stored
from quarterdeck.checkpointing.readers import Source, opened
from quarterdeck.views.checkpoints import chunks
from quarterdeck.views.checkpoints.detail import pairs
from quarterdeck.views.checkpoints.messages import Change, Comparison

MOST_VALUES = 1 << 29
"""The most values of all tensors together; of larger models a part of each large tensor is looked at."""
LEAST_VALUES = 1 << 16
_TELL_EVERY_S = 0.25


def compare(
    left_id: str, left: Checkpoint, right_id: str, right: Checkpoint, go_on: Callable[[], bool]
) -> Iterator[Comparison]:
    """First without tensors, then with more and more of them; the last has all. Ends early when nobody wants
    it any more. Raises DamagedCheckpoint, UntrustedCheckpoint.
    """
    names = {info.name for info in left.tensors if info.part == "model"}
    others = {info.name for info in right.tensors if info.part == "model"}
    both = sorted(names & others)
    found = Comparison(
        left_id, right_id, pairs(left, right), [], sorted(names - others), sorted(others - names), 0,
        len(both), False,
    )  # fmt: skip
    yield found
    told_s = time.monotonic()
    with opened(left) as one, opened(right) as two:
        most = max(LEAST_VALUES, MOST_VALUES // max(1, len(both)))
        for name in both:
            if not go_on():
                return
            change, sampled = _change(name, _stored(one, name), _stored(two, name), most)
            found.changes.append(change)
            found.sampled = found.sampled or sampled
            found.done += 1
            if time.monotonic() - told_s > _TELL_EVERY_S and found.done < found.total:
                told_s = time.monotonic()
                yield found
    if both:
        yield found


def _stored(source: Source, name: str) -> Stored | None:
    return source.tensors.get(source.aliases.get(name, name))


def _change(name: str, left: Stored | None, right: Stored | None, most: int) -> tuple[Change, bool]:
    """And whether not all of it was looked at."""
    if left is None or right is None:
        return Change(name, [], None, "is not in the files"), False
    shape = list(left.shape)
    if left.shape != right.shape:
        return Change(name, shape, None, f"has another shape: {tuple(right.shape)}"), False
    moved = norm = 0.0
    looked_at = 0
    for offsets, sizes in chunks.slabs(left.shape, most):
        before, after = (chunks.flat(stored, offsets, sizes) for stored in (left, right))
        moved += float((after - before).square().sum())
        norm += float(before.square().sum())
        looked_at += before.numel()
    note = "" if left.dtype == right.dtype else f"is {str(right.dtype).removeprefix('torch.')} on the right"
    return Change(name, shape, _ratio(moved, norm), note), looked_at < math.prod(shape)


def _ratio(moved: float, norm: float) -> float | str:
    if math.isnan(moved) or math.isnan(norm):
        return "nan"
    if norm == 0 or math.isinf(moved) or math.isinf(norm):
        return 0.0 if moved == 0 else "inf"
    return math.sqrt(moved / norm)
