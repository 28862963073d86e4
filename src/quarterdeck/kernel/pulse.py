"""Whether the coordinator answers at all, asked beside the call that is waited for. In the kernel."""

from __future__ import annotations

import time

from quarterdeck.errors import WorkersLost
from quarterdeck.kernel.coordinator_process import SILENT_S, Call
from quarterdeck.protocol.kernel import Ask

_ASK_EVERY_S = 1.0
"""And not at once: most calls are answered by then."""


class Pulse:
    """Context manager, of one call. `silent` has to be asked now and then, by the thread that waits."""

    def __init__(self, call: Call) -> None:
        self._coordinator = call.coordinator
        self._ping: Call | None = None
        self._since_s = time.monotonic()
        """When it was asked, or is known to have answered."""

    def due_in(self) -> float:
        """Seconds until it makes sense to ask `silent` again."""
        limit_s = _ASK_EVERY_S if self._ping is None else SILENT_S
        left_s = self._since_s + limit_s - time.monotonic()
        return left_s if left_s > 0 else _ASK_EVERY_S

    def silent(self) -> bool:
        """It has not answered for `SILENT_S`."""
        if self._ping is not None and not self._ping.channel.poll(0):
            return time.monotonic() - self._since_s >= SILENT_S
        if self._ping is not None:
            self.close()
            self._since_s = time.monotonic()
        elif time.monotonic() - self._since_s >= _ASK_EVERY_S:
            self._ask()
        return False

    def _ask(self) -> None:
        self._since_s = time.monotonic()
        try:
            self._ping = self._coordinator.call(Ask(what="ping"))
        except WorkersLost:  # the call that is waited for tells
            pass

    def close(self) -> None:
        if self._ping is not None:
            self._ping.close()
            self._ping = None

    def __enter__(self) -> Pulse:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
