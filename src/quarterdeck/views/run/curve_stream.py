"""A run's metrics as the view's curves: first all, then what changed. Used by `feed`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from quarterdeck.metrics.buckets import Grid
from quarterdeck.metrics.history import History
from quarterdeck.metrics.thinned import ThinnedMetrics, packed
from quarterdeck.store.reader import StoredRun
from quarterdeck.store.resume_chain import ancestors
from quarterdeck.views.run.messages import Curves, Detail, SeriesHead, ToBrowser

MESSAGE_BYTES = 2_000_000
"""About so much at most in one message: a run of a hundred metrics comes in several."""
_NUMBERS = 6 * 8
"""Bytes of a point."""

Sent = tuple[ToBrowser, bytes]
"""A message and its buffer; b"" if it has none."""


class CurveStream:
    """The curves of one run, joined with those of the runs that it continues. `only_means`: of a run that
    another one is compared with.
    """

    def __init__(self, run_id: str, history: History, only_means: bool = False) -> None:
        self.run_id = run_id
        self.metrics = ThinnedMetrics(history)
        self._only_means = only_means
        self._joined = False
        """It is known which runs this one continues."""
        self._continues = False
        self._began_unix_ns = 0
        self._told = False

    def whole(self, run: StoredRun | None) -> list[Sent]:
        """All there is. `run`: None while nobody has put it on record."""
        self._join(run)
        self.metrics.refresh()
        self._changes()
        self.metrics.renewed = False
        self._began_unix_ns, self._told = self._began(run), True
        every = {name: self.metrics.grids[name].everything() for name in self.metrics.names}
        return self._messages(every, whole=True)

    def news(self, run: StoredRun | None) -> list[Sent]:
        """What changed since the last call of either."""
        self._join(run)
        grew = self.metrics.refresh()
        if not self._told or self.metrics.renewed or self._began(run) != self._began_unix_ns:
            return self.whole(run) if grew or self.metrics.grids else []
        return self._messages(self._changes(), whole=False) if grew else []

    def zoom(self, name: str, first: float, last: float) -> Sent:
        grid = self.metrics.zoom(name, first, last)
        series = list(self._series({name: grid}, {name: grid.everything()})) if grid is not None else []
        detail = Detail(name=name, first_step=first, last_step=last, series=[head for head, _ in series])
        return detail, b"".join(data for _, data in series)

    def _join(self, run: StoredRun | None) -> None:
        if run is not None and not self._joined:
            before = list(ancestors(run.folder, run.header))
            self.metrics.history.follow(before)
            self._joined, self._continues = True, bool(before)

    def _began(self, run: StoredRun | None) -> int:
        """When the run began, or what it continues, if that is shown; 0 if it is not known."""
        began = run.started_unix_ns if run is not None else 0
        first = self.metrics.began_unix_ns
        return min(began, first) if self._continues and first else began

    def _changes(self) -> dict[str, dict[int | None, int]]:
        return {name: self.metrics.grids[name].changes() for name in self.metrics.names}

    def _messages(self, changes: dict[str, dict[int | None, int]], whole: bool) -> list[Sent]:
        names = self.metrics.names
        found: list[Sent] = []
        for part in _parts(self._series(self.metrics.grids, changes)):
            heads, data = [head for head, _ in part], b"".join(data for _, data in part)
            found.append((Curves(run_id=self.run_id, names=names, whole=whole, series=heads), data))
            whole = False
        if whole:
            found.append((Curves(run_id=self.run_id, names=names, whole=True, series=[]), b""))
        return found

    def _series(
        self, grids: dict[str, Grid], changes: dict[str, dict[int | None, int]]
    ) -> Iterator[tuple[SeriesHead, bytes]]:
        began = self._began_unix_ns or self.metrics.began_unix_ns
        for name, starts in changes.items():
            for rank, key in self._lines(starts).items():
                part = grids[name].part(rank, key)
                data = packed(part, began)
                yield SeriesHead(name, rank, part.start, len(data) // _NUMBERS), data

    def _lines(self, starts: dict[int | None, int]) -> dict[int | None, int]:
        """Those that are sent: the mean first; of a run to compare with nothing else, and of one rank it is
        that rank's line.
        """
        if self._only_means:
            return {None: min(starts.values())} if starts else {}
        return dict(sorted(starts.items(), key=lambda item: -1 if item[0] is None else item[0]))


def _parts(series: Iterable[tuple[SeriesHead, bytes]]) -> Iterator[list[tuple[SeriesHead, bytes]]]:
    part: list[tuple[SeriesHead, bytes]] = []
    size = 0
    for head, data in series:
        if part and size + len(data) > MESSAGE_BYTES:
            yield part
            part, size = [], 0
        part.append((head, data))
        size += len(data)
    if part:
        yield part
