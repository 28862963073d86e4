"""What ranks return and raise, back in the notebook."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NoReturn

from quarterdeck.errors import RunFailed, UsageError
from quarterdeck.flyte.spawn_helper import ElasticWorkerResult
from quarterdeck.kernel import notebook as notebooks
from quarterdeck.kernel.active_run import ActiveRun
from quarterdeck.present import ansi
from quarterdeck.protocol.worker import Outcome
from quarterdeck.public import public
from quarterdeck.store.reader import StoredRun
from quarterdeck.store.results import read_result
from quarterdeck.transfer.pickler import loads


@public
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


class Values:
    """What the ranks of one run returned or raised, unpickled once, at the first use. For any thread."""

    def __init__(self, stored: StoredRun, live: ActiveRun | None) -> None:
        self._stored = stored
        self._live = live
        self._loaded: dict[int, dict[str, Any]] = {}
        self._lock = threading.RLock()

    def result(self, outcome: Outcome, trust: bool) -> ElasticWorkerResult:
        """Raises UsageError for a value that was not kept, or cannot be rebuilt; UntrustedResult."""
        loaded = self._load(outcome.rank, trust)
        value = loaded.get("return_value")
        if outcome.unpicklable:
            value = Unpicklable(outcome.text, outcome.unpicklable)
        return ElasticWorkerResult(value, loaded.get("decks", []))

    def error(self, rank: int, trust: bool) -> Any:
        """The exception itself, or None if it was not kept, or cannot be rebuilt. Raises UntrustedResult."""
        try:
            return self._load(rank, trust).get("error")
        except UsageError:
            return None

    def _load(self, rank: int, trust: bool) -> dict[str, Any]:
        with self._lock:
            if rank not in self._loaded:
                self._loaded[rank] = self._load_once(rank, trust)
                if self._live is not None:
                    self._live.values.pop(rank, None)
            return self._loaded[rank]

    def _load_once(self, rank: int, trust: bool) -> dict[str, Any]:
        live = self._live.values.get(rank) if self._live is not None else None
        if live is not None:
            return _unpickled(*live)
        self._stored.refresh()
        event = next((e for e in self._stored.outcome_events() if e.outcome.rank == rank), None)
        if event is None or (not event.kept and not event.note):
            return {}
        if not event.kept:
            raise UsageError(f"The value of rank {rank} was not kept: {event.note}.")
        return _unpickled(*read_result(self._stored.result_path(rank), trust))


def _unpickled(data: bytes, buffers: Iterable[Any]) -> dict[str, Any]:
    try:
        return loads(data, buffers, notebooks.current().namespace)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        hint = "Return the plain module: `return model.module`." if "rocess group" in why else ""
        raise UsageError(f"The value cannot be rebuilt in the notebook: {why}", hint) from None


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
