"""What a save takes: the state of what the user gave, checked before anything is written. Used by
`quarterdeck.checkpointing.save` in the process that runs user code.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from quarterdeck.checkpointing import modules, plain_values
from quarterdeck.checkpointing.manifest import Summary
from quarterdeck.checkpointing.safetensors_file import dtypes
from quarterdeck.errors import UsageError

if TYPE_CHECKING:
    import torch


@dataclass
class Captured:
    """State by reference: it is copied by `staging`."""

    tensors: dict[str, torch.Tensor]
    """The model's, without aliases."""
    aliases: dict[str, str]
    summary: Summary
    sharded: bool = False
    plain: dict[str, Any] = field(default_factory=dict)
    """By file, without ".pt": optimizer, scheduler, extra, module."""
    pieces: dict[str, torch.Tensor] = field(default_factory=dict)
    """The optimizer's tensors, if the save is sharded."""
    optimizer_names: list[list[str]] | None = None
    own: dict[str, Any] = field(default_factory=dict)
    """This rank's alone: its random generators, its sampler."""


def is_sharded(model: Any) -> bool:
    """Whether each rank holds a part of it only."""
    if isinstance(model, Mapping):
        return modules.is_sharded(model.values())
    return modules.is_sharded((*model.parameters(), *model.buffers()))


def capture(model: Any, optimizer: Any = None, scheduler: Any = None, extra: Any = None) -> Captured:
    """Raises UsageError, naming it, for what could not be loaded again."""
    captured = _model(model)
    if optimizer is not None:
        _optimizer(captured, model, optimizer)
    if scheduler is not None:
        captured.plain["scheduler"] = scheduler.state_dict()
    if extra is not None:
        captured.plain["extra"] = extra
    for name, value in captured.plain.items():
        plain_values.check(value, name)
    return captured


def own(rng: bool, sampler: Any) -> dict[str, Any]:
    """What each rank has of its own, on request."""
    found: dict[str, Any] = {}
    if rng:
        found["rng"] = _generators()
    if sampler is not None:
        found["sampler"] = sampler_state(sampler)
    plain_values.check(found, "own")
    return found


def _model(model: Any) -> Captured:
    import torch

    if isinstance(model, torch.nn.Module):
        tensors, rest = modules.state_of(model)
    elif isinstance(model, Mapping) and all(isinstance(value, torch.Tensor) for value in model.values()):
        tensors, rest = dict(model), {}
    else:
        raise UsageError(
            f"A checkpoint is saved of a module, or of a dict of tensors, not of {type(model).__name__}."
        )
    for name, tensor in tensors.items():
        _check_tensor(name, tensor)
    aliases = modules.aliases(tensors)
    module = model if isinstance(model, torch.nn.Module) else None
    captured = Captured(
        {name: tensor for name, tensor in tensors.items() if name not in aliases},
        aliases,
        modules.summary(module, tensors),
        modules.is_sharded(tensors.values()),
    )
    if rest:
        captured.plain["module"] = rest
    return captured


def _check_tensor(name: str, tensor: torch.Tensor) -> None:
    found = plain_values.unkept(tensor)
    if found is not None:
        raise UsageError(f"model.{name} is {found[0]}.", f"{found[1]} A buffer may also be persistent=False.")
    if tensor.dtype not in dtypes():
        raise UsageError(
            f"model.{name} is a tensor of {tensor.dtype}, which safetensors cannot carry.",
            "Give it as extra={...}, or make the buffer persistent=False.",
        )


def _optimizer(captured: Captured, model: Any, optimizer: Any) -> None:
    import torch

    is_known = isinstance(model, torch.nn.Module) and isinstance(optimizer, torch.optim.Optimizer)
    names = modules.parameter_names(optimizer, model) if is_known else None
    captured.optimizer_names = names
    state = optimizer.state_dict()
    if not captured.sharded:
        captured.plain["optimizer"] = state
        return
    if names is None:
        raise UsageError(
            "The optimizer steps parameters that the model does not have, so their shards have no names.",
            "Give the model whose parameters() the optimizer was made with.",
        )
    captured.pieces, captured.plain["optimizer"] = by_name(state, names)


def by_name(state: dict[str, Any], names: list[list[str]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors of an optimizer's state as "PARAMETER.KIND", and the rest, its indices replaced by
    names.
    """
    import torch

    index = {
        at: name
        for group, known in zip(state["param_groups"], names, strict=True)
        for at, name in zip(group["params"], known, strict=True)
    }
    tensors, rest = {}, {}
    for at, items in state["state"].items():
        name = index[at]
        rest[name] = {key: value for key, value in items.items() if not isinstance(value, torch.Tensor)}
        tensors.update(
            {f"{name}.{key}": value for key, value in items.items() if isinstance(value, torch.Tensor)}
        )
    groups = [{**group, "params": known} for group, known in zip(state["param_groups"], names, strict=True)]
    return tensors, {"state": rest, "param_groups": groups}


def _generators() -> dict[str, Any]:
    import torch

    version, internal, gauss = random.getstate()
    found: dict[str, Any] = {
        "python": [version, list(internal), gauss],
        "torch": torch.get_rng_state(),
    }
    if "numpy" in sys.modules:
        kind, keys, at, has_gauss, cached = sys.modules["numpy"].random.get_state()
        found["numpy"] = [
            kind,
            torch.from_numpy(keys.astype("int64")),
            int(at),
            int(has_gauss),
            float(cached),
        ]
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found["cuda"] = torch.cuda.get_rng_state()
    return found


def restore_generators(found: dict[str, Any]) -> None:
    """Raises KeyError, TypeError or ValueError for what is no state of generators."""
    import torch

    version, internal, gauss = found["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(found["torch"])
    if "numpy" in found:
        import numpy as np

        kind, keys, at, has_gauss, cached = found["numpy"]
        np.random.set_state((kind, keys.numpy().astype("uint32"), at, has_gauss, cached))
    if "cuda" in found and torch.cuda.is_available():
        torch.cuda.set_rng_state(found["cuda"])


def sampler_state(sampler: Any) -> Any:
    """Its own `state_dict`, or the epoch of a DistributedSampler and the state of its generator."""
    if hasattr(sampler, "state_dict"):
        return sampler.state_dict()
    found = {name: getattr(sampler, name) for name in ("epoch", "seed") if hasattr(sampler, name)}
    generator = getattr(sampler, "generator", None)
    if generator is not None:
        found["generator"] = generator.get_state()
    if not found:
        raise UsageError(
            f"The sampler ({type(sampler).__name__}) has neither state_dict() nor an epoch or a generator.",
            "Give it state_dict() and load_state_dict(), or keep what it needs as extra={...}.",
        )
    return found


def restore_sampler(sampler: Any, state: Any) -> None:
    if hasattr(sampler, "load_state_dict"):
        sampler.load_state_dict(state)
        return
    for name in ("epoch", "seed"):
        if name in state:
            setattr(sampler, name, state[name])
    generator = getattr(sampler, "generator", None)
    if generator is not None and "generator" in state:
        generator.set_state(state["generator"])
