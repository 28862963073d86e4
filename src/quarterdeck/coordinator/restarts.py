"""Which failures of a closed run are worth another attempt, and what the notebook is told of one. Used by
`isolated_run`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from quarterdeck.present.failure import sentence
from quarterdeck.protocol.kernel import Finished, Notice, Submit
from quarterdeck.protocol.worker import Outcome

_NOT_RUN = ("SyntaxError", "IndentationError", "TabError")
"""Another attempt would read the same text."""


class Restarts:
    """One for each run. `tell` shows the notebook's reader a line."""

    def __init__(self, submit: Submit, tell: Callable[[Notice], None]) -> None:
        self.most = submit.max_restarts if submit.restart != "never" else 0
        """Attempts after the first."""
        self._policy = submit.restart
        self._tell = tell
        self._why = ""
        self._failed_s = 0.0

    def again(self, finished: Finished, attempt: int) -> bool:
        """Whether another attempt follows this one; then the reader hears why."""
        root = _root(finished)
        if finished.stopped or root is None or attempt >= self.most or not self._curable(root):
            return False
        self._failed_s = time.monotonic() - max(0.0, time.time() - root.time_unix_ns / 1e9)
        self._why = sentence(root)
        self._say(f"{self._why}: attempt {attempt + 1} of {self.most + 1} ended, starting anew.", attempt)
        return True

    def begun(self, attempt: int) -> None:
        """An attempt runs the first line of user code: of a restart, how long it took."""
        if attempt:
            took_s = time.monotonic() - self._failed_s
            self._say(
                f"{self._why}: attempt {attempt + 1} of {self.most + 1} began {took_s:.2f} s later.",
                attempt - 1,
            )

    def _curable(self, root: Outcome) -> bool:
        if root.state == "killed":
            return True
        ran = root.installed and root.ename not in _NOT_RUN
        return ran and (root.recoverable or self._policy == "always")

    def _say(self, text: str, after: int) -> None:
        self._tell(Notice(text=text, level="warning", key=f"restart-{after}"))


def _root(finished: Finished) -> Outcome | None:
    return next((o for o in finished.outcomes if o.rank == finished.root_cause), None)
