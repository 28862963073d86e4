"""How a distributed function is launched, in the fields of Flyte's `Elastic` and `PyTorch`.

    Elastic   n processes on this node; `max_restarts`, `start_method`
    PyTorch   a Kubernetes job's master and workers, run as so many processes on this node
    Launch    what the runner needs of either

Each is checked when it is made and cannot change afterwards: what is wrong shows in the line that wrote it,
not in a worker minutes later. Pure: importable in every process.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, NamedTuple, NoReturn, cast

from quarterdeck.errors import UsageError

_TIMEOUT_S = 900
_NPROC_WORDS = ("auto", "gpu", "cpu")
_RESOURCES = {"cpu": "CPU", "mem": "MEMORY", "gpu": "GPU", "ephemeral_storage": "EPHEMERAL_STORAGE"}


class ConfigError(UsageError, ValueError):
    """A field of a config that cannot be; nothing was started. Also a ValueError, as in Flyte."""


class CleanPodPolicy(Enum):
    """Which pods of a finished job the cluster removes. The values are the job spec's words."""

    NONE = "CLEANPOD_POLICY_NONE"
    RUNNING = "CLEANPOD_POLICY_RUNNING"
    ALL = "CLEANPOD_POLICY_ALL"


class RestartPolicy(Enum):
    """When the cluster restarts a replica. The values are the job spec's words."""

    ALWAYS = "RESTART_POLICY_ALWAYS"
    FAILURE = "RESTART_POLICY_ON_FAILURE"
    NEVER = "RESTART_POLICY_NEVER"


@dataclass(frozen=True)
class RunPolicy:
    """As in Flyte. `active_deadline_seconds` bounds the run here too, over all its attempts; the other three
    concern a cluster's pods and jobs and have no effect on this machine.
    """

    clean_pod_policy: CleanPodPolicy | None = None
    ttl_seconds_after_finished: int | None = None
    active_deadline_seconds: int | None = None
    backoff_limit: int | None = None

    def __post_init__(self) -> None:
        pods = _a(CleanPodPolicy, "CleanPodPolicy.ALL, .RUNNING or .NONE")
        _check(self, clean_pod_policy=_or_none(pods), ttl_seconds_after_finished=_or_none(_whole(0)))
        _check(self, active_deadline_seconds=_or_none(_whole(1)), backoff_limit=_or_none(_whole(0)))

    def to_dict(self) -> dict[str, Any]:
        """The job spec's `runPolicy`, without the fields that are None."""
        return _given(
            cleanPodPolicy=self.clean_pod_policy and self.clean_pod_policy.value,
            ttlSecondsAfterFinished=self.ttl_seconds_after_finished,
            activeDeadlineSeconds=self.active_deadline_seconds,
            backoffLimit=self.backoff_limit,
        )


@dataclass(frozen=True)
class Elastic:
    """n processes on this node, with the fields of Flyte's `Elastic` in their order.

    Attributes:
        nnodes: "N" or "MIN:MAX", too. More than one node is refused for now.
        nproc_per_node: a number of ranks, or torchrun's words: "auto" (GPUs, else CPU cores), "gpu", "cpu".
        start_method: "fork" by default where Flyte has "spawn": workers are forked from a clean process that
            has only imported torch, never from the notebook, so it gives in milliseconds what spawn promises.
            "spawn" starts fresh interpreters, for what cannot be forked.
        monitor_interval: seconds; upper bound for noticing a failure. Workers are watched by events, so the
            value delays nothing (Flyte's 5 is also the shortest time a run can take).
        max_restarts: how often the whole group is started anew after a failure.
        rdzv_configs: the caller's dict, copied and kept as given, read-only; times in seconds.
        increase_shared_mem: mounts /dev/shm in a pod; no effect on this machine.
    """

    nnodes: int | str = 1
    nproc_per_node: int | str = 1
    start_method: str = "fork"
    monitor_interval: float = 0.1
    max_restarts: int = 0
    rdzv_configs: dict[str, Any] = field(
        default_factory=lambda: {"timeout": _TIMEOUT_S, "join_timeout": _TIMEOUT_S}, hash=False
    )
    increase_shared_mem: bool = True
    run_policy: RunPolicy | None = None

    def __post_init__(self) -> None:
        _check(self, nnodes=_NODES, nproc_per_node=_NPROC, start_method=_START, monitor_interval=_SECONDS)
        if self.nodes[1] > 1:
            hint = "quarterdeck runs on this one node for now; engines for more come later. Write nnodes=1."
            _refuse(self, "nnodes", self.nnodes, hint)
        _check(self, max_restarts=_whole(0), rdzv_configs=_a(Mapping, 'a dict, as in {"join_timeout": 60}'))
        _check(self, increase_shared_mem=_FLAG, run_policy=_POLICY)
        _check_rdzv(self)
        object.__setattr__(self, "rdzv_configs", _Fixed(self.rdzv_configs))

    @property
    def nodes(self) -> tuple[int, int]:
        """(least, most) number of nodes, the same for 1, "1" and "1:1"."""
        least, _, most = str(self.nnodes).partition(":")
        return int(least), int(most or least)

    @property
    def join_timeout_s(self) -> float:
        """How long the ranks wait for each other at the start, 900 s unless `rdzv_configs` says otherwise."""
        return float(self.rdzv_configs.get("join_timeout", _TIMEOUT_S))

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
        return _given(workerReplicas={"replicas": most}, elasticConfig=elastic, runPolicy=policy)


