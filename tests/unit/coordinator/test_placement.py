"""How many workers on which devices, decided from a count of GPUs: also for machines that have some."""

import pytest

from quarterdeck.coordinator.placement import BadRequest, Place, Placement, place
from quarterdeck.protocol.agent import NodeFacts
from quarterdeck.protocol.parts import GroupSpec


def plan(spec: GroupSpec, gpus: int, cores: int = 6) -> Placement:
    """On one node."""
    return place(spec, [NodeFacts(cores, gpus)])


def devices(placement: Placement) -> tuple[str, ...]:
    return tuple(one.device for one in placement.places)


def test_without_gpus_two_workers_use_gloo_on_the_cpu() -> None:
    planned = plan(GroupSpec(), gpus=0)
    assert (planned.nproc_per_node, planned.backend, devices(planned)) == (2, "gloo", ("cpu", "cpu"))


def test_with_gpus_each_one_gets_a_worker_with_nccl_and_gloo_for_cpu_tensors() -> None:
    planned = plan(GroupSpec(), gpus=4)
    assert planned.backend == "cpu:gloo,cuda:nccl"
    assert devices(planned) == ("cuda:0", "cuda:1", "cuda:2", "cuda:3")
    assert planned.device_type == "cuda"


def test_gloo_on_a_machine_with_gpus_means_the_cpu() -> None:
    assert devices(plan(GroupSpec(nproc_per_node=3, backend="gloo"), gpus=2)) == ("cpu", "cpu", "cpu")


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
def test_torchruns_words_for_n_are_understood(word: str, gpus: int, n: int) -> None:
    assert plan(GroupSpec(nproc_per_node=word), gpus).nproc_per_node == n  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("environ", "n", "threads"), [({}, 3, 2), ({}, 16, 1), ({"OMP_NUM_THREADS": "5"}, 3, 5)]
)
def test_cores_are_shared_out_unless_the_user_chose(environ: dict[str, str], n: int, threads: int) -> None:
    placement = plan(GroupSpec(nproc_per_node=n), gpus=0, cores=8)
    assert {placement.threads(environ, one) for one in placement.places} == {threads}


def test_ranks_are_numbered_node_by_node_and_every_node_has_its_own_gpus() -> None:
    placement = place(GroupSpec(), [NodeFacts(cores=8, gpus=2), NodeFacts(cores=4, gpus=2)])
    assert placement.world_size == 4
    assert placement.places == (
        Place(rank=0, node_rank=0, local_rank=0, device="cuda:0"),
        Place(rank=1, node_rank=0, local_rank=1, device="cuda:1"),
        Place(rank=2, node_rank=1, local_rank=0, device="cuda:0"),
        Place(rank=3, node_rank=1, local_rank=1, device="cuda:1"),
    )
    assert [placement.threads({}, one) for one in placement.places] == [4, 4, 2, 2]
    other = place(GroupSpec(nproc_per_node=1), [NodeFacts(8, 2)])
    assert placement.gpus() & other.gpus() == {(0, "cuda:0")}


def test_the_node_with_the_fewest_gpus_decides() -> None:
    nodes = [NodeFacts(cores=8, gpus=4), NodeFacts(cores=8, gpus=1)]
    assert place(GroupSpec(), nodes).nproc_per_node == 1
    with pytest.raises(BadRequest, match="there is 1"):
        place(GroupSpec(nproc_per_node=2), nodes)
