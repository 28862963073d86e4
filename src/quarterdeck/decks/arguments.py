"""The decks "Input" and "Output": what a function was called with, and what it returned, on this rank. Called
by `spawn_helper`, in a worker.

Nobody has asked for them, so they are bounded: in time, in size, and in how closely large tensors are looked
at. Values are shown by the renderers that their annotations name, else by those of their types.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from html import escape
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from quarterdeck.context import Context
from quarterdeck.decks.automatic import ENVIRONMENT, INPUT, OUTPUT, keep_fields
from quarterdeck.decks.packages import keep_packages
from quarterdeck.decks.registry import renderers
from quarterdeck.decks.render.html import brief, escaped, table
from quarterdeck.decks.render.numbers import quick
from quarterdeck.decks.writer import put
from quarterdeck.present.tables import Raw

LIMIT_S = 0.3
"""After it, values are only named."""
LIMIT_BYTES = 2_000_000
_BRIEF_CHARS = 2_000
_PLAIN = (str, bytes, int, float, complex, bool, type(None))


def choose(context: Context, fields: Sequence[str]) -> None:
    """Which automatic decks the run has; rank 0 keeps it for readers."""
    context.deck_fields = tuple(fields)
    if context.rank == 0:
        with suppress(OSError):
            keep_fields(context.run_dir, context.deck_fields)


def called(function: Callable[..., Any], kwargs: dict[str, Any], context: Context) -> Any:
    """`function(**kwargs)`; whatever it raises passes through."""
    if ENVIRONMENT in context.deck_fields:
        keep_packages(context)
    if INPUT in context.deck_fields:
        _keep(context, INPUT, _arguments(function, kwargs), _annotated(function))
    value = function(**kwargs)
    if OUTPUT in context.deck_fields and value is not None:
        _keep(context, OUTPUT, _returned(value), _annotated(function))
    return value


def _keep(
    context: Context, name: str, values: Mapping[str, Any], hints: Mapping[str, Callable[[Any], str]]
) -> None:
    if not values or any(deck.name == name for deck in context.decks):
        return  # the user has made one of that name
    try:
        with quick():
            put(context, name, [_shown(values, hints)])
    except Exception as error:  # user code in a repr, or ours: no reason to lose the run
        put(context, name, [f"<p>It could not be shown: {escape(type(error).__name__)}</p>"])


# ---- what there is to show


def _arguments(function: Callable[..., Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """By name, also those that were bound to the function because they have none."""
    if not isinstance(function, functools.partial):
        return kwargs
    try:
        bound = inspect.signature(function.func).bind_partial(
            *function.args, **{**function.keywords, **kwargs}
        )
    except (TypeError, ValueError):
        return {**{str(place): value for place, value in enumerate(function.args)}, **kwargs}
    return dict(bound.arguments)


def _returned(value: Any) -> dict[str, Any]:
    """The parts of a tuple by their places, as in Flyte: o0, o1; of a named one by their names."""
    if not isinstance(value, tuple):
        return {"return": value}
    names = getattr(value, "_fields", [f"o{place}" for place in range(len(value))])
    return dict(zip(names, value, strict=False))


def _annotated(function: Callable[..., Any]) -> dict[str, Callable[[Any], str]]:
    """Renderers by the name of the argument, or "return": of `Annotated[T, renderer]`. Annotations that
    cannot be had here (they are text, and what they name did not travel) count as none.
    """
    if isinstance(function, functools.partial):
        function = function.func
    try:
        hints = get_type_hints(function, include_extras=True)
    except Exception:
        hints = getattr(function, "__annotations__", {})
    found = {name: _renderer_of(hint) for name, hint in dict(hints).items()}
    if get_origin(hints.get("return")) is tuple:
        found |= {f"o{i}": _renderer_of(hint) for i, hint in enumerate(get_args(hints["return"]))}
    return {name: one for name, one in found.items() if one is not None}


def _renderer_of(hint: Any) -> Callable[[Any], str] | None:
    return renderers.annotated(hint.__metadata__) if get_origin(hint) is Annotated else None


# ---- showing it


def _shown(values: Mapping[str, Any], hints: Mapping[str, Callable[[Any], str]]) -> str:
    """Short values in one table, the others below."""
    end_s, room = time.monotonic() + LIMIT_S, LIMIT_BYTES
    rows: list[tuple[object, ...]] = []
    blocks: list[str] = []
    for name, value in values.items():
        late = time.monotonic() >= end_s or room <= 0
        html = "" if late else _rich(name, value, hints)
        if html and len(html) <= room:
            room -= len(html)
            blocks.append(f"<h3>{escaped(name)}</h3>{html}")
        else:
            text = Raw(f"<code>{escaped(brief(value, _BRIEF_CHARS))}</code>")
            rows.append((name, text, type(value).__name__))
    return "".join(_parts(rows, blocks))


def _rich(name: str, value: Any, hints: Mapping[str, Callable[[Any], str]]) -> str:
    """ "" for what is said in a line."""
    if name in hints:
        return renderers.render(value, hints[name])
    if isinstance(value, _PLAIN) or not renderers.knows(type(value)):
        return ""
    return renderers.render(value)


def _parts(rows: list[tuple[object, ...]], blocks: list[str]) -> Iterator[str]:
    if rows:
        yield table(["name", "value", "type"], rows)
    yield from blocks
