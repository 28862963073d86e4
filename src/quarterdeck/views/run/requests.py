"""What a view asks for beside its run's own news: logs, decks, other runs. Used by `feed`.

LookupError, with a sentence, for what is not there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from quarterdeck import files
from quarterdeck.decks.reader import StoredDecks
from quarterdeck.metrics.history import History
from quarterdeck.metrics.series import last_of_run
from quarterdeck.store.layout import log_name
from quarterdeck.store.paths import homes
from quarterdeck.store.reader import NotARun, StoredRun, list_runs
from quarterdeck.views.run.curve_stream import CurveStream, Sent
from quarterdeck.views.run.messages import DeckPage, Log, OtherRun, Runs, Trouble
from quarterdeck.views.run.runs_html import called

LOG_BYTES = 20_000_000
"""The most of a log that is sent; of a longer one only its place is."""
RUNS = 20
_LOOKED_AT = 200
"""Runs of the notebook that are searched for a metric of this one."""
COMPARED = 8


class Answers:
    def __init__(self, folder: Path, decks: StoredDecks) -> None:
        """`decks`: those whose versions the view knows."""
        self._folder = folder
        self._decks = decks
        self._compared: dict[str, tuple[CurveStream, StoredRun]] = {}

    def log(self, rank: int) -> list[Sent]:
        path = self._folder / log_name(rank)
        size_bytes = files.size_of(self._folder, path.name)
        if size_bytes is None:
            raise LookupError(f"Rank {rank} has written nothing.")
        small = size_bytes <= LOG_BYTES
        content = files.read_end(self._folder, path.name, limit_bytes=LOG_BYTES)[0] if small else b""
        return [(Log(rank=rank, path=str(path), sent=small), content)]

    def deck(self, name: str, rank: int | None) -> list[Sent]:
        head = next((head for head in self._decks.heads() if head.name == name), None)
        if head is None:
            raise LookupError(f"No deck is called {name!r}.")
        page = self._decks.page(name, rank)
        return [(DeckPage(name=name, rank=rank, version=head.version, html=page), b"")]

    # ---- other runs

    def runs(self, names: Collection[str]) -> list[Sent]:
        """Earlier runs of the same notebook with one of these metrics."""
        mine = StoredRun.read(self._folder)
        found: list[OtherRun] = []
        for run in self._earlier(mine)[:_LOOKED_AT]:
            last = {name: value for name, value in last_of_run(run.folder).items() if name in names}
            if last:
                created_ms = (run.started_unix_ns or run.created_unix_ns) / 1e6
                found.append(OtherRun(run.run_id, called(run.header), created_ms, run.state, last))
            if len(found) == RUNS:
                break
        return [(Runs(runs=found), b"")]

    def compare(self, run_ids: Sequence[str]) -> list[Sent]:
        """The means of these runs, and nothing any more of others."""
        wanted = list(dict.fromkeys(run_ids))[:COMPARED]
        self._compared = {id: book for id, book in self._compared.items() if id in wanted}
        sent: list[Sent] = []
        for run_id in wanted:
            if run_id in self._compared:
                continue
            if (run := self._named(run_id)) is None:
                sent.append((Trouble(about="compare", text=f"The run {run_id} is no longer there."), b""))
                continue
            self._compared[run_id] = CurveStream(run_id, History(run.folder), only_means=True), run
            sent += _whole(*self._compared[run_id])
        return sent

    def compared_whole(self) -> list[Sent]:
        return [message for book, run in self._compared.values() for message in _whole(book, run)]

    def compared_news(self) -> list[Sent]:
        return [
            message for book, run in self._compared.values() if not run.terminal for message in book.news(run)
        ]

    def _earlier(self, mine: StoredRun) -> list[StoredRun]:
        return [
            run
            for run in list_runs(self._homes())
            if run.created_unix_ns < mine.created_unix_ns and _same_notebook(run, mine)
        ]

    def _named(self, run_id: str) -> StoredRun | None:
        """The run of that id, which a browser sends: only its last part counts, so it stays in the store."""
        for home in self._homes():
            try:
                run = StoredRun.read(home / "runs" / Path(run_id).name)
            except NotARun:
                continue
            if run.run_id == run_id:
                return run
        return None

    def _homes(self) -> list[Path]:
        return homes(self._folder.parents[1])


def _whole(book: CurveStream, run: StoredRun) -> Iterator[Sent]:
    run.refresh()
    yield from book.whole(run)


def _same_notebook(run: StoredRun, mine: StoredRun) -> bool:
    return (run.header.notebook, run.header.cwd) == (mine.header.notebook, mine.header.cwd)
