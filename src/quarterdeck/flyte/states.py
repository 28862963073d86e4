"""State dicts for `PyTorchCheckpoint`: taken from modules and optimizers, and told apart by their content.
Runs wherever user code does, with torch imported.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from quarterdeck.checkpointing import hyperparameters
from quarterdeck.errors import UsageError

_SHARDED = ("DTensor", "ShardedTensor", "FullyShardedDataParallel")


def unwrapped(module: Any) -> Any:
    """The module that DistributedDataParallel, DataParallel and torch.compile wrap: its names of parameters
    are those that the bare model has."""
    import torch

    parallel = (torch.nn.parallel.DistributedDataParallel, torch.nn.DataParallel)
    while True:
        if isinstance(module, parallel):
            module = module.module
        elif type(module).__name__ == "OptimizedModule" and hasattr(module, "_orig_mod"):
            module = module._orig_mod
        else:
            return module


def module_state(module: Any) -> dict[str, Any]:
    """Views of the module's own memory, as `state_dict` gives. Raises UsageError for a sharded module."""
    refuse_sharded(module)
    state: dict[str, Any] = unwrapped(module).state_dict()
    return state


def refuse_sharded(module: Any) -> None:
    bare = unwrapped(module)
    for value in itertools.chain([bare], bare.parameters(), bare.buffers()):
        if any(cls.__name__ in _SHARDED for cls in type(value).__mro__):
            raise UsageError(
                "PyTorchCheckpoint holds whole models, and this one is sharded over the ranks.",
                "qd.save_checkpoint(model, ...), called on every rank, saves it.",
            )


def reference(state: Mapping[str, Any], with_hash: bool = True) -> dict[str, Any]:
    """What stands for a state dict in JSON: its hash, and what it holds for people to read."""
    tensors = [(name, tensor) for name, tensor in _walk(state, "") if _is_tensor(tensor)]
    return {
        **({"sha256": digest(state)} if with_hash else {}),
        "size_bytes": sum(tensor.numel() * tensor.element_size() for _, tensor in tensors),
        "tensors": {name: f"{_dtype(tensor)} {list(tensor.shape)}" for name, tensor in tensors},
    }


def digest(state: Mapping[str, Any]) -> str:
    """The same for the same names, types, shapes and bits, wherever they lie. Reads every tensor once."""
    found = hashlib.sha256()
    for path, value in _walk(state, ""):
        _update(found, path.encode())
        if _is_tensor(value):
            _update(found, f"{_dtype(value)} {list(value.shape)}".encode())
            found.update(_bytes(value))
        else:
            _update(found, json.dumps(hyperparameters.encode(value, path), sort_keys=True).encode())
    return found.hexdigest()


def _update(found: Any, data: bytes) -> None:
    """With its length: no two states run together to the same bytes."""
    found.update(len(data).to_bytes(8, "little") + data)


def _bytes(tensor: Any) -> memoryview:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())


def _walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Everything that holds nothing itself, in the order of the state dict."""
    if isinstance(value, Mapping):
        parts = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(str(index), item) for index, item in enumerate(value)]
    else:
        yield path, value
        return
    for key, item in parts:
        yield from _walk(item, f"{path}.{key}" if path else key)


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)
