"""Runs as the store has them. Any process may read them, at any time, also while they are written."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from quarterdeck.protocol.messages import Outcome
from quarterdeck.store import runtime
from quarterdeck.store.format import (
    EVENTS,
    HEADER,
    OutcomeEvent,
    RunHeader,
    RunState,
    StateEvent,
    decode_event,
    decode_header,
    encode,
    log_name,
    result_name,
)
from quarterdeck.store.removal import delete, folder_bytes
from quarterdeck.store.timeline import Timeline

__all__ = ["NotARun", "StoredRun", "delete", "folder_bytes", "list_runs"]

_GONE = "its coordinator vanished"


class NotARun(ValueError):
    """A folder without a readable `run.json`, or of a later format; the text says which."""


class StoredRun:
    """One run, as of the last `refresh`."""

    def __init__(self, folder: Path, header: RunHeader) -> None:
        """Use `read`."""
        self.folder = folder
        self.header = header
        self._timeline = Timeline()
        self._offset = 0
        self._lock = threading.Lock()

    @classmethod
    def read(cls, folder: Path) -> StoredRun:
        """Raises NotARun."""
        try:
            header = decode_header(_read(folder / HEADER))
        except (OSError, ValueError) as error:
            raise NotARun(f"{folder} is no run that can be read: {error}") from None
        run = cls(folder, header)
        run.refresh()
        return run

    def refresh(self) -> None:
        """Reads what was appended since. A run without an end whose keeper is gone is lost; the first reader
        to see that records it.
        """
        with self._lock:
            self._refresh()

    def _refresh(self) -> None:
        self._take_lines()
        keeper = self.header.keeper
        if self._timeline.ended or keeper is None or not keeper.gone():
            return
        # In this order: another reader's record changes the files' times, and is then among the lines.
        last_sign = _last_sign(self.folder)
        self._take_lines(all_of_it=True)  # also what it wrote between our look and its end
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

    @property
    def group_environment(self) -> dict[str, str]:
        return self._timeline.group.environment if self._timeline.group else {}

    # ---- what came out

    def outcomes(self, attempt: int | None = None) -> list[Outcome]:
        """By rank, of the ranks that ended; None: of the last attempt."""
        return [event.outcome for event in self._timeline.outcomes(attempt)]

    def outcome_events(self, attempt: int | None = None) -> list[OutcomeEvent]:
        """The same with the time, and whether the value was kept."""
        return self._timeline.outcomes(attempt)

    def result_path(self, rank: int, attempt: int | None = None) -> Path:
        """For `results.read_result`. The file is there if the rank's outcome says `kept`."""
        return self.folder / result_name(self.attempt if attempt is None else attempt, rank)

    def log(self, rank: int) -> str:
        """All that the rank wrote, of all attempts; "" if nothing."""
        try:
            return _read(self.folder / log_name(rank)).decode("utf-8", "replace")
        except OSError:
            return ""

    @property
    def size_bytes(self) -> int:
        return folder_bytes(self.folder)

    # ---- reading

    def _take_lines(self, all_of_it: bool = False) -> None:
        """A last line without its newline is still in the making, or torn; where `all_of_it` is wanted, its
        writer is gone, and it counts if it is whole.
        """
        try:
            data = _read(self.folder / EVENTS, self._offset)
        except OSError:
            return
        end = data.rfind(b"\n") + 1
        self._offset += end
        for line in (data if all_of_it else data[:end]).split(b"\n"):
            event = decode_event(line)
            if event is not None:
                self._timeline.take(event)

    def _record_lost(self, time_unix_ns: int) -> None:
        lost = StateEvent(time_unix_ns, "lost", self.attempt, _GONE)
        with suppress(OSError), (self.folder / EVENTS).open("ab", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._take_lines(all_of_it=True)  # another reader may have been here first
            if not self._timeline.ended:
                file.write(b"\n" + encode(lost) + b"\n")  # the last line may be torn
        self._timeline.take(lost)
        if self.header.keeper is not None and self.header.keeper.socket:
            runtime.remove(self.header.keeper.socket)


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
        try:
            yield StoredRun.read(Path(entry.path))
        except NotARun:
            continue


def _last_sign(folder: Path) -> int:
    """When something of the run was last written, ns; now, if that cannot be seen."""
    try:
        return max(entry.stat(follow_symlinks=False).st_mtime_ns for entry in os.scandir(folder))
    except (OSError, ValueError):
        return time.time_ns()


def _read(path: Path, offset: int = 0) -> bytes:
    """A third of the time of `Path.read_bytes`; a list of a thousand runs reads two thousand files."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        rest = os.fstat(descriptor).st_size - offset
        return os.pread(descriptor, rest, offset) if rest > 0 else b""
    finally:
        os.close(descriptor)
