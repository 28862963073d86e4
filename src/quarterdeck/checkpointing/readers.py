"""What can be loaded: our own checkpoints, and files of other makes, all in one form. Used by `load` and
`export`. Nothing here runs code from a file, unless `trust` is given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from quarterdeck.checkpointing import safetensors_file
from quarterdeck.checkpointing.errors import DamagedCheckpoint
from quarterdeck.checkpointing.lazy_tensor import Stored, Whole
from quarterdeck.checkpointing.pickles import load_pt, read_dcp
from quarterdeck.checkpointing.sharded import METADATA, MODEL, OPTIMIZER
from quarterdeck.checkpointing.snapshot import WEIGHTS, own_name
from quarterdeck.checkpointing.verify import check_files
from quarterdeck.errors import UsageError

if TYPE_CHECKING:
    from quarterdeck.checkpointing.checkpoint import Checkpoint

CHECKED_BYTES = 64 << 20
"""Files up to this size are compared with their checksum whenever they are loaded."""

_MODELS = ("module_state_dict", "model_state_dict", "state_dict", "model", "module", "app.model")
_OPTIMIZERS = ("optimizer_state_dict", "optimizer", "optim", "optim_state_dict", "app.optim")
_INDEX = "model.safetensors.index.json"
_PREFIX = re.compile(r"^(module\.|_orig_mod\.)+")


@dataclass
class OptimizerState:
    """By parameter: its name, or its number where names are not known."""

    groups: list[dict[str, Any]]
    """Without "params"."""
    members: list[list[Any]]
    state: dict[Any, dict[str, Any]]
    """Tensors as `Stored`."""
    named: bool


@dataclass
class Source:
    path: str
    tensors: dict[str, Stored]
    aliases: dict[str, str] = field(default_factory=dict)
    optimizer: OptimizerState | None = None
    read: Callable[[str], Any] = lambda name: None
    """"scheduler", "extra", "module" or "rank-00003", None if it was not saved."""


@contextmanager
def opened(checkpoint: Checkpoint, trust: bool = False, verify: bool = False) -> Iterator[Source]:
    """The source that is one of our own; its tensors are valid within the block. Raises DamagedCheckpoint,
    UntrustedCheckpoint.
    """
    if not checkpoint.valid:
        raise DamagedCheckpoint(f"{checkpoint.path} cannot be loaded: {checkpoint.problem}")
    manifest, index = checkpoint.manifest, checkpoint.index
    with checkpoint.contents.local() as top:
        check_files(top, manifest, checkpoint.path, None if verify else CHECKED_BYTES)
        folder = top / manifest.data

        def read(name: str) -> Any:
            return load_pt(folder / f"{name}.pt", trust) if f"{name}.pt" in manifest.files else None

        aliases = {info.name: info.alias_of for info in index.tensors if info.alias_of}
        source = Source(checkpoint.path, {}, aliases, None, read)
        if manifest.sharded:
            _open_sharded(source, folder)
        else:
            tensors, _ = safetensors_file.read(folder / WEIGHTS)
            source.tensors = {name: Whole(tensor) for name, tensor in tensors.items()}
            state = read("optimizer")
            source.optimizer = None if state is None else _optimizer(state, index.optimizer_names)
        yield source


def open_foreign(path: Path, trust: bool = False) -> Source:
    """A file of torch.save, a .safetensors file, or a folder of Hugging Face or torch.distributed.checkpoint.

    Raises UsageError for anything else, DamagedCheckpoint, UntrustedCheckpoint.
    """
    if path.is_dir():
        if (path / METADATA).is_file():
            return _foreign_dcp(path)
        return _from_safetensors(str(path), _hugging_face_files(path))
    if not path.is_file():
        raise UsageError(f"There is no checkpoint at {path}.")
    if path.suffix == ".safetensors":
        return _from_safetensors(str(path), [path])
    return _from_state(str(path), load_pt(path, trust))


def _open_sharded(source: Source, folder: Path) -> None:
    stored, paths, _ = read_dcp(folder)
    state: dict[Any, dict[str, Any]] = {}
    for name, tensor in stored.items():
        match paths[name]:
            case (part, key) if part == MODEL:
                source.tensors[key] = tensor
            case (part, "state", parameter, kind) if part == OPTIMIZER:
                state.setdefault(parameter, {})[kind] = tensor
    rest = source.read("optimizer")
    if rest is not None:
        for parameter, items in rest["state"].items():
            state.setdefault(parameter, {}).update(items)
        groups = rest["param_groups"]
        members = [list(group["params"]) for group in groups]
        source.optimizer = OptimizerState([_without_params(group) for group in groups], members, state, True)


def _optimizer(state: Any, names: list[list[str]] | None) -> OptimizerState | None:
    """What an optimizer's `state_dict()` holds; None for one that is not torch's."""
    import torch

    if not isinstance(state, Mapping) or not {"state", "param_groups"} <= state.keys():
        return None
    groups = state["param_groups"]
    numbers = [list(group["params"]) for group in groups]
    members: list[list[Any]] = names if names is not None else numbers
    known = {
        number: member
        for group, others in zip(numbers, members, strict=True)
        for number, member in zip(group, others, strict=True)
    }
    found = {
        known[number]: {
            kind: Whole(value) if isinstance(value, torch.Tensor) else value for kind, value in items.items()
        }
        for number, items in state["state"].items()
    }
    return OptimizerState([_without_params(group) for group in groups], members, found, names is not None)


def _without_params(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}


def _from_safetensors(path: str, files: list[Path]) -> Source:
    source = Source(path, {})
    for file in files:
        tensors, notes = safetensors_file.read(file)
        source.tensors.update({name: Whole(tensor) for name, tensor in tensors.items()})
        source.aliases.update({name: first for name, first in notes.items() if first in tensors})
    return source


def _hugging_face_files(folder: Path) -> list[Path]:
    """One file, or those that the index names."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    try:
        index = msgspec.json.decode((folder / _INDEX).read_bytes(), type=dict[str, Any])
        names = sorted({str(name) for name in index["weight_map"].values()})
    except FileNotFoundError:
        raise UsageError(
            f"{folder} is not a checkpoint: it has no manifest.json, no .metadata and no model.safetensors.",
            "Give the folder step-... itself, or a .pt or .safetensors file.",
        ) from None
    except (msgspec.MsgspecError, KeyError, AttributeError) as error:
        raise DamagedCheckpoint(f"{folder / _INDEX} cannot be read: {error}") from None
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise DamagedCheckpoint(f"{folder / _INDEX} names {name!r}, which is not there")
    return [folder / name for name in names]


