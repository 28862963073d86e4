"""State from a checkpoint into a module and its optimizer. Everything is read and checked by `module_values`
and `optimizer_values`; what they return is then given to `load_state_dict`. Used by `load`.

No collectives: each rank reads the parts that it holds, however many ranks there are now or were before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from quarterdeck.checkpointing.lazy_tensor import Stored, local_region, whole
from quarterdeck.checkpointing.modules import Names, aliases, bare, is_dtensor, parameter_names
from quarterdeck.checkpointing.readers import OptimizerState, Source
from quarterdeck.errors import UsageError

if TYPE_CHECKING:
    import torch

_SHOWN = 8


def module_values(source: Source, module: torch.nn.Module, strict: bool) -> dict[str, Any]:
    """For the module's own `load_state_dict`. Raises UsageError that lists what does not fit."""
    import torch

    names, state = Names(module), module.state_dict()
    targets = {names(key): (key, value) for key, value in state.items() if isinstance(value, torch.Tensor)}
    found = {name: stored for name in targets if (stored := _find(source, name)) is not None}
    if strict:
        _check(source, module, {name: value for name, (_, value) in targets.items()}, found)
    fitting = {name for name, stored in found.items() if stored.shape == tuple(targets[name][1].shape)}
    values = {targets[name][0]: _as(found[name], targets[name][1]) for name in targets if name in fitting}
    extra = source.read("module") or {}
    values.update({key: extra[names(key)] for key in state if key not in values and names(key) in extra})
    return values


def optimizer_values(source: Source, optimizer: Any, module: torch.nn.Module | None) -> dict[str, Any]:
    """For the optimizer's `load_state_dict`. Raises UsageError."""
    saved = source.optimizer
    if saved is None:
        raw = source.read("optimizer")
        if raw is None:
            raise UsageError(f"{source.path} was saved without an optimizer.", "Leave it out of into=(...).")
        whole_state: dict[str, Any] = raw
        return whole_state
    names = parameter_names(optimizer, module) if module is not None else None
    if names is not None and saved.named:
        members: list[list[Any]] = [list(group) for group in names]
    else:
        members = _by_number(source, saved, optimizer)
    return _numbered(saved, members, _same_groups(source, saved, members), optimizer)


def _numbered(
    saved: OptimizerState, members: list[list[Any]], order: list[int], optimizer: Any
) -> dict[str, Any]:
    """As the optimizer's own `state_dict` has it: parameters by their number."""
    groups: list[dict[str, Any]] = []
    state: dict[int, dict[str, Any]] = {}
    number = 0
    for at, (group, here) in enumerate(zip(members, optimizer.param_groups, strict=True)):
        groups.append({**saved.groups[order[at]], "params": [*range(number, number + len(group))]})
        for member, parameter in zip(group, here["params"], strict=True):
            if member in saved.state:
                state[number] = _items(saved.state[member], parameter)
            number += 1
    return {"state": state, "param_groups": groups}


def _find(source: Source, name: str) -> Stored | None:
    return source.tensors.get(name) or source.tensors.get(source.aliases.get(name, ""))


def _as(stored: Stored, target: Any) -> Any:
    """This rank's part of it, in the form that the target has."""
    if not is_dtensor(target):
        return whole(stored)
    from torch.distributed.tensor import DTensor

    region = local_region(target)
    local = target.to_local()
    values = local.new_empty(local.shape) if region is None else stored.read(*region).to(local)
    return DTensor.from_local(
        values,
        target.device_mesh,
        target.placements,
        run_check=False,
        shape=target.shape,
        stride=target.stride(),
    )


def _check(
    source: Source, module: torch.nn.Module, targets: dict[str, torch.Tensor], found: dict[str, Stored]
) -> None:
    meta = [name for name, tensor in targets.items() if tensor.is_meta]
    if meta:
        raise UsageError(
            f"{type(bare(module)).__name__} is on the meta device: nothing can be copied into {_some(meta)}.",
            'Give it memory first: model.to_empty(device="cpu").',
        )
    tied = aliases(targets)
    partners = {**tied, **{first: name for name, first in tied.items()}}
    missing = [name for name in targets if name not in found and partners.get(name) not in found]
    unexpected = sorted(
        name for name in source.tensors if name not in targets and not _is_tied(source, name, targets)
    )
    shapes = [
        f"{name} {_shape(stored.shape)} there, {_shape(targets[name].shape)} here"
        for name, stored in found.items()
        if stored.shape != tuple(targets[name].shape)
    ]
    lines = [
        f"  {what}: {_some(names)}"
        for what, names in (
            ("not in the checkpoint", missing), ("not in the model", unexpected), ("another shape", shapes)
        )
        if names
    ]  # fmt: skip
    if lines:
        head = f"{source.path} does not fit into {type(bare(module)).__name__}; nothing was loaded."
        raise UsageError("\n".join([head, *lines]), "Load what fits with strict=False.")


def _is_tied(source: Source, name: str, targets: dict[str, torch.Tensor]) -> bool:
    return any(first == name and other in targets for other, first in source.aliases.items())


def _by_number(source: Source, saved: OptimizerState, optimizer: Any) -> list[list[Any]]:
    """Without names: the same number of parameters in each group, in the same order, as torch has it."""
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    if sizes != [len(group) for group in saved.members]:
        there = ", ".join(str(len(group)) for group in saved.members)
        raise UsageError(
            f"The optimizer in {source.path} has groups of {there} parameters, and this one of "
            f"{', '.join(map(str, sizes))}; nothing was loaded."
        )
    return saved.members


def _same_groups(source: Source, saved: OptimizerState, members: list[list[Any]]) -> list[int]:
    """For each group here, which one it is there."""
    there = {frozenset(group): at for at, group in enumerate(saved.members)}
    order = [there.get(frozenset(group), -1) for group in members]
    if -1 not in order and len(order) == len(saved.members):
        return order
    known = {member for group in saved.members for member in group}
    here = {member for group in members for member in group}
    raise UsageError(
        f"The optimizer in {source.path} steps other parameters, or has them in other groups.\n"
        f"  only there: {_some(sorted(known - here)) or 'none'}\n"
        f"  only here: {_some(sorted(here - known)) or 'none'}\n"
        "Nothing was loaded."
    )


def _items(saved: dict[str, Any], parameter: Any) -> dict[str, Any]:
    found = {}
    for kind, value in saved.items():
        if not hasattr(value, "read"):
            found[kind] = value
        elif is_dtensor(parameter) and value.shape == tuple(parameter.shape):
            found[kind] = _as(value, parameter)
        else:
            found[kind] = whole(value).clone()  # the optimizer keeps it; the file may go
    return found


def _some(names: Sequence[str] | Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more


def _shape(shape: Iterable[int]) -> str:
    return f"[{', '.join(map(str, shape))}]"
