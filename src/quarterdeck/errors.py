"""Exceptions of quarterdeck. Pure: importable in every process.

    Exception
      QuarterdeckError          base of all; what its text says is all that the notebook shows
        UsageError              a wrong option or a request that cannot be; nothing was started
          ArgumentError         a call's arguments do not fit; also a TypeError
        WorkersLost             coordinator or workers vanished outside a run's own failure
        RunFailed               a rank of a cell or function raised or died
          RunTimedOut           ran longer than its time-out
          RunInterrupted        stopped by the user; also a KeyboardInterrupt
      RecoverableError          for user code to raise: a failure that a restart may cure

RunInterrupted is both: `except KeyboardInterrupt` around a cell works as in any notebook, and code that
handles every RunFailed handles it too. As an error of its cell it ends "Run All" like any other.

Each QuarterdeckError renders itself (`_render_traceback_` is IPython's hook): the frames of the notebook side
say nothing to the user.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quarterdeck.public import public

KEPT_CHARS = 1_000_000
"""The most that is kept of an exception's text."""
SHOWN_CHARS = 64_000
"""The most that the notebook shows of it."""


NO_TEXT = "<exception str() failed>"
"""As Python itself writes."""


def text_of(error: BaseException) -> str:
    """Its message, whatever the class of user code makes of it, and however long that is."""
    try:
        text = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return NO_TEXT
    return shortened(text, KEPT_CHARS)


def shortened(text: str, limit: int) -> str:
    """Without its middle, if it is longer; that says how much is missing."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]} … {len(text) - limit:,} characters left out … {text[-(limit // 2) :]}"


@public
class QuarterdeckError(Exception):
    """Something that the user can understand from its text alone: the base of what quarterdeck raises."""

    def _render_traceback_(self) -> list[str]:
        first, *rest = str(self).split("\n")
        return [f"\x1b[1;31m{type(self).__name__}\x1b[0m: {first}", *rest]


@public
class UsageError(QuarterdeckError):
    """A wrong option, or a request that cannot be met. What was there is as it was.

    Attributes:
        hint: the second line of the text: the nearest right option, the next command. It may be empty.
    """

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(f"{text}\n{hint}" if hint else text)
        self.hint = hint


@public
class ArgumentError(UsageError, TypeError):
    """Arguments that a call does not take; nothing was started. It is also a TypeError."""


@public
class WorkersLost(QuarterdeckError):
    """The session's processes are gone; the next cell starts new ones, without variables."""


@public
class RunFailed(QuarterdeckError):
    """A cell or function that ended otherwise than in success on some rank.

    Attributes:
        lines: what the notebook shows, ANSI-coloured, headline first.
        outcomes: one `Outcome` per rank of the cell.
        root_cause: the rank that failed first; None if none did (the cell was stopped).
        run_id: the id of a run that has workers of its own or a name, for `qd.runs()[run_id]`; else empty.
        ename: name of the original exception ("WorkerKilled" for a death), empty if the cell was stopped.
    """

    def __init__(
        self,
        headline: str,
        lines: Sequence[str] = (),
        outcomes: Sequence[Any] = (),
        root_cause: int | None = None,
        ename: str = "",
    ) -> None:
        super().__init__(headline)
        self.lines = list(lines) or [headline]
        self.outcomes = list(outcomes)
        self.root_cause = root_cause
        self.ename = ename
        self.run_id = ""

    def _render_traceback_(self) -> list[str]:
        return self.lines


@public
class RunTimedOut(RunFailed):
    """It ran longer than its time-out (`--timeout`, `timeout_s`); it was interrupted as by the user."""


@public
class RunInterrupted(RunFailed, KeyboardInterrupt):
    """The user stopped it, with the kernel's stop button, Ctrl-C or `%workers interrupt`."""


@public
class RecoverableError(Exception):
    """Raise it, or a subclass, in a worker for a failure that a new attempt may cure: a data server that did
    not answer, for one. A run with `max_restarts` starts anew then; any other exception ends it at once.

    As `FlyteRecoverableException` of flytekit. It is an ordinary exception otherwise, with its type and its
    traceback.
    """
