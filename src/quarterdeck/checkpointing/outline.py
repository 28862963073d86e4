"""What a state is made of, by name: shapes and types, no values. Ranks that save one checkpoint together, or
one for all, have the same. Used by `save` and `offering`.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

from quarterdeck.checkpointing import modules

Outline = dict[str, str]
_SHOWN = 3


def outline(model: Any, optimizer: Any, scheduler: Any, extra: Any) -> Outline:
    """No tensor is copied. Raises UsageError for a model whose parts have no names."""
    found = {name: _words(tensor) for name, tensor in _tensors(model).items()}
    found |= _of_optimizer(optimizer, model)
    found |= {name: "" for name, value in (("scheduler", scheduler), ("extra", extra)) if value is not None}
    return found


def digest(outline: Outline) -> str:
    text = "\n".join(f"{name} {words}" for name, words in sorted(outline.items()))
    return f"{zlib.crc32(text.encode()):08x}"


def difference(one: Outline, one_name: str, other: Outline, other_name: str) -> str:
    """In words; the first few of it."""
    parts = [_only(one, other, one_name, other_name), _only(other, one, other_name, one_name)]
    both = [name for name in one if name in other and one[name] != other[name]]
    if both:
        parts.append(
            f"{one_name} has {_list(f'{name} {one[name]}' for name in both)}, "
            f"{other_name} has {_list(f'{name} {other[name]}' for name in both)}"
        )
    return "; ".join(part for part in parts if part)


def _only(one: Outline, other: Outline, one_name: str, other_name: str) -> str:
    names = [f"{name} {one[name]}".rstrip() for name in one if name not in other]
    return f"{one_name} has {_list(names)}, {other_name} has not" if names else ""


def _list(names: Any) -> str:
    known = list(names)
    more = f" and {len(known) - _SHOWN:,} more" if len(known) > _SHOWN else ""
    return ", ".join(known[:_SHOWN]) + more


def _tensors(model: Any) -> dict[str, Any]:
    """The model's tensors by name; none for anything else, which `capture` refuses."""
    import torch

    if isinstance(model, torch.nn.Module):
        return modules.state_of(model)[0]
    return dict(model) if isinstance(model, Mapping) else {}


def _of_optimizer(optimizer: Any, model: Any) -> Outline:
    """The parameters that it steps; it may have no state of them yet."""
    import torch

    if optimizer is None:
        return {}
    found = {"optimizer": ""}
    if isinstance(optimizer, torch.optim.Optimizer):
        known = modules.parameter_names(optimizer, model) if isinstance(model, torch.nn.Module) else None
        for at, group in enumerate(optimizer.param_groups):
            for number, parameter in enumerate(group["params"]):
                name = known[at][number] if known else f"parameter {number} of group {at}"
                found[f"the optimizer's {name}"] = _words(parameter)
    return found


def _words(tensor: Any) -> str:
    """ "(4, 4) float32"."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}" if _is_tensor(tensor) else ""


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")