def _from_state(path: str, state: Any) -> Source:
    """The source in what torch.save had: a state dict, or a dict that has one under a usual name."""
    import torch

    if not isinstance(state, Mapping):
        raise UsageError(f"{path} holds {type(state).__name__}, not the state dict of a model.")
    model = next((state[key] for key in _MODELS if isinstance(state.get(key), Mapping)), state)
    tensors = {key: value for key, value in model.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise UsageError(
            f"{path} holds no tensors under {', '.join(_MODELS[:4])} or at its top.",
            f"It has: {', '.join(map(str, list(state)[:10]))}.",
        )
    source = Source(path, {_PREFIX.sub("", str(key)): Whole(value) for key, value in tensors.items()})
    found = next((state[key] for key in _OPTIMIZERS if isinstance(state.get(key), Mapping)), None)
    if found is not None:
        source.optimizer = _optimizer(found, None)
    rest = {
        "scheduler": state.get("scheduler", state.get("scheduler_state_dict")),
        "extra": state.get("extra"),
    }
    source.read = rest.get
    return source


def _foreign_dcp(folder: Path) -> Source:
    """The model's tensors, under the usual names of its part; an optimizer's state is not looked for."""
    stored, paths, _ = read_dcp(folder)
    found: dict[str, Stored] = {}
    for name, tensor in stored.items():
        path = ".".join(paths[name])
        prefix = next((f"{key}." for key in _MODELS if path.startswith(f"{key}.")), None)
        if prefix is not None:
            found[_PREFIX.sub("", path.removeprefix(prefix))] = tensor
    return Source(str(folder), found or {".".join(paths[name]): tensor for name, tensor in stored.items()})


def own_of(source: Source, rank: int) -> Any:
    """What this rank alone saved; None if there is nothing."""
    return source.read(own_name(rank).removesuffix(".pt"))
