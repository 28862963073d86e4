"""`--tensorboard DIR`: what a rank logs, as event files under DIR/RUN/rank-R. By the worker's thread that
looks once a second: it reads the rank's metric file, so `qd.log` is as fast as without.

The kernel asks for `event_folder` before a run begins; only a worker imports tensorboard.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from quarterdeck.context import Context
from quarterdeck.errors import UsageError
from quarterdeck.metrics.reader import Columns, MetricFile
from quarterdeck.metrics.writer import path_of
from quarterdeck.store.layout import rank_name


def event_folder(directory: str) -> str:
    """The folder, for workers that may be elsewhere. Raises UsageError if there is no tensorboard here."""
    if directory and find_spec("tensorboard") is None:
        raise UsageError("Event files need tensorboard, which is not installed.", "%pip install tensorboard")
    return str(Path(directory).expanduser().absolute()) if directory else ""


class EventFiles:
    """The files of one rank and attempt. Nothing is made before the first value; no method raises."""

    def __init__(self, context: Context, directory: str) -> None:
        self.folder = Path(directory) / context.run_dir.name / rank_name(context.rank)
        self._file = MetricFile(path_of(context))
        self._writer: Any = None
        self._broken = False

    def copy(self) -> None:
        """What was logged since."""
        if self._broken or not self._file.refresh():
            return
        try:
            self._writer = self._writer or self._open()
            for column in self._file.columns:
                self._take(column)
        except Exception as error:  # of tensorboard, its dependencies, the disk: the run goes on
            self._fail(error)

    def close(self) -> None:
        """All of it is in the files then."""
        self.copy()
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.close()
            except Exception as error:
                self._fail(error)

    def _open(self) -> Any:
        from tensorboard.summary.writer.event_file_writer import (  # type: ignore[import-untyped]
            EventFileWriter,
        )

        return EventFileWriter(str(self.folder))

    def _take(self, column: Columns) -> None:
        """Its values; then they are forgotten here, as a long run has many."""
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

        rows = zip(column.times.tolist(), column.steps.tolist(), column.values.T.tolist(), strict=True)
        for ns, step, values in rows:
            items = [
                Summary.Value(tag=name, simple_value=value)
                for name, value in zip(column.layout.names, values, strict=True)
            ]
            self._writer.add_event(Event(wall_time=ns / 1e9, step=step, summary=Summary(value=items)))
        column.forget()

    def _fail(self, error: Exception) -> None:
        if not self._broken:
            self._broken = True
            text = f"{type(error).__name__}: {error}"
            print(f"--tensorboard: no event files in {self.folder}: {text}", file=sys.stderr)
