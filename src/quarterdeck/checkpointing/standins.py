"""The `.metadata` of torch.distributed.checkpoint, a stranger's pickle, read with stand-ins for all that it
names. Used by `pickles`.

A pickle can set attributes on whatever it names, also on classes and functions. So what it gets was made for
this file alone, and is gone when it has been read.
"""

from __future__ import annotations

import io
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from quarterdeck.checkpointing.errors import DamagedCheckpoint, UntrustedCheckpoint

__all__ = ["NAMES", "Described", "read_metadata"]

_METADATA = "torch.distributed.checkpoint.metadata"


class Described:
    """An object with the fields that its pickle has set."""


class _Metadata(Described):
    """The description of all tensors, and of the files that they are in."""

    planner_data: Any = None


class _Index(Described):
    """Which piece of which tensor."""

    offset: Any = None


class _File(Described):
    """Where a piece is."""

    transform_descriptors: Any = None


class _Tensor(Described):
    """Its properties, its shape and its pieces."""


class _Properties(Described):
    dtype: Any

    def __setstate__(self, state: Any) -> None:
        self.dtype = state[0]


_FIELDS: dict[str, type] = {
    f"{_METADATA}.Metadata": _Metadata,
    f"{_METADATA}.MetadataIndex": _Index,
    f"{_METADATA}.TensorStorageMetadata": _Tensor,
    f"{_METADATA}.BytesStorageMetadata": Described,
    f"{_METADATA}.ChunkStorageMetadata": Described,
    f"{_METADATA}.TensorProperties": _Properties,
    f"{_METADATA}.StorageMeta": Described,
    "torch.distributed.checkpoint.filesystem._StorageInfo": _File,
    "torch.Size": tuple,
    "collections.OrderedDict": OrderedDict,
}
_ENUM = f"{_METADATA}._MEM_FORMAT_ENCODING"
_CALLS: dict[str, Callable[..., Any]] = {
    _ENUM: int,
    "torch.device": str,
    "torch.serialization._get_layout": str,
    **{
        f"{module}.{name}": os.path.join
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "PurePosixPath")
    },
}
_GETATTR = "builtins.getattr"
"""Python 3.11.2, Debian 12's, pickles a member of an enum as `getattr(its class, its name)`."""

NAMES = frozenset((*_FIELDS, *_CALLS, _GETATTR))
"""All that a `.metadata` may name, but for torch's dtypes and layouts, on which nothing can be set."""


def read_metadata(path: Path) -> Any:
    """Its fields are as torch names them: `state_dict_metadata`, `planner_data`, `storage_data`.

    Raises UntrustedCheckpoint for one that names anything else, and DamagedCheckpoint.
    """
    try:
        found = _Reader(io.BytesIO(path.read_bytes()), path).load()
    except UntrustedCheckpoint:
        raise
    except FileNotFoundError:
        raise DamagedCheckpoint(f"{path} is missing") from None
    except Exception as error:
        raise DamagedCheckpoint(f"{path} cannot be read: {first_line(error)}") from None
    if not issubclass(type(found), _Metadata):
        raise DamagedCheckpoint(f"{path} holds no description of a checkpoint")
    return found


def is_tensor(item: Any) -> bool:
    return issubclass(type(item), _Tensor)


def first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


class _Reader(pickle.Unpickler):
    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file)
        self._path = path
        self._made: dict[str, Any] = {_GETATTR: lambda cls, name: self._member(cls, name)}

    def find_class(self, module: str, name: str) -> Any:
        whole = f"{module}.{name}"
        if whole not in self._made:
            self._made[whole] = self._stand_in(whole, name)
        return self._made[whole]

    def _stand_in(self, whole: str, name: str) -> Any:
        if whole in _FIELDS:
            return type(name, (_FIELDS[whole],), {})
        if whole in _CALLS:
            call = _CALLS[whole]
            return lambda *args: call(*args)
        return self._constant(whole)

    def _constant(self, whole: str) -> Any:
        import torch

        found = vars(torch).get(whole.removeprefix("torch.")) if whole.startswith("torch.") else None
        if not isinstance(found, torch.dtype | torch.layout | torch.memory_format):
            raise UntrustedCheckpoint(str(self._path), [whole])
        return found

    def _member(self, cls: Any, name: Any) -> str:
        """For `getattr`: of the one enum that a file may name, and nothing else."""
        from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING

        if cls is not self._made.get(_ENUM) or name not in _MEM_FORMAT_ENCODING.__members__:
            raise UntrustedCheckpoint(str(self._path), [_GETATTR])
        return str(name)
