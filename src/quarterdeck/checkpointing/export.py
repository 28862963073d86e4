"""A checkpoint as one file that needs no quarterdeck. Used through `Checkpoint.export` and the browser."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

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
    target = Path(os.path.expanduser(path))
    if target.suffix not in (".safetensors", ".pt", ".pth"):
        raise UsageError(f"{target.name}: a checkpoint is exported to .safetensors or .pt.")
    with opened(checkpoint, trust, verify=True) as source:
        if target.suffix == ".safetensors":
            _replace(target, lambda tmp: _write_safetensors(source, tmp))
        else:
            _replace(target, lambda tmp: _write_pt(_everything(checkpoint, source), tmp))
    return target


def _write_safetensors(source: Source, path: Path) -> None:
    """One tensor at a time."""
    import torch

    shapes = {
        name: torch.empty(stored.shape, dtype=stored.dtype, device="meta")
        for name, stored in source.tensors.items()
    }
    slots = safetensors_file.laid_out(shapes)
    with path.open("wb") as file:
        file.write(safetensors_file.header(slots, {"format": "pt", **source.aliases}))
        for slot in slots:
            values = whole(source.tensors[slot.name]).contiguous().view(-1)
            if values.numel():
                file.write(values.view(torch.uint8).numpy().data)


def _write_pt(value: Any, path: Path) -> None:
    import torch

    torch.save(value, path)


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


def _replace(target: Path, write: Callable[[Path], None]) -> None:
    tmp = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}")
    try:
        write(tmp)
        descriptor = os.open(tmp, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(tmp, target)
    finally:
        tmp.unlink(missing_ok=True)
