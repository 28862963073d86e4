"""Which ranks take part in a save that each of them writes a part of, and how far they are: small files in a
folder that they share. Without collectives, so that a rank that never comes costs seconds and no hang. Used
by `saver`.

Every rank holds a lock on its `joined-R` for as long as it works on the save; the lock ends with the process,
and so tells a rank that died from one that is slow.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from quarterdeck import files
from quarterdeck.checkpointing.errors import CheckpointError
from quarterdeck.checkpointing.marks import Polls, hold, is_held, let_go, put

JOIN_LIMIT_S = 5.0


class Joint:
    """One save that all `ranks` take part in; the first of them completes it."""

    def __init__(self, folder: Path, step: int, rank: int, ranks: Sequence[int]) -> None:
        self._folder = folder
        self._step = step
        self._rank = rank
        self._ranks = list(ranks)
        self._lock = -1

    @property
    def leads(self) -> bool:
        return self._rank == self._ranks[0]

    def is_done(self) -> bool:
        """Raises CheckpointError if it is other ranks' save that is done."""
        if not (self._folder / "done").exists():
            return False
        self._check_alone()
        return True

    def join(self, check: Callable[[], None] = lambda: None) -> None:
        """Returns when all ranks are there. Raises CheckpointError, naming those that are not, after 5 s; and
        at once where other ranks save a state of theirs as this step, or `check` says that it makes no sense
        to wait.
        """
        files.make_folders(self._folder)
        self._check_alone()
        self._lock = hold(self._mark("joined"))
        polls = Polls()
        while missing := [rank for rank in self._ranks if not self._mark("joined", rank).exists()]:
            self._check()
            check()
            if polls.elapsed_s > JOIN_LIMIT_S:
                raise CheckpointError(self._not_joined(missing))
            polls.pause()
        check()
        self._check()  # a rank that came too late finds that another one has given up
        if self.leads:
            self._forget_earlier()

    def _forget_earlier(self) -> None:
        """Who has joined this save has seen the end of those before."""
        for folder in self._folder.parent.glob("step-*.all"):
            if folder != self._folder:
                shutil.rmtree(folder, ignore_errors=True)

    def offer(self, part: bytes) -> None:
        """This rank has written its part."""
        put(self._mark("part"), part)
        if not self.leads:
            self._unlock()

    def parts(self) -> list[bytes]:
        """All ranks' parts, in their order, when all are there. Raises CheckpointError if one failed."""
        for rank in self._ranks:
            self._wait_for(self._mark("part", rank), rank)
        return [self._mark("part", rank).read_bytes() for rank in self._ranks]

    def complete(self) -> None:
        """The first rank, when the checkpoint is there."""
        put(self._folder / "done", b"")
        self._unlock()

    def wait_until_done(self) -> None:
        """The others. Raises CheckpointError if the first one failed or died."""
        self._wait_for(self._folder / "done", self._ranks[0])

    def fail(self, reason: str) -> None:
        """Tell the others. Never raises."""
        with suppress(OSError):
            if self._folder.is_dir():
                put(self._mark("failed"), reason.encode("utf-8", "replace"))
        self._unlock()

    def _wait_for(self, mark: Path, rank: int) -> None:
        polls = Polls()
        while not mark.exists():
            self._check()
            if rank != self._rank and not is_held(self._mark("joined", rank)) and not mark.exists():
                self._check()
                raise CheckpointError(f"rank {rank} ended while it was writing its part of step {self._step}")
            polls.pause()

    def _check(self) -> None:
        for rank in self._ranks:
            with suppress(FileNotFoundError):
                reason = self._mark("failed", rank).read_text("utf-8", "replace")
                raise CheckpointError(f"rank {rank} gave up on step {self._step}: {reason}")

    def _check_alone(self) -> None:
        """Each group of ranks would complete the checkpoint with its own part alone."""
        mine = f"ranks-{zlib.crc32(repr(self._ranks).encode()):08x}"
        os.close(files.create(self._folder, mine, flags=os.O_WRONLY))
        if any(mark.name != mine for mark in self._folder.glob("ranks-*")):
            who = ", ".join(map(str, self._ranks))
            raise CheckpointError(
                f"ranks {who} save a state of their own as step {self._step}, and other ranks another one.\n"
                "A checkpoint holds one state: give each group of ranks (each stage of a pipeline) a "
                "directory= of its own."
            )

    def _not_joined(self, missing: Sequence[int]) -> str:
        who = ", ".join(map(str, missing))
        ranks, did = ("ranks", "have") if len(missing) > 1 else ("rank", "has")
        return (
            f"{ranks} {who} {did} not joined the save of step {self._step} within {JOIN_LIMIT_S:.0f} s.\n"
            "Every rank keeps a part of this state (a sharded model, rng=True, sampler=...), so every rank "
            "has to call save_checkpoint with the same step: not under `if rank == 0:`."
        )

    def _mark(self, kind: str, rank: int | None = None) -> Path:
        return self._folder / f"{kind}-{self._rank if rank is None else rank}"

    def _unlock(self) -> None:
        if self._lock >= 0:
            let_go(self._lock)
            self._lock = -1
