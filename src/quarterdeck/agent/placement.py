"""How many workers, on which devices, with which backend: decided before anything starts. Pure."""

from __future__ import annotations

import os
from dataclasses import dataclass

import msgspec

from quarterdeck.protocol.messages import GroupSpec

DEFAULT_CPU_WORKERS = 2


class BadRequest(Exception):
    """What was asked for cannot be; the text says what to write instead. Nothing was started."""


@dataclass(frozen=True)
class Plan:
    """What a group is made of."""

    nproc_per_node: int
    backend: str
    start_method: str
    devices: tuple[str, ...]

    @property
    def device_type(self) -> str:
        return self.devices[0].partition(":")[0]


def core_count() -> int:
    return len(os.sched_getaffinity(0))


def plan(spec: GroupSpec, gpus: int) -> Plan:
    """Fill in what `spec` leaves open: all GPUs with NCCL if there are any, else two workers with gloo on the
    CPU.
    """
    backend = _backend(spec.backend, gpus)
    on_gpu = "nccl" in backend
    n = nproc(spec, gpus) or (gpus if on_gpu else 0) or DEFAULT_CPU_WORKERS
    if on_gpu and n > gpus:
        raise BadRequest(_too_few_gpus(n, gpus))
    devices = tuple(f"cuda:{i}" if on_gpu else "cpu" for i in range(n))
    return Plan(n, backend, spec.start_method or "fork", devices)


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


def threads_per_worker(environ: dict[str, str], n: int) -> int:
    """The user's OMP_NUM_THREADS, else this machine's cores shared out."""
    chosen = environ.get("OMP_NUM_THREADS", "")
    return int(chosen) if chosen.isdigit() and int(chosen) else max(1, core_count() // n)


def nproc(spec: GroupSpec, gpus: int) -> int | None:
    """The number asked for: torchrun's words `auto`, `gpu` and `cpu` counted out; None if nothing was asked
    for.
    """
    asked = spec.nproc_per_node
    if not isinstance(asked, str):
        return asked
    if asked == "gpu" and not gpus:
        raise BadRequest("`-n gpu` needs a GPU, and this machine has none. Write `-n cpu` or a number.")
    return core_count() if asked == "cpu" or not gpus else gpus


def as_before(spec: GroupSpec, plan: Plan) -> GroupSpec:
    """What is asked of a group in the place of another: what it leaves open stays as it was."""
    backend = "nccl" if "nccl" in plan.backend else plan.backend
    return msgspec.structs.replace(
        spec,
        nproc_per_node=spec.nproc_per_node or plan.nproc_per_node,
        backend=spec.backend or backend,
        start_method=spec.start_method or plan.start_method,
    )
