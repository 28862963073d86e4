"""Which way a metric is better, judged by its name, and which checkpoint is the best by it. Pure; used by
`folder`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from quarterdeck.checkpointing.checkpoint import Checkpoint

_HIGHER = re.compile(
    r"acc(uracy)?|f1|auc|auroc|precision|recall|m?iou|m?ap\d*|bleu|rouge\w*|score|reward|return|r2|psnr|ssim|dice|top\d"
)
_LOWER = re.compile(
    r"\w*loss|err(or)?|perplexity|ppl|nll|\w*mse|\w*mae|fid|wer|cer|bpc|bpd|kl|ce|cross_entropy|fvd|lpips"
)


def direction(metric: str) -> str:
    """ "min" or "max"; "" for what is better neither way, as far as its name tells (`lr`, `epoch`)."""
    parts = re.split(r"[/._\-@ ]+", metric.lower())
    if any(_LOWER.fullmatch(part) for part in parts):
        return "min"
    return "max" if any(_HIGHER.fullmatch(part) for part in parts) else ""


def best(checkpoints: Sequence[Checkpoint]) -> dict[str, list[str]]:
    """By name of a checkpoint the metrics in which none is better; of equals the later one. A metric that
    only one checkpoint has makes it the best of nothing.
    """
    found: dict[str, list[str]] = {}
    for metric in dict.fromkeys(name for checkpoint in checkpoints for name in checkpoint.metrics):
        sign = {"min": -1.0, "max": 1.0}.get(direction(metric))
        able = [c for c in checkpoints if c.valid and not math.isnan(c.metrics.get(metric, math.nan))]
        if sign is None or len(able) < 2:
            continue
        first = max(able, key=lambda c: (sign * c.metrics[metric], c.step))
        found.setdefault(first.name, []).append(metric)
    return found
