"""Whether a run that was told to continue an earlier one does: one that loads nothing trains from the start,
and looks like any other. Used by closed runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE_S = 10.0
"""From the first that a rank logs or saves to the warning."""


class Resumption:
    """`tell` is called at most once, and never for a run that has nothing to continue."""

    def __init__(self, source: str, tell: Callable[[str], None]) -> None:
        self._source = source
        self._tell = tell
        self._timer: asyncio.TimerHandle | None = None

    def loaded(self) -> None:
        self._source = ""
        self.leave()

    def began(self) -> None:
        """A rank has logged or saved something."""
        if self._source and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE_S, self._warn)

    def succeeded(self) -> None:
        self._warn()
        self.leave()

    def leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _warn(self) -> None:
        source, self._source = self._source, ""
        if source:
            self._tell(
                f"This run was told to resume from {source}, and has loaded nothing: it trains from the "
                'start. Its code has to call `qd.load_checkpoint("latest", into=(model, optimizer))`, or '
                "`qd.current().checkpoint.restore()`."
            )
