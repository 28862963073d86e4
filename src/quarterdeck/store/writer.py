"""Writes one run to the store as it happens. Used by the coordinator, on its loop; not for several threads.

A full disk, a read-only place, a folder deleted meanwhile: none may end a run, so no method raises OSError.
What a crash (not a power cut: nothing is fsynced, a loop that serves cells cannot wait for disks) leaves is
always a valid run, up to the last call that returned.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from quarterdeck import files
from quarterdeck.protocol.worker import Output
from quarterdeck.store.format import Event, RunHeader, encode
from quarterdeck.store.layout import EVENTS, HEADER, RESULT, log_name
from quarterdeck.store.output import OutputIndex
from quarterdeck.store.owner import RunOwner
from quarterdeck.store.paths import fallback, keep_out_of_git
from quarterdeck.store.records import LINES, TEXT, Framing, RecordWriter

_SLUG_CHARS = 60


class RunWriter:
    """One run. Nothing is on disk before the first `open`, `write`, `event` or `result_path`."""

    def __init__(self, home: Path, header: RunHeader, environ: Mapping[str, str] = os.environ) -> None:
        """`environ` of the notebook: who may read the run."""
        created = header.created_unix_ns or time.time_ns()
        self._header = msgspec.structs.replace(
            header,
            run_id=header.run_id or _run_id(created, header.name or header.title or header.kind),
            created_unix_ns=created,
            keeper=header.keeper or RunOwner.here(),
        )
        self.folder = home / "runs" / self._header.run_id
        """Final once opened: a taken name or an unwritable home changes it."""
        self.notice = ""
        """Something the reader of the notebook should know, once."""
        self.opened = False
        self._home = home
        self._environ = environ
        self._tried = False
        self._complete = True
        self._files: dict[str, RecordWriter] = {}
        self._index: OutputIndex | None = None

    @property
    def run_id(self) -> str:
        """Final once opened."""
        return self._header.run_id

    @property
    def header(self) -> RunHeader:
        return self._header

    def open(self) -> None:
        """Make the folder, with its `run.json`. Tried once."""
        if self._tried:
            return
        self._tried = True
        reason = ""
        for home in self._places():
            try:
                self._make_folder(home)
            except OSError as error:
                reason = reason if home != self._home else error.strerror or str(error)
                continue
            self.opened = True
            if home != self._home:
                self.notice = f"{self._home} cannot be written ({reason}): this run is kept in {self.folder}."
            return
        self._fail(reason)

    def write(self, output: Output) -> None:
        """The text of an output, at the end of its rank's log; then its time and length, in `output.bin`."""
        text = output.text or (output.data.get("text/plain", "") + "\n" if output.kind == "result" else "")
        if not text:
            return
        self.open()
        log = self._file(log_name(output.rank), TEXT)
        before = log.size_bytes
        try:
            log.append(text.encode("utf-8", "replace"))
        except OSError as error:
            self._fail(error.strerror or str(error))
        with suppress(OSError):  # of no use without the logs, which are complete without it
            self._index_of(self.folder).wrote(
                output.rank, output.kind, time.time_ns(), log.size_bytes - before
            )

    def event(self, event: Event) -> None:
        """When it returns, the event outlives this process (or `notice` says that it does not)."""
        self.open()
        try:
            self._file(EVENTS, LINES).append(encode(event))
        except OSError as error:
            self._fail(error.strerror or str(error))

    def result_path(self, attempt: int, rank: int) -> Path:
        self.open()
        return self.folder / RESULT.name(attempt, rank)

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        if self._index is not None:
            self._index.close()

    def _index_of(self, folder: Path) -> OutputIndex:
        if self._index is None:
            self._index = OutputIndex(folder)
        return self._index

    def _file(self, name: str, framing: Framing) -> RecordWriter:
        if name not in self._files:
            self._files[name] = RecordWriter(self.folder / name, framing)
        return self._files[name]

    def _fail(self, reason: str) -> None:
        if self._complete:
            self._complete = False
            self.notice = f"{self.notice} The history of this run is incomplete: {reason}.".strip()

    def _places(self) -> Iterator[Path]:
        """Where to try, lazily. The last is private too, but no reader will find it by itself."""
        yield self._home
        with suppress(OSError):
            yield fallback(self._home)
        with suppress(OSError):
            yield Path(tempfile.mkdtemp(prefix="quarterdeck-"))

    def _make_folder(self, home: Path) -> None:
        runs = home / "runs"
        files.make_private(runs, self._environ)
        keep_out_of_git(home)
        folder = _claim(runs, self._header.run_id, self._environ)
        header = msgspec.structs.replace(self._header, run_id=folder.name)
        try:
            files.write(folder, HEADER, content=encode(header))
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._header, self.folder = header, folder


def _run_id(created_unix_ns: int, title: str) -> str:
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(created_unix_ns // 1_000_000_000))
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", title)[:_SLUG_CHARS].strip("-") or "run"
    return f"{stamp}-{created_unix_ns // 1_000_000 % 1000:03d}-{slug}"


def _claim(runs: Path, run_id: str, environ: Mapping[str, str]) -> Path:
    """A new folder of that name, or, where another run has it, of the next free one. One without a header is
    ours: a rank that keeps metrics makes it before we do.
    """
    folder, number = runs / run_id, 1
    while True:
        with suppress(FileExistsError):
            if files.make_private(folder, environ):
                return folder
        mine = files.is_folder(runs, folder.name) and not os.path.lexists(folder / HEADER)
        if mine and number == 1:
            return folder
        number += 1
        folder = runs / f"{run_id}-{number}"
