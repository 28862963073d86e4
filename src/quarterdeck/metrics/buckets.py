"""Curves thinned as they grow: what a live view draws of a metric, however much was logged. In the kernel;
imports numpy.

A bucket stands for all values of `width` steps, a power of two; the buckets of all ranks of a metric lie on
one grid, so that their mean can be taken. With width 1 a line is exact. When the grid has more than `LIMIT`
buckets, the width doubles. Only buckets that hold something take memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from quarterdeck.metrics.records import Floats, Ints, Records, first_of_each, in_order, last_of_each

LIMIT = 1024
"""Buckets of a metric, over all its ranks."""
_AT_ONCE = 1 << 15
"""Records, so that a file read at once takes no memory of its size."""


class Line(NamedTuple):
    """Buckets of one rank, ascending. Of a value that is not finite only its place is kept; where there was
    no other, least, greatest and last are NaN. Two arrays: an append to a line is a few calls of numpy.
    """

    places: Ints
    """Rows: keys, that is the step divided by the width and rounded down; the greatest step in the bucket;
    the time of its value.
    """
    values: Floats
    """Rows: least; greatest; the value of the greatest step; sum; how many are finite."""

    @property
    def keys(self) -> Ints:
        column: Ints = self.places[0]
        return column

    @property
    def steps(self) -> Ints:
        column: Ints = self.places[1]
        return column

    @property
    def times(self) -> Ints:
        column: Ints = self.places[2]
        return column

    @property
    def means(self) -> Floats:
        sums, numbers = self.values[3], self.values[4]
        found: Floats = np.divide(sums, numbers, out=np.full(len(sums), np.nan), where=numbers > 0)
        return found

    def part(self, start: int, end: int | None = None) -> Line:
        return Line(self.places[:, start:end], self.values[:, start:end])

    def until(self, key: int) -> Line:
        return self.part(0, int(np.searchsorted(self.keys, key)))

    def since(self, key: int) -> Line:
        return self.part(int(np.searchsorted(self.keys, key)))


class Part(NamedTuple):
    """What is to be drawn of a line, from its bucket number `start` on."""

    start: int
    columns: tuple[Ints, Ints, Floats, Floats, Floats, Floats]
    """Steps; times, ns since 1970; least, greatest, mean and last value. Times never go back: what was
    logged before a restart, of steps that are to come again, stands where those do.
    """


class Grid:
    """The lines of one metric."""

    def __init__(self) -> None:
        self.bits = 0
        """The width is 2 to the power of it."""
        self.keys: Ints = np.zeros(0, np.int64)
        """The keys of all ranks' buckets."""
        self.lines: dict[int, Line] = {}
        self._changed: dict[int | None, int] = {}
        """By rank, None for the mean: the key of the first bucket that is another one."""

    def take(self, rank: int, new: Records, between: Callable[[int, int], Records]) -> None:
        """`new`: as they were logged. `between(first, last)`: all of the rank's records of these steps, the
        new ones too.
        """
        if not len(new.steps):
            return
        new = in_order(new)
        line = self.lines.get(rank)
        if line is not None and new.steps[0] <= line.steps[-1]:
            self._replace(rank, line, line_of(new, self.bits), between)
            return
        for start in range(0, len(new.steps), _AT_ONCE):
            some = Records._make(column[start : start + _AT_ONCE] for column in new)
            added, line = line_of(some, self.bits), self.lines.get(rank)
            self.lines[rank] = added if line is None else _extended(line, added)
            self._note(rank, int(added.keys[0]), has_mean_now=len(self.lines) == 2 and line is None)

    def _replace(self, rank: int, line: Line, added: Line, between: Callable[[int, int], Records]) -> None:
        """Steps that come again: with a width beyond 1, their buckets are made anew of all records."""
        first, after = int(added.keys[0]), int(added.keys[-1]) + 1
        if self.bits == 0:
            self.lines[rank] = _upserted(line, added)
        else:
            records = between(first << self.bits, (after << self.bits) - 1)
            again = line_of(in_order(records), self.bits)
            self.lines[rank] = folded([line.until(first), again, line.since(after)])
        self._note(rank, first, has_mean_now=False)

    def _note(self, rank: int, first: int, has_mean_now: bool) -> None:
        place = int(np.searchsorted(self.keys, first))
        own = self.lines[rank].since(first).keys
        tail = own if place == len(self.keys) else np.union1d(self.keys[place:], own)
        self.keys = np.concatenate([self.keys[:place], tail])
        self._changed[rank] = min(first, self._changed.get(rank, first))
        start = int(self.keys[0]) if has_mean_now else first
        self._changed[None] = min(start, self._changed.get(None, start))
        self._coarsen()

    def _coarsen(self) -> None:
        bits = bits_for(self.keys, self.bits)
        if bits == self.bits:
            return
        more = bits - self.bits
        self.lines = {rank: coarser(line, more) for rank, line in self.lines.items()}
        keys = self.keys >> more
        self.keys, self.bits = keys[first_of_each(keys)], bits
        self._changed = dict.fromkeys((None, *self.lines), int(self.keys[0]))

    # ---- what a view wants

    def changes(self) -> dict[int | None, int]:
        """Since the last call, by rank, None for the mean: the key from which on it is another line."""
        changed, self._changed = self._changed, {}
        if len(self.lines) < 2:
            changed.pop(None, None)
        return changed

    def everything(self) -> dict[int | None, int]:
        """As `changes` would be if all were new."""
        ranks = sorted(self.lines)
        return {rank: int(self.keys[0]) for rank in (ranks if len(ranks) < 2 else [None, *ranks])}

    def part(self, rank: int | None, first: int) -> Part:
        """A line, None for the mean over ranks, from the key `first` on."""
        if rank is None:
            return _mean(list(self.lines.values()), first, self.keys)
        line = self.lines[rank]
        rest, times = line.since(first), _ascending(line.times)
        start = len(line.keys) - len(rest.keys)
        least, greatest, last = rest.values[:3]
        return Part(start, (rest.steps, times[start:], least, greatest, rest.means, last))


