"""`spawn_helper`: the one function through which every worker process runs what it is given.

It keeps the name, the parameters and the result of Flyte's elastic task (kfpytorch plugin): an importable
module-level function, so that every start method can call it, which unpickles a function and calls it with
the keyword arguments.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cloudpickle


class ElasticWorkerResult(NamedTuple):
    """What a worker returns, as in Flyte."""

    return_value: Any
    decks: list[Any]


def spawn_helper(
    fn: bytes,
    raw_output_prefix: str,
    checkpoint_dest: str | None,
    checkpoint_src: str | None,
    kwargs: dict[str, Any],
) -> ElasticWorkerResult:
    """Unpickle `fn` (cloudpickle) and call `fn(**kwargs)`.

    Args:
        fn: the pickled function; it comes from our own coordinator, never from a stranger.
        raw_output_prefix: folder for what the worker writes; empty for a worker that serves cells.
        checkpoint_dest: folder for new checkpoints, or None.
        checkpoint_src: folder of an earlier checkpoint to start from, or None.
        kwargs: keyword arguments of `fn`, as one dict.

    Whatever `fn` raises passes through.
    """
    function = cloudpickle.loads(fn)
    return ElasticWorkerResult(return_value=function(**kwargs), decks=[])
