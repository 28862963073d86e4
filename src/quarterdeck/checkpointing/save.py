"""`qd.save_checkpoint` and `qd.load_checkpoint`: the state of a training, kept with its run. In every process
that runs user code: workers, the notebook's own process, scripts.
"""

from __future__ import annotations

import os
import sys
import uuid
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from operator import index
from pathlib import Path
from typing import Any

import msgspec

from quarterdeck import files
from quarterdeck.checkpointing import capture, retention, sharded
from quarterdeck.checkpointing import saver as writing
from quarterdeck.checkpointing.answers import Asked
from quarterdeck.checkpointing.attempt import Attempt, attempt_in, attempts
from quarterdeck.checkpointing.capture import Captured
from quarterdeck.checkpointing.checkpoint import Checkpoint, Checkpoints
from quarterdeck.checkpointing.errors import CheckpointError
from quarterdeck.checkpointing.load import Loaded, Request
from quarterdeck.checkpointing.manifest import Manifest, plain_metrics
from quarterdeck.checkpointing.offering import Order, wait_for_all
from quarterdeck.checkpointing.outline import outline
from quarterdeck.checkpointing.paths import ANSWERS, SAVES, step_name
from quarterdeck.checkpointing.resume import load_first
from quarterdeck.checkpointing.storage import Place, place_of
from quarterdeck.context import LOCAL, Context, current
from quarterdeck.errors import UsageError
from quarterdeck.modes import without_inference_mode
from quarterdeck.public import public
from quarterdeck.store.environment import describe
from quarterdeck.store.format import RunHeader, read_header
from quarterdeck.store.layout import CHECKPOINTS

__all__ = ["Checkpoint", "Checkpoints", "Loaded", "flush", "load_checkpoint", "save_checkpoint"]


@public
def save_checkpoint(
    model: Any,
    optimizer: Any = None,
    scheduler: Any = None,
    *,
    step: int,
    epoch: float | None = None,
    metrics: Mapping[str, Any] | None = None,
    hyperparameters: Any = None,
    extra: Any = None,
    keep_last: int | None = None,
    keep_best: str | None = None,
    rng: bool = False,
    sampler: Any = None,
    directory: str | os.PathLike[str] | None = None,
    wait: bool = False,
) -> str:
    """Keep the state as it is now.

    The loop waits for a copy in memory only; writing goes on behind it, and the next save waits for this one.
    Until it is complete it does not count: whatever happens, the ones before it stay as they are. An error of
    the writing is raised by the next save or at the end of the cell.

    Any rank may call it, all of them or `if rank == 0:`: the first one writes, the others return at once.
    Where every rank holds something of its own (a sharded model, `rng`, `sampler`) all have to call it,
    within 5 s. Ranks that hold different models without telling torch so (stages of a pipeline, made by hand)
    each need a `directory` of its own: names or shapes that differ are an error, and no checkpoint.

    Args:
        model: a module, wrapped by DDP or torch.compile or not, sharded by `fully_shard` or not; or a dict of
            tensors.
        optimizer: a torch optimizer of this model, or None.
        scheduler: anything whose `state_dict()` holds plain values and tensors, or None.
        step: a whole number from 0, by which the checkpoint is found. Another one of this step is replaced.
        epoch: a number that is kept with it.
        metrics: numbers, for `keep_best` and `load_checkpoint("best:loss")`. A metric that several ranks give
            is the mean: the checkpoint shows "mean of 2 of 4 ranks" where some did not.
        hyperparameters: a dict, dataclass or named tuple, also nested, with enums, paths and dates.
        extra: anything of plain values and tensors; `load_checkpoint` gives it back.
        keep_last: remove older ones of this folder but for so many, from 1; None keeps all.
        keep_best: also keep the best by this metric: "loss", or "max:acc" where higher is better. Without
            `keep_last` all but the best and the newest are removed. Pinned ones always stay, and those that
            some rank has yet to offer: it may be about to give its metrics.
        rng: also the state of this rank's random generators (Python, numpy, torch, its GPU).
        sampler: also this rank's sampler: its `state_dict()`, or its epoch and generator.
        directory: a folder or an fsspec URL ("s3://bucket/run") instead of the run's own.
        wait: True waits until it is complete, and raises here what goes wrong, on every rank: on return this
            one finds the checkpoint, whoever has written it.

    Returns:
        The path or URL of its folder, where it will be once it is complete.

    Raises:
        UsageError: something could not be loaded again, or an argument cannot be; the text names it.
        CheckpointError: this save, or the one before it, could not be written.
    """
    retention.check(keep_last, keep_best)
    context, number = current(), _step(step)
    if directory is None:
        _make_place(context)
    rank, world_size = _in_the_world(context)
    ranks = _ranks_needed(model, rng or sampler is not None, world_size)
    place = _place(context, directory)
    order = Order(
        place,
        number,
        _manifest(context, rank, world_size, epoch, metrics, hyperparameters),
        rank,
        world_size,
        _attempt(context, place, rank, world_size),
        ranks,
        outline(model, optimizer, scheduler, extra) if world_size > 1 else {},
        _collectives(),
        keep_last,
        keep_best,
    )

    def captured() -> Captured:
        with without_inference_mode():
            taken = capture.capture(model, optimizer, scheduler, extra)
            taken.own = capture.own(rng, sampler)
            return taken

    writing.saver.save(order, captured, wait)
    if directory is None:
        context.announce()
    return f"{place.path}/{step_name(number)}"


