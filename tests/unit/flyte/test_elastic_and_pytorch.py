"""Elastic, PyTorch and RunPolicy: Flyte's fields, checked where they are written.

a3, b1, x8 and so on in a test's name: the acceptance case that it is.
"""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from quarterdeck.errors import UsageError
from quarterdeck.flyte.elastic import Elastic
from quarterdeck.flyte.job import CleanPodPolicy, Master, PyTorch, RestartPolicy, RunPolicy, Worker
from quarterdeck.flyte.launch import Launch, launch_of
from quarterdeck.flyte.rules import ConfigError

FIELDS = {
    Elastic: """nnodes nproc_per_node start_method monitor_interval max_restarts rdzv_configs
                increase_shared_mem run_policy""",
    PyTorch: "master worker run_policy num_workers increase_shared_mem",
    Master: "image requests limits restart_policy",
    Worker: "image requests limits replicas restart_policy",
    RunPolicy: "clean_pod_policy ttl_seconds_after_finished active_deadline_seconds backoff_limit",
}


@pytest.mark.parametrize("kind", FIELDS)
def test_the_fields_are_flytes_in_flytes_order(kind: Any) -> None:
    assert [one.name for one in dataclasses.fields(kind)] == FIELDS[kind].split()


def test_the_enums_have_flytes_names() -> None:
    assert set(CleanPodPolicy.__members__) == {"NONE", "RUNNING", "ALL"}
    assert set(RestartPolicy.__members__) == {"ALWAYS", "FAILURE", "NEVER"}


def test_fields_may_be_given_by_position() -> None:
    policy = RunPolicy(CleanPodPolicy.ALL, 1, 2, 3)
    config = Elastic("1:1", "auto", "spawn", 5, 2, {"timeout": 9}, False, policy)
    assert dataclasses.asdict(config) == {
        "nnodes": "1:1", "nproc_per_node": "auto", "start_method": "spawn", "monitor_interval": 5,
        "max_restarts": 2, "rdzv_configs": {"timeout": 9}, "increase_shared_mem": False,
        "run_policy": dataclasses.asdict(policy),
    }  # fmt: skip


def test_rdzv_configs_stay_as_given_and_the_callers_dict_is_left_alone() -> None:
    given = {"join_timeout": 10}
    config = Elastic(rdzv_configs=given)
    assert config.rdzv_configs == {"join_timeout": 10}
    assert config.join_timeout_s == 10.0
    given["join_timeout"] = 20
    assert config.rdzv_configs == {"join_timeout": 10}
    launch_of(config)
    assert given == {"join_timeout": 20}


def test_the_join_timeout_stays_900_s_when_other_keys_are_given() -> None:
    assert Elastic(rdzv_configs={"timeout": 10}).join_timeout_s == 900.0


def test_default_rdzv_configs_are_fresh_per_instance() -> None:
    first, second = Elastic(), Elastic()
    assert first.rdzv_configs == {"join_timeout": 900, "timeout": 900}
    assert first.rdzv_configs is not second.rdzv_configs


def test_run_policy_as_in_the_job_spec() -> None:
    policy = RunPolicy(
        clean_pod_policy=CleanPodPolicy.ALL,
        ttl_seconds_after_finished=600,
        active_deadline_seconds=36000,
        backoff_limit=None,
    )
    expected = {
        "cleanPodPolicy": "CLEANPOD_POLICY_ALL",
        "ttlSecondsAfterFinished": 600,
        "activeDeadlineSeconds": 36000,
    }
    assert policy.to_dict() == expected
    assert Elastic(run_policy=policy).to_dict()["runPolicy"] == expected
    assert RunPolicy().to_dict() == {}


def test_the_job_spec_of_elastic() -> None:
    assert Elastic("1", nproc_per_node=2, max_restarts=3).to_dict() == {
        "workerReplicas": {"replicas": 1},
        "elasticConfig": {
            "rdzvBackend": "c10d",
            "minReplicas": 1,
            "maxReplicas": 1,
            "nprocPerNode": 2,
            "maxRestarts": 3,
        },
    }


@pytest.mark.parametrize("nnodes", [1, "1", "1:1"])
def test_one_node_in_each_spelling(nnodes: int | str) -> None:
    config = Elastic(nnodes=nnodes)
    assert config.nnodes == nnodes
    assert config.nodes == (1, 1)
    assert launch_of(config) == launch_of(Elastic())
    assert config.to_dict() == Elastic().to_dict()


@pytest.mark.parametrize("nnodes", [2, "2", "1:2", "2:4"])
def test_more_than_one_node_is_refused_with_what_to_write(nnodes: int | str) -> None:
    with pytest.raises(ConfigError, match=r"one node for now[^\0]*nnodes=1"):
        Elastic(nnodes=nnodes)


@pytest.mark.parametrize(
    "nnodes", ["2:1", "1:2:3", "a", "", ":1", "1:", "-1", 0, "0", "0:1", -1, True, 1.0, None]
)
def test_nnodes_has_torchruns_grammar(nnodes: Any) -> None:
    with pytest.raises(ConfigError, match="MIN:MAX"):
        Elastic(nnodes=nnodes)


