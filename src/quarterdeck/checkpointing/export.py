"""A checkpoint as one file that needs no quarterdeck. Used through `Checkpoint.export` and the browser."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from quarterdeck import files
from quarterdeck.checkpointing import safetensors_file
from quarterdeck.checkpointing.lazy_tensor import whole
from quarterdeck.checkpointing.readers import OptimizerState, Source, opened
from quarterdeck.errors import UsageError

if TYPE_CHECKING:
    from quarterdeck.checkpointing.checkpoint import Checkpoint


def export(checkpoint: Checkpoint, path: str | os.PathLike[str], trust: bool = False) -> Path:
    """To `.safetensors` (the weights) or `.pt` (weights, optimizer, step, metrics: see `_everything`).

    What was at the path is replaced when the new file is whole. Raises UsageError for another ending,
    DamagedCheckpoint, UntrustedCheckpoint.
    """
    import torch

    target = Path(os.path.expanduser(path))
    if target.suffix not in (".safetensors", ".pt", ".pth"):
        raise UsageError(f"{target.name}: a checkpoint is exported to .safetensors or .pt.")
    with (
        opened(checkpoint, trust, verify=True) as source,
        files.atomic_write(target.parent, target.name, synced=True, mode=0o666) as file,
    ):
        if target.suffix == ".safetensors":
            _write_safetensors(source, file)
        else:
            torch.save(_everything(checkpoint, source), file)
    return target


def _write_safetensors(source: Source, file: BinaryIO) -> None:
    """One tensor at a time."""
    import torch

    shapes = {
        name: torch.empty(stored.shape, dtype=stored.dtype, device="meta")
        for name, stored in source.tensors.items()
    }
    slots = safetensors_file.laid_out(shapes)
    file.write(safetensors_file.header(slots, {"format": "pt", **source.aliases}))
    for slot in slots:
        values = whole(source.tensors[slot.name]).contiguous().view(-1)
        if values.numel():
            file.write(values.view(torch.uint8).numpy().data)


def _everything(checkpoint: Checkpoint, source: Source) -> dict[str, Any]:
    """Loadable with weights_only; hyperparameters as the plain values of their JSON."""
    weights = {name: whole(stored).clone() for name, stored in source.tensors.items()}
    weights.update({name: weights[first] for name, first in source.aliases.items()})
    found = {
        "model_state_dict": weights,
        "optimizer_state_dict": source.read("optimizer")
        if source.optimizer is None
        else _numbered(source.optimizer),
        "scheduler_state_dict": source.read("scheduler"),
        "extra": source.read("extra"),
        "step": checkpoint.step,
        "epoch": checkpoint.epoch,
        "metrics": checkpoint.metrics,
        "hyperparameters": msgspec.json.decode(checkpoint.manifest.hyperparameters),
    }
    return {name: value for name, value in found.items() if value is not None}


def _numbered(optimizer: OptimizerState) -> dict[str, Any]:
    """As `state_dict()` of a plain optimizer has it."""
    numbers = {member: at for at, member in enumerate(m for group in optimizer.members for m in group)}
    groups = [
        {**group, "params": [numbers[member] for member in members]}
        for group, members in zip(optimizer.groups, optimizer.members, strict=True)
    ]
    state = {
        numbers[member]: {kind: whole(v).clone() if hasattr(v, "read") else v for kind, v in items.items()}
        for member, items in optimizer.state.items()
    }
    return {"state": state, "param_groups": groups}
