"""What the ranks have said of one step: who writes it, what else it is, how that ended. Used by `attempt` and
`offering`.

    offer-R     rank R has called; with which state, and its metrics
    state-D     somebody has called with a state of this digest
    writer      the rank that writes it: the first one to make this file
    done        the checkpoint is complete; when it was made
    failed      why it is not
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from quarterdeck import files
from quarterdeck.checkpointing import marks

Metrics = dict[str, float | str]


class Offer(msgspec.Struct):
    """What one rank offers."""

    digest: str
    metrics: Metrics


class Writer(msgspec.Struct):
    rank: int
    met: int
    """As in `attempt.Position`."""


class Offers:
    def __init__(self, folder: Path, step: int) -> None:
        self._folder = folder
        self.step = step

    def put(self, rank: int, offer: Offer) -> None:
        """Metrics that this rank has given before stay, but for those that come again; a state that came to
        nothing does not. Raises OSError.
        """
        files.make_folders(self._folder)
        before = self._offer(rank)
        if before is not None and before.digest != offer.digest and self.failure():
            (self._folder / f"state-{before.digest}").unlink(missing_ok=True)
        metrics = offer.metrics if before is None else before.metrics | offer.metrics
        marks.put(self._folder / f"offer-{rank}", msgspec.json.encode(Offer(offer.digest, metrics)))
        os.close(files.create(self._folder, f"state-{offer.digest}", flags=os.O_WRONLY))

    def metrics(self) -> dict[str, Metrics]:
        """By rank, of those that have given any."""
        return {str(rank): offer.metrics for rank, offer in self._all() if offer.metrics}

    def unlike(self, digest: str) -> tuple[int, str] | None:
        """A rank that has called with another state, and the digest of that one; rank -1: it was the rank
        that asks, earlier.
        """
        others = [name[6:] for name in self._names() if name.startswith("state-") and name[6:] != digest]
        if not others:
            return None
        found = ((rank, offer.digest) for rank, offer in self._all() if offer.digest != digest)
        return next(found, (-1, others[0]))

    def claim(self, rank: int, met: int) -> bool:
        """True for the first caller of all ranks and threads; False for the others. Raises OSError."""
        try:
            descriptor = files.create(self._folder, "writer", flags=os.O_WRONLY | os.O_EXCL)
        except FileExistsError:
            return False
        try:
            os.write(descriptor, msgspec.json.encode(Writer(rank, met)))
        finally:
            os.close(descriptor)
        (self._folder / "failed").unlink(missing_ok=True)
        return True

    def complete(self, created_unix_ns: int) -> None:
        marks.put(self._folder / "done", str(created_unix_ns).encode())

    def fail(self, reason: str, release: bool) -> None:
        """Tell the others; with `release` the next one that offers the step may write it. Never raises."""
        with suppress(OSError):
            marks.put(self._folder / "failed", reason.encode("utf-8", "replace"))
        with suppress(OSError):
            if release:
                (self._folder / "writer").unlink(missing_ok=True)

    def done(self) -> int | None:
        """When the checkpoint was made, if it is complete."""
        data = marks.read(self._folder / "done")
        return None if data is None else int(data)

    def failure(self) -> str:
        data = marks.read(self._folder / "failed")
        return "" if data is None else data.decode("utf-8", "replace") or "no reason is known"

    def open(self) -> bool:
        """Somebody has begun to write, and has not told how it ended."""
        names = self._names()
        return "writer" in names and "done" not in names and "failed" not in names

    def writer(self) -> int | None:
        found = self._writer()
        return None if found is None else found.rank

    def met(self) -> float:
        """How many collectives the ranks had been in when the writer called."""
        found = self._writer()
        return float("inf") if found is None else found.met

    def _writer(self) -> Writer | None:
        try:
            data = marks.read(self._folder / "writer")
            return msgspec.json.decode(data, type=Writer) if data else None
        except msgspec.MsgspecError:  # it is just being written
            return None

    def _offer(self, rank: int) -> Offer | None:
        data = marks.read(self._folder / f"offer-{rank}")
        return None if data is None else msgspec.json.decode(data, type=Offer)

    def _all(self) -> list[tuple[int, Offer]]:
        names = self._names()
        ranks = sorted(int(name[6:]) for name in names if name.startswith("offer-"))
        return [(rank, offer) for rank in ranks if (offer := self._offer(rank)) is not None]

    def _names(self) -> list[str]:
        try:
            return os.listdir(self._folder)
        except FileNotFoundError:
            return []
