"""What a checkpoint says of itself: `manifest.json` and `tensors.json`. Pure; written by `saver`, read by
`checkpoint` and `load`, in every process.

    manifest.json   {"crc32": ..., "manifest": {...}}; the checksum is that of the inner object's bytes
    tensors.json    the same around the index of tensors; apart, so that a list of checkpoints stays cheap

A folder without a whole manifest is no checkpoint: it is written last.
"""

import math
import re
import zlib
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec

from quarterdeck.bounds import Attempt, Count, Rank, Real, Step, UnixNs, WorldSize
from quarterdeck.checkpointing.errors import DamagedCheckpoint
from quarterdeck.errors import UsageError
from quarterdeck.public import public

FORMAT = 1
MANIFEST, TENSORS = "manifest.json", "tensors.json"
PINNED = "pinned"
"""An empty file in a checkpoint's folder: it is never pruned."""

_FILE_NAME = re.compile(r"[\w.-]+")
_NOT_FINITE = ("nan", "inf", "-inf")


class File(msgspec.Struct, frozen=True):
    size_bytes: Count
    crc32: Count


class Summary(msgspec.Struct, frozen=True):
    """What is known of the model without its tensors."""

    class_name: str = ""
    layers: Count = 0
    """Modules that have parameters of their own."""
    parameters: Count = 0
    trainable: Count = 0
    tensors: Count = 0
    size_bytes: Count = 0


class Manifest(msgspec.Struct, frozen=True):
    """All that a list or a detail page shows of one checkpoint, tensors aside."""

    format: int
    step: Step
    created_unix_ns: UnixNs
    files: dict[str, File]
    sharded: bool = False
    """The tensors are in torch.distributed.checkpoint's format, in pieces."""
    epoch: Real | None = None
    metrics: dict[str, float | str] = {}
    """"nan", "inf", "-inf" for what JSON has no number for. Of several ranks the mean."""
    rank_metrics: dict[str, dict[str, float | str]] = {}
    """By rank, of those that gave some by the time it was complete; empty if one rank alone could."""
    hyperparameters: msgspec.Raw = msgspec.Raw(b"null")
    """As `hyperparameters.encode` made them."""
    model: Summary = Summary()
    world_size: WorldSize = 1
    rank: Rank = 0
    """Who wrote it."""
    run_id: str = ""
    attempt: Attempt = 0
    versions: dict[str, str] = {}
    git: str = ""
    source: str = ""
    """The cell or function that saved it."""
    data: str = ""
    """The subfolder that holds the files; object stores cannot rename, so each save has one there."""

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files.values())


@public
class TensorInfo(msgspec.Struct, frozen=True):
    """One tensor of a checkpoint, whole, whatever the number of its pieces.

    Attributes:
        name: as in the state dict.
        shape: its sizes, dimension by dimension; () for a single number.
        dtype: as torch calls it, without "torch.": "bfloat16".
        size_bytes: how many bytes its elements take.
        part: "model" or "optimizer".
        alias_of: the other name of the same memory (tied weights), for which nothing is stored twice; else
            "".
    """

    name: str
    shape: tuple[Count, ...]
    dtype: str
    """As torch calls it, without "torch."."""
    size_bytes: Count
    part: Literal["model", "optimizer"] = "model"
    alias_of: str = ""
    """The same memory under another name (tied weights); nothing is stored for it."""


class Tensors(msgspec.Struct, frozen=True):
    tensors: list[TensorInfo]
    optimizer_names: list[list[str]] | None = None
    """The parameters' names of each parameter group, in its order; None if the optimizer came alone."""


class _Sealed(msgspec.Struct):
    crc32: int
    manifest: msgspec.Raw


_T = TypeVar("_T", Manifest, Tensors)


def seal(value: Manifest | Tensors) -> bytes:
    inner = msgspec.json.encode(value)
    return msgspec.json.encode(_Sealed(zlib.crc32(inner), msgspec.Raw(inner)))


def unseal(data: bytes, kind: type[_T], name: str) -> _T:
    """Raises DamagedCheckpoint, which says what is wrong with the file called `name`."""
    try:
        outer = msgspec.json.decode(data, type=_Sealed)
        inner = bytes(outer.manifest)
        if zlib.crc32(inner) != outer.crc32:
            raise DamagedCheckpoint(f"{name} was altered: its checksum does not fit")
        value = msgspec.json.decode(inner, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DamagedCheckpoint(f"{name} cannot be read: {error}") from None
    if isinstance(value, Manifest):
        _check(value, name)
    return value


def _check(manifest: Manifest, name: str) -> None:
    """A stranger's manifest names no file outside its folder, and has numbers where they belong."""
    if manifest.format > FORMAT:
        raise DamagedCheckpoint(f"{name} has format {manifest.format}; this version reads {FORMAT}")
    for file in (*manifest.files, manifest.data or "data"):
        if not _FILE_NAME.fullmatch(file) or file.strip(".") == "":
            raise DamagedCheckpoint(f"{name} names a file {file!r} outside of its folder")
    for metric, value in manifest.metrics.items():
        if isinstance(value, str) and value not in _NOT_FINITE:
            raise DamagedCheckpoint(f"the metric {metric!r:.80} in {name} is not a number")


def plain_metrics(metrics: Mapping[str, Any] | None) -> dict[str, float | str]:
    """For the manifest. Raises UsageError for what is no number."""
    found: dict[str, float | str] = {}
    for key, value in (metrics or {}).items():
        try:
            number = float(value.detach() if hasattr(value, "detach") else value)
        except (TypeError, ValueError, RuntimeError):
            raise UsageError(
                f"metrics[{key!r}] is {type(value).__name__}, and a checkpoint keeps numbers there.",
                "Give anything else as extra={...}.",
            ) from None
        found[str(key)] = number if math.isfinite(number) else str(number)
    return found
