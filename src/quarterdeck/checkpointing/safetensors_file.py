"""Tensors in one block of memory and in one file: the safetensors format, written and read without the
library, so that what is staged is what is written, byte for byte. Used by `staging`, `weights` and `export`,
in processes that have torch.

    8 bytes, little-endian: length of the header | header: JSON | the tensors, one after another, no gaps
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from quarterdeck.checkpointing.errors import DamagedCheckpoint
from quarterdeck.modes import without_modes

if TYPE_CHECKING:
    import torch

_HEADER_LIMIT_BYTES = 100_000_000
"""As the library has it."""


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
    import torch

    start, slots, metadata = _read_header(path)
    size = path.stat().st_size - start
    with without_modes():
        if not size:
            return {slot.name: torch.empty(slot.shape, dtype=slot.dtype) for slot in slots}, metadata
        storage: Any = torch.UntypedStorage.from_file(str(path), shared=False, nbytes=start + size)
        block = torch.empty(0, dtype=torch.uint8).set_(storage)[start:]
        return {slot.name: _mapped(block, slot) for slot in slots}, metadata


def _mapped(block: torch.Tensor, slot: Slot) -> torch.Tensor:
    """Writers that do not align leave tensors that cannot be viewed in place; those are copied."""
    if (block.storage_offset() + slot.begin) % slot.dtype.itemsize:
        return view(block[slot.begin : slot.end].clone(), slot._replace(begin=0, end=slot.end - slot.begin))
    return view(block, slot)


def _read_header(path: Path) -> tuple[int, list[Slot], dict[str, str]]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _HEADER_LIMIT_BYTES):
            raise DamagedCheckpoint(f"{path} is not a safetensors file, or was cut short")
        text = file.read(length)
    try:
        raw = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        notes = raw.pop("__metadata__", None)
        metadata = msgspec.json.decode(notes, type=dict[str, str]) if notes is not None else {}
        entries = {name: msgspec.json.decode(entry, type=_Entry) for name, entry in raw.items()}
        return 8 + length, _slots(entries, size - 8 - length), metadata
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DamagedCheckpoint(f"{path} is not a whole safetensors file: {error}") from None


def _slots(entries: dict[str, _Entry], size: int) -> list[Slot]:
    """Raises ValueError unless they fill the file, each with as many bytes as its shape has."""
    codes = {code: dtype for dtype, code in dtypes().items()}
    slots, at = [], 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        if entry.dtype not in codes:
            raise ValueError(f"the type {entry.dtype} of {name} is not known here")
        dtype = codes[entry.dtype]
        begin, end = entry.data_offsets
        fits = min(entry.shape, default=0) >= 0 and end - begin == math.prod(entry.shape) * dtype.itemsize
        if begin != at or not fits:
            raise ValueError(f"{name} does not lie where the header says")
        slots.append(Slot(name, dtype, tuple(entry.shape), begin, end))
        at = end
    if at != size:
        raise ValueError(f"{size} bytes of tensors where {at} are announced")
    return slots
