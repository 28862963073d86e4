"""Put the user's objects on the groups of a new incarnation, in place. Runs in the worker, on every rank,
between cells.

After an interrupt or a failure the old groups are broken, but the user's DDP and FSDP2 modules, group
variables and meshes should train on. torch has no public way for that: `_update_process_group`,
`_reset_iter_state`, `_new_process_group_helper` and `_world` are private, proven with torch 2.13. Where one
is missing, the object is named instead ("create it anew").
"""

from __future__ import annotations

import gc
import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

from quarterdeck.worker import holders, naming

_former: list[Any] = []
"""Default groups that are gone, while there is no new one."""


@dataclass
class Revival:
    """What became of the user's objects."""

    not_revived: list[str] = field(default_factory=list)
    checksums: list[str] = field(default_factory=list)


@dataclass
class _SubGroup:
    group: Any
    ranks: list[int]
    name: str
    description: str
    tag: str | None
    timeout: Any


Agree = Callable[[list[str]], list[set[str]]]
"""Gives the names of this rank's groups to the others, and returns those of every rank."""


def revive(rebuild: Callable[[], None], agree: Agree) -> Revival:
    """Replace every group; `rebuild` makes the new default group (`init_process_group` on a fresh store).

    A group is made again only if all its ranks still have it: one that was replaced does not, and the others
    would wait for it.
    """
    from torch.nn.parallel import DistributedDataParallel

    subgroups = list(_subgroups(c10d._world.default_pg))
    modules = _instances(DistributedDataParallel)
    if dist.is_initialized():
        dist.destroy_process_group()
    rebuild()
    result = Revival()
    swaps = _succeeded()
    names = agree([sub.name for sub in subgroups])
    for sub in subgroups:
        if all(sub.name in names[rank] for rank in sub.ranks):
            swaps.append((sub.group, _remake(sub)))
        else:
            result.not_revived.append(_lost_group(sub))
    naming.count_again()
    for module in modules:
        _revive_ddp(module, swaps, result)
    _reset_fsdp()
    _replace_groups(swaps)
    result.checksums = sorted(set(filter(None, map(_checksum, modules))))
    return result


def default_is_gone(group: Any) -> None:
    """It was destroyed, by us or by user code."""
    _former.append(group)


def follow_default() -> None:
    """User code has made a default group: what held those before holds it."""
    _replace_groups(_succeeded())


def _succeeded() -> list[tuple[Any, Any]]:
    """The default groups that are gone, each with the one that there is now."""
    swaps = [(old, c10d._world.default_pg) for old in _former]
    _former.clear()
    return swaps


def _replace_groups(swaps: list[tuple[Any, Any]]) -> None:
    """Empties the list: its tuples hold the old groups as well."""
    old, new = [pair[0] for pair in swaps], [pair[1] for pair in swaps]
    swaps.clear()
    holders.replace(old, new)


def _subgroups(default: Any) -> Iterator[_SubGroup]:
    world = c10d._world
    for group in list(world.pg_map):
        if group is default or default is None:
            continue
        by_global = world.pg_group_ranks[group]
        tag = world.pg_to_tag.get(group)
        yield _SubGroup(
            group,
            sorted(by_global, key=by_global.__getitem__),
            group.group_name,
            group.group_desc,
            tag.removeprefix("user:") if tag and tag.startswith("user:") else None,
            _timeout_of(group),
        )


def _timeout_of(group: Any) -> Any:
    try:
        return group._get_backend(torch.device("cpu")).options._timeout
    except RuntimeError:
        return c10d.default_pg_timeout


def _remake(sub: _SubGroup) -> Any:
    """The same group, under its old name: meshes look groups up by name."""
    world = c10d._world
    backend, store = world.pg_map[c10d._get_default_group()]
    new, _ = c10d._new_process_group_helper(
        len(sub.ranks),
        sub.ranks.index(dist.get_rank()),
        sub.ranks,
        backend,
        store,
        sub.name,  # type: ignore[arg-type]
        timeout=sub.timeout,
        pg_tag=sub.tag,
        group_desc=sub.description,
    )
    world.pg_group_ranks[new] = {rank: index for index, rank in enumerate(sub.ranks)}
    return new


def _lost_group(sub: _SubGroup) -> str:
    namespace = sys.modules["__main__"].__dict__
    variables = [f"`{name}`" for name, value in namespace.items() if value is sub.group]
    called = f" ({', '.join(variables)})" if variables else ""
    return (
        f"the process group of ranks {', '.join(map(str, sub.ranks))}{called}, make it again with new_group"
    )


def _revive_ddp(module: Any, swaps: list[tuple[Any, Any]], result: Revival) -> None:
    held = module.process_group
    replacement = next((new for old, new in swaps if old is held), None)
    if replacement is None and held not in c10d._world.pg_map and held.size() == dist.get_world_size():
        replacement = c10d._world.default_pg  # it outlived a group that user code had destroyed
    if replacement is None:
        return
    name = type(module.module).__name__
    if not hasattr(module, "_update_process_group"):
        result.not_revived.append(
            f"DistributedDataParallel({name}): this torch cannot move it, wrap it again"
        )
        return
    module._update_process_group(replacement)
    if any(getattr(hook, "__self__", None) is held or state is held for hook, state in _hooks(module)):
        result.not_revived.append(
            f"the communication hook of DistributedDataParallel({name}) holds the old group, wrap it again"
        )


def _hooks(module: Any) -> list[tuple[Any, Any]]:
    return [(entry[0], entry[1]) for entry in getattr(module, "_comm_hooks", []) if len(entry) >= 2]


def _instances(cls: type) -> list[Any]:
    """All there are. Most objects are of no interest: first look at the few types that they have."""
    objects = gc.get_objects()
    kinds = {kind for kind in set(map(type, objects)) if issubclass(kind, cls)}
    return [one for one in objects if type(one) in kinds] if kinds else []


def _reset_fsdp() -> None:
    """FSDP2 modules back to the state between two steps: ranks may have stopped in different ones."""
    # It takes a second to import, and without it there is nothing to reset.
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is None:
        return
    roots = [
        state
        for state in (module._get_fsdp_state() for module in _instances(fsdp.FSDPModule))
        if state._is_root
    ]
    for state in roots:
        state._reset_iter_state()


def _checksum(module: Any) -> str:
    """Equal on all ranks as long as DDP's replicas are: bitwise, over the norms of all parameters."""
    parameters = [p.detach() for p in module.parameters()]
    if not parameters:
        return ""
    norms = torch.stack([n.to("cpu", torch.float64) for n in torch._foreach_norm(parameters)])
    return hashlib.sha256(norms.numpy().tobytes()).hexdigest()
