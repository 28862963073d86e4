"""Call a submitted function on this rank, through `spawn_helper`, and say how it ended. Main thread of the
worker.
"""

from __future__ import annotations

import sys
import traceback
from typing import Any

from quarterdeck.context import current
from quarterdeck.decks.arguments import choose
from quarterdeck.errors import KEPT_CHARS, NO_TEXT
from quarterdeck.flyte.spawn_helper import ElasticWorkerResult, spawn_helper
from quarterdeck.protocol.blob import Blob
from quarterdeck.protocol.parts import Payload
from quarterdeck.protocol.worker import CallFunction, Outcome
from quarterdeck.store.layout import raw_folder
from quarterdeck.transfer.pickle_diagnosis import name_culprit
from quarterdeck.transfer.pickler import dumps, load_function, loads
from quarterdeck.transfer.shared_buffers import map_buffers, pack
from quarterdeck.transfer.unpickle import receiving
from quarterdeck.worker.cell import finish_saves, outcome_of
from quarterdeck.worker.frames import chain, give_back
from quarterdeck.worker.interrupts import interrupts
from quarterdeck.worker.output import wire_text
from quarterdeck.worker.shell import WorkerShell
from quarterdeck.worker.shown import without_ours

_TEXT_CHARS = 300


def call_function(shell: WorkerShell, call: CallFunction, blob: Blob | None) -> tuple[Outcome, Blob | None]:
    """The outcome, and the blob that goes with its value. Never raises."""
    shell.execution_count = call.number
    shell.traceback_lines.clear()
    sys.argv = [""]  # argparse in a script's main() must not see our own arguments
    result: ElasticWorkerResult | None = None
    error: BaseException | None = None
    installed = True
    try:
        interrupts.begin()
        result = _spawn(shell, call, blob)
        finish_saves()
    except BaseException as raised:
        interrupts.disarm()  # it would replace what has happened, and cost what is being saved
        error = raised
        finish_saves(raised)
        installed = _was_loaded(raised)
        _render(shell, raised)
    finally:
        interrupts.disarm()
    outcome = outcome_of(shell, error)
    outcome.installed = installed
    outcome.annotations = {str(name): str(value) for name, value in current().annotations.items()}
    out = _attach(shell, outcome, result, error)
    give_back(shell, error, keep_frames=False)
    return outcome, out


def _spawn(shell: WorkerShell, call: CallFunction, blob: Blob | None) -> ElasticWorkerResult:
    kwargs = loads(call.kwargs.data, map_buffers(blob, call.kwargs.spans), shell.user_ns)
    context = current()
    choose(context, call.deck_fields)
    raw = str(raw_folder(context.run_dir, context.rank))
    with receiving(shell.user_ns, None, map_buffers(blob, call.function.spans)):
        return spawn_helper(call.function.data, raw, None, None, kwargs)


def _was_loaded(error: BaseException) -> bool:
    """Whether the function itself was reached, or its unpickling raised this, or that of its arguments."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    if spawn_helper.__code__ not in codes:
        return False
    return load_function.__code__ not in codes[codes.index(spawn_helper.__code__) :][1:2]


def _render(shell: WorkerShell, error: BaseException) -> None:
    """Its traceback, from the first frame of user code on."""
    interrupts.disarm()  # an interrupt would only cost the reader the traceback
    for one in chain(error):
        one.__traceback__ = without_ours(one.__traceback__)
    shell.show_failure(error, error.__traceback__)


# ---- what comes back


def _attach(
    shell: WorkerShell, outcome: Outcome, result: ElasticWorkerResult | None, error: BaseException | None
) -> Blob | None:
    """Pickle the value, or the exception, into the outcome."""
    if result is not None:
        return _attach_result(shell, outcome, result)
    if outcome.state == "error" and isinstance(error, Exception) and _can_be_shown(outcome):
        return _try_attach(shell, outcome, {"error": error})[0]
    return None


def _can_be_shown(outcome: Outcome) -> bool:
    """In the notebook, by the kernel, which asks the exception itself for its text."""
    return outcome.evalue != NO_TEXT and len(outcome.evalue) < KEPT_CHARS


def _attach_result(shell: WorkerShell, outcome: Outcome, result: ElasticWorkerResult) -> Blob | None:
    outcome.text = _text(result.return_value)
    blob, error = _try_attach(shell, outcome, result._asdict())
    if error is None:
        return blob
    values = {"result": result.return_value}
    outcome.unpicklable = wire_text(name_culprit(values, shell.user_ns, error))
    return _try_attach(shell, outcome, {"decks": result.decks})[0]


def _try_attach(
    shell: WorkerShell, outcome: Outcome, values: dict[str, Any]
) -> tuple[Blob | None, BaseException | None]:
    try:
        with interrupts.user_code():
            pickled = dumps(values, shell.user_ns)
            blob, spans = pack(pickled.buffers)
    except (Exception, KeyboardInterrupt) as error:
        return None, error
    outcome.value = Payload(data=pickled.data, spans=spans, names=list(values))
    return blob, None


def _text(value: object) -> str:
    """The start of its repr, whatever its class makes of that."""
    try:
        text = wire_text(repr(value))
    except BaseException as failed:
        return f"<{type(value).__name__}, whose __repr__ raised {type(failed).__name__}>"
    return text if len(text) <= _TEXT_CHARS else text[: _TEXT_CHARS - 1] + "…"
