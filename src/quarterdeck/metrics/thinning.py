"""The arithmetic of a figure's curves: smoothing, and points no denser than pixels. Used by `figure`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def smoothed(values: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """Exponential mean: `weight` of what was, the rest of the new value, without a bias to zero at the start.
    What is not finite stays as it is and leaves no trace.
    """
    mean, trust, found = 0.0, 0.0, []
    for value in values.tolist():
        if math.isfinite(value):
            mean, trust = weight * mean + (1 - weight) * value, weight * trust + (1 - weight)
            value = mean / trust
        found.append(value)
    return np.array(found)


def thinned(
    x: NDArray[np.float64], y: NDArray[np.float64], columns: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The least and the greatest value of each of `columns` slices of x, in their order: the line looks the
    same. Not touched if it is short. A slice without a finite value gives NaN.
    """
    if len(x) <= 4 * columns:
        return x, y
    starts, y = _slices(x, columns), np.where(np.isfinite(y), y, np.nan)
    low = _places(np.where(np.isnan(y), np.inf, y), starts, np.minimum)
    high = _places(np.where(np.isnan(y), -np.inf, y), starts, np.maximum)
    places = np.sort(np.stack([low, high], axis=1), axis=1).ravel()
    return x[places], y[places]


def envelope(
    x: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], columns: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """A band, thinned: in each slice the least of `low` and the greatest of `high`."""
    if len(x) <= 4 * columns:
        return x, low, high
    starts = _slices(x, columns)
    return x[starts], np.fmin.reduceat(low, starts), np.fmax.reduceat(high, starts)


def _slices(x: NDArray[np.float64], columns: int) -> NDArray[np.int64]:
    """Where each slice that has points begins; x ascends."""
    edges = np.linspace(x[0], x[-1], columns + 1)[:-1]
    return np.unique(np.searchsorted(x, edges)).astype(np.int64)


def _places(y: NDArray[np.float64], starts: NDArray[np.int64], choose: Any) -> NDArray[np.int64]:
    """Where in each slice its chosen value stands first."""
    lengths = np.diff(np.append(starts, len(y)))
    hits = np.flatnonzero(y == np.repeat(choose.reduceat(y, starts), lengths))
    slices = np.repeat(np.arange(len(starts)), lengths)[hits]
    _, first = np.unique(slices, return_index=True)
    return hits[first]
