"""Which notebook names a value refers to: through its functions, its class, what it closes over or holds.

Called by the kernel (`transfer.transfer_state`) before each cell, so the walk is bounded and looks at live
objects only: it runs no user code beyond reading `__dict__`s, and copies nothing.
"""

from __future__ import annotations

import dis
import functools
import itertools
import sys
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

_MOST_OBJECTS = 5000
_MOST_ITEMS = 1000
_LEAVES = (str, bytes, bytearray, int, float, complex, type(None), types.ModuleType, types.CodeType)
_CONTAINERS = (list, tuple, set, frozenset, deque)
_global_names: weakref.WeakKeyDictionary[types.CodeType, frozenset[str]] = weakref.WeakKeyDictionary()


def global_names(code: types.CodeType) -> frozenset[str]:
    """Names that code, or code nested in it, reads or writes as globals. Attribute names are not among
    them."""
    found = _global_names.get(code)
    if found is None:
        own = {i.argval for i in dis.get_instructions(code) if i.opname.endswith(("_GLOBAL", "_NAME"))}
        nested = (global_names(const) for const in code.co_consts if isinstance(const, types.CodeType))
        found = _global_names[code] = frozenset(own).union(*nested)
    return found


def referenced_globals(value: object, namespace: Mapping[str, object]) -> set[str]:
    """Names of `namespace` that `value` refers to, directly or through what travels inside its pickle.

    Names met this way are not followed further: that is `transitive`. Only functions whose globals *are*
    `namespace` count, and of classes only the notebook's own. Very large objects are looked at in part.
    """
    names: set[str] = set()
    for part in code_of(value, namespace):
        if isinstance(part, type):
            if namespace.get(part.__name__) is part:
                names.add(part.__name__)
        elif part.__globals__ is namespace:
            names.update(name for name in global_names(part.__code__) if name in namespace)
    return names


def transitive(
    names: Iterable[str],
    namespace: Mapping[str, object],
    wanted: Callable[[str], bool],
    refers: Callable[[str], Iterable[str]] | None = None,
) -> set[str]:
    """`names` and every name they lead to, as far as `wanted` allows. An unwanted name is left out and not
    followed."""
    follow = refers or (lambda name: referenced_globals(namespace[name], namespace))
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found and name in namespace and wanted(name):
            found.add(name)
            waiting.extend(follow(name))
    return found


def code_of(value: object, namespace: Mapping[str, object]) -> Iterator[types.FunctionType | type]:
    """Every function, and every class of the notebook, that travels inside `value`'s pickle, as far as a
    bounded walk finds them."""
    seen: set[int] = set()
    waiting: deque[Any] = deque([value])
    while waiting and len(seen) < _MOST_OBJECTS:
        current = waiting.popleft()
        if id(current) in seen or isinstance(current, _LEAVES) or is_bulk(current):
            continue
        seen.add(id(current))
        if isinstance(current, types.FunctionType) or (
            isinstance(current, type) and is_notebook_class(current, namespace)
        ):
            yield current
        waiting.extend(_children(current, namespace))


def is_bulk(value: object) -> bool:
    """A tensor or an array: nothing to find inside."""
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    tensor, array = getattr(torch, "Tensor", None), getattr(numpy, "ndarray", None)
    return (tensor is not None and isinstance(value, tensor)) or (
        array is not None and isinstance(value, array) and not value.dtype.hasobject
    )


def is_notebook_class(cls: type, namespace: Mapping[str, object]) -> bool:
    """Whether a class travels by value: it was defined in the notebook, not in a module that can be
    imported."""
    return cls.__module__ in ("__main__", namespace.get("__name__"))


def _children(value: Any, namespace: Mapping[str, object]) -> Iterable[Any]:
    match value:
        case types.FunctionType():
            return _parts_of_function(value)
        case types.MethodType():
            return value.__func__, value.__self__
        case functools.partial() | functools.partialmethod():
            return value.func, *value.args, *value.keywords.values()
        case property():
            return value.fget, value.fset, value.fdel
        case staticmethod() | classmethod():
            return (value.__func__,)
        case type():
            return _parts_of_class(value, namespace)
        case _:
            return _parts_of_instance(value)


def _parts_of_function(function: types.FunctionType) -> list[Any]:
    cells = [cell.cell_contents for cell in function.__closure__ or () if is_filled(cell)]
    keyword_defaults = (function.__kwdefaults__ or {}).values()
    annotations = function.__annotations__.values()
    return [*cells, *(function.__defaults__ or ()), *keyword_defaults, *annotations, *vars(function).values()]


def is_filled(cell: types.CellType) -> bool:
    """Whether the variable behind a cell has been assigned yet."""
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _parts_of_class(cls: type, namespace: Mapping[str, object]) -> list[Any]:
    if not is_notebook_class(cls, namespace):
        return []
    attributes = [value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")]
    return [*cls.__bases__, type(cls), *attributes]


def _parts_of_instance(value: Any) -> list[Any]:
    parts: list[Any] = [type(value)]
    if isinstance(value, dict):
        parts.extend(itertools.islice(value.values(), _MOST_ITEMS))
        parts.extend(key for key in itertools.islice(value, _MOST_ITEMS) if callable(key))
    elif isinstance(value, _CONTAINERS):
        parts.extend(itertools.islice(value, _MOST_ITEMS))
    attributes = getattr(value, "__dict__", None)
    if type(attributes) is dict:
        parts.extend(list(attributes.values()))
    return parts
