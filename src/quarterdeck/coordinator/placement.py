"""How many workers, on which nodes and devices, with which backend: decided before anything starts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from quarterdeck.protocol.agent import NodeFacts
from quarterdeck.protocol.parts import GroupSpec

DEFAULT_CPU_WORKERS = 2


class BadRequest(Exception):
    """What was asked for cannot be; the text says what to write instead. Nothing was started."""


@dataclass(frozen=True)
class Place:
    """Where one rank is."""

    rank: int
    node_rank: int
    local_rank: int
    """Among the ranks of its node."""
    device: str
    """As the worker names it: "cuda:1" is the second GPU that it sees."""


@dataclass(frozen=True)
class Placement:
    """What a group is made of: as many ranks on each node, numbered node by node as torchrun does."""

    nodes: tuple[NodeFacts, ...]
    nproc_per_node: int
    backend: str
    start_method: str
    on_gpu: bool

    @property
    def places(self) -> tuple[Place, ...]:
        """In the order of their ranks."""
        n = self.nproc_per_node
        return tuple(
            Place(node * n + local, node, local, f"cuda:{local}" if self.on_gpu else "cpu")
            for node in range(len(self.nodes))
            for local in range(n)
        )

    @property
    def world_size(self) -> int:
        return len(self.nodes) * self.nproc_per_node

    @property
    def device_type(self) -> str:
        return "cuda" if self.on_gpu else "cpu"

    def gpus(self) -> set[tuple[int, str]]:
        """Those that it uses, each with its node."""
        return {(place.node_rank, place.device) for place in self.places if self.on_gpu}

    def threads(self, environ: dict[str, str], place: Place) -> int:
        """The user's OMP_NUM_THREADS, else the cores of the node shared out."""
        chosen = environ.get("OMP_NUM_THREADS", "")
        cores = self.nodes[place.node_rank].cores
        return int(chosen) if chosen.isdigit() and int(chosen) else max(1, cores // self.nproc_per_node)


def place(spec: GroupSpec, nodes: Sequence[NodeFacts]) -> Placement:
    """Fill in what `spec` leaves open: all GPUs with NCCL if there are any, else two workers with gloo on the
    CPU of each node. Raises BadRequest.
    """
    gpus = min(node.gpus for node in nodes)
    backend = _backend(spec.backend, gpus)
    on_gpu = "nccl" in backend
    n = nproc(spec, nodes) or (gpus if on_gpu else 0) or DEFAULT_CPU_WORKERS
    if on_gpu and n > gpus:
        raise BadRequest(_too_few_gpus(n, gpus))
    return Placement(tuple(nodes), n, backend, spec.start_method or "fork", on_gpu)


def _backend(asked: str | None, gpus: int) -> str:
    """gloo keeps serving CPU tensors beside NCCL: object collectives and monitored_barrier need it."""
    if asked == "nccl" or (asked is None and gpus):
        return "cpu:gloo,cuda:nccl"
    return asked or "gloo"


def _too_few_gpus(n: int, gpus: int) -> str:
    if not gpus:
        return (
            f"NCCL needs a GPU for each of the {n} ranks, and this machine has none. Write `--backend gloo`."
        )
    several = "s" if gpus > 1 else ""
    return (
        f"{n} ranks need {n} GPUs with NCCL, and there {'are' if gpus > 1 else 'is'} {gpus}. "
        f"Write `-n {gpus}` for one rank on each GPU{several}, or `--backend gloo` to train on the CPU."
    )


def nproc(spec: GroupSpec, nodes: Sequence[NodeFacts]) -> int | None:
    """The number asked for, on each node: torchrun's words `auto`, `gpu` and `cpu` counted out; None if
    nothing was asked for.
    """
    asked = spec.nproc_per_node
    if not isinstance(asked, str):
        return asked
    gpus, cores = min(node.gpus for node in nodes), min(node.cores for node in nodes)
    if asked == "gpu" and not gpus:
        raise BadRequest("`-n gpu` needs a GPU, and this machine has none. Write `-n cpu` or a number.")
    return cores if asked == "cpu" or not gpus else gpus


def as_before(spec: GroupSpec, placement: Placement) -> GroupSpec:
    """What is asked of a group in the place of another: what it leaves open stays as it was."""
    return msgspec.structs.replace(
        spec,
        nproc_per_node=spec.nproc_per_node or placement.nproc_per_node,
        backend=spec.backend or ("nccl" if placement.on_gpu else placement.backend),
        start_method=spec.start_method or placement.start_method,
    )
