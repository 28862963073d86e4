"""`spawn_helper`: the one function through which every worker process runs what it is given.

It keeps the name, the parameters and the result of Flyte's elastic task (kfpytorch plugin): an importable
module-level function, so that every start method can call it, which unpickles a function and calls it with
the keyword arguments. A worker runs its serving loop through it, and in that every submitted function.
"""

from typing import Any, NamedTuple

from quarterdeck.context import entered
from quarterdeck.public import public
from quarterdeck.transfer.pickler import load_function


@public
class ElasticWorkerResult(NamedTuple):
    """What a worker returns, as flytekit's `ElasticWorkerResult`.

    Attributes:
        return_value: what the function returned on this rank.
        decks: the rank's decks (`qd.Deck`), in the order they were made.
    """

    return_value: Any
    decks: list[Any]


@public
def spawn_helper(
    fn: bytes,
    raw_output_prefix: str,
    checkpoint_dest: str | None,
    checkpoint_src: str | None,
    kwargs: dict[str, Any],
) -> ElasticWorkerResult:
    """Unpickle `fn` (cloudpickle) and call `fn(**kwargs)`, inside the context that `qd.current()` tells of.

    As `spawn_helper` of flytekit's elastic task (flytekitplugins.kfpytorch).

    Args:
        fn: the pickled function. Unpickling runs code: never take it from a stranger.
        raw_output_prefix: folder for what the function writes (`qd.current().raw_output_prefix`).
        checkpoint_dest: folder that `qd.current().checkpoint` writes to; None leaves it as it is.
        checkpoint_src: folder of an earlier checkpoint that it reads, or None. (Flyte's own documentation has
            these two the wrong way round.)
        kwargs: keyword arguments of `fn`, as one dict.

    Returns:
        What `fn` returned, and the decks that it made.

    Raises:
        Exception: what `fn` raises, or what unpickling it raises.
    """
    with entered(raw_output_prefix, checkpoint_dest, checkpoint_src) as context:
        function = load_function(fn)
        if context.deck_fields:  # not in a notebook's own process, which need not load what draws them
            from quarterdeck.decks.arguments import called

            value = called(function, kwargs, context)
        else:
            value = function(**kwargs)
        return ElasticWorkerResult(return_value=value, decks=list(context.decks))
