"""A checkpoint into what the user has. Used by `checkpointing.save`, in every process that runs user code,
also in the notebook's own. Every rank reads for itself: no collective, so ranks may load alone.
"""

import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quarterdeck.checkpointing import capture
from quarterdeck.checkpointing.answers import Answer
from quarterdeck.checkpointing.checkpoint import Checkpoint, Checkpoints
from quarterdeck.checkpointing.errors import DamagedCheckpoint
from quarterdeck.checkpointing.lazy_tensor import whole
from quarterdeck.checkpointing.manifest import MANIFEST
from quarterdeck.checkpointing.paths import step_of
from quarterdeck.checkpointing.readers import Source, open_foreign, opened, own_of
from quarterdeck.checkpointing.restore import module_values, optimizer_values
from quarterdeck.checkpointing.storage import Place, is_url, place_of
from quarterdeck.errors import UsageError
from quarterdeck.modes import without_inference_mode, without_modes
from quarterdeck.public import public

__all__ = ["Loaded", "Request", "find", "folder_of_many", "load", "load_found"]

_WRITING_LIMIT_S = 600.0


@dataclass(frozen=True)
class Request:
    """What is to be loaded into what; `into` as `load_checkpoint` takes it."""

    into: Any = ()
    rank: int = 0
    map_location: Any = None
    trust: bool = False
    strict: bool = True
    rng: bool = False
    verify: bool = False


@public
@dataclass
class Loaded:
    """What `load_checkpoint` has loaded.

    Attributes:
        path: where it was: a path or a URL.
        step: the step that it was saved with; -1 for files of other makes.
        epoch: as it was given to `save_checkpoint`.
        metrics: by name; the mean over the ranks that gave it.
        hyperparameters: as they were given; `UnknownClass` in the place of classes that are not defined here.
        extra: as it was given.
        model: the state dict, tensors by name, where nothing was given to load into.
        checkpoint: the checkpoint itself; None for files of other makes.
    """

    path: str
    step: int = -1
    epoch: int | float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    hyperparameters: Any = None
    extra: Any = None
    model: dict[str, Any] | None = None
    checkpoint: Checkpoint | None = None

    def __repr__(self) -> str:
        return f"Loaded(step={self.step}, {self.path!r})"


def load(which: int | str | os.PathLike[str] | Checkpoint, place: Place | None, request: Request) -> Loaded:
    """One of which it is known which: itself, its path, or a step at `place`. See
    `quarterdeck.load_checkpoint`.
    """
    if isinstance(which, Checkpoint):
        return _load(which, request)
    if type(which) is int:
        if place is None:
            raise UsageError("There is no run here whose steps could be looked for.", "Give a path.")
        return _load(_there(place).at(which), request)
    text = os.fspath(which)  # type: ignore[arg-type]
    path = Path(os.path.expanduser(text.removeprefix("file://")))
    if is_url(text) or (path.is_dir() and not _is_foreign(path)):
        return _load(_at(text.rstrip("/") if is_url(text) else str(path.resolve())), request)
    source = open_foreign(path, request.trust)
    return _apply(source, request, Loaded(str(path)))


def find(which: str, place: Place) -> Answer:
    """What "latest", or "best:...", is at `place`."""
    found = _there(place)
    if which == "latest":
        passed_over = [f"{one.path} is passed over: {one.problem}." for one in found.invalid]
        return Answer([one.path for one in reversed(found.valid)], passed_over)
    best = found.best(which.partition(":")[2] or "loss")
    return Answer([] if best is None else [best.path])


def load_found(which: str, answer: Answer, request: Request) -> Loaded | None:
    """The first of them that is whole; of the latest, those that are not are named and passed over."""
    for words in answer.passed_over:
        _warn(words)
    for path in answer.paths:
        try:
            return _load(_at(path), request)
        except DamagedCheckpoint as error:
            if which != "latest":
                raise
            _warn(f"{path} is passed over: {error}")
    return None


def folder_of_many(which: object) -> Place | None:
    """If it is the path or URL of a folder of checkpoints: its "latest" is asked for."""
    text = os.fspath(which) if isinstance(which, str | os.PathLike) else ""
    if not is_url(text):
        path = Path(os.path.expanduser(text.removeprefix("file://")))
        if not text or not path.is_dir() or _is_foreign(path) or (path / MANIFEST).exists():
            return None
        text = str(path.resolve())
    text = text.rstrip("/")
    return None if step_of(text.rpartition("/")[2]) is not None else place_of(text)


def _at(path: str) -> Checkpoint:
    above, _, name = path.rpartition("/")
    return Checkpoint(place_of(above or "/"), name)


