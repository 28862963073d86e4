"""A sharded state in torch.distributed.checkpoint's format: each rank writes the pieces it holds, the first
one what they are pieces of. Used by `saver`. What is written `torch.distributed.checkpoint.load` reads.

No collectives: the pieces follow from each DTensor's placement, and torch's global plan is not needed. So the
writing can go on in a thread while the training loop uses the process group.
"""

from __future__ import annotations

import enum
import io
import math
import pickle
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from quarterdeck.checkpointing.checksum_writer import Sink
from quarterdeck.checkpointing.manifest import TensorInfo
from quarterdeck.checkpointing.modules import is_dtensor

if TYPE_CHECKING:
    import torch

METADATA = ".metadata"
MODEL, OPTIMIZER = "model", "optimizer"


class Local(NamedTuple):
    """A piece that this rank writes."""

    path: tuple[str, ...]
    tensor: torch.Tensor
    offsets: tuple[int, ...]
    shape: tuple[int, ...]
    """The shape of the whole tensor."""


class Piece(msgspec.Struct, frozen=True):
    """A piece on disk, as ranks tell the first one of it."""

    path: tuple[str, ...]
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    file: str
    offset: int
    length: int


def ranks_of(tensors: Iterable[Any]) -> list[int]:
    """All that hold a part of them."""
    meshes = {id(tensor.device_mesh): tensor.device_mesh for tensor in tensors if is_dtensor(tensor)}
    return sorted({int(rank) for mesh in meshes.values() for rank in mesh.mesh.flatten().tolist()})


def local_pieces(
    model: Mapping[str, torch.Tensor], optimizer: Mapping[str, torch.Tensor], leads: bool
) -> dict[str, Local]:
    """What this rank writes. Of replicas the first one does, of what is on every rank the first rank."""
    named = {(MODEL, name): tensor for name, tensor in model.items()}
    for name, tensor in optimizer.items():
        parameter, _, kind = name.rpartition(".")
        named[OPTIMIZER, "state", parameter, kind] = tensor  # type: ignore[index]
    found = {".".join(path): _piece(path, tensor, leads) for path, tensor in named.items()}
    return {name: piece for name, piece in found.items() if piece is not None}


def _piece(path: tuple[str, ...], tensor: Any, leads: bool) -> Local | None:
    shape = tuple(tensor.shape)
    if not is_dtensor(tensor):
        return Local(path, tensor, (0,) * len(shape), shape) if leads else None
    if not _is_first_replica(tensor):
        return None
    local = tensor.detach().to_local()
    if local.numel() == 0 and not (leads and tensor.numel() == 0):
        return None
    chunk = tensor.__create_chunk_list__()[0]
    return Local(path, local, tuple(chunk.offsets), shape)


def _is_first_replica(tensor: Any) -> bool:
    at = tensor.device_mesh.get_coordinate()
    if at is None:
        return False
    return all(
        not placement.is_replicate() or here == 0
        for placement, here in zip(tensor.placements, at, strict=True)
    )


def write_pieces(pieces: Sequence[Local], file: str, sink: Sink) -> list[Piece]:
    """One after another, each as torch.save writes it."""
    import torch

    written = []
    for local in pieces:
        begin = sink.size_bytes
        torch.save(local.tensor, sink.as_file())
        dtype = str(local.tensor.dtype).removeprefix("torch.")
        sizes = tuple(local.tensor.shape)
        written.append(
            Piece(local.path, local.offsets, sizes, local.shape, dtype, file, begin, sink.size_bytes - begin)
        )
    return written


def metadata(pieces: Sequence[Piece]) -> bytes:
    """What torch.distributed.checkpoint calls `.metadata`."""
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex, StorageMeta

    known: dict[str, Any] = {}
    storage: dict[Any, Any] = {}
    for piece in pieces:
        name = ".".join(piece.path)
        chunks = known.setdefault(name, _tensor_metadata(piece)).chunks
        chunks.append(_chunk(piece))
        index = MetadataIndex(name, piece.offsets, len(chunks) - 1)
        storage[index] = _StorageInfo(piece.file, piece.offset, piece.length)
    paths = {".".join(piece.path): piece.path for piece in pieces}
    file = io.BytesIO()
    _ByValue(file).dump(Metadata(known, paths, storage, StorageMeta(), "1.0.0"))
    return file.getvalue()


class _ByValue(pickle.Pickler):
    """Python 3.11.2, Debian 12's, would write `getattr` for a member of an enum, which careful readers
    refuse.
    """

    def reducer_override(self, value: Any) -> Any:
        return (type(value), (value.value,)) if isinstance(value, enum.Enum) else NotImplemented


def _tensor_metadata(piece: Piece) -> Any:
    import torch
    from torch.distributed.checkpoint.metadata import TensorProperties, TensorStorageMetadata

    properties = TensorProperties(dtype=getattr(torch, piece.dtype))
    return TensorStorageMetadata(properties, torch.Size(piece.shape), [])


def _chunk(piece: Piece) -> Any:
    import torch
    from torch.distributed.checkpoint.metadata import ChunkStorageMetadata

    return ChunkStorageMetadata(torch.Size(piece.offsets), torch.Size(piece.sizes))


def infos(pieces: Sequence[Piece]) -> list[TensorInfo]:
    """For the index: whole tensors."""
    import torch

    found: dict[tuple[str, ...], TensorInfo] = {}
    for piece in pieces:
        size = math.prod(piece.shape) * getattr(torch, piece.dtype).itemsize
        part: Any = piece.path[0]
        found[piece.path] = TensorInfo(".".join(piece.path[1:]), piece.shape, piece.dtype, size, part)
    return sorted(found.values(), key=lambda info: (info.part, info.name))