@public
def load_checkpoint(
    which: str | int | os.PathLike[str] | Checkpoint = "latest",
    into: Any = (),
    map_location: Any = None,
    trust: bool = False,
    *,
    strict: bool = True,
    rng: bool = False,
    verify: bool = False,
    directory: str | os.PathLike[str] | None = None,
) -> Loaded | None:
    """Bring state back: `if at := qd.load_checkpoint("latest", into=(model, optimizer)): first = at.step +
    1`.

    On any number of ranks, whatever number saved it, sharded or not; each rank reads for itself. Which one is
    "latest" or "best" is the same for all ranks that ask between the same two saves. All of it is checked
    before the first value changes. Nothing of a file is run: one that would need it is refused, by name.

    Args:
        which: "latest"; "best:loss" (lowest), "best:max:acc" (highest); a step, looked for in this run and
            then in the one that it continues (`--resume`). The path or URL of a checkpoint or a folder of
            them; a `.pt` or `.safetensors` file; a folder from Hugging Face or torch.distributed.checkpoint.
        into: the model, its optimizer, a scheduler, a sampler: one of them, or several in any order. They
            keep their devices. With nothing to load into, the result's `model` is the state dict.
        map_location: the device of what has no place yet (`model` and `extra` of the result); CPU if None.
        trust: run what pickles in it ask for. Only for files whose maker you know.
        strict: False loads what has the same name and shape, and leaves the rest as it is.
        rng: also this rank's random generators, if they were saved.
        verify: compare the checksums of large files, too.
        directory: where "latest", "best" and steps are looked for, instead of this run's own folder.

    Returns:
        What was loaded, or None if this run, or `directory`, has no checkpoint yet to be latest or best.
        Damaged ones are passed over there, with a warning.

    Raises:
        UsageError: it is not there (a path, a URL, a step, and what `--resume` names have to be), or does not
            fit.
        DamagedCheckpoint: it is not whole; nothing was loaded.
        UntrustedCheckpoint: it would have to run code; nothing was loaded.
        CheckpointError: a save of this process that was still being written has failed.
    """
    writing.flush()
    context = current()
    rank, world_size = _in_the_world(context)
    request = Request(into, rank, map_location, trust, strict, rng, verify)
    resumption = context.resumption
    resume = resumption.source if resumption is not None and directory is None else None
    own = _place(context, directory)

    def asked(place: Place, question: str) -> Asked:
        attempt = _attempt(context, place, rank, world_size)
        if attempt is None:
            return Asked(place.path)
        wait_for_all(attempt)
        key = attempt.place_of(question, _collectives())
        return Asked(place.path, attempt.answers, key, -1 if attempt.step is None else attempt.step)

    _attempt(context, own, rank, world_size)
    for attempt in attempts():
        wait_for_all(attempt)
    loaded = load_first(which, own, resume, request, asked)
    if loaded is not None and resumption is not None:
        resumption.loaded(loaded.step)
    return loaded


def flush() -> None:
    """Wait until what this process has saved is complete. Called at the end of a run.

    Raises CheckpointError, which names the checkpoint, if it could not be written.
    """
    writing.flush()


def finish() -> None:
    """As `flush`, at the end of a run: this process saves no more in it."""
    writing.finish()


def _step(step: Any) -> int:
    try:
        number = index(step)
    except TypeError:
        raise UsageError(f"step={step!r:.40}: the step of a checkpoint is a whole number.") from None
    if number < 0:
        raise UsageError(f"step={number}: the step of a checkpoint is not negative.")
    if number >= 1 << 63:
        raise UsageError(f"step= has {number.bit_length()} bits: the step of a checkpoint fits into 63.")
    return number


