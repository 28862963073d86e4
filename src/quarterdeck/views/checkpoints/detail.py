"""What a checkpoint tells of itself, as messages. From its manifest and index alone: no tensor is read,
nothing is unpickled or imported. Used by `feed`.
"""

from __future__ import annotations

import keyword
import os
import re
import shlex
from collections.abc import Iterator
from datetime import datetime

import msgspec

from quarterdeck.checkpointing.checkpoint import Checkpoint
from quarterdeck.checkpointing.comparison import differences
from quarterdeck.checkpointing.errors import DamagedCheckpoint
from quarterdeck.checkpointing.storage import is_url
from quarterdeck.store.reader import StoredRun
from quarterdeck.views.checkpoints.messages import Detail, Fact, Pair, TensorRow

_WORD = re.compile(r"[A-Za-z_][\w./:-]*")


def detail(id: str, checkpoint: Checkpoint, run: StoredRun | None) -> Detail:
    tensors, problem = _tensors(checkpoint)
    return Detail(
        id=id,
        facts=[Fact(name, value) for name, value in facts(checkpoint) if value],
        hyperparameters=[Fact(name, _unquoted(text)) for name, text in hyperparameters(checkpoint).items()],
        parameters=checkpoint.manifest.model.parameters,
        tensors=tensors,
        problem=problem,
        resume="" if problem else resume_code(checkpoint, run),
    )


def facts(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    manifest = checkpoint.manifest
    ranks, saved = manifest.world_size, manifest.created_unix_ns
    yield "saved", f"{datetime.fromtimestamp(saved / 1e9):%Y-%m-%d %H:%M:%S}" if saved else ""
    yield "metrics", ", ".join(f"{name}: {share}" for name, share in checkpoint.shares.items())
    yield "epoch", "" if manifest.epoch is None else f"{manifest.epoch:g}"
    yield "ranks", f"{ranks}, sharded" if manifest.sharded else str(ranks) if checkpoint.valid else ""
    yield "attempt", str(manifest.attempt + 1) if manifest.attempt else ""
    yield "model", manifest.model.class_name
    yield "run", manifest.run_id
    yield "commit", manifest.git[:12]
    yield from manifest.versions.items()
    yield "folder", checkpoint.path


def hyperparameters(checkpoint: Checkpoint) -> dict[str, str]:
    """Each value by its place: {"optimizer.betas[1]": "0.999"}."""
    encoded = msgspec.json.decode(checkpoint.manifest.hyperparameters)
    found = {place: left for place, left, _ in differences(encoded, {}) if left is not None}
    if found.get("") == "None":
        del found[""]
    return {place or "value": text for place, text in found.items()}


def pairs(left: Checkpoint, right: Checkpoint) -> list[Pair]:
    """Hyperparameters, then metrics and facts, of both sides: those of the left one first."""
    one, two = _values(left), _values(right)
    return [Pair(name, one.get(name), two.get(name)) for name in {**one, **two}]


def resume_code(checkpoint: Checkpoint, run: StoredRun | None) -> str:
    """What the user writes to go on from here, with the code that saved it below where that was a cell."""
    if is_url(checkpoint.path):
        return f"qd.load_checkpoint({checkpoint.path!r}, into=(model, optimizer))"
    path = os.path.relpath(checkpoint.path)
    path = checkpoint.path if path.startswith("..") else path
    if run is not None and run.header.kind == "function":
        name, arguments = run.header.title.removesuffix("()"), run.header.arguments
        return f"{name}.options(resume={path!r})({'...' if '…' in arguments else arguments})"
    named = f" --name {shlex.quote(run.header.name)}" if run is not None and run.header.name else ""
    source = checkpoint.manifest.source.strip("\n")
    return f"%%distributed --resume {shlex.quote(path)}{named}\n{source}".rstrip()


def _values(checkpoint: Checkpoint) -> dict[str, str]:
    found = dict(hyperparameters(checkpoint))
    for name, value in checkpoint.metrics.items():
        found[f"metrics: {name}"] = f"{value:.6g}"
    manifest = checkpoint.manifest
    found["world_size"] = str(manifest.world_size)
    found["model"] = manifest.model.class_name
    found["commit"] = manifest.git[:12]
    found |= manifest.versions
    return {name: value for name, value in found.items() if value}


def _unquoted(text: str) -> str:
    """A word needs no quotes where it cannot be taken for anything else."""
    word = text[1:-1] if text[:1] == text[-1:] == "'" else ""
    return word if _WORD.fullmatch(word) and not keyword.iskeyword(word) else text


def _tensors(checkpoint: Checkpoint) -> tuple[list[TensorRow], str]:
    if not checkpoint.valid:
        return [], checkpoint.problem
    try:
        infos = checkpoint.tensors
    except DamagedCheckpoint as error:
        return [], str(error)
    return [
        TensorRow(info.name, list(info.shape), info.dtype, info.size_bytes, info.part, info.alias_of)
        for info in infos
    ], ""
