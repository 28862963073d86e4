"""Pickles of strangers, without running anything of theirs: torch.save files with `weights_only`, and the
`.metadata` of torch.distributed.checkpoint with the reader of `standins`. Used by `load`.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from quarterdeck.checkpointing.errors import DamagedCheckpoint, UntrustedCheckpoint
from quarterdeck.checkpointing.lazy_tensor import Chunk, Pieces, Stored
from quarterdeck.checkpointing.standins import NAMES, first_line, is_tensor, read_metadata
from quarterdeck.modes import without_modes

_ZIP = b"PK\x03\x04"
_PLAIN = re.compile(
    r"torch\.(_utils\._rebuild_(tensor_v2|parameter)|\w+Storage|storage\.\w+Storage|Size|device"
    r"|serialization\._get_layout|(u?int|b?float|complex)\d+|bool|strided)"
    r"|collections\.OrderedDict|_codecs\.encode|(builtins|__builtin__)\.(set|bytearray)"
)
"""What nearly all files have of that which torch.load takes with `weights_only`."""


def load_pt(path: Path, trust: bool = False) -> Any:
    """What torch.save wrote, its tensors mapped where the file's form allows that.

    Raises UntrustedCheckpoint, which names what the file would run, and DamagedCheckpoint.
    """
    import torch

    try:
        with without_modes():
            return torch.load(path, map_location="cpu", weights_only=not trust, mmap=_is_zip(path))
    except pickle.UnpicklingError:
        raise _refused(path) from None
    except FileNotFoundError:
        raise DamagedCheckpoint(f"{path} is missing") from None
    except Exception as error:
        raise DamagedCheckpoint(f"{path} cannot be read: {first_line(error)}") from None


def read_dcp(folder: Path) -> tuple[dict[str, Stored], dict[str, tuple[str, ...]], dict[str, Any]]:
    """Reads a folder in torch.distributed.checkpoint's format: the tensors, the path of each name, and how to
    read what is not a tensor, as functions.

    Raises UntrustedCheckpoint and DamagedCheckpoint.
    """
    described = read_metadata(folder / ".metadata")
    try:
        places = _places(described)
        tensors: dict[str, Stored] = {}
        others: dict[str, Any] = {}
        for name, item in described.state_dict_metadata.items():
            if is_tensor(item):
                tensors[name] = _pieces(folder, name, item, places)
            else:
                others[name] = _lazy(folder, places[name, None])
        paths = described.planner_data or {}
        return tensors, {name: _path(name, paths) for name in described.state_dict_metadata}, others
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DamagedCheckpoint(f"{folder}/.metadata cannot be read: {first_line(error)}") from None


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == _ZIP


def _refused(path: Path) -> UntrustedCheckpoint | DamagedCheckpoint:
    """What torch would not load: it names something, or it is no pickle at all."""
    try:
        needs = _foreign_names(path)
    except Exception as error:  # whatever the bytes make of the readers
        return DamagedCheckpoint(f"{path} cannot be read: {first_line(error)}")
    return UntrustedCheckpoint(str(path), needs)


def _foreign_names(path: Path) -> list[str]:
    """Found without loading. Raises for what is no pickle."""
    import torch

    if _is_zip(path):
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    return named_in(path.read_bytes())


def needs(path: Path) -> list[str]:
    """What loading this file of torch.save, or this `.metadata`, would run, as "module.name"; [] also for one
    that cannot be read. Without torch, unless a name is there that only torch can judge.
    """
    try:
        is_metadata = path.name == ".metadata"
        names = _all_named_in(path.read_bytes() if is_metadata or not _is_zip(path) else _pickle_in(path))
        if is_metadata:
            return sorted(name for name in names if not _is_allowed(name))
        return _foreign_names(path) if any(not _PLAIN.fullmatch(name) for name in names) else []
    except Exception:  # whatever the bytes make of the readers
        return []


def _pickle_in(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        return archive.read(name)


def _is_allowed(name: str) -> bool:
    return name in NAMES or (name.startswith("torch.") and bool(_PLAIN.fullmatch(name)))


def named_in(pickled: bytes) -> list[str]:
    """What a pickle would import, as "module.name". Raises ValueError for what is no whole pickle."""
    found = _all_named_in(pickled)
    return sorted({name for name in found if not name.startswith(("torch.", "collections.", "_codecs."))})


def _all_named_in(pickled: bytes) -> list[str]:
    """A text that was there before comes out of the pickle's memo the second time."""
    found: list[str] = []
    memo: dict[Any, Any] = {}
    below, top = None, None
    for code, argument, _ in pickletools.genops(pickled):
        if code.name == "GLOBAL":
            found.append(str(argument).replace(" ", "."))
        elif code.name == "STACK_GLOBAL":
            found.append(f"{below}.{top}")
        if code.name == "MEMOIZE" or code.name.endswith("PUT"):
            memo[len(memo) if argument is None else argument] = top
        elif code.stack_after:
            below, top = top, memo.get(argument) if code.name.endswith("GET") else argument
    return found


def _places(described: Any) -> dict[tuple[str, Any], Any]:
    """Where each chunk lies, by its name and offsets. ValueError for a file outside of the folder."""
    found = {}
    for index, info in described.storage_data.items():
        file = Path(str(info.relative_path))
        if file.name != str(info.relative_path) or info.transform_descriptors:
            raise ValueError(f"it names the file {info.relative_path!r}")
        offsets = None if index.offset is None else tuple(index.offset)
        found[index.fqn, offsets] = info
    return found


def _pieces(folder: Path, name: str, item: Any, places: Mapping[tuple[str, Any], Any]) -> Pieces:
    chunks = []
    for chunk in item.chunks:
        offsets = tuple(chunk.offsets)
        info = places.get((name, offsets)) or places[name, None]
        chunks.append(Chunk(offsets, tuple(chunk.sizes), _lazy(folder, info)))
    return Pieces(name, tuple(item.size), item.properties.dtype, chunks)


def _lazy(folder: Path, info: Any) -> Any:
    path, offset, length = folder / str(info.relative_path), int(info.offset), int(info.length)

    def read() -> Any:
        import torch

        try:
            with path.open("rb") as file:
                file.seek(offset)
                data = io.BytesIO(file.read(length))
            with without_modes():
                return torch.load(data, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            data.seek(0)
            raise _refused_item(path, data) from None
        except Exception as error:
            raise DamagedCheckpoint(f"{path} cannot be read: {first_line(error)}") from None

    return read


def _refused_item(path: Path, data: IO[bytes]) -> UntrustedCheckpoint | DamagedCheckpoint:
    import torch

    try:
        needs = torch.serialization.get_unsafe_globals_in_checkpoint(data)
    except Exception as error:
        return DamagedCheckpoint(f"{path} cannot be read: {first_line(error)}")
    return UntrustedCheckpoint(str(path), sorted(needs))


def _path(name: str, paths: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(part) for part in paths.get(name) or (name,))
