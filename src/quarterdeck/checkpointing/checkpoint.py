"""Checkpoints as they can be looked through: from their manifests alone, no tensor is read and nothing is
unpickled. Pure; used by `run.checkpoints`, the browser, loading and pruning, in every process.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import msgspec

from quarterdeck.checkpointing.errors import DamagedCheckpoint
from quarterdeck.checkpointing.manifest import (
    PINNED,
    TENSORS,
    Manifest,
    TensorInfo,
    Tensors,
    unseal,
)
from quarterdeck.checkpointing.means import shares, with_later
from quarterdeck.checkpointing.paths import step_of
from quarterdeck.checkpointing.storage import Contents, Place, place_of
from quarterdeck.checkpointing.verify import check_files, read_manifest, read_part
from quarterdeck.errors import UsageError
from quarterdeck.present.words import size
from quarterdeck.public import public


@public
class Checkpoint:
    """One checkpoint, or a folder that should be one: then `valid` is False and `problem` says why.

    What an invalid one's manifest cannot tell is as good as empty: step -1, no metrics.

    Attributes:
        name: the name of its folder.
        problem: why it is not valid; "" if it is.
    """

    def __init__(self, place: Place, name: str) -> None:
        self._place = place
        self.name = name
        self._contents = place.contents(name)
        self.problem = ""
        try:
            self.manifest = with_later(read_manifest(self._contents), self._contents)
        except DamagedCheckpoint as error:
            self.problem = str(error)
            self.manifest = Manifest(0, _step(name), 0, {})

    @property
    def valid(self) -> bool:
        """Its manifest is whole and all files are there, with the size it says. See `verify` for more."""
        return not self.problem

    @property
    def step(self) -> int:
        """The step that it was saved with."""
        return self.manifest.step

    @property
    def epoch(self) -> int | float | None:
        """The epoch that it was saved with, if it was given."""
        return self.manifest.epoch

    @cached_property
    def metrics(self) -> dict[str, float]:
        """By name. A metric that several ranks gave is their mean; see `shares`."""
        return {name: float(value) for name, value in self.manifest.metrics.items()}

    @property
    def shares(self) -> dict[str, str]:
        """By name, for metrics that not all ranks gave, which did: {"loss": "mean of 2 of 4 ranks"}."""
        return shares(self.manifest)

    @cached_property
    def hyperparameters(self) -> Any:
        """As they were given to the save. A value whose class is not defined here is an `UnknownClass`."""
        from quarterdeck.checkpointing.hyperparameters import decode

        return decode(msgspec.json.decode(self.manifest.hyperparameters))

    @property
    def path(self) -> str:
        """The path of its folder; a URL where it is not local."""
        return self._contents.path

    @property
    def size_bytes(self) -> int:
        """How many bytes its files take."""
        return self.manifest.size_bytes

    @property
    def created_unix_ns(self) -> int:
        """When it was complete, in ns since 1970."""
        return self.manifest.created_unix_ns

    @property
    def created(self) -> datetime:
        """When it was complete, in UTC."""
        return datetime.fromtimestamp(self.created_unix_ns / 1e9, UTC)

    @property
    def tensors(self) -> list[TensorInfo]:
        """Name, shape, type and size of each; no tensor is read.

        Raises:
            DamagedCheckpoint: the index of tensors is not whole.
        """
        return self.index.tensors

    @cached_property
    def index(self) -> Tensors:
        """What is stored of each tensor, for quarterdeck itself.

        Raises:
            DamagedCheckpoint: it is not whole.
        """
        name = self._data(TENSORS)
        data = read_part(self._contents, name)
        return unseal(data, Tensors, f"{self.path}/{name}")

    @property
    def contents(self) -> Contents:
        """Its files, for quarterdeck itself."""
        return self._contents

    @property
    def pinned(self) -> bool:
        """Whether pruning and `delete` leave it alone."""
        return self._contents.size(PINNED) is not None

    def pin(self) -> None:
        """Never prune it.

        Raises:
            OSError: nothing can be written there.
        """
        self._contents.mark(PINNED, True)

    def unpin(self) -> None:
        """It may be pruned and deleted again.

        Raises:
            OSError: nothing can be changed there.
        """
        self._contents.mark(PINNED, False)

    def delete(self) -> None:
        """Remove it. For readers it is gone at once; one who has it open keeps it.

        Raises:
            UsageError: it is pinned.
            OSError: it cannot be removed.
        """
        if self.pinned:
            raise UsageError(f"{self.path} is pinned.", "Call its unpin() first.")
        self._place.remove(self.name)

    def verify(self) -> None:
        """Read all of it and compare checksums.

        Raises:
            DamagedCheckpoint: a file was altered; the text names it.
        """
        if self.problem:
            raise DamagedCheckpoint(self.problem)
        with self._contents.local() as folder:
            check_files(folder, self.manifest, self.path)

    def export(self, path: str | os.PathLike[str], trust: bool = False) -> Path:
        """Write one file that needs no quarterdeck.

        Args:
            path: ends in ".safetensors" for the weights alone, in ".pt" or ".pth" for the optimizer, step and
                metrics, too. What was there is replaced when the new file is whole.
            trust: run what pickles in the checkpoint ask for.

        Returns:
            The path.

        Raises:
            UsageError: the path has another ending.
            DamagedCheckpoint: the checkpoint is not whole.
            UntrustedCheckpoint: it would have to run code, and `trust` is False.
        """
        from quarterdeck.checkpointing.export import export

        return export(self, path, trust)

    def _data(self, name: str) -> str:
        return f"{self.manifest.data}/{name}" if self.manifest.data else name

    def __repr__(self) -> str:
        if self.problem:
            return f"Checkpoint({self.path!r}, invalid: {self.problem})"
        shares = {name: f" ({share})" for name, share in self.shares.items()}
        metrics = "".join(
            f", {name}={value:.6g}{shares.get(name, '')}" for name, value in self.metrics.items()
        )
        return f"Checkpoint(step={self.step}{metrics}, {size(self.size_bytes)}, {self.path!r})"


@public
class Checkpoints(Sequence[Checkpoint]):
    """All checkpoints in a folder, by step, also the invalid ones. As of when it was made.

    Attributes:
        path: where they are: a path or a URL.
    """

    def __init__(self, folder: str | os.PathLike[str] | Place) -> None:
        place = place_of(folder) if isinstance(folder, str | os.PathLike) else folder
        self.path = place.path
        found = (Checkpoint(place, name) for name in place.names())
        self._all = sorted(found, key=lambda checkpoint: (checkpoint.step, checkpoint.name))

    @property
    def valid(self) -> list[Checkpoint]:
        """Those that are whole, by step."""
        return [checkpoint for checkpoint in self._all if checkpoint.valid]

    @property
    def invalid(self) -> list[Checkpoint]:
        """Those that are not whole; `problem` of each says why."""
        return [checkpoint for checkpoint in self._all if not checkpoint.valid]

    @property
    def latest(self) -> Checkpoint | None:
        """The valid one of the highest step; None if there is none."""
        return next((checkpoint for checkpoint in reversed(self._all) if checkpoint.valid), None)

    def best(self, metric: str) -> Checkpoint | None:
        """The best valid one by a metric; of equals the later.

        Args:
            metric: "loss" or "min:loss" where lower is better, "max:acc" where higher is.

        Returns:
            The checkpoint; None if there are no valid ones.

        Raises:
            UsageError: there are some, and none of them has a number for this metric.
        """
        name, _ = parse_metric(metric)
        best = best_of(self.valid, metric)
        if best is None and self.valid:
            known = sorted({key for checkpoint in self.valid for key in checkpoint.metrics})
            hint = (
                f"They have: {', '.join(known)}."
                if known
                else "Give them: save_checkpoint(..., metrics={...})."
            )
            raise UsageError(f"No checkpoint in {self.path} has the metric {name!r}.", hint)
        return best

    def at(self, step: int) -> Checkpoint:
        """The one of a step.

        Raises:
            UsageError: there is none; the text names the nearest.
        """
        found = next((checkpoint for checkpoint in reversed(self._all) if checkpoint.step == step), None)
        if found is None:
            steps = sorted((c.step for c in self.valid), key=lambda known: abs(known - step))[:3]
            near = (
                f"The nearest: {', '.join(map(str, sorted(steps)))}." if steps else "There are none at all."
            )
            raise UsageError(f"There is no checkpoint of step {step} in {self.path}.", near)
        return found

    @overload
    def __getitem__(self, index: int) -> Checkpoint: ...
    @overload
    def __getitem__(self, index: slice) -> list[Checkpoint]: ...
    def __getitem__(self, index: int | slice) -> Checkpoint | list[Checkpoint]:
        return self._all[index]

    def __len__(self) -> int:
        return len(self._all)

    def __repr__(self) -> str:
        lines = [f"{len(self._all)} checkpoints in {self.path}", *(f"  {item!r}" for item in self._all[-10:])]
        return "\n".join(lines)


def best_of(checkpoints: Iterable[Checkpoint], metric: str) -> Checkpoint | None:
    """None if none of them has a number for it."""
    name, sign = parse_metric(metric)
    able = [one for one in checkpoints if not math.isnan(one.metrics.get(name, math.nan))]
    return min(able, key=lambda one: (sign * one.metrics[name], -one.step), default=None)


def parse_metric(metric: str) -> tuple[str, float]:
    """The name, and 1 if lower is better, -1 if higher is."""
    kind, _, name = metric.rpartition(":")
    if kind not in ("", "min", "max") or not name:
        raise UsageError(
            f"{metric!r} is not the name of a metric.",
            'Write "loss" (lower is better) or "max:acc" (higher is).',
        )
    return name, -1.0 if kind == "max" else 1.0


def _step(name: str) -> int:
    step = step_of(name)
    return -1 if step is None else step
