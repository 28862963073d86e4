"""The files of a checkpoint, from a staged copy of the state. Made by `saver` in the process that runs user
code; written by its thread, while training goes on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from quarterdeck.checkpointing import safetensors_file, sharded
from quarterdeck.checkpointing.capture import Captured
from quarterdeck.checkpointing.checksum_writer import Sink
from quarterdeck.checkpointing.manifest import TENSORS, File, Summary, TensorInfo, Tensors, seal
from quarterdeck.checkpointing.staging import Staging
from quarterdeck.checkpointing.storage import Draft
from quarterdeck.modes import without_modes

if TYPE_CHECKING:
    import torch

WEIGHTS = "model.safetensors"


class Part(msgspec.Struct):
    """What a rank has written of a checkpoint."""

    files: dict[str, File] = {}
    pieces: list[sharded.Piece] = []


@dataclass
class Snapshot:
    rank: int
    leads: bool
    """Writes what all ranks have the same, and completes the checkpoint."""
    is_sharded: bool = False
    summary: Summary = field(default_factory=Summary)
    aliases: dict[str, str] = field(default_factory=dict)
    slots: list[safetensors_file.Slot] = field(default_factory=list)
    block: torch.Tensor | None = None
    plain: dict[str, Any] = field(default_factory=dict)
    own: dict[str, Any] = field(default_factory=dict)
    pieces: list[sharded.Local] = field(default_factory=list)
    optimizer_names: list[list[str]] | None = None

    def write(self, draft: Draft) -> Part:
        """Raises OSError."""
        part = Part()
        if self.block is not None:
            part.files[WEIGHTS] = draft.write(WEIGHTS, self._write_weights)
        for name, value in self.plain.items():
            part.files[f"{name}.pt"] = _save(draft, f"{name}.pt", value)
        if self.own:
            name = own_name(self.rank)
            part.files[name] = _save(draft, name, self.own)
        if self.pieces:
            name = f"__{self.rank}_0.distcp"
            part.files[name] = draft.write(
                name, lambda sink: part.pieces.extend(sharded.write_pieces(self.pieces, name, sink))
            )
        return part

    def write_index(self, draft: Draft, parts: list[Part]) -> dict[str, File]:
        """What the first rank writes when all have written theirs: all files of the checkpoint."""
        files = {name: file for part in parts for name, file in part.files.items()}
        pieces = [piece for part in parts for piece in part.pieces]
        if self.is_sharded:
            described = sharded.metadata(pieces)
            files[sharded.METADATA] = draft.write(sharded.METADATA, lambda sink: sink.write(described))
        infos = sharded.infos(pieces) if self.is_sharded else self._infos()
        index = seal(Tensors([*infos, *self._alias_infos(infos)], self.optimizer_names))
        files[TENSORS] = draft.write(TENSORS, lambda sink: sink.write(index))
        return files

    def _write_weights(self, sink: Sink) -> None:
        """Tied weights are noted as the safetensors library does it."""
        assert self.block is not None
        sink.write(safetensors_file.header(self.slots, {"format": "pt", **self.aliases}))
        sink.write(self.block.numpy())

    def _infos(self) -> list[TensorInfo]:
        found = [
            TensorInfo(slot.name, slot.shape, str(slot.dtype).removeprefix("torch."), slot.end - slot.begin)
            for slot in self.slots
        ]
        return [*sorted(found, key=lambda info: info.name), *_tensors_in(self.plain.get("optimizer"))]

    def _alias_infos(self, infos: list[TensorInfo]) -> list[TensorInfo]:
        known = {info.name: info for info in infos if info.part == "model"}
        return [
            TensorInfo(name, known[first].shape, known[first].dtype, 0, alias_of=first)
            for name, first in self.aliases.items()
        ]


def own_name(rank: int) -> str:
    return f"rank-{rank:05d}.pt"


def take(staging: Staging, captured: Captured, rank: int, leads: bool) -> Snapshot:
    """The copy. When it returns, the state may change."""
    staging.begin()
    found = Snapshot(rank, leads, captured.sharded, captured.summary, captured.aliases)
    found.optimizer_names = captured.optimizer_names
    with without_modes():
        if captured.sharded:
            pieces = sharded.local_pieces(captured.tensors, captured.pieces, leads)
            copies = staging.pieces({name: piece.tensor for name, piece in pieces.items()})
            found.pieces = [piece._replace(tensor=copies[name]) for name, piece in pieces.items()]
        elif leads:
            found.slots, found.block = staging.flat(captured.tensors)
        if leads:
            found.plain = {name: staging.tree(name, value) for name, value in captured.plain.items()}
        found.own = staging.tree("own", captured.own)
        staging.end()
    return found


def _save(draft: Draft, name: str, value: Any) -> File:
    import torch

    return draft.write(name, lambda sink: torch.save(value, sink.as_file()))


def _tensors_in(state: Any) -> list[TensorInfo]:
    """The tensors of an optimizer's state, by their paths."""
    import torch

    found = []
    for at, items in (state or {}).get("state", {}).items():
        for key, value in items.items() if isinstance(items, dict) else ():
            if isinstance(value, torch.Tensor):
                dtype = str(value.dtype).removeprefix("torch.")
                size = math.prod(value.shape) * value.element_size()
                found.append(TensorInfo(f"state.{at}.{key}", tuple(value.shape), dtype, size, "optimizer"))
    return found