# ---- lines


def line_of(records: Records, bits: int) -> Line:
    """The line that records in their order make."""
    places = np.array([records.steps, records.steps, records.times])
    places[0] >>= bits
    values = np.empty((5, len(records.values)))
    finite = np.isfinite(records.values)
    values[:4], values[4] = records.values, finite
    if not finite.all():
        values[:3, ~finite] = np.nan
        values[3, ~finite] = 0.0
    return folded([Line(places, values)])


def folded(parts: Sequence[Line]) -> Line:
    """One after another; neighbours with the same key become one."""
    line = parts[0] if len(parts) == 1 else _joined(parts)
    starts, count = np.flatnonzero(first_of_each(line.keys)), len(line.keys)
    if len(starts) == count:
        return line
    ends = np.append(starts[1:], count) - 1
    values = np.empty((5, len(starts)))
    np.fmin.reduceat(line.values[0], starts, out=values[0])
    np.fmax.reduceat(line.values[1], starts, out=values[1])
    values[2] = line.values[2, ends]
    np.add.reduceat(line.values[3:], starts, axis=1, out=values[3:])
    return Line(line.places[:, ends], values)


def coarser(line: Line, bits: int) -> Line:
    places = line.places.copy()
    places[0] >>= bits
    return folded([Line(places, line.values)])


def bits_for(keys: Ints, bits: int) -> int:
    """The least number of bits, from `bits` on, with which no more than LIMIT keys are left of these, which
    are of `bits` and ascend.
    """
    if len(keys) <= LIMIT:
        return bits
    low, high = 1, 63
    while low < high:
        middle = (low + high) // 2
        shifted = keys >> middle
        if np.count_nonzero(shifted[1:] != shifted[:-1]) < LIMIT:
            high = middle
        else:
            low = middle + 1
    return bits + low


def _joined(parts: Sequence[Line]) -> Line:
    places, values = zip(*parts, strict=True)
    return Line(np.concatenate(places, axis=1), np.concatenate(values, axis=1))


def _extended(line: Line, added: Line) -> Line:
    """`added` may begin in the last bucket."""
    if line.keys[-1] != added.keys[0]:
        return _joined([line, added])
    return _joined([line.part(0, -1), folded([line.part(-1), added])])


def _upserted(line: Line, added: Line) -> Line:
    """With width 1: what comes again replaces what was."""
    both = _joined([line, added])
    order = np.argsort(both.keys, kind="stable")
    order = order[last_of_each(both.keys[order])]
    return Line(both.places[:, order], both.values[:, order])


def _mean(lines: Sequence[Line], first: int, grid: Ints) -> Part:
    """The mean of the ranks' means, and of their last values, over ranks that have the bucket: NaN if one of
    them is. Least and greatest are the mean, too: a line without noise of its own.
    """
    start = int(np.searchsorted(grid, first))
    rest = _joined([line.since(first) for line in lines])
    means = np.concatenate([line.since(first).means for line in lines])
    places, count = np.searchsorted(grid[start:], rest.keys), len(grid) - start
    steps = np.full(count, np.iinfo(np.int64).min)
    times = np.zeros(count, np.int64)
    np.maximum.at(steps, places, rest.steps)
    np.maximum.at(times, places, rest.times)
    times[0] = max([times[0], *(line.until(first).times.max(initial=0) for line in lines)])
    ranks = np.bincount(places, minlength=count)
    mean = np.bincount(places, means, count) / ranks
    last = np.bincount(places, rest.values[2], count) / ranks
    return Part(start, (steps, _ascending(times), mean, mean, mean, last))


def _ascending(times: Ints) -> Ints:
    found: Ints = np.maximum.accumulate(times)
    return found