@dataclass(frozen=True)
class Master:
    """Rank 0 of a `PyTorch` job. Its fields describe a pod and have no effect on this machine.

    `requests` and `limits` are dicts such as {"cpu": "2", "mem": "2Gi"}, or Flyte's `Resources`.
    """

    image: str | None = None
    requests: Any = field(default=None, hash=False)
    limits: Any = field(default=None, hash=False)
    restart_policy: RestartPolicy | None = None

    def __post_init__(self) -> None:
        _check_replica(self)


@dataclass(frozen=True)
class Worker:
    """The other ranks of a `PyTorch` job: `replicas` of them; the other fields as in `Master`."""

    image: str | None = None
    requests: Any = field(default=None, hash=False)
    limits: Any = field(default=None, hash=False)
    replicas: int | None = None
    restart_policy: RestartPolicy | None = None

    def __post_init__(self) -> None:
        _check_replica(self)
        _check(self, replicas=_or_none(_whole(0)))


@dataclass(frozen=True)
class PyTorch:
    """A PyTorchJob of Flyte, run as 1 + `worker.replicas` processes on this node (Flyte runs it as one).

    `num_workers` is Flyte's older word for `worker.replicas`: exactly one of the two is given.
    """

    master: Master = field(default_factory=Master)
    worker: Worker = field(default_factory=Worker)
    run_policy: RunPolicy | None = None
    num_workers: int | None = None
    increase_shared_mem: bool = True

    def __post_init__(self) -> None:
        _check(self, master=_a(Master, "Master()"), worker=_a(Worker, "Worker(replicas=3)"))
        _check(self, run_policy=_POLICY, num_workers=_or_none(_whole(0)), increase_shared_mem=_FLAG)
        if (self.num_workers is None) == (self.worker.replicas is None):
            both = "both worker.replicas and num_workers" if self.num_workers is not None else "no workers"
            raise ConfigError(f"PyTorch: {both} given.", "Write PyTorch(worker=Worker(replicas=3)).")

    @property
    def world_size(self) -> int:
        """The master and its workers."""
        workers = self.worker.replicas if self.num_workers is None else self.num_workers
        return 1 + cast(int, workers)

    def to_dict(self) -> dict[str, Any]:
        """The job spec that Flyte hands to a cluster."""
        return _given(
            masterReplicas=_replica_spec(self.master, 1),
            workerReplicas=_replica_spec(self.worker, self.world_size - 1),
            runPolicy=self.run_policy and self.run_policy.to_dict(),
        )


class Launch(NamedTuple):
    """What the runner needs to know. `nproc_per_node` None: as the machine has it."""

    nproc_per_node: int | str | None = None
    start_method: Literal["fork", "spawn"] = "fork"
    max_restarts: int = 0
    join_timeout_s: float = float(_TIMEOUT_S)
    deadline_s: float | None = None


def launch_of(config: Elastic | PyTorch | None) -> Launch:
    """Raises ConfigError for anything that is no config."""
    if config is None:
        return Launch()
    if not isinstance(config, Elastic | PyTorch):
        raise ConfigError(
            f"{config!r} is no config: it takes an Elastic or a PyTorch.",
            "Write `@qd.distributed(qd.Elastic(nproc_per_node=2))`.",
        )
    deadline = config.run_policy.active_deadline_seconds if config.run_policy else None
    deadline_s = None if deadline is None else float(deadline)
    if isinstance(config, PyTorch):
        return Launch(nproc_per_node=config.world_size, deadline_s=deadline_s)
    nproc, start = config.nproc_per_node, cast(Literal["fork", "spawn"], config.start_method)
    nproc = nproc if nproc in _NPROC_WORDS else int(nproc)
    return Launch(nproc, start, config.max_restarts, config.join_timeout_s, deadline_s)


