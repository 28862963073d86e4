"""The metrics of a checkpoint that several ranks have saved: the mean over those that gave them, whoever
wrote it. Used by `checkpoint` and `offering`.

A rank that calls after the checkpoint is complete has its numbers added in a file beside the manifest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from quarterdeck.checkpointing.manifest import Manifest
from quarterdeck.checkpointing.storage import Contents

LATER = "metrics.json"
Metrics = dict[str, float | str]


class Later(msgspec.Struct):
    created_unix_ns: int
    """When the checkpoint was made: another one may take its place."""
    rank_metrics: dict[str, Metrics]


def with_mean(manifest: Manifest, rank_metrics: Mapping[str, Metrics]) -> Manifest:
    """`rank_metrics`: by rank."""
    in_order = {rank: rank_metrics[rank] for rank in sorted(rank_metrics, key=int)}
    return msgspec.structs.replace(manifest, metrics=_mean(in_order), rank_metrics=in_order)


def with_later(manifest: Manifest, contents: Contents) -> Manifest:
    """With what came after it was complete. A file that cannot be read is as good as none."""
    if manifest.world_size < 2 or contents.size(LATER) is None:
        return manifest
    try:
        later = msgspec.json.decode(contents.read(LATER), type=Later)
        if later.created_unix_ns == manifest.created_unix_ns:
            return with_mean(manifest, manifest.rank_metrics | later.rank_metrics)
    except (OSError, ValueError, msgspec.MsgspecError):
        pass
    return manifest


def add(manifest: Manifest, contents: Contents, rank_metrics: Mapping[str, Metrics]) -> None:
    """To a complete checkpoint; `manifest` is its own, with what came before. Raises OSError."""
    now = manifest.rank_metrics | dict(rank_metrics)
    if now != manifest.rank_metrics:
        contents.put(LATER, msgspec.json.encode(Later(manifest.created_unix_ns, now)))


def shares(manifest: Manifest) -> dict[str, str]:
    """Who has given each metric that not all ranks have given: "mean of 2 of 4 ranks"."""
    counts = {name: _count(manifest, name) for name in manifest.metrics}
    return {
        name: f"{'mean of ' if count > 1 else 'of '}{count} of {manifest.world_size} ranks"
        for name, count in counts.items()
        if 0 < count < manifest.world_size
    }


def _count(manifest: Manifest, name: str) -> int:
    return sum(name in metrics for metrics in manifest.rank_metrics.values())


def _mean(rank_metrics: Mapping[str, Metrics]) -> Metrics:
    names = dict.fromkeys(name for metrics in rank_metrics.values() for name in metrics)
    found: Metrics = {}
    for name in names:
        values = [float(metrics[name]) for metrics in rank_metrics.values() if name in metrics]
        mean = _mean_of(values)
        found[name] = mean if math.isfinite(mean) else str(mean)
    return found


def _mean_of(values: list[float]) -> float:
    """Exact where all are the same: ranks that have reduced their loss give one number."""
    from statistics import mean

    return values[0] if len(values) == 1 else mean(values)
