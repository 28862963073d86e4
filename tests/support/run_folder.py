"""A run as coordinator and workers write it, and a browser that reads what its view is sent."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from quarterdeck.metrics.format import Layout, definition
from quarterdeck.protocol.worker import Outcome, Output
from quarterdeck.store.format import GroupEvent, OutcomeEvent, RunHeader, StateEvent
from quarterdeck.store.layout import METRICS
from quarterdeck.store.writer import RunWriter
from quarterdeck.views.run.curve_stream import Sent
from quarterdeck.views.run.messages import (
    Curves,
    Line,
    Lines,
    State,
    Trouble,
)

MS = 1_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Run:
    """Writes a run's files, as coordinator and workers do."""

    def __init__(
        self, home: Path, name: str = "", created_unix_ns: int = 0, notebook: str = "a.ipynb"
    ) -> None:
        created = created_unix_ns or time.time_ns()
        header = RunHeader(
            name=name, title="train()", kind="function", notebook=notebook, created_unix_ns=created
        )
        self.recorder = RunWriter(home, header)
        self.started_ns = created
        self._known: set[tuple[str, int, int]] = set()

    @property
    def folder(self) -> Path:
        return self.recorder.folder

    def start(self, world_size: int = 2) -> None:
        self.recorder.event(StateEvent(self.started_ns, "starting"))
        devices = ["cpu"] * world_size
        self.recorder.event(GroupEvent(self.started_ns, 0, world_size, "gloo", "cpu", devices))
        self.recorder.event(StateEvent(self.started_ns, "running"))

    def log(self, steps: Iterable[int], name: str = "loss", rank: int = 0, attempt: int = 0) -> None:
        """A value is its step and a tenth of its rank; a step is a millisecond."""
        layout = Layout((name,))
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / METRICS.name(attempt, rank)).open("ab") as file:
            if (name, rank, attempt) not in self._known:
                self._known.add((name, rank, attempt))
                file.write(definition(layout, attempt, rank))
            for step in steps:
                now = self.started_ns + step * MS
                file.write(layout.pack(layout.id, now, step, step + rank / 10, ~now))

    def say(self, text: str, rank: int = 0) -> None:
        self.recorder.write(Output(rank=rank, kind="stdout", text=text))

    def end(self, state: str = "succeeded", ago_s: float = 10) -> None:
        then = time.time_ns() - int(ago_s * 1e9)
        for rank in range(2):
            self.recorder.event(OutcomeEvent(then, 0, Outcome(rank=rank, state="ok"), False))
        self.recorder.event(StateEvent(then, state))  # type: ignore[arg-type]
        self.recorder.close()


class Screen:
    """A browser's half: applies curves as `SeriesHead` says, and collects the lines."""

    def __init__(self) -> None:
        self.curves: dict[str, dict[tuple[str, int | None], list[tuple[float, ...]]]] = {}
        self.names: list[str] = []
        self.rows: dict[float, Line] = {}
        self.left_out = 0
        self.state: State | None = None
        self.troubles: list[Trouble] = []

    def see(self, sent: Sequence[Sent]) -> None:
        for message, data in sent:
            match message:
                case State():
                    self.state = message
                case Curves():
                    self._draw(message, data)
                case Lines():
                    self._print(message)
                case Trouble():
                    self.troubles.append(message)

    @property
    def lines(self) -> list[str]:
        return [line.text for line in self.rows.values()]

    def _print(self, message: Lines) -> None:
        known = {} if message.whole else self.rows
        known |= {line.no: line for line in message.lines}
        kept = (no for no in sorted(known) if no >= message.first and no not in message.gone)
        self.rows, self.left_out = {no: known[no] for no in kept}, message.left_out

    def _draw(self, message: Curves, data: bytes) -> None:
        known = self.curves.setdefault(message.run_id, {})
        self.names = message.names
        if message.whole:
            known.clear()
        for head in message.series:
            points = np.frombuffer(data[: 48 * head.count], "<f8").reshape(6, head.count).T.tolist()
            data = data[48 * head.count :]
            line = known.setdefault((head.name, head.rank), [])
            assert head.start <= len(line)
            line[head.start :] = [tuple(point) for point in points]
        assert data == b""

    def steps(self, run: Run, name: str = "loss", rank: int | None = 0) -> list[float]:
        return [point[0] for point in self.curves[run.folder.name][name, rank]]
