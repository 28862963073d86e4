"""The complete output of cells on disk: `.quarterdeck/runs/TIME-NAME/rank-0.log` beside the notebook. Written
by the coordinator.

The notebook shows at most a megabyte of a cell; all of it is here, also what a killed worker wrote last. A
cell that writes nothing leaves nothing.
"""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path
from typing import BinaryIO

from quarterdeck.protocol.messages import Output


def home(environ: dict[str, str], cwd: str) -> Path:
    """Where runs are kept: QUARTERDECK_HOME, else `.quarterdeck` in the notebook's folder."""
    return Path(environ.get("QUARTERDECK_HOME") or Path(cwd) / ".quarterdeck")


class RunLog:
    """One file per rank, opened when the rank writes its first text. Never raises: a full disk must not end a
    run.
    """

    def __init__(self, home: Path, title: str) -> None:
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", title).strip("-") or "cell"
        stamp = time.strftime("%Y%m%d-%H%M%S") + f"-{time.time_ns() // 1_000_000 % 1000:03d}"
        self.folder = home / "runs" / f"{stamp}-{name}"
        self.notice = ""
        """Something the reader of the notebook should know, once."""
        self._home = home
        self._files: dict[int, BinaryIO] = {}

    @property
    def written(self) -> bool:
        return bool(self._files)

    def write(self, output: Output) -> None:
        text = output.text or (output.data.get("text/plain", "") + "\n" if output.kind == "result" else "")
        if not text:
            return
        try:
            self._file(output.rank).write(text.encode("utf-8", "replace"))
        except OSError as error:
            if not self.notice:
                self.notice = f"The log in {self.folder} is incomplete: {error.strerror}."

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def _file(self, rank: int) -> BinaryIO:
        if rank not in self._files:
            self._make_folder()
            self._files[rank] = (self.folder / f"rank-{rank}.log").open("ab", buffering=0)
        return self._files[rank]

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            ignore = self._home / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
        except OSError as error:
            fallback = Path(tempfile.mkdtemp(prefix="quarterdeck-"))
            self.notice = f"{self._home} cannot be written ({error.strerror}): logs are in {fallback}."
            self.folder = fallback
