"""Statistics and a histogram of one tensor in a checkpoint. Used by `feed`, in a thread of the kernel."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from quarterdeck.checkpointing.checkpoint import Checkpoint
from quarterdeck.checkpointing.lazy_tensor import Stored
from quarterdeck.checkpointing.readers import opened
from quarterdeck.views.checkpoints import chunks
from quarterdeck.views.checkpoints.messages import Statistics

BINS = 48
MOST_VALUES = 1 << 26
"""The most values that are looked at: a larger tensor is sampled."""


def statistics(id: str, checkpoint: Checkpoint, tensor: str, go_on: Callable[[], bool]) -> Statistics | None:
    """None as soon as nobody wants it any more. LookupError for a tensor that is not listed,
    DamagedCheckpoint, UntrustedCheckpoint.
    """
    info = next((info for info in checkpoint.tensors if info.name == tensor and info.part == "model"), None)
    if info is None:
        raise LookupError(f"The model of this checkpoint has no tensor {tensor!r}.")
    with opened(checkpoint) as source:
        stored = source.tensors.get(info.alias_of or tensor)
        if stored is None:
            raise LookupError(f"{tensor} is listed, and is not in the checkpoint's files.")
        found = Statistics(id, tensor, math.prod(stored.shape), 0, None, None, None, None, 0, 0, 0, [], "")
        return found if _measure(found, stored, go_on) and _count(found, stored, go_on) else None


def _measure(found: Statistics, stored: Stored, go_on: Callable[[], bool]) -> bool:
    total = squares = 0.0
    finite_values = 0
    for part in chunks.values(stored, MOST_VALUES):
        if not go_on():
            return False
        finite = part[part.isfinite()]
        found.looked_at += part.numel()
        found.nans += int(part.isnan().sum())
        found.infs += int(part.isinf().sum())
        found.zeros += int((part == 0).sum())
        if finite.numel():
            least, greatest = float(finite.min()), float(finite.max())
            found.least = least if found.least is None else min(found.least, least)
            found.greatest = greatest if found.greatest is None else max(found.greatest, greatest)
            finite_values += finite.numel()
            total += float(finite.sum())
            squares += float((finite * finite).sum())
    if finite_values:
        found.mean = _finite(total / finite_values)
        found.std = _finite(_deviation(total, squares, finite_values))
    return True


def _count(found: Statistics, stored: Stored, go_on: Callable[[], bool]) -> bool:
    if found.least is None or found.greatest is None:
        return True
    counts = [0] * BINS
    span = found.greatest - found.least
    if span == 0 or not math.isfinite(span):
        counts[BINS // 2] = found.looked_at - found.nans - found.infs
        found.counts = counts
        return True
    for part in chunks.values(stored, MOST_VALUES):
        if not go_on():
            return False
        finite: Any = part[part.isfinite()]
        of_part = finite.histc(BINS, found.least, found.greatest).tolist()
        counts = [old + int(new) for old, new in zip(counts, of_part, strict=True)]
    found.counts = counts
    return True


def _deviation(total: float, squares: float, n: int) -> float:
    mean = total / n
    return math.sqrt(max(0.0, squares / n - mean * mean)) if math.isfinite(squares) else math.inf


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
