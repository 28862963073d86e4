"""How many workers on which devices, decided from a count of GPUs: also for machines that have some."""

import pytest

from quarterdeck.agent import placement
from quarterdeck.agent.placement import BadRequest, plan, threads_per_worker
from quarterdeck.protocol.messages import GroupSpec


def test_without_gpus_two_workers_use_gloo_on_the_cpu() -> None:
    planned = plan(GroupSpec(), gpus=0)
    assert (planned.nproc_per_node, planned.backend, planned.devices) == (2, "gloo", ("cpu", "cpu"))


def test_with_gpus_each_one_gets_a_worker_with_nccl_and_gloo_for_cpu_tensors() -> None:
    planned = plan(GroupSpec(), gpus=4)
    assert planned.backend == "cpu:gloo,cuda:nccl"
    assert planned.devices == ("cuda:0", "cuda:1", "cuda:2", "cuda:3")
    assert planned.device_type == "cuda"


def test_gloo_on_a_machine_with_gpus_means_the_cpu() -> None:
    assert plan(GroupSpec(nproc_per_node=3, backend="gloo"), gpus=2).devices == ("cpu", "cpu", "cpu")


@pytest.mark.parametrize(
    ("spec", "gpus", "words"),
    [
        (GroupSpec(nproc_per_node=4), 2, "Write `-n 2`"),
        (GroupSpec(nproc_per_node=2), 1, "there is 1"),
        (GroupSpec(backend="nccl"), 0, "Write `--backend gloo`"),
        (GroupSpec(nproc_per_node="gpu"), 0, "Write `-n cpu` or a number"),
    ],
)
def test_more_ranks_than_gpus_are_refused_with_what_to_write_instead(
    spec: GroupSpec, gpus: int, words: str
) -> None:
    with pytest.raises(BadRequest, match=words):
        plan(spec, gpus)


@pytest.mark.parametrize(
    ("word", "gpus", "n"), [("auto", 3, 3), ("gpu", 3, 3), ("auto", 0, 6), ("cpu", 0, 6)]
)
def test_torchruns_words_for_n_are_understood(
    monkeypatch: pytest.MonkeyPatch, word: str, gpus: int, n: int
) -> None:
    monkeypatch.setattr(placement, "core_count", lambda: 6)
    assert plan(GroupSpec(nproc_per_node=word), gpus).nproc_per_node == n  # type: ignore[arg-type]


def test_cores_are_shared_out_unless_the_user_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "core_count", lambda: 8)
    assert threads_per_worker({}, 3) == 2
    assert threads_per_worker({}, 16) == 1
    assert threads_per_worker({"OMP_NUM_THREADS": "5"}, 3) == 5
