"""Columns of one metric on one rank, and how several become one. In the kernel; imports numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Records(NamedTuple):
    """What was logged, in the order in which later ones replace earlier ones of their step."""

    steps: Ints
    times: Ints
    values: Floats

    def where(self, here: slice | Ints | NDArray[np.bool_]) -> Records:
        return Records(self.steps[here], self.times[here], self.values[here])


def joined(parts: Iterable[Records]) -> Records:
    """One after another."""
    several = list(parts)
    if len(several) == 1:
        return several[0]
    return Records._make(map(np.concatenate, zip(_NONE, *several, strict=True)))


_NONE = Records(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


def by_time(parts: Sequence[Records]) -> Records:
    """The same name under several layouts: one column, as it was logged."""
    records = joined(parts)
    return records if len(parts) < 2 else records.where(np.argsort(records.times, kind="stable"))


def in_order(records: Records) -> Records:
    """By ascending step, one of each: the last one."""
    steps = records.steps
    if bool((steps[1:] > steps[:-1]).all()):
        return records
    order = np.argsort(steps, kind="stable")
    return records.where(order[last_of_each(steps[order])])


def between(parts: Iterable[Records], first: int, last: int) -> Records:
    """Those of these steps."""
    first, last = max(first, -(1 << 63)), min(last, (1 << 63) - 1)
    return joined(part.where(np.flatnonzero((part.steps >= first) & (part.steps <= last))) for part in parts)


class NotFinite(NamedTuple):
    """What is wrong with the values of one metric on one rank."""

    value: float
    """nan, inf or -inf, the first one of the row."""
    step: int
    lasts: bool
    """All values since that step are so."""


def not_finite(records: Records) -> NotFinite | None:
    """None if all are."""
    finite = np.isfinite(records.values)
    if finite.all():
        return None
    lasts, good = not finite[-1], np.flatnonzero(finite)
    place = int(np.argmin(finite)) if not lasts else int(good[-1]) + 1 if len(good) else 0
    return NotFinite(float(records.values[place]), int(records.steps[place]), lasts)


class ByStep(NamedTuple):
    """Records of several ranks, step by step, and in each step rank by rank."""

    steps: Ints
    starts: Ints
    """Where those of each step begin."""
    rows: Records

    def times(self) -> Ints:
        """For each step, when the last rank logged it."""
        found: Ints = np.maximum.reduceat(self.rows.times, self.starts)
        return found

    def least(self) -> Floats:
        """NaN if one of them is, here and in `greatest` and `mean`."""
        found: Floats = np.minimum.reduceat(self.rows.values, self.starts)
        return found

    def greatest(self) -> Floats:
        found: Floats = np.maximum.reduceat(self.rows.values, self.starts)
        return found

    def mean(self) -> Floats:
        counts = np.diff(self.starts, append=len(self.rows.steps))
        with np.errstate(invalid="ignore", over="ignore"):
            found: Floats = np.add.reduceat(self.rows.values, self.starts) / counts
        return found

    def combined(self, combine: Callable[[Sequence[float]], float], column: str) -> list[float]:
        rows = getattr(self.rows, column).tolist()
        return [combine(rows[start:end]) for start, end in pairwise([*self.starts.tolist(), len(rows)])]


def by_step(ranks: Iterable[Records]) -> ByStep:
    rows = joined(ranks)
    rows = rows.where(np.argsort(rows.steps, kind="stable"))
    starts = np.flatnonzero(first_of_each(rows.steps))
    return ByStep(rows.steps[starts], starts, rows)


def first_of_each(ascending: Ints) -> NDArray[np.bool_]:
    first = np.ones(len(ascending), np.bool_)
    np.not_equal(ascending[1:], ascending[:-1], out=first[1:])
    return first


def last_of_each(ascending: Ints) -> NDArray[np.bool_]:
    return first_of_each(ascending[::-1])[::-1]
