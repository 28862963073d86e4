"""Why did a worker die? Who ended it, signal, likely cause and evidence, in words."""

from __future__ import annotations

import os
import re
import signal

from quarterdeck.coordinator.worker import Worker
from quarterdeck.present import words
from quarterdeck.present.failure import GLOO_GAVE_UP, OUT_OF_MEMORY, SIGKILL, Cause, cause_of, killed
from quarterdeck.protocol.stacks import FRAME, cell_number
from quarterdeck.protocol.worker import Evidence, Outcome
from quarterdeck.protocol.zygote import Exited

_WITH_ZYGOTE = "ended with the process that workers are forked from, which is gone"
_NEVER_BEGAN = "could not be started: no memory is left for it, or there are too many processes"
_OURS = ("quarterdeck/worker/", "IPython/core/", "<string>", "<frozen ")
_FRAMES_SHOWN = 4


def killed_outcome(worker: Worker, exited: Exited, time_unix_ns: int) -> Outcome:
    """The outcome of a rank whose process is gone."""
    cause = _cause(worker, exited)
    return Outcome(
        rank=worker.rank,
        state="killed",
        time_unix_ns=time_unix_ns,
        ename="WorkerKilled",
        evalue=_verb(worker, exited, cause),
        signal=_signal(exited),
        exitcode=_exitcode(exited),
        evidence=_evidence(worker, exited),
        cause=cause.words,
        cure=cause.cure,
        lost=sorted(worker.names),
        by_quarterdeck=bool(worker.ended_by),
    )


def _verb(worker: Worker, exited: Exited, cause: Cause) -> str:
    """What it did, as the verb of a sentence about its rank."""
    if worker.ended_by:
        return worker.ended_by
    if not exited.pid:
        return _WITH_ZYGOTE if exited.zygote_gone else _NEVER_BEGAN
    return killed(_signal(exited), _exitcode(exited), cause.words)


def _cause(worker: Worker, exited: Exited) -> Cause:
    """None for what quarterdeck ended: there is nothing to cure."""
    number = _signal(exited)
    if worker.ended_by or not exited.pid:
        return Cause()
    if number == signal.SIGKILL:
        return OUT_OF_MEMORY if exited.out_of_memory else SIGKILL
    return GLOO_GAVE_UP if number == signal.SIGABRT and _gloo_spoke(worker) else cause_of(number)


def _exitcode(exited: Exited) -> int:
    return os.WEXITSTATUS(exited.status) if os.WIFEXITED(exited.status) else 0


def _signal(exited: Exited) -> int:
    return os.WTERMSIG(exited.status) if os.WIFSIGNALED(exited.status) else 0


def _gloo_spoke(worker: Worker) -> bool:
    return any("gloo" in line.lower() for line in worker.last_lines)


def _evidence(worker: Worker, exited: Exited) -> list[Evidence | str]:
    if exited.pid == 0:
        return []
    found: list[Evidence | str] = [Evidence("Peak memory", f"{words.gib(exited.peak_memory_bytes)} GiB")]
    if where := _where(exited.stacks):
        found.append(Evidence("Where it was", "\n".join(where)))
    if lines := [line[:300] for line in worker.last_lines if line.strip()]:
        found.append(Evidence("Its last output", "\n".join(lines)))
    return found


def _where(stacks: str) -> list[str]:
    """User code's frames in the stacks a crash left: of the thread that crashed, else of the main thread."""
    _, _, crash = stacks.rpartition("Fatal Python error")
    _, current, after = crash.partition("Current thread")
    threads = (after if current else crash.rpartition("\nThread ")[2]).split("\n\n")
    frames = [frame for frame in FRAME.finditer(threads[0]) if not any(o in frame["file"] for o in _OURS)]
    return [frame_words(frame) for frame in frames[:_FRAMES_SHOWN]]


def frame_words(frame: re.Match[str]) -> str:
    """ "Cell In[3], line 2, in step"."""
    cell = cell_number(frame["file"])
    file = frame["file"] if cell is None else f"Cell In[{cell}]"
    return f"{file}, line {frame['line']}, in {frame['function']}"
