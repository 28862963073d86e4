"""What ranks return and raise, back in the notebook."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NoReturn

from quarterdeck.client import notebook as notebooks
from quarterdeck.client.view import ansi
from quarterdeck.errors import RunFailed, UsageError
from quarterdeck.payload.pickler import loads


class Unpicklable:
    """Stands for a return value that could not leave its worker. The run itself has succeeded.

    Attributes:
        text: the start of the value's repr.
        why: what in it cannot be pickled.
    """

    def __init__(self, text: str, why: str) -> None:
        self.text = text
        self.why = why

    def __repr__(self) -> str:
        return f"<not picklable: {self.text} ({self.why})>"


def load(data: bytes, buffers: Iterable[Any]) -> dict[str, Any]:
    """The named values of one rank. An exception whose class cannot be rebuilt is left out."""
    try:
        return loads(data, buffers, notebooks.current().namespace)
    except Exception as error:
        if b"error" in data[:200] and not isinstance(error, pickle.UnpicklingError):
            return {}
        why = f"{type(error).__name__}: {error}"
        raise UsageError(f"The value cannot be rebuilt in the notebook: {why}") from None


def raise_as_it_was(original: BaseException | None, failed: RunFailed, run_id: str) -> NoReturn:
    """Raise the worker's own exception, which shows what the whole run has to say; `failed` is its cause."""
    plain = [ansi.strip(line) for line in failed.lines]
    failed.run_id = run_id
    failed.__notes__ = ["\n".join(plain[1:])] if len(plain) > 1 else []
    if not isinstance(original, Exception) or not failed.ename:
        raise failed
    outcome = next(one for one in failed.outcomes if one.rank == failed.root_cause)
    attributes = {
        "rank": outcome.rank,
        "timestamp": outcome.time_unix_ns / 1e9,
        "run_id": run_id,
        "_render_traceback_": lambda: failed.lines,
    }
    with suppress(Exception):  # a class with slots, or with a __setattr__ of its own
        for name, value in attributes.items():
            setattr(original, name, value)
    raise original.with_traceback(None) from failed
