"""Flyte's checkpoint file: one `torch.save` of one flat dict. Read and written for `PyTorchCheckpoint`, with
torch imported.

    "module_state_dict" | every hyperparameter under its own name | "optimizer_state_dict"

The dict holds only what loads with `weights_only=True`: an Enum stands there as its value, a path as its
text. Where that loses types, the file carries the hyperparameters a second time, as JSON in a record of its
own beside torch's; whoever does not know of it reads Flyte's layout as ever.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
import zipfile
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

from quarterdeck import files
from quarterdeck.checkpointing import classes, hyperparameters
from quarterdeck.checkpointing.errors import DamagedCheckpoint, UntrustedCheckpoint
from quarterdeck.errors import UsageError
from quarterdeck.flyte.checks import MODULE, OPTIMIZER
from quarterdeck.modes import without_modes

_RECORD = ".quarterdeck/hyperparameters.json"
_RECORD_LIMIT_BYTES = 64 << 20
_LOADABLE = ("Tensor", "dtype", "device", "Size")
"""The names in torch that a file may hold without trust."""


def write(path: Path, module: Any, value: Any, optimizer: Any) -> None:
    """Atomic: until the file is complete and on the disk, what was at `path` stays.

    Raises UsageError for what would not load again, by name, before anything is replaced.
    """
    import torch

    encoded = hyperparameters.encode(value)
    plain = (
        {_plain(key): _plain(item) for key, item in classes.entries(value).items()}
        if value is not None
        else {}
    )
    flat = {MODULE: module, **plain, OPTIMIZER: optimizer}
    flat = {key: item for key, item in flat.items() if item is not None or key in plain}
    with files.atomic_write(path.parent, path.name, synced=True, mode=0o666) as file:
        torch.save(flat, file)
        _check_loadable(file)
        if value is not None and hyperparameters.encode(plain) != encoded:
            _append(file, json.dumps(encoded))


def read(path: Path, trust: bool, map_location: Any) -> dict[str, Any]:
    """The flat dict.

    Raises UntrustedCheckpoint, DamagedCheckpoint or FileNotFoundError; none of the file's code has run then.
    """
    import torch

    place = _to_here if map_location == "auto" else map_location
    try:
        with without_modes():
            flat = torch.load(path, map_location=place, weights_only=not trust)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # of damage there are as many as torch has lines that read
        raise _refusal(path, error) from None
    if not isinstance(flat, dict):
        raise DamagedCheckpoint(f"{path} holds a {type(flat).__name__}, and a checkpoint is a dict.")
    return flat


def typed_hyperparameters(path: Path) -> Any:
    """From the JSON that `write` added; None if the file has none, or none that says hyperparameters."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.partition("/")[2] == _RECORD]
        if not names or archive.getinfo(names[0]).file_size > _RECORD_LIMIT_BYTES:
            return None
        try:
            value = hyperparameters.decode(json.loads(archive.read(names[0])))
            classes.entries(value)
        except (ValueError, TypeError, RecursionError, zipfile.BadZipFile):
            return None
        return value


def _to_here(storage: Any, location: str) -> Any:
    """`map_location` for torch.load: what lay on an accelerator goes to this process's current one, or to the
    CPU where there is none."""
    import torch

    if location in ("cpu", "meta") or not torch.accelerator.is_available():
        return storage
    device = f"{torch.accelerator.current_accelerator()}:{torch.accelerator.current_device_index()}"
    restore: Any = torch.serialization.default_restore_location
    return restore(storage, device)


def _refusal(path: Path, error: Exception) -> Exception:
    """In place of what torch.load raised."""
    import torch

    needs = re.findall(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, pickle.UnpicklingError) else []
    try:
        needs = needs and torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # not a zip file; the error named the first
        pass
    if needs:
        return UntrustedCheckpoint(str(path), sorted(needs))
    said = str(error).splitlines() or [type(error).__name__]
    return DamagedCheckpoint(f"{path} is not a whole checkpoint file: {said[0]}")


def _check_loadable(file: BinaryIO) -> None:
    """Looks through the states: a module may keep anything under `get_extra_state`."""
    import torch

    file.seek(0)
    needs = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    if needs:
        hint = "Keep tensors and plain values in get_extra_state() and in the optimizer's state."
        raise UsageError(f"The state holds {', '.join(sorted(needs))}, which would not load again.", hint)


def _append(file: BinaryIO, text: str) -> None:
    """Beside torch's records, in their folder of the archive."""
    with zipfile.ZipFile(file, "a") as archive:
        folder = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{folder}/{_RECORD}", text)


# ---- values as any reader of the file sees them


def _plain(value: Any) -> Any:
    """Only types that load without trust. What encodes at all has a plain form."""
    if type(value) in (bool, int, float, complex, str, type(None)) or _is_torch(value):
        return value
    kind = classes.kind_of(value)
    if kind:
        fields = classes.fields_of(value)
        return _plain(fields["value"]) if kind == "enum" else _plain(fields)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    if isinstance(value, set | frozenset):
        return {_plain(item) for item in value}
    if isinstance(value, list | deque | range):
        return [_plain(item) for item in value]
    if isinstance(value, SimpleNamespace | argparse.Namespace):
        return _plain(vars(value))
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    return _plain(value.tolist()) if hasattr(value, "dtype") else str(value)


def _is_torch(value: Any) -> bool:
    return type(value).__module__ == "torch" and type(value).__name__ in _LOADABLE