def _in_the_world(context: Context) -> tuple[int, int]:
    """Rank and world size; scripts that start their own group may not have set the variables."""
    torch = sys.modules.get("torch")
    dist = torch.distributed if torch is not None else None
    if dist is not None and dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return context.rank, context.world_size


def _ranks_needed(model: Any, own: bool, world_size: int) -> list[int]:
    if own:
        return list(range(world_size))
    if not (isinstance(model, Mapping) or hasattr(model, "parameters")) or not capture.is_sharded(model):
        return []
    tensors: Iterable[Any] = model.values() if isinstance(model, Mapping) else model.parameters()
    return sharded.ranks_of(tensors)


def _place(context: Context, directory: str | os.PathLike[str] | None) -> Place:
    return place_of(context.run_dir / CHECKPOINTS if directory is None else directory)


def _make_place(context: Context) -> None:
    """For nobody else, as all of a run. What cannot be made is told by whoever writes there; raises
    CheckpointError only where that would be somewhere else.
    """
    place = context.run_dir / CHECKPOINTS
    with suppress(OSError):
        files.make_private(context.run_dir)
        files.make_folder(context.run_dir, place.name)
    if place.is_symlink():
        raise CheckpointError(f"{place} is a link: nothing is saved through it. Give a directory= instead.")


def _attempt(context: Context, place: Place, rank: int, world_size: int) -> Attempt | None:
    """None for one rank alone: it has nobody to agree with. What was answered lies in the run's own folder,
    also where it looks in another one: that may be nobody's to write into.
    """
    if world_size < 2:
        return None
    key = _key(context)
    answers = context.run_dir / CHECKPOINTS / SAVES / key / ANSWERS
    return attempt_in(_saves(context, place) / key, answers, rank, world_size)


def _collectives() -> int:
    """How many all ranks have been in: it tells where in their common program they are. 0: nobody knows."""
    torch = sys.modules.get("torch")
    dist: Any = torch.distributed if torch is not None else None
    with suppress(RuntimeError, AttributeError):
        if dist is not None and dist.is_available() and dist.is_initialized():
            return int(dist.group.WORLD._get_sequence_number_for_group())
    return 0


def _saves(context: Context, place: Place) -> Path:
    """Beside the checkpoints, or in the run's folder where those are far away."""
    if Path(place.path).is_absolute():
        return Path(place.path) / SAVES
    return context.run_dir / CHECKPOINTS / SAVES / f"{zlib.crc32(place.path.encode()):08x}"


def _key(context: Context) -> str:
    """The key of one attempt of one run; outside of quarterdeck's runs, that of one process group."""
    group = f"-{_group_key()}" if context.run_dir.name == LOCAL else ""
    text = f"{context.run_id}-{context.attempt}{group}"
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in text)


def _group_key() -> str:
    """The same on all its ranks, and never again: pids are, in every container. They agree on it in the
    group's store; without a group, or a store that can, by the process that has started them.
    """
    torch = sys.modules.get("torch")
    dist: Any = torch.distributed if torch is not None else None
    with suppress(RuntimeError, AttributeError):
        if dist is not None and dist.is_available() and dist.is_initialized():
            store = dist.distributed_c10d._get_default_store()
            return str(store.compare_set("quarterdeck/key", "", uuid.uuid4().hex).decode())
    return str(os.getppid())


def _manifest(
    context: Context,
    rank: int,
    world_size: int,
    epoch: float | None,
    metrics: Mapping[str, Any] | None,
    hyperparameters: Any,
) -> Manifest:
    header = _header(context.run_dir)
    environment = header.environment if header is not None else _environment(os.getcwd())
    return Manifest(
        format=1,
        step=0,
        created_unix_ns=0,
        files={},
        epoch=epoch,
        metrics=plain_metrics(metrics),
        hyperparameters=_encoded(hyperparameters),
        world_size=world_size,
        rank=rank,
        run_id=context.run_id,
        attempt=context.attempt,
        versions={name: environment.get(name, "") for name in ("python", "torch", "quarterdeck")},
        git=environment.get("git", ""),
        source=header.source if header is not None else "",
    )


def _encoded(hyperparameters: Any) -> msgspec.Raw:
    if hyperparameters is None:
        return msgspec.Raw(b"null")
    from quarterdeck.checkpointing.hyperparameters import encode

    return msgspec.Raw(msgspec.json.encode(encode(hyperparameters)))


def _header(run_dir: Path) -> RunHeader | None:
    """A run that is on record tells what it runs."""
    try:
        return read_header(run_dir)
    except (OSError, ValueError):
        return None


@cache
def _environment(cwd: str) -> dict[str, str]:
    return describe(cwd)
