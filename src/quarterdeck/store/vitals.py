"""`vitals.bin` of a run: what each rank uses of the machine, as of its last second. Written by the
coordinator, read by the kernel.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from quarterdeck.bounds import Count, Rank, UnixNs
from quarterdeck.store.layout import VITALS
from quarterdeck.store.slot_file import Slots, read_slots

_SLOT_BYTES = 512


class Vitals(msgspec.Struct, frozen=True):
    """What one rank uses. None is not known: no GPU, no driver library, a process that has just begun."""

    rank: Rank
    time_unix_ns: UnixNs
    cpu_percent: float | None = None
    """A share of one core; more than 100 with several threads. The worker's children count."""
    memory_bytes: Count | None = None
    """Resident, with the worker's children; pages that they share count for each."""
    memory_limit_bytes: Count | None = None
    """The machine's memory, or less where a cgroup allows less."""
    gpu_percent: float | None = None
    gpu_memory_bytes: Count | None = None
    """What is used of the whole device, whoever uses it."""
    gpu_memory_limit_bytes: Count | None = None


def write_vitals(folder: Path, vitals: list[Vitals]) -> None:
    """Raises OSError."""
    slots = Slots(folder / VITALS, _SLOT_BYTES)
    try:
        for one in vitals:
            slots.write(one.rank, msgspec.json.encode(one))
    finally:
        slots.close()


def read_vitals(folder: Path) -> dict[int, Vitals]:
    """By rank; {} if nothing is known. Never raises OSError."""
    found = {}
    for content in read_slots(folder / VITALS, _SLOT_BYTES).values():
        try:
            one = msgspec.json.decode(content, type=Vitals)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue
        found[one.rank] = one
    return dict(sorted(found.items()))
