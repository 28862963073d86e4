"""Why did a worker die? Who ended it, signal, likely cause and evidence, in words."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from quarterdeck.agent.worker import Worker
from quarterdeck.present.words import signal_name
from quarterdeck.protocol.messages import Exited, Outcome
from quarterdeck.protocol.stacks import FRAME, cell_number

_CAUSES: dict[int, str] = {
    signal.SIGSEGV: "a crash in C or C++ code (an extension, or a bug in a library)",
    signal.SIGBUS: "a memory-mapped file or shared memory that became too small (a full /dev/shm?)",
    signal.SIGABRT: "a C or C++ library gave up (abort)",
    signal.SIGFPE: "an integer division by zero in C or C++ code",
    signal.SIGILL: "an instruction this processor does not have",
    signal.SIGTERM: "somebody, or a batch system, asked it to end",
}

_GLOO_ABORT = "gloo gave up; shapes or dtypes that differ between ranks do this"
_WITH_ZYGOTE = "ended with the process that workers are forked from, which is gone"
_NEVER_BEGAN = "could not be started: no memory is left for it, or there are too many processes"
_OURS = ("quarterdeck/worker/", "IPython/core/", "<string>", "<frozen ")
_FRAMES_SHOWN = 4


class OomCounter:
    """Counts the kernel's out-of-memory kills in this cgroup, the only direct evidence there is of one."""

    def __init__(self) -> None:
        self._before = self._read()

    def rose(self) -> bool:
        now = self._read()
        rose, self._before = now > self._before, now
        return rose

    @staticmethod
    def _read() -> int:
        for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
            try:
                lines = Path(path).read_text().splitlines()
            except OSError:
                continue
            return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
        return 0


def killed_outcome(worker: Worker, exited: Exited, time_unix_ns: int, oom: OomCounter) -> Outcome:
    """The outcome of a rank whose process is gone."""
    number, code = _signal(exited), os.WEXITSTATUS(exited.status) if os.WIFEXITED(exited.status) else 0
    return Outcome(
        rank=worker.rank,
        state="killed",
        time_unix_ns=time_unix_ns,
        ename="WorkerKilled",
        evalue=how_it_ended(worker, exited, oom),
        signal=number,
        exitcode=code,
        evidence=_evidence(worker, exited),
        lost=sorted(worker.names),
        by_quarterdeck=bool(worker.ended_by),
    )


def how_it_ended(worker: Worker, exited: Exited, oom: OomCounter) -> str:
    """The verb of a sentence about its rank."""
    if worker.ended_by:
        return worker.ended_by
    number = _signal(exited)
    if not exited.pid:
        return _WITH_ZYGOTE if number else _NEVER_BEGAN
    if not number:
        code = os.WEXITSTATUS(exited.status)
        return f"ended its process with exit code {code} (os._exit, or exit in C)"
    if number == signal.SIGKILL:
        likely = (
            "by the kernel's out-of-memory killer"
            if oom.rose()
            else "most likely by the out-of-memory killer or by `kill -9`"
        )
        return f"was killed by SIGKILL, {likely}"
    cause = _GLOO_ABORT if number == signal.SIGABRT and _gloo_spoke(worker) else _CAUSES.get(number)
    return f"was killed by {signal_name(number)}" + (f": {cause}" if cause else "")


def _signal(exited: Exited) -> int:
    return os.WTERMSIG(exited.status) if os.WIFSIGNALED(exited.status) else 0


def _gloo_spoke(worker: Worker) -> bool:
    return any("gloo" in line.lower() for line in worker.last_lines)


def _evidence(worker: Worker, exited: Exited) -> list[str]:
    if exited.pid == 0:
        return []
    evidence = [f"peak memory of its process: {exited.peak_memory_bytes / 2**30:.2f} GiB"]
    where = _where(worker.last_stacks)
    if where:
        evidence += ["where it was, the last call first:", *(f"  {line}" for line in where)]
    lines = [line for line in worker.last_lines if line.strip()]
    if lines:
        evidence.append("its last lines of output:")
        evidence.extend(f"  {line[:300]}" for line in lines)
    return evidence


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
