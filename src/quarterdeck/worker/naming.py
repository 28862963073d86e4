"""What process groups are called: the same in every incarnation. Runs in the worker.

Meshes, DTensors and compiled code keep the names of groups, not the groups, so a group that takes another's
place must answer to its name. torch counts the groups of each process instead: a rank that made one alone,
in a cell that failed, would count differently from the others for good.

So a group is called after its ranks, which all of them know, with a number among those of the same ranks.
`_process_group_name` and `_world` are private, proven with torch 2.13.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch.distributed import distributed_c10d as c10d

_DEFAULT = "0"  # as torch calls the first one
_made: Counter[str] = Counter()
"""How many groups of some ranks there have been since the default group was made."""


def name_of(ranks: Sequence[int], use_hashed_name: bool = False) -> str:
    """The name of the next group of these ranks; none: the default group."""
    if not ranks:
        return _DEFAULT
    prefix = _prefix(ranks)
    _made[prefix] += 1
    return f"{prefix}{_made[prefix]}"


def _prefix(ranks: Sequence[int]) -> str:
    return f"ranks {','.join(map(str, ranks))} #"


def count_again() -> None:
    """Only the groups that there are: all their ranks have them, and so agree on the next number."""
    _made.clear()
    for name in c10d._world.pg_names.values():
        prefix, mark, number = name.partition("#")
        if mark:
            _made[prefix + mark] = max(_made[prefix + mark], int(number))


def all_gone() -> None:
    """The default group was destroyed, and all others with it.

    DTensor keeps what it has found out for a mesh, with that mesh: an equal one that is made later would get
    the names of groups that are gone.
    """
    _made.clear()
    debug: Any = sys.modules.get("torch.distributed.tensor.debug")
    if debug is not None and hasattr(debug, "_clear_sharding_prop_cache"):
        debug._clear_sharding_prop_cache()
