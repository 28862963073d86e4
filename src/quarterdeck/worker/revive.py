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
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

_NAMES_PER_INCARNATION = 10_000  # arbitrary; more groups than one incarnation makes


@dataclass
class Revival:
    """What became of the user's objects."""

    count: int = 0
    not_revived: list[str] = field(default_factory=list)
    checksum: str = ""


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


def revive(rebuild: Callable[[], None], agree: Agree, incarnation: int) -> Revival:
    """Replace every group; `rebuild` makes the new default group (`init_process_group` on a fresh store).

    A group is made again only if all its ranks still have it: one that was replaced does not, and the others
    would wait for it.

    torch names groups by counting them on each rank, and ranks only meet under the same name: after a fault,
    in which one rank made a group alone, the counts differ. So every incarnation starts from a count of its
    own.
    """
    from torch.nn.parallel import DistributedDataParallel

    old_default = c10d._world.default_pg if dist.is_initialized() else None
    subgroups = list(_subgroups(old_default))
    modules = [o for o in gc.get_objects() if issubclass(type(o), DistributedDataParallel)]
    if old_default is not None:
        dist.destroy_process_group()
    c10d._world.group_count = incarnation * _NAMES_PER_INCARNATION
    rebuild()
    result = Revival()
    swaps = [(old_default, c10d._world.default_pg)] if old_default is not None else []
    names = agree([sub.name for sub in subgroups])
    for sub in subgroups:
        if all(sub.name in names[rank] for rank in sub.ranks):
            swaps.append((sub.group, _remake(sub)))
        else:
            result.not_revived.append(_lost_group(sub))
    for module in modules:
        _revive_ddp(module, swaps, result)
    result.count += sum(_replace_references(old, new) for old, new in swaps)
    result.count += _reset_fsdp()
    result.checksum = _checksum(modules)
    return result


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
    result.count += 1
    if any(getattr(hook, "__self__", None) is held or state is held for hook, state in _hooks(module)):
        result.not_revived.append(
            f"the communication hook of DistributedDataParallel({name}) holds the old group, wrap it again"
        )


def _hooks(module: Any) -> list[tuple[Any, Any]]:
    return [(entry[0], entry[1]) for entry in getattr(module, "_comm_hooks", []) if len(entry) >= 2]


def _replace_references(old: Any, new: Any) -> int:
    """Let every dict, list and attribute that holds `old` hold `new`; how many did."""
    # A dict whose values the collector does not track, {"dp": group}, is not tracked itself: look one level
    # into dicts.
    untracked = [
        value
        for holder in gc.get_objects()
        if type(holder) is dict
        for value in list(holder.values())
        if type(value) is dict and not gc.is_tracked(value)
    ]
    count = 0
    frozen = sys.modules["__main__"].__dict__  # made in the zygote: the collector does not look at it
    for holder in [frozen, *gc.get_referrers(old), *untracked]:
        if isinstance(holder, (types.FrameType, types.CellType, tuple)):
            continue
        count += _replace_in(holder, old, new)
    return count


def _replace_in(holder: Any, old: Any, new: Any) -> int:
    items = holder if isinstance(holder, (dict, list)) else getattr(holder, "__dict__", None)
    if isinstance(items, dict):
        pairs = list(items.items())
    elif isinstance(items, list):
        pairs = list(enumerate(items))
    else:
        return 0
    keys = [key for key, value in pairs if value is old]
    for key in keys:
        items[key] = new
    return len(keys)


def _reset_fsdp() -> int:
    """FSDP2 modules back to the state between two steps: ranks may have stopped in different ones."""
    fsdp = sys.modules.get(
        "torch.distributed.fsdp"
    )  # a second to import, and without it there is nothing to reset
    if fsdp is None:
        return 0
    roots = [
        state
        for state in (o._get_fsdp_state() for o in gc.get_objects() if issubclass(type(o), fsdp.FSDPModule))
        if state._is_root
    ]
    for state in roots:
        state._reset_iter_state()
    return len(roots)


def _checksum(modules: list[Any]) -> str:
    """Equal on all ranks as long as DDP's replicas are: bitwise, over the norms of all parameters."""
    digest = hashlib.sha256()
    for module in modules:
        parameters = [p.detach() for p in module.parameters()]
        if parameters:
            norms = torch.stack([n.to("cpu", torch.float64) for n in torch._foreach_norm(parameters)])
            digest.update(norms.numpy().tobytes())
    return digest.hexdigest() if modules else ""
