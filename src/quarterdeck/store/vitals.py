"""`vitals.bin` of a run: what each rank uses of the machine, as of its last second. Written by the
coordinator, read by the kernel.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from quarterdeck.protocol.agent import Vitals
from quarterdeck.store.layout import VITALS
from quarterdeck.store.slot_file import Slots, read_slots

_SLOT_BYTES = 512


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
