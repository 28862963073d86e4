"""n processes on this node, in the fields of Flyte's `Elastic`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quarterdeck.flyte.job import POLICY, RunPolicy
from quarterdeck.flyte.rules import (
    FLAG,
    SECONDS,
    Fixed,
    Rule,
    a,
    check,
    check_keys,
    given,
    one_of,
    refuse,
    whole,
)
from quarterdeck.public import public

TIMEOUT_S = 900
NPROC_WORDS = ("auto", "gpu", "cpu")


@public
@dataclass(frozen=True)
class Elastic:
    """n processes on this node, with the fields of flytekit's `Elastic` in their order.

    Attributes:
        nnodes: "N" or "MIN:MAX", too. More than one node is refused for now.
        nproc_per_node: a number of ranks, or torchrun's words: "auto" (GPUs, else CPU cores), "gpu", "cpu".
        start_method: "fork" by default where Flyte has "spawn": workers are forked from a clean process that
            has only imported torch, never from the notebook, so it gives in milliseconds what spawn promises.
            "spawn" starts fresh interpreters, for what cannot be forked.
        monitor_interval: seconds; upper bound for noticing a failure. Workers are watched by events, so the
            value delays nothing (Flyte's 5 is also the shortest time a run can take).
        max_restarts: how often the whole group is started anew after a failure.
        rdzv_configs: the caller's dict, copied and kept as given, read-only; times in seconds. The keys are
            those of torch's rendezvous back end c10d. Only "join_timeout" has an effect on this machine.
        increase_shared_mem: mounts /dev/shm in a pod; it has no effect on this machine.
        run_policy: its deadline bounds a run here, too.

    Raises:
        ConfigError: a field cannot have this value.
    """

    nnodes: int | str = 1
    nproc_per_node: int | str = 1
    start_method: str = "fork"
    monitor_interval: float = 0.1
    max_restarts: int = 0
    rdzv_configs: dict[str, Any] = field(
        default_factory=lambda: {"timeout": TIMEOUT_S, "join_timeout": TIMEOUT_S}, hash=False
    )
    increase_shared_mem: bool = True
    run_policy: RunPolicy | None = None

    def __post_init__(self) -> None:
        check(self, nnodes=_NODES, nproc_per_node=_NPROC, start_method=_START, monitor_interval=SECONDS)
        if self.nodes[1] > 1:
            hint = "quarterdeck runs on this one node for now; engines for more come later. Write nnodes=1."
            refuse(self, "nnodes", self.nnodes, hint)
        check(self, max_restarts=whole(0), rdzv_configs=a(Mapping, 'a dict, as in {"join_timeout": 60}'))
        check(self, increase_shared_mem=FLAG, run_policy=POLICY)
        _check_rdzv(self)
        object.__setattr__(self, "rdzv_configs", Fixed(self.rdzv_configs))

    @property
    def nodes(self) -> tuple[int, int]:
        """(least, most) number of nodes, the same for 1, "1" and "1:1"."""
        least, _, most = str(self.nnodes).partition(":")
        return int(least), int(most or least)

    @property
    def join_timeout_s(self) -> float:
        """How long the ranks wait for each other at the start, 900 s unless `rdzv_configs` says otherwise."""
        return float(self.rdzv_configs.get("join_timeout", TIMEOUT_S))

    def to_dict(self) -> dict[str, Any]:
        """The job spec that Flyte hands to a cluster; what only the launcher reads is not in it."""
        least, most = self.nodes
        elastic = {
            "rdzvBackend": "c10d",
            "minReplicas": least,
            "maxReplicas": most,
            "nprocPerNode": self.nproc_per_node,
            "maxRestarts": self.max_restarts,
        }
        policy = self.run_policy and self.run_policy.to_dict()
        return given(workerReplicas={"replicas": most}, elasticConfig=elastic, runPolicy=policy)


def _is_nodes(value: Any) -> bool:
    found = re.fullmatch("([0-9]+)(:[0-9]+)?", str(value)) if type(value) in (int, str) else None
    return found is not None and 1 <= int(found[1]) <= int((found[2] or found[1]).lstrip(":"))


def _is_nproc(value: Any) -> bool:
    count = int(value) if isinstance(value, str) and re.fullmatch("[0-9]+", value) else value
    return (type(count) is int and count >= 1) or (isinstance(count, str) and count in NPROC_WORDS)


_NODES: Rule = ('a number from 1, or "MIN:MAX" with MIN up to MAX, as in nnodes=1', _is_nodes)
_NPROC: Rule = ('a number of ranks from 1, as in nproc_per_node=2, or "auto", "gpu" or "cpu"', _is_nproc)
_START = one_of("fork", "spawn")
_RDZV = {
    "timeout": SECONDS,
    "join_timeout": SECONDS,
    "last_call_timeout": SECONDS,
    "close_timeout": SECONDS,
    "heartbeat": SECONDS,
    "keep_alive_interval": SECONDS,
    "keep_alive_max_attempt": whole(1),
    "read_timeout": SECONDS,
    "store_type": one_of("tcp", "file"),
    "is_host": FLAG,
}


def _check_rdzv(config: Elastic) -> None:
    check_keys(config, "rdzv_configs", config.rdzv_configs, _RDZV)
    for key, value in config.rdzv_configs.items():
        words, is_right = _RDZV[key]
        if not is_right(value):
            refuse(config, f"rdzv_configs[{key!r}]", value, f"Write {words}.")
