"""Tensors in one block of memory and in one file: the safetensors format. It is written without the library,
so that what is staged is what is written, byte for byte. Used by `staging`, `snapshot`, `readers` and
`export`, in processes that have torch.

    8 bytes, little-endian: length of the header | header: JSON | the tensors, one after another, no gaps
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from quarterdeck.checkpointing.errors import DamagedCheckpoint
from quarterdeck.modes import without_modes

if TYPE_CHECKING:
    import torch


class Slot(NamedTuple):
    """Where a tensor lies in the block."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


class _Entry(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


@cache
def dtypes() -> dict[torch.dtype, str]:
    """What the format can carry, of what this torch has."""
    import torch

    known = {
        "float64": "F64", "int64": "I64", "uint64": "U64", "complex64": "C64", "float32": "F32",
        "int32": "I32", "uint32": "U32", "float16": "F16", "bfloat16": "BF16", "int16": "I16",
        "uint16": "U16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "float8_e4m3fn": "F8_E4M3",
        "float8_e5m2": "F8_E5M2",
    }  # fmt: skip
    return {getattr(torch, name): code for name, code in known.items() if hasattr(torch, name)}


def laid_out(tensors: Mapping[str, torch.Tensor]) -> list[Slot]:
    """The widest types first: each tensor is then aligned to its own width."""
    slots, at = [], 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        size = tensor.numel() * tensor.element_size()
        slots.append(Slot(name, tensor.dtype, tuple(tensor.shape), at, at + size))
        at += size
    return slots


def view(block: torch.Tensor, slot: Slot) -> torch.Tensor:
    """The slot's part of a block of bytes, as the tensor it holds."""
    return block[slot.begin : slot.end].view(slot.dtype).view(slot.shape)


def header(slots: Sequence[Slot], metadata: Mapping[str, str]) -> bytes:
    """With its length before it."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for slot in slots:
        entries[slot.name] = _Entry(dtypes()[slot.dtype], list(slot.shape), (slot.begin, slot.end))
    text = msgspec.json.encode(entries)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """All tensors, mapped: their bytes are read when they are used. And the file's own notes.

    Raises DamagedCheckpoint for anything but a whole file of this format. A later change of the file shows in
    the tensors: copy what is to stay.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with without_modes(), safe_open(path, framework="pt") as file:
            names: list[str] = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except SafetensorError as error:
        raise DamagedCheckpoint(f"{path} is not a whole safetensors file: {error}") from None
