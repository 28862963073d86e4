"""Cheap evidence that a value changed: what a name was bound to when it travelled, against what it is bound
to now.

Used by `transfer.transfer_state` in the kernel. Never a copy, never a digest of data; values are held weakly
where possible.
"""

from __future__ import annotations

import datetime
import enum
import functools
import numbers
import pathlib
import sys
import types
import uuid
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from quarterdeck.transfer.references import is_notebook_class

Kind = Literal["code", "scalar", "object"]

_CODE = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.ModuleType,
    types.MethodType,
    functools.partial,
    functools._lru_cache_wrapper,
    type,
)
_SCALARS = (str, bytes, numbers.Number, type(None), type(...), range, enum.Enum, pathlib.PurePath)
_MOMENTS = (datetime.date, datetime.time, datetime.timedelta, uuid.UUID)
_TORCH_SCALARS = ("dtype", "device", "Size", "layout")
_SIZED = (list, dict, set, bytearray)


def kind_of(value: object) -> Kind:
    """How a value travels: code and immutable scalars are kept in step with the notebook, other objects are
    not."""
    if isinstance(value, _CODE):
        return "code"
    if isinstance(value, tuple | frozenset):
        return "scalar" if all(kind_of(item) == "scalar" for item in value) else "object"
    if isinstance(value, (*_SCALARS, *_MOMENTS)):
        return "scalar"
    kind = type(value)
    return "scalar" if kind.__module__ == "torch" and kind.__name__ in _TORCH_SCALARS else "object"


def same_scalar(one: Any, other: Any) -> bool:
    """Equality that tells 1, 1.0 and True, 0.0 and -0.0 apart, and takes NaN as equal to itself."""
    if type(one) is not type(other):
        return False
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same_scalar, one, other))
    if isinstance(one, float | complex):
        return repr(one) == repr(other)
    return one is other or bool(one == other)


class Binding:
    """What a name was bound to. Scalars are compared by value, anything else by identity."""

    def __init__(self, value: object) -> None:
        self._scalar = kind_of(value) == "scalar"
        self._held: object = value
        self._weak: weakref.ref[Any] | None = None
        if self._scalar:
            return
        try:
            self._weak = weakref.ref(value)
            self._held = None
        except TypeError:
            pass

    def is_now(self, value: object) -> bool:
        """Whether `value` is the same binding. A dead object never is."""
        if self._scalar:
            return same_scalar(self._held, value)
        return (self._weak() if self._weak is not None else self._held) is value


def code_mark(value: Any, namespace: Mapping[str, object]) -> object:
    """Compares unequal after a function's code or defaults, or a class's attributes or bases, were
    replaced."""
    match value:
        case types.FunctionType():
            return "function", value.__code__, id(value.__defaults__), id(value.__kwdefaults__)
        case staticmethod() | classmethod() | types.MethodType():
            return "method", code_mark(value.__func__, namespace)
        case functools.partial():
            return "partial", code_mark(value.func, namespace)
        case property():
            return "property", *(code_mark(part, namespace) for part in (value.fget, value.fset, value.fdel))
        case type() if is_notebook_class(value, namespace):
            return _class_mark(value, namespace)
        case _ if hasattr(value, "__wrapped__"):
            return "wrapper", code_mark(value.__wrapped__, namespace)
    return id(value)


def _class_mark(cls: type, namespace: Mapping[str, object]) -> object:
    bases = [code_mark(base, namespace) for base in cls.__bases__]
    attributes = {
        name: id(value) if isinstance(value, type) else _attribute_mark(value, namespace)
        for name, value in vars(cls).items()
        if not (name.startswith("__") and name.endswith("__")) or callable(value)
    }
    return "class", id(cls), bases, attributes


def _attribute_mark(value: object, namespace: Mapping[str, object]) -> object:
    if kind_of(value) == "scalar":
        return type(value).__name__, repr(value)
    return code_mark(value, namespace)


def state_mark(value: Any) -> object:
    """Compares unequal after a visible change in place: tensor versions, training flags, lengths. None: not
    visible.

    Equality proves nothing: most changes in place leave no cheap trace.
    """
    torch: Any = sys.modules.get("torch")
    if hasattr(torch, "Tensor") and isinstance(value, torch.Tensor):
        return _version(value)
    if hasattr(torch, "nn") and isinstance(value, torch.nn.Module):
        return hash(tuple(_module_marks(value)))
    return len(value) if isinstance(value, _SIZED) else None


def _module_marks(module: Any) -> Iterator[int]:
    """Training flags and tensor versions, by a walk of its own: `parameters()` is ten times slower."""
    seen: set[int] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current.training
        yield from (_version(t) for t in current._parameters.values() if t is not None)
        yield from (_version(t) for t in current._buffers.values() if t is not None)
        waiting.extend(current._modules.values())


def stateful_parts(value: Any) -> list[object]:
    """`value` and what goes with it when it is to replace what travelled: a module's modules, parameters
    and buffers. An optimizer's parameters are not its own. Looks into plain containers."""
    torch: Any = sys.modules.get("torch")
    if isinstance(value, dict):
        return [part for item in value.values() for part in stateful_parts(item)]
    if isinstance(value, list | tuple):
        return [part for item in value for part in stateful_parts(item)]
    if hasattr(torch, "nn") and isinstance(value, torch.nn.Module):
        return [*value.modules(), *value.parameters()]
    return [value]


def _version(tensor: Any) -> int:
    return 0 if tensor.is_inference() else int(tensor._version)
