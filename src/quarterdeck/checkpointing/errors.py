"""What can be wrong with a checkpoint. Pure; raised by saving, loading and listing, in every process."""

from __future__ import annotations

from typing import Any

from quarterdeck.errors import QuarterdeckError
from quarterdeck.public import public


@public
class CheckpointError(QuarterdeckError):
    """A checkpoint that could not be written. The ones before it are as they were."""


@public
class DamagedCheckpoint(CheckpointError):
    """Files of a checkpoint that are cut short, altered, missing or of another make; nothing was loaded."""


@public
class UntrustedCheckpoint(CheckpointError):
    """A file that holds more than plain values and tensors. Nothing of it was run and nothing was loaded.

    Attributes:
        file: the path of the file.
        needs: what it would call or construct, as "module.name".
    """

    def __init__(self, file: str, needs: list[str]) -> None:
        named = ", ".join(needs) or "something that is not allowed"
        super().__init__(
            f"{file} holds {named}, which loading would run. Nothing was loaded.\n"
            "If you know who made it, load it again with trust=True: that runs its code."
        )
        self.file = file
        self.needs = needs

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.file, self.needs), vars(self)
