"""Let everything that holds one object hold another. Runs in the worker.

Out of reach are the local variables of frames, and what holds it in C++.
"""

from __future__ import annotations

import functools
import gc
import sys
import types
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import compress, filterfalse
from typing import Any

New = dict[int, Any]
"""By the id of an object what takes its place. The objects themselves are in one list, as every other holder
would be found, too.
"""


def replace(old: list[Any], new: list[Any]) -> None:
    """In dicts, lists, sets, attributes, closures and default arguments, and in tuples, which are made
    anew.
    """
    while old:
        places = dict(zip(map(id, old), new, strict=True))
        tuples = _replace_in_all([*_fixed(), *gc.get_referrers(*old)], old, places)
        if _are_held(old):
            tuples += _replace_in_all(_holding(_untracked(), places), old, places)
        old, new = tuples, [_rebuilt(one, places) for one in tuples]


def _replace_in_all(holders: list[Any], old: list[Any], new: New) -> list[Any]:
    """Returns the tuples among them: in one that is made anew, it is to be replaced itself."""
    tuples = []
    for holder in holders:
        if not isinstance(holder, tuple):
            if holder is not old:
                _replace_in(holder, new)
        elif type(holder) is tuple or hasattr(holder, "_make"):
            tuples.append(holder)
    return tuples


def _are_held(objects: list[Any]) -> bool:
    """Whether something holds one of them beside this list."""
    nobody = next(_references([object()]))
    return max(_references(objects)) > nobody


def _references(objects: list[Any]) -> Iterator[int]:
    for one in objects:
        yield sys.getrefcount(one)


def _fixed() -> list[Any]:
    """Made before the fork: the collector does not look at it."""
    return [sys.modules["__main__"].__dict__]


def _untracked() -> list[Any]:
    """Dicts and tuples that hold nothing which the collector tracks, as {"dp": group}, or the defaults of a
    function: it does not track them either. It takes a tenth of a second, in which nothing goes one by one.
    """
    found: dict[int, Any] = {}
    looked_at = [*_fixed(), *gc.get_objects()]
    while looked_at:
        parts = gc.get_referents(*looked_at)
        containers = compress(parts, map({dict, tuple}.__contains__, map(type, parts)))
        untracked = list(filterfalse(gc.is_tracked, containers))
        more = dict(zip(map(id, untracked), untracked, strict=True))
        looked_at = [more[key] for key in more.keys() - found.keys()]
        found |= more
    return list(found.values())


def _holding(containers: list[Any], sought: New) -> list[Any]:
    if sought.keys().isdisjoint(map(id, gc.get_referents(*containers))):
        return []
    if len(containers) == 1:
        return containers
    half = len(containers) // 2
    return _holding(containers[:half], sought) + _holding(containers[half:], sought)


def _rebuilt(holder: Any, new: New) -> Any:
    parts = [new.get(id(part), part) for part in holder]
    return tuple(parts) if type(holder) is tuple else holder._make(parts)


def _replace_in(holder: Any, new: New) -> None:
    kind = type(holder)
    if issubclass(kind, dict):
        _replace_in_dict(holder, new)
    elif issubclass(kind, (list, deque)):
        _replace_items(holder, enumerate(list(holder)), new)
    elif issubclass(kind, set):
        _replace_in_set(holder, new)
    elif kind is types.CellType:
        holder.cell_contents = new[id(holder.cell_contents)]
    elif kind is types.FunctionType:
        holder.__defaults__ = new.get(id(holder.__defaults__), holder.__defaults__)
    elif issubclass(kind, functools.partial):
        args = new.get(id(holder.args), holder.args)
        holder.__setstate__((holder.func, args, holder.keywords, holder.__dict__))
    elif kind is not types.FrameType:
        _replace_in_attributes(holder, new)


def _replace_in_dict(holder: Any, new: New) -> None:
    if not new.keys().isdisjoint(map(id, holder)):
        items = [(new.get(id(key), key), value) for key, value in holder.items()]
        holder.clear()
        holder.update(items)
    owner = _class_of(holder)
    _replace_items(holder if owner is None else _Attributes(owner), list(holder.items()), new)


def _class_of(namespace: dict[Any, Any]) -> type | None:
    """The class that these are the attributes of."""
    if "__module__" not in namespace:
        return None
    return next((one for one in gc.get_referrers(namespace) if isinstance(one, type)), None)


class _Attributes:
    """Assigns to a class, which remembers what was looked up in it."""

    def __init__(self, owner: type) -> None:
        self._owner = owner

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self._owner, name, value)


def _replace_items(holder: Any, items: Iterable[tuple[Any, Any]], new: New) -> None:
    for key, value in items:
        if id(value) in new:
            holder[key] = new[id(value)]


def _replace_in_set(holder: set[Any], new: New) -> None:
    for one in [one for one in holder if id(one) in new]:
        holder.remove(one)
        holder.add(new[id(one)])


def _replace_in_attributes(holder: Any, new: New) -> None:
    attributes = getattr(holder, "__dict__", None)
    if isinstance(attributes, dict):
        _replace_items(attributes, list(attributes.items()), new)
    for slot in [one for cls in type(holder).__mro__ for one in vars(cls).values()]:
        if isinstance(slot, types.MemberDescriptorType):
            with suppress(AttributeError, TypeError):  # it is empty, or cannot be set
                if id(value := slot.__get__(holder)) in new:
                    slot.__set__(holder, new[id(value)])