class _Fixed(dict[str, Any]):
    """A dict that equals, prints, copies and pickles as any other, but cannot be changed in place."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise ConfigError("A config cannot be changed.", "Make a new one: dataclasses.replace(config, ...).")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return _Fixed, (dict(self),)


def _refuse(config: Any, name: str, value: Any, hint: str) -> NoReturn:
    raise ConfigError(f"{type(config).__name__}: {name}={value!r} cannot be.", hint)


# A field's rule: what to write, and whether a value is that.
_Rule = tuple[str, Callable[[Any], bool]]


def _whole(least: int) -> _Rule:
    return f"a whole number from {least}", lambda value: type(value) is int and value >= least


def _a(kind: type, words: str) -> _Rule:
    return words, lambda value: isinstance(value, kind)


def _one_of(*choices: str) -> _Rule:
    words = " or ".join(f'"{choice}"' for choice in choices)
    return words, lambda value: isinstance(value, str) and value in choices


def _or_none(rule: _Rule) -> _Rule:
    return f"{rule[0]}, or None", lambda value: value is None or rule[1](value)


def _is_nodes(value: Any) -> bool:
    found = re.fullmatch("([0-9]+)(:[0-9]+)?", str(value)) if type(value) in (int, str) else None
    return found is not None and 1 <= int(found[1]) <= int((found[2] or found[1]).lstrip(":"))


def _is_nproc(value: Any) -> bool:
    count = int(value) if isinstance(value, str) and re.fullmatch("[0-9]+", value) else value
    return (type(count) is int and count >= 1) or (isinstance(count, str) and count in _NPROC_WORDS)


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


_NODES: _Rule = ('a number from 1, or "MIN:MAX" with MIN up to MAX, as in nnodes=1', _is_nodes)
_NPROC: _Rule = ('a number of ranks from 1, as in nproc_per_node=2, or "auto", "gpu" or "cpu"', _is_nproc)
_START = _one_of("fork", "spawn")
_SECONDS: _Rule = ("seconds above 0", _is_time)
_FLAG = _a(bool, "True or False")
_POLICY = _or_none(_a(RunPolicy, "RunPolicy(active_deadline_seconds=600)"))
_RDZV = {
    "timeout": _SECONDS,
    "join_timeout": _SECONDS,
    "last_call_timeout": _SECONDS,
    "close_timeout": _SECONDS,
    "heartbeat": _SECONDS,
    "keep_alive_interval": _SECONDS,
    "keep_alive_max_attempt": _whole(1),
    "read_timeout": _SECONDS,
    "store_type": _one_of("tcp", "file"),
    "is_host": _FLAG,
}


def _check(config: Any, **rules: _Rule) -> None:
    for name, (words, is_right) in rules.items():
        if not is_right(value := getattr(config, name)):
            _refuse(config, name, value, f"Write {words}.")


def _check_rdzv(config: Elastic) -> None:
    _check_keys(config, "rdzv_configs", config.rdzv_configs, _RDZV)
    for key, value in config.rdzv_configs.items():
        words, is_right = _RDZV[key]
        if not is_right(value):
            _refuse(config, f"rdzv_configs[{key!r}]", value, f"Write {words}.")


def _check_replica(config: Master | Worker) -> None:
    policy = _a(RestartPolicy, "RestartPolicy.ALWAYS, .FAILURE or .NEVER")
    _check(config, image=_or_none(_a(str, 'a name, as in "train:1"')), restart_policy=_or_none(policy))
    for name in ("requests", "limits"):
        value = getattr(config, name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = _given(**vars(value))
        if value is not None and not isinstance(value, Mapping):
            _refuse(config, name, value, 'Write a dict, as in {"cpu": "2", "mem": "2Gi"}, or None.')
        _check_keys(config, name, value or {}, _RESOURCES)
        object.__setattr__(config, name, None if value is None else _Fixed(value))


def _check_keys(config: Any, name: str, given: Iterable[Any], known: Collection[str]) -> None:
    for unknown in (key for key in given if key not in known):
        near = difflib.get_close_matches(str(unknown), list(known), n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"Keys are {', '.join(known)}."
        raise ConfigError(f"{type(config).__name__}: {name} has no key {unknown!r}.", hint)


def _given(**entries: Any) -> dict[str, Any]:
    return {name: value for name, value in entries.items() if value is not None}


def _replica_spec(config: Master | Worker, replicas: int) -> dict[str, Any]:
    amounts = {
        name: [{"name": _RESOURCES[key], "value": str(amount)} for key, amount in given.items()]
        for name, given in (("requests", config.requests), ("limits", config.limits))
        if given
    }
    policy = config.restart_policy and config.restart_policy.value
    return _given(replicas=replicas, image=config.image, resources=amounts, restartPolicy=policy)
