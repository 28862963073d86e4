"""Runs as the store has them. Any process may read them, at any time, also while they are written."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from quarterdeck import files
from quarterdeck.protocol.kernel import Finished
from quarterdeck.protocol.worker import Outcome
from quarterdeck.public import public
from quarterdeck.store import detached_socket
from quarterdeck.store.delete import delete, folder_bytes
from quarterdeck.store.format import (
    OutcomeEvent,
    RunHeader,
    RunState,
    StateEvent,
    decode_event,
    encode,
    read_header,
)
from quarterdeck.store.layout import EVENTS, RESULT, log_name
from quarterdeck.store.records import LINES, RecordReader, TooLong
from quarterdeck.store.state import Timeline

__all__ = ["NotARun", "StoredRun", "delete", "folder_bytes", "list_runs"]

LOG_BYTES = 256 << 20
"""The most of a rank's log that is given at once; of a longer one it is the end."""
_GONE = "its background process is gone"
_LAST_LINES_BYTES = 64 << 10


@public
class NotARun(ValueError):
    """A folder without a readable `run.json`, of a later format, or with more events than a run ever has; the
    text says which.
    """


class StoredRun:
    """One run, as of the last `refresh`."""

    def __init__(self, folder: Path, header: RunHeader) -> None:
        """Use `read`."""
        self.folder = folder
        self.header = header
        self._timeline = Timeline()
        self._lines = RecordReader(folder, EVENTS, LINES)
        self._lock = threading.Lock()

    @classmethod
    def read(cls, folder: Path) -> StoredRun:
        """Raises NotARun."""
        try:
            header = read_header(folder)
        except (OSError, ValueError) as error:
            raise NotARun(f"{folder} is not a run that can be read: {error}") from None
        run = cls(folder, header)
        run.refresh()
        return run

    def refresh(self) -> None:
        """Reads what was appended since. A run without an end whose keeper is gone is lost; the first reader
        to see that records it. Raises NotARun if it has become more than a run ever is.
        """
        with self._lock:
            try:
                self._refresh()
            except TooLong as error:
                raise NotARun(f"{self.folder} is not a run that can be read: {error}") from None

    def _refresh(self) -> None:
        self._take_lines()
        keeper = self.header.keeper
        if self._timeline.ended or keeper is None or not keeper.gone():
            return
        # In this order: another reader's record changes the files' times, and is then among the lines.
        last_sign = _last_sign(self.folder)
        self._take_lines(with_rest=True)  # also what it wrote between our look and its end
        if not self._timeline.ended:
            self._record_lost(last_sign)

    # ---- what happened

    @property
    def run_id(self) -> str:
        return self.header.run_id

    @property
    def state(self) -> RunState:
        return self._timeline.last.state if self._timeline.last else "queued"

    @property
    def terminal(self) -> bool:
        return self._timeline.ended

    @property
    def detached(self) -> bool:
        """It outlives its kernel."""
        return self.header.keeper is not None and bool(self.header.keeper.socket)

    @property
    def reason(self) -> str:
        return self._timeline.last.reason if self._timeline.last else ""

    @property
    def last(self) -> StateEvent | None:
        """The event of its present state."""
        return self._timeline.last

    @property
    def attempt(self) -> int:
        """The last one, counted from 0."""
        return self._timeline.attempt

    @property
    def created_unix_ns(self) -> int:
        return self.header.created_unix_ns

    @property
    def started_unix_ns(self) -> int:
        """When it first ran; 0 if it never did."""
        return self._timeline.running.time_unix_ns if self._timeline.running else 0

    @property
    def ended_unix_ns(self) -> int:
        """0 while it goes on. Of a lost run: its last sign of life."""
        last = self._timeline.last
        return last.time_unix_ns if last and self._timeline.ended else 0

    @property
    def duration_s(self) -> float:
        """Since it first ran, up to its end or to now."""
        if not self.started_unix_ns:
            return 0.0
        return max(0, (self.ended_unix_ns or time.time_ns()) - self.started_unix_ns) / 1e9

    @property
    def resumed(self) -> str:
        """What came of `--resume`: "resumed from step 399", "resumed", or at the end of the run "has loaded
        nothing". "" for other runs, and before one of these is sure.
        """
        loaded = self._timeline.loaded
        if loaded is not None:
            return f"resumed from step {loaded.step:,}" if loaded.step >= 0 else "resumed"
        return "has loaded nothing" if self.header.resumed_from and self.terminal else ""

    # ---- who ran it: of the last group; nothing before there was one

    @property
    def world_size(self) -> int:
        return self._timeline.group.world_size if self._timeline.group else 0

    @property
    def backend(self) -> str:
        return self._timeline.group.backend if self._timeline.group else ""

    @property
    def device_type(self) -> str:
        return self._timeline.group.device_type if self._timeline.group else ""

    @property
    def devices(self) -> list[str]:
        return self._timeline.group.devices if self._timeline.group else []

    # ---- what came out

    def outcomes(self, attempt: int | None = None) -> list[Outcome]:
        """By rank, of the ranks that ended; None: of the last attempt."""
        return [event.outcome for event in self._timeline.outcomes(attempt)]

    def finished(self) -> Finished:
        """How it ended, as the coordinator would report it; a lost run with what is known of it."""
        last = self.last
        return Finished(
            outcomes=self.outcomes(),
            root_cause=last.root_cause if last is not None else None,
            stopped=last.stopped if last is not None else "",
            duration_s=self.duration_s,
            log_dir=str(self.folder),
        )

    def outcome_events(self, attempt: int | None = None) -> list[OutcomeEvent]:
        """The same with the time, and whether the value was kept."""
        return self._timeline.outcomes(attempt)

    def result_path(self, rank: int, attempt: int | None = None) -> Path:
        """For `results.read_result`. The file is there if the rank's outcome says `kept`."""
        return self.folder / RESULT.name(self.attempt if attempt is None else attempt, rank)

    @property
    def attempts(self) -> list[int]:
        """Those in which a rank has ended."""
        return self._timeline.attempts

    def log(self, rank: int, limit_bytes: int = LOG_BYTES) -> str:
        """All that the rank wrote, of all attempts; "" if nothing. Of more than the limit its end, and a line
        that says so.
        """
        try:
            data, before = files.read_end(self.folder, log_name(rank), limit_bytes=limit_bytes)
        except OSError:
            return ""
        left_out = f"[{before:,} bytes before this are in {self.folder / log_name(rank)}]\n" if before else ""
        return left_out + data.decode("utf-8", "replace")

    def last_line(self, rank: int) -> str:
        """The last one of its log that is not blank; "" if there is none."""
        try:
            data, _ = files.read_end(self.folder, log_name(rank), limit_bytes=_LAST_LINES_BYTES)
        except OSError:
            return ""
        lines = data.decode("utf-8", "replace").splitlines()
        return next((line for line in reversed(lines) if line.strip()), "")

    @property
    def size_bytes(self) -> int:
        return folder_bytes(self.folder)

    # ---- reading

    def _take_lines(self, with_rest: bool = False) -> None:
        with suppress(OSError):
            for line in self._lines.new(with_rest):
                event = decode_event(line)
                if event is not None:
                    self._timeline.take(event)

    def _record_lost(self, time_unix_ns: int) -> None:
        lost = StateEvent(time_unix_ns, "lost", self.attempt, _GONE)
        with suppress(OSError):
            file = files.open_own(self.folder, EVENTS, flags=os.O_WRONLY | os.O_APPEND)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._take_lines(with_rest=True)  # another reader may have been here first
                if not self._timeline.ended:
                    os.write(file, b"\n" + encode(lost) + b"\n")  # the last line may be torn
            finally:
                os.close(file)
        self._timeline.take(lost)
        if self.header.keeper is not None:
            detached_socket.remove(self.header.keeper)


def list_runs(homes: Sequence[Path]) -> list[StoredRun]:
    """All that can be read, newest first. What is no run is passed over."""
    runs = [run for home in homes for run in _runs_in(home / "runs")]
    return sorted(runs, key=lambda run: (run.created_unix_ns, run.run_id), reverse=True)


def _runs_in(folder: Path) -> Iterator[StoredRun]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
            continue
        with suppress(NotARun):
            yield StoredRun.read(Path(entry.path))


def _last_sign(folder: Path) -> int:
    """When something of the run was last written, ns; now, if that cannot be seen."""
    now = time.time_ns()
    try:
        last = max(entry.stat(follow_symlinks=False).st_mtime_ns for entry in os.scandir(folder))
    except (OSError, ValueError):
        return now
    return min(max(0, last), now)
