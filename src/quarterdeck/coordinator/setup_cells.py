"""Set-up cells of a session: kept, and run again on every worker that has nothing yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from quarterdeck.coordinator.worker import Worker
from quarterdeck.present.failure import sentence
from quarterdeck.protocol.blob import Blob
from quarterdeck.protocol.channel import encode
from quarterdeck.protocol.kernel import Finished, SetUp
from quarterdeck.protocol.worker import RunCell

SETUP_DONE = "finished a --setup cell"
"""What a rank has not done, where it has to be said."""


@dataclass
class SetupCell:
    """One cell, with all that it refers to."""

    cell: RunCell
    blob: Blob | None
    ranks: frozenset[int] | None
    """Those that it ran on; None: all."""

    @property
    def raw(self) -> bytes:
        return encode(self.cell)

    def where(self, workers: Sequence[Worker]) -> list[Worker]:
        return [worker for worker in workers if self.ranks is None or worker.rank in self.ranks]


class SetupCells:
    """In the order they ran."""

    def __init__(self) -> None:
        self._cells: list[SetupCell] = []

    def __iter__(self) -> Iterator[SetupCell]:
        return iter(list(self._cells))

    def keep(self, cell: RunCell, blob: Blob | None, ranks: frozenset[int] | None) -> None:
        """A cell that has succeeded. One that was run before, with the same code, is replaced by it."""
        self._cells = [known for known in self._cells if known.cell.code != cell.code]
        alone = msgspec.structs.replace(cell, payload=cell.replay or cell.payload, replay=None)
        self._cells.append(SetupCell(alone, blob, ranks))

    def take(self, setup: SetUp, blob: Blob | None) -> None:
        """One of another coordinator's."""
        self._cells.append(
            SetupCell(setup.cell, blob, None if setup.ranks is None else frozenset(setup.ranks))
        )

    def copy(self) -> SetupCells:
        """For a closed run, which may outlive the session's."""
        made = SetupCells()
        made._cells = list(self._cells)
        return made

    def clear(self) -> None:
        self._cells.clear()


def failure_words(finished: Finished) -> str:
    """ "rank 1 raised ValueError: boom"; empty for a cell that succeeded."""
    if finished.stopped:
        return "it was interrupted" if finished.stopped == "interrupt" else "it did not end in time"
    root = next((o for o in finished.outcomes if o.rank == finished.root_cause), None)
    return "" if root is None else sentence(root)
