"""What the ranks of a run use of their nodes, from the agents into the run's folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from quarterdeck.coordinator.worker import Worker
from quarterdeck.protocol.agent import Vitals
from quarterdeck.store.vitals import write_vitals


class Record(Protocol):
    """A `RunRecord`."""

    @property
    def opened(self) -> bool: ...
    @property
    def folder(self) -> Path: ...


@contextmanager
def sampled(record: Record | None, workers: Sequence[Worker]) -> Iterator[None]:
    """Inside the block `record`'s folder has the vitals of these ranks, from the moment that it is there.
    Never fails a run; a folder that is gone is not made again.
    """

    def write(vitals: list[Vitals]) -> None:
        if record is not None and record.opened:
            with suppress(OSError, ValueError):
                write_vitals(record.folder, vitals)

    agents = {worker.agent: [one.life for one in workers if one.agent is worker.agent] for worker in workers}
    ends = [agent.watch(lives, write) for agent, lives in agents.items()] if record is not None else []
    try:
        yield
    finally:
        for end in ends:
            end()