@pytest.mark.parametrize("nproc", [1, 8, "4", "auto", "gpu", "cpu"])
def test_nproc_per_node_is_a_number_or_torchruns_word(nproc: int | str) -> None:
    config = Elastic(nproc_per_node=nproc)
    assert config.nproc_per_node == nproc
    assert launch_of(config).nproc_per_node == (4 if nproc == "4" else nproc)


RESOURCE_HINT = 'as in {"cpu": "2", "mem": "2Gi"}'

WRONG: list[tuple[Callable[[], Any], str, str]] = [
    *[
        (
            lambda value=value: Elastic(nproc_per_node=value),
            f"Elastic: nproc_per_node={value!r}",
            '"auto", "gpu"',
        )
        for value in (0, -1, True, 2.0, "0", "two", "", None)
    ],
    (lambda: Elastic(start_method="forkserver"), "start_method='forkserver'", '"fork" or "spawn"'),
    (lambda: Elastic(start_method=None), "start_method=None", '"fork" or "spawn"'),  # type: ignore[arg-type]
    *[
        (lambda value=value: Elastic(monitor_interval=value), "monitor_interval=", "seconds above 0")
        for value in (0, -0.1, True, "5", None, float("nan"), float("inf"))
    ],
    *[
        (lambda value=value: Elastic(max_restarts=value), "max_restarts=", "a whole number from 0")
        for value in (-1, True, 1.0, None)
    ],
    (lambda: Elastic(increase_shared_mem=1), "increase_shared_mem=1", "True or False"),  # type: ignore[arg-type]
    (lambda: Elastic(run_policy={}), "run_policy={}", "RunPolicy("),  # type: ignore[arg-type]
    (lambda: Elastic(rdzv_configs=60), "rdzv_configs=60", "a dict"),  # type: ignore[arg-type]
    (
        lambda: Elastic(rdzv_configs={"jointimeout": 1}),
        "no key 'jointimeout'",
        "Did you mean 'join_timeout'?",
    ),
    (lambda: Elastic(rdzv_configs={"x": 1}), "no key 'x'", "Keys are timeout, join_timeout"),
    (lambda: Elastic(rdzv_configs={1: 1}), "no key 1", "Keys are"),  # type: ignore[dict-item]
    (lambda: Elastic(rdzv_configs={"timeout": 0}), "rdzv_configs['timeout']=0", "seconds above 0"),
    (lambda: Elastic(rdzv_configs={"keep_alive_max_attempt": 0.5}), "=0.5", "a whole number from 1"),
    (lambda: Elastic(rdzv_configs={"store_type": "etcd"}), "='etcd'", '"tcp" or "file"'),
    (lambda: Elastic(rdzv_configs={"is_host": "yes"}), "='yes'", "True or False"),
    (lambda: RunPolicy(active_deadline_seconds=0), "active_deadline_seconds=0", "from 1, or None"),
    (lambda: RunPolicy(active_deadline_seconds=1.5), "=1.5", "from 1, or None"),  # type: ignore[arg-type]
    (lambda: RunPolicy(ttl_seconds_after_finished=-1), "ttl_seconds_after_finished=-1", "from 0, or None"),
    (lambda: RunPolicy(backoff_limit=True), "backoff_limit=True", "from 0, or None"),
    (lambda: RunPolicy("ALL"), "clean_pod_policy='ALL'", "CleanPodPolicy.ALL"),  # type: ignore[arg-type]
    (lambda: Worker(replicas=-1), "Worker: replicas=-1", "from 0, or None"),
    (lambda: Worker(restart_policy="ALWAYS"), "restart_policy=", "RestartPolicy.ALWAYS"),  # type: ignore[arg-type]
    (lambda: Master(image=1), "Master: image=1", "a name"),  # type: ignore[arg-type]
    (lambda: Master(requests="2"), "requests='2'", RESOURCE_HINT),
    (lambda: Worker(limits={"memory": "2Gi"}), "limits has no key 'memory'", "Did you mean 'mem'?"),
    (lambda: PyTorch(3), "PyTorch: master=3", "Master()"),  # type: ignore[arg-type]
    (lambda: PyTorch(worker=3), "PyTorch: worker=3", "Worker(replicas=3)"),  # type: ignore[arg-type]
    (lambda: PyTorch(num_workers=-1), "num_workers=-1", "from 0, or None"),
]