def _there(place: Place) -> Checkpoints:
    """When what is being written there now is complete: another rank may be just about to have the latest."""
    limit_s = time.monotonic() + _WRITING_LIMIT_S
    writing = place.in_the_making()
    while writing and time.monotonic() < limit_s:
        time.sleep(0.01)
        writing &= place.in_the_making()
    return Checkpoints(place)


def _is_foreign(folder: Path) -> bool:
    names = [folder.name, *os.listdir(folder)]
    return MANIFEST not in names and not any(step_of(name) is not None for name in names)


def _load(checkpoint: Checkpoint, request: Request) -> Loaded:
    with opened(checkpoint, request.trust, request.verify) as source:
        loaded = Loaded(
            checkpoint.path,
            checkpoint.step,
            checkpoint.epoch,
            checkpoint.metrics,
            checkpoint.hyperparameters,
            checkpoint=checkpoint,
        )
        return _apply(source, request, loaded)


def _apply(source: Source, request: Request, loaded: Loaded) -> Loaded:
    """Reads and checks all of it, then changes the first thing."""
    into = _sorted_out(request.into)
    with without_modes():
        loaded.extra = _detached(source.read("extra"), request.map_location)
        changes = _changes(source, request, into)
        if not into:
            device = request.map_location or "cpu"
            loaded.model = {name: whole(it).to(device, copy=True) for name, it in source.tensors.items()}
            loaded.model.update({name: loaded.model[first] for name, first in source.aliases.items()})
    for change in changes:
        change()
    return loaded


def _changes(source: Source, request: Request, into: Mapping[str, Any]) -> list[Callable[[], Any]]:
    changes: list[Callable[[], Any]] = []
    if (module := into.get("model")) is not None:
        values = module_values(source, module, request.strict)
        changes.append(lambda: module.load_state_dict(values, strict=False))
    if (optimizer := into.get("optimizer")) is not None:
        state = optimizer_values(source, optimizer, module)
        changes.append(lambda: _as_its_own(optimizer, state))
    if (scheduler := into.get("scheduler")) is not None:
        kept = source.read("scheduler")
        if kept is None:
            raise UsageError(f"{source.path} was saved without a scheduler.", "Leave it out of into=(...).")
        schedule = _detached(kept)
        changes.append(lambda: scheduler.load_state_dict(schedule))
    if request.rng or "sampler" in into:
        changes += _own_changes(source, request, into.get("sampler"))
    return changes


def _as_its_own(optimizer: Any, state: dict[str, Any]) -> None:
    """It keeps what it makes of the state, also for steps outside of the user's inference mode."""
    with without_inference_mode():
        optimizer.load_state_dict(state)


def _own_changes(source: Source, request: Request, sampler: Any) -> list[Callable[[], Any]]:
    """This rank's own. One that did not save has nothing to go on with: it is told, and goes on without."""
    own = own_of(source, request.rank)
    wanted = [name for name, asked in (("rng", request.rng), ("sampler", sampler is not None)) if asked]
    missing = [name for name in wanted if own is None or name not in own]
    if missing:
        _warn(
            f"{source.path} has no {' and no '.join(missing)} of rank {request.rank}: left as they are here."
        )
    changes: list[Callable[[], Any]] = []
    if request.rng and "rng" not in missing:
        changes.append(lambda: capture.restore_generators(own["rng"]))
    if sampler is not None and "sampler" not in missing:
        changes.append(lambda: capture.restore_sampler(sampler, own["sampler"]))
    return changes


def _sorted_out(into: Any) -> dict[str, Any]:
    """By what they are, in whatever order they come."""
    items: Sequence[Any] = into if isinstance(into, tuple | list) else (into,)
    found: dict[str, Any] = {}
    for item in items:
        if item is None:
            continue
        kind = _kind(item)
        if kind in found:
            raise UsageError(f"into=(...) has two of the kind {kind}, and a checkpoint holds one.")
        found[kind] = item
    return found


def _kind(item: Any) -> str:
    import torch

    if isinstance(item, torch.nn.Module):
        return "model"
    if hasattr(item, "param_groups"):
        return "optimizer"
    if isinstance(item, torch.utils.data.Sampler) or hasattr(item, "set_epoch"):
        return "sampler"
    if hasattr(item, "load_state_dict"):
        return "scheduler"
    raise UsageError(
        f"A checkpoint cannot be loaded into {type(item).__name__}.",
        "into= takes the model, its optimizer, a scheduler and a sampler.",
    )


def _detached(value: Any, device: Any = None) -> Any:
    """Tensors of their own, not views of the file."""
    from quarterdeck.checkpointing.plain_values import copied

    return copied(value, lambda tensor, _: tensor.to(device or "cpu", copy=True))


def _warn(text: str) -> None:
    warnings.warn(f"quarterdeck: {text}", stacklevel=2)
