"""Files of metrics, and what a view gets of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from quarterdeck.metrics.buckets import LIMIT, Grid
from quarterdeck.metrics.format import Layout, definition
from quarterdeck.metrics.series import Points
from quarterdeck.metrics.thinned import packed
from quarterdeck.store.layout import METRICS

Row = tuple[int, float]


SECOND_NS = 1_000_000_000


class Files:
    """Writes files of metrics as `qd.log` does; a millisecond passes between two records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_ns = SECOND_NS
        self._known: set[tuple[int, int, tuple[str, ...]]] = set()

    def log(self, rows: Iterable[Row], name: str = "loss", rank: int = 0, attempt: int = 0) -> None:
        layout = Layout((name,))
        with (self.folder / METRICS.name(attempt, rank)).open("ab") as file:
            if (rank, attempt, layout.names) not in self._known:
                self._known.add((rank, attempt, layout.names))
                file.write(definition(layout, attempt, rank))
            for step, value in rows:
                self.now_ns += 1_000_000
                file.write(layout.pack(layout.id, self.now_ns, step, value, ~self.now_ns))


def points(grid: Grid, rank: int | None = 0) -> dict[str, list[float]]:
    """A line as a view gets it."""
    data = packed(grid.part(rank, int(grid.keys[0])), 0)
    names = ("step", "time", "least", "greatest", "mean", "last")
    return dict(zip(names, np.frombuffer(data, "<f8").reshape(6, -1).tolist(), strict=True))


def check_line(grid: Grid, full: Points, rank: int) -> None:
    found, width = points(grid, rank), 1 << grid.bits
    groups: dict[int, list[int]] = {}
    for place, step in enumerate(full.steps):
        groups.setdefault(step // width, []).append(place)
    assert len(found["step"]) == len(groups) <= LIMIT
    for number, places in enumerate(groups[key] for key in sorted(groups)):
        values = [full.values[place] for place in places if math.isfinite(full.values[place])]
        assert found["step"][number] == float(full.steps[places[-1]])
        if not values:
            assert all(math.isnan(found[column][number]) for column in ("least", "greatest", "mean", "last"))
            continue
        assert found["least"][number] == min(values)
        assert found["greatest"][number] == max(values)
        assert found["mean"][number] == pytest.approx(sum(values) / len(values))
        last = full.values[places[-1]]
        assert found["last"][number] == pytest.approx(last if math.isfinite(last) else math.nan, nan_ok=True)
