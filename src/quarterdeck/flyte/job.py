"""A PyTorchJob in the fields of Flyte's plugin: its pods mean nothing here, its counts and deadline do."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, cast

from quarterdeck.flyte.rules import (
    FLAG,
    ConfigError,
    Fixed,
    a,
    check,
    check_keys,
    given,
    or_none,
    refuse,
    whole,
)
from quarterdeck.public import public

_RESOURCES = {"cpu": "CPU", "mem": "MEMORY", "gpu": "GPU", "ephemeral_storage": "EPHEMERAL_STORAGE"}


@public
class CleanPodPolicy(Enum):
    """Which pods of a finished job the cluster removes, as flytekit's `CleanPodPolicy`. The values are the
    job spec's words.
    """

    NONE = "CLEANPOD_POLICY_NONE"
    RUNNING = "CLEANPOD_POLICY_RUNNING"
    ALL = "CLEANPOD_POLICY_ALL"


@public
class RestartPolicy(Enum):
    """When the cluster restarts a replica, as flytekit's `RestartPolicy`. The values are the job spec's
    words.
    """

    ALWAYS = "RESTART_POLICY_ALWAYS"
    FAILURE = "RESTART_POLICY_ON_FAILURE"
    NEVER = "RESTART_POLICY_NEVER"


@public
@dataclass(frozen=True)
class RunPolicy:
    """How a cluster runs a job and what it removes, as flytekit's `RunPolicy`. On this machine only the
    deadline has an effect.

    Attributes:
        clean_pod_policy: which pods of the finished job are removed.
        ttl_seconds_after_finished: seconds until the finished job is removed, from 0.
        active_deadline_seconds: seconds, from 1, that a run may take over all its attempts, here too.
        backoff_limit: how often the cluster tries the job again before it counts as failed, from 0.

    Raises:
        ConfigError: a field cannot have this value.
    """

    clean_pod_policy: CleanPodPolicy | None = None
    ttl_seconds_after_finished: int | None = None
    active_deadline_seconds: int | None = None
    backoff_limit: int | None = None

    def __post_init__(self) -> None:
        pods = a(CleanPodPolicy, "CleanPodPolicy.ALL, .RUNNING or .NONE")
        check(self, clean_pod_policy=or_none(pods), ttl_seconds_after_finished=or_none(whole(0)))
        check(self, active_deadline_seconds=or_none(whole(1)), backoff_limit=or_none(whole(0)))

    def to_dict(self) -> dict[str, Any]:
        """The job spec's `runPolicy`, without the fields that are None."""
        return given(
            cleanPodPolicy=self.clean_pod_policy and self.clean_pod_policy.value,
            ttlSecondsAfterFinished=self.ttl_seconds_after_finished,
            activeDeadlineSeconds=self.active_deadline_seconds,
            backoffLimit=self.backoff_limit,
        )


POLICY = or_none(a(RunPolicy, "RunPolicy(active_deadline_seconds=600)"))


@public
@dataclass(frozen=True)
class Master:
    """Rank 0 of a `PyTorch` job, as flytekit's `Master`. Its fields describe a pod and have no effect on this
    machine.

    Attributes:
        image: name of the container image.
        requests: a dict such as {"cpu": "2", "mem": "2Gi"} with the keys "cpu", "mem", "gpu" and
            "ephemeral_storage", or flytekit's `Resources`; kept as a read-only dict.
        limits: the same, as upper bounds.
        restart_policy: when the cluster restarts the pod.

    Raises:
        ConfigError: a field cannot have this value.
    """

    image: str | None = None
    requests: Any = field(default=None, hash=False)
    limits: Any = field(default=None, hash=False)
    restart_policy: RestartPolicy | None = None

    def __post_init__(self) -> None:
        _check_replica(self)


@public
@dataclass(frozen=True)
class Worker:
    """The other ranks of a `PyTorch` job, as flytekit's `Worker`. All fields but one are as in `Master`.

    Attributes:
        image: name of the container image.
        requests: a dict such as {"cpu": "2", "mem": "2Gi"}, see `Master`.
        limits: the same, as upper bounds.
        replicas: number of these ranks, from 0.
        restart_policy: when the cluster restarts such a pod.

    Raises:
        ConfigError: a field cannot have this value.
    """

    image: str | None = None
    requests: Any = field(default=None, hash=False)
    limits: Any = field(default=None, hash=False)
    replicas: int | None = None
    restart_policy: RestartPolicy | None = None

    def __post_init__(self) -> None:
        _check_replica(self)
        check(self, replicas=or_none(whole(0)))


@public
@dataclass(frozen=True)
class PyTorch:
    """A PyTorchJob, as flytekit's `PyTorch`, run as 1 + `worker.replicas` processes on this node.

    Attributes:
        master: the pod of rank 0.
        worker: the pods of the other ranks, and how many these are.
        run_policy: its deadline bounds a run here, too.
        num_workers: Flyte's older word for `worker.replicas`: exactly one of the two is given.
        increase_shared_mem: mounts /dev/shm in a pod; it has no effect on this machine.

    Raises:
        ConfigError: a field cannot have this value, or the number of workers is given twice or not at all.
    """

    master: Master = field(default_factory=Master)
    worker: Worker = field(default_factory=Worker)
    run_policy: RunPolicy | None = None
    num_workers: int | None = None
    increase_shared_mem: bool = True

    def __post_init__(self) -> None:
        check(self, master=a(Master, "Master()"), worker=a(Worker, "Worker(replicas=3)"))
        check(self, run_policy=POLICY, num_workers=or_none(whole(0)), increase_shared_mem=FLAG)
        if (self.num_workers is None) == (self.worker.replicas is None):
            both = "both worker.replicas and num_workers" if self.num_workers is not None else "no workers"
            raise ConfigError(f"PyTorch has {both}.", "Write PyTorch(worker=Worker(replicas=3)).")

    @property
    def world_size(self) -> int:
        """Number of ranks: the master and its workers."""
        workers = self.worker.replicas if self.num_workers is None else self.num_workers
        return 1 + cast(int, workers)

    def to_dict(self) -> dict[str, Any]:
        """The job spec that Flyte hands to a cluster."""
        return given(
            masterReplicas=_replica_spec(self.master, 1),
            workerReplicas=_replica_spec(self.worker, self.world_size - 1),
            runPolicy=self.run_policy and self.run_policy.to_dict(),
        )


def _check_replica(config: Master | Worker) -> None:
    policy = a(RestartPolicy, "RestartPolicy.ALWAYS, .FAILURE or .NEVER")
    check(config, image=or_none(a(str, 'a name, as in "train:1"')), restart_policy=or_none(policy))
    for name in ("requests", "limits"):
        value = getattr(config, name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = given(**vars(value))
        if value is not None and not isinstance(value, Mapping):
            refuse(config, name, value, 'Write a dict, as in {"cpu": "2", "mem": "2Gi"}, or None.')
        check_keys(config, name, value or {}, _RESOURCES)
        object.__setattr__(config, name, None if value is None else Fixed(value))


def _replica_spec(config: Master | Worker, replicas: int) -> dict[str, Any]:
    amounts = {
        name: [{"name": _RESOURCES[key], "value": str(amount)} for key, amount in wanted.items()]
        for name, wanted in (("requests", config.requests), ("limits", config.limits))
        if wanted
    }
    policy = config.restart_policy and config.restart_policy.value
    return given(replicas=replicas, image=config.image, resources=amounts, restartPolicy=policy)