@pytest.mark.parametrize(
    ("make", "given", "hint"), WRONG, ids=[f"{given}-{n}" for n, (_, given, _) in enumerate(WRONG)]
)
def test_a_wrong_field_says_what_was_given_and_what_to_write(
    make: Callable[[], Any], given: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    first, second = str(caught.value).split("\n")
    assert given in first
    assert hint in second


def test_a_config_error_is_a_usage_error_and_flytes_value_error() -> None:
    assert issubclass(ConfigError, UsageError)
    assert issubclass(ConfigError, ValueError)


@pytest.mark.parametrize("config", [Elastic(), PyTorch(num_workers=1), RunPolicy(), Master(), Worker()])
def test_a_config_cannot_be_changed(config: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, FIELDS[type(config)].split()[0], 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda given: given.update(timeout=-1),
        lambda given: given.__setitem__("timeout", -1),
        lambda given: given.__delitem__("timeout"),
        lambda given: given.__ior__({"timeout": -1}),
        lambda given: given.pop("timeout"),
        lambda given: given.popitem(),
        lambda given: given.setdefault("x", 1),
        lambda given: given.clear(),
    ],
)
def test_nor_can_its_dicts(change: Callable[[dict[str, Any]], Any]) -> None:
    config = Elastic()
    with pytest.raises(ConfigError, match=r"dataclasses\.replace"):
        change(config.rdzv_configs)
    assert config == Elastic()


def test_replace_checks_again() -> None:
    config = dataclasses.replace(Elastic(), nproc_per_node=2)
    assert config == Elastic(nproc_per_node=2)
    with pytest.raises(ConfigError):
        dataclasses.replace(config, max_restarts=-1)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_config_copies_pickles_and_hashes(copied: Callable[[Any], Any]) -> None:
    config = PyTorch(Master(requests={"cpu": "1"}), Worker(replicas=1), RunPolicy())
    for one in (config, Elastic(rdzv_configs={"timeout": 5})):
        assert copied(one) == one
        assert hash(copied(one)) == hash(one)


def test_num_workers() -> None:
    config = PyTorch(num_workers=10)
    assert config.world_size == 11
    assert config.to_dict() == {
        "workerReplicas": {"replicas": 10, "resources": {}},
        "masterReplicas": {"replicas": 1, "resources": {}},
    }


def test_worker_replicas() -> None:
    assert PyTorch(worker=Worker(replicas=3)).world_size == 4
    assert PyTorch(worker=Worker(replicas=1)).to_dict() == {
        "workerReplicas": {"replicas": 1, "resources": {}},
        "masterReplicas": {"replicas": 1, "resources": {}},
    }


@dataclasses.dataclass
class FlytesResources:
    cpu: str | None = None
    mem: str | None = None


@pytest.mark.parametrize("resources", [dict, FlytesResources])
def test_a_full_job(resources: Callable[..., Any]) -> None:
    worker = Worker(
        image="worker:latest",
        requests=resources(cpu="2", mem="2Gi"),
        limits=resources(cpu=4),
        replicas=5,
        restart_policy=RestartPolicy.FAILURE,
    )
    config = PyTorch(Master(restart_policy=RestartPolicy.ALWAYS), worker, RunPolicy(backoff_limit=2))
    assert config.to_dict() == {
        "workerReplicas": {
            "replicas": 5,
            "image": "worker:latest",
            "resources": {
                "requests": [{"name": "CPU", "value": "2"}, {"name": "MEMORY", "value": "2Gi"}],
                "limits": [{"name": "CPU", "value": "4"}],
            },
            "restartPolicy": "RESTART_POLICY_ON_FAILURE",
        },
        "masterReplicas": {"replicas": 1, "resources": {}, "restartPolicy": "RESTART_POLICY_ALWAYS"},
        "runPolicy": {"backoffLimit": 2},
    }


@pytest.mark.parametrize(
    ("arguments", "given"),
    [({}, "no workers"), ({"num_workers": 2, "worker": Worker(replicas=2)}, "both")],
)
def test_exactly_one_of_num_workers_and_replicas(arguments: dict[str, Any], given: str) -> None:
    with pytest.raises(ValueError, match=given + r"[^\0]*PyTorch\(worker=Worker\(replicas=3\)\)"):
        PyTorch(**arguments)


@pytest.mark.parametrize(
    ("config", "launch"),
    [
        (None, Launch(None, "fork", 0, 900.0, None)),
        (Elastic(), Launch(1, "fork", 0, 900.0, None)),
        (
            Elastic(
                nproc_per_node="gpu",
                start_method="spawn",
                max_restarts=2,
                rdzv_configs={"join_timeout": 5},
                run_policy=RunPolicy(active_deadline_seconds=60),
            ),
            Launch("gpu", "spawn", 2, 5.0, 60.0),
        ),
        (
            PyTorch(worker=Worker(replicas=3), run_policy=RunPolicy(active_deadline_seconds=60)),
            Launch(4, "fork", 0, 900.0, 60.0),
        ),
    ],
)
def test_what_the_runner_gets(config: Elastic | PyTorch | None, launch: Launch) -> None:
    assert launch_of(config) == launch


@pytest.mark.parametrize("wrong", [2, {"nproc_per_node": 2}, "auto", Elastic, len, Worker(replicas=2)])
def test_what_is_no_config_is_shown_how_to_write_one(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"`@qd\.distributed\(qd\.Elastic\(nproc_per_node=2\)\)`"):
        launch_of(wrong)


def test_torch_is_not_imported() -> None:
    code = "import sys, quarterdeck.flyte.launch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
