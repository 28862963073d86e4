"""TensorBoard's `SummaryWriter` in a worker: the scalars that it is given are metrics, too, as by `qd.log`.
Called by `hooks`.
"""

from __future__ import annotations

import functools
from collections import Counter
from contextlib import suppress
from types import ModuleType
from typing import Any

from quarterdeck.metrics.log import log


def _patch_writer(module: ModuleType) -> None:
    writer: Any = module.SummaryWriter
    add_scalar, add_scalars = writer.add_scalar, writer.add_scalars

    @functools.wraps(add_scalar)
    def logged(self: Any, tag: Any, scalar_value: Any, global_step: Any = None, *args: Any, **kw: Any) -> Any:
        done = add_scalar(self, tag, scalar_value, global_step, *args, **kw)
        _log(tag, scalar_value, global_step)
        return done

    @functools.wraps(add_scalars)
    def all_logged(
        self: Any, main_tag: Any, tag_scalar_dict: Any, global_step: Any = None, *args: Any, **kw: Any
    ) -> Any:
        done = add_scalars(self, main_tag, tag_scalar_dict, global_step, *args, **kw)
        for tag, value in tag_scalar_dict.items():
            _log(f"{main_tag}/{tag}", value, global_step)
        return done

    writer.add_scalar, writer.add_scalars = logged, all_logged


_counts: Counter[str] = Counter()


def _log(tag: str, value: Any, step: Any) -> None:
    """Without a step it counts each tag's values. What is no number is TensorBoard's alone."""
    if step is None:
        step = _counts[tag]
        _counts[tag] += 1
    with suppress(Exception):
        log(step, **{tag: value})


PATCHES = {"torch.utils.tensorboard.writer": _patch_writer, "tensorboardX.writer": _patch_writer}
