"""A model as a checkpoint sees it: without the wrappers that DDP, torch.compile and others put around it or
parts of it, its names the same on every number of ranks. Used by `capture` and `load`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from quarterdeck.checkpointing.manifest import Summary
from quarterdeck.errors import UsageError

if TYPE_CHECKING:
    import torch

_INNER = {
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "OptimizedModule": "_orig_mod",
}
"""Where a wrapper, by its class name, holds what it wraps."""


class Names:
    """Between the names of a module's state dict and those in a checkpoint."""

    def __init__(self, module: torch.nn.Module) -> None:
        """Raises UsageError for FSDP1, whose shards have no names."""
        self._inside = set()
        for whole, part in module.named_modules():
            path = whole.replace("_checkpoint_wrapped_module.", "")  # which leaves no trace in names
            if type(part).__name__ == "FullyShardedDataParallel":
                raise UsageError(
                    "The model is wrapped in FullyShardedDataParallel (FSDP1), which is not kept.",
                    "Shard it with torch.distributed.fsdp.fully_shard (FSDP2).",
                )
            inner = _INNER.get(type(part).__name__)
            if inner and hasattr(part, inner):
                self._inside.add(f"{path}.{inner}" if path else inner)

    def __call__(self, key: str) -> str:
        """ "module.layers._orig_mod.0.weight" is kept as "layers.0.weight"."""
        if not self._inside:
            return key
        parts = key.split(".")
        return ".".join(part for at, part in enumerate(parts, 1) if ".".join(parts[:at]) not in self._inside)


def state_of(module: torch.nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors, and what modules keep besides (`get_extra_state`), under their names in a checkpoint."""
    import torch

    names = Names(module)
    tensors: dict[str, torch.Tensor] = {}
    rest: dict[str, Any] = {}
    for key, value in module.state_dict().items():
        if isinstance(value, torch.Tensor):
            tensors[names(key)] = value
        else:
            rest[names(key)] = value
    return tensors, rest


def is_sharded(tensors: Iterable[Any]) -> bool:
    return any(is_dtensor(tensor) for tensor in tensors)


def is_dtensor(tensor: Any) -> bool:
    """Without importing what it asks for: nobody has one who has not imported it."""
    return type(tensor).__name__ == "DTensor" or hasattr(tensor, "_local_tensor")


def aliases(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Names of tied tensors: each to the first one that is the very same memory."""
    first: dict[Any, str] = {}
    found = {}
    for name, tensor in tensors.items():
        if tensor.numel() == 0 or tensor.is_meta:
            continue
        local = getattr(tensor, "_local_tensor", tensor)
        if local.numel() == 0 or local.layout.__str__() != "torch.strided":
            continue
        key = (local.data_ptr(), tuple(tensor.shape), local.stride(), local.dtype, local.device)
        if key in first:
            found[name] = first[key]
        else:
            first[key] = name
    return found


def parameter_names(optimizer: torch.optim.Optimizer, module: torch.nn.Module) -> list[list[str]] | None:
    """Names by group, in the group's order; None if it steps something that is not in the module."""
    names = Names(module)
    known = {id(parameter): names(name) for name, parameter in module.named_parameters()}
    groups = [
        [known.get(id(parameter), "") for parameter in group["params"]] for group in optimizer.param_groups
    ]
    return groups if all(name for group in groups for name in group) else None


def summary(module: torch.nn.Module | None, tensors: Mapping[str, torch.Tensor]) -> Summary:
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if module is None:
        return Summary(
            parameters=sum(t.numel() for t in tensors.values()), tensors=len(tensors), size_bytes=size
        )
    parameters = list(module.parameters())
    return Summary(
        class_name=type(bare(module)).__qualname__,
        layers=sum(1 for part in module.modules() if part._parameters),
        parameters=sum(parameter.numel() for parameter in parameters),
        trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        tensors=len(tensors),
        size_bytes=size,
    )


def bare(module: torch.nn.Module) -> torch.nn.Module:
    """Without the wrappers around all of it."""
    while (inner := _INNER.get(type(module).__name__)) and hasattr(module, inner):
        module = getattr(module, inner)
    return module
