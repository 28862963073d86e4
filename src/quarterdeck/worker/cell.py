"""Run one cell on this rank and say how it ended. Main thread of the worker."""

from __future__ import annotations

import linecache
import sys
import time
from contextlib import suppress
from typing import Any

from quarterdeck.checkpointing.errors import CheckpointError
from quarterdeck.errors import SHOWN_CHARS, RecoverableError, shortened, text_of
from quarterdeck.protocol.worker import Outcome, RunCell
from quarterdeck.worker.frames import give_back
from quarterdeck.worker.interrupts import interrupts
from quarterdeck.worker.output import wire_text
from quarterdeck.worker.shell import WorkerShell
from quarterdeck.worker.shown import bounded
from quarterdeck.worker.sockets import is_secondary


def run_cell(shell: WorkerShell, cell: RunCell) -> Outcome:
    """Never raises: whatever user code does ends in an `Outcome`. Names and group are filled in by the
    caller.
    """
    shell.execution_count = cell.number
    shell.cell_is_plain, shell.cell_is_bare = cell.plain, cell.bare
    shell.traceback_lines.clear()
    sys.argv = [""]  # argparse in a script's main() must not see the notebook's or our own arguments
    error: BaseException | None
    try:
        interrupts.begin()
        result: Any = shell.run_cell(cell.code, store_history=False)
        error = result.error_before_exec or result.error_in_exec
        if error is not None:
            interrupts.disarm()  # it would replace what has happened, and cost what is being saved
        finish_saves(error)
    except CheckpointError as failed:
        error = failed
        shell.traceback_lines[:] = [f"{type(failed).__name__}: {failed}"]
    except BaseException as raised:  # an interrupt between user code and here, or a shell that failed
        error = raised
    finally:
        interrupts.disarm()
    outcome = outcome_of(shell, error)
    give_back(shell, error, cell.keep_frames)
    return outcome


def finish_saves(error: BaseException | None = None) -> None:
    """Checkpoints that are still being written belong to the run. Raises CheckpointError for one that could
    not be, where nothing else has gone wrong; else that is told on stderr.
    """
    saving = sys.modules.get("quarterdeck.checkpointing.save")  # what nobody has used need not be loaded
    if saving is None:
        return
    try:
        saving.finish()
    except CheckpointError as failed:
        if error is None:
            raise
        with suppress(Exception):  # the stream is the user's
            print(f"{type(failed).__name__}: {failed}", file=sys.stderr)


def outcome_of(shell: WorkerShell, error: BaseException | None) -> Outcome:
    outcome = Outcome(rank=0, state="ok", time_unix_ns=time.time_ns())
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return outcome
    if interrupts.reason and (isinstance(error, KeyboardInterrupt) or is_secondary(error)):
        outcome.state = "released" if interrupts.reason == "released" else "interrupted"
        return outcome
    outcome.state = "error"
    outcome.ename = type(error).__name__
    outcome.evalue = wire_text(text_of(error))
    outcome.secondary = is_secondary(error)
    outcome.recoverable = isinstance(error, RecoverableError)
    if isinstance(error, SystemExit):
        outcome.exitcode = error.code & 0xFF if isinstance(error.code, int) else 1
    outcome.missing_name = _missing_name(shell, error)
    if outcome.missing_name and isinstance(error, KeyError):
        outcome.ename = "NameError"
        outcome.evalue = f"name {outcome.missing_name!r} is not defined on the workers"
    lines = shell.traceback_lines or [f"{outcome.ename}: {shortened(outcome.evalue, SHOWN_CHARS)}"]
    outcome.traceback = [wire_text(line) for line in bounded(lines)]
    return outcome


def _missing_name(shell: WorkerShell, error: BaseException) -> str:
    if isinstance(error, NameError) and not isinstance(error, UnboundLocalError):
        return wire_text(error.name or "")
    if isinstance(error, KeyError) and error.args and isinstance(error.args[0], str):
        name, line = wire_text(error.args[0]), _raising_line(error)
        if name not in shell.user_ns and ("globals()" in line or "locals()" in line):
            return name
    return ""


def _raising_line(error: BaseException) -> str:
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return ""
    return linecache.getline(traceback.tb_frame.f_code.co_filename, traceback.tb_lineno)
