"""Hyperparameters as JSON that people can read, and back with their types. Called wherever a checkpoint is
saved (a worker), loaded, or looked at (the kernel).

Plain numbers, strings, lists and dicts stay as they are. Everything else is an object whose first key begins
with "$" and names the type:

    {"lr": 0.001, "betas": {"$tuple": [0.9, 0.999]}, "data": {"$path": "/data/mnist"},
     "optimizer": {"$dataclass": "__main__:Adam", "fields": {"eps": 1e-08}}}

Decoding runs no code of the file's choice (see `classes`) and never raises: what this process cannot make
again is a `UnknownClass`, a dict of its fields.
"""

from __future__ import annotations

import argparse
import enum
import math
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any

from quarterdeck.checkpointing import classes, leaves
from quarterdeck.checkpointing.classes import UnknownClass
from quarterdeck.checkpointing.comparison import Difference, differences
from quarterdeck.errors import UsageError

__all__ = ["Difference", "UnknownClass", "decode", "differences", "encode"]

_DEEPEST = 100
_LONGEST_INT_BITS = 14_000
"""Just below what Python reads as decimal digits."""
_PLAIN_INT_BITS = 63
"""What every reader of JSON takes."""
_PLAIN = (bool, int, str, type(None))
_FACTORIES = {cls.__name__: cls for cls in (int, float, str, bool, list, dict, set, tuple)}
_NAMESPACES: dict[str, type] = {"namespace": types.SimpleNamespace, "argparse": argparse.Namespace}
_KINDS = ("dataclass", "namedtuple", "enum")
_HINT = "Keep a plain value in its place: a number, a string, a dict, a list or a dataclass of such."


def encode(value: object, name: str = "hyperparameters") -> Any:
    """The value as `json` can write it. Refuses, as UsageError and by its place below `name`, what `decode`
    would not give back."""
    return _Encoder().encode(value, name)


def decode(data: Any) -> Any:
    """The value of what `encode` made. Data of other origin gives whatever of it can be understood."""
    return _decode(data, 0)


class _Encoder:
    """One call of `encode`. Knows the containers it is inside of, for cycles."""

    def __init__(self) -> None:
        self._inside: list[int] = []

    def encode(self, value: object, path: str) -> Any:
        if _is_plain(value, path):
            return value
        if id(value) in self._inside:
            raise _refusal(path, "a value that contains itself cannot be kept")
        if len(self._inside) >= _DEEPEST:
            raise _refusal(path, f"values nested deeper than {_DEEPEST} levels cannot be kept")
        self._inside.append(id(value))
        encoded = self._encode_parts(value, path)
        self._inside.pop()
        return encoded

    def _encode_parts(self, value: Any, path: str) -> Any:
        kind = type(value)
        if kind is dict:
            return self._dict(value, path)
        if kind is list:
            return self._items(value, path)
        if kind is UnknownClass:
            return self._unknown(value, path)
        if kind in _CONTAINERS:
            return _CONTAINERS[kind](self, value, path)
        try:
            data_class = classes.kind_of(value)
            if data_class:
                return self._data_class(data_class, value, path)
            leaf = leaves.encode(value)
        except ValueError as error:
            raise _refusal(path, f"{_words(value)} {error}") from None
        if leaf is None:
            raise _refusal(path, f"{_words(value)} cannot be kept")
        return leaf

    def _items(self, values: Iterable[Any], path: str) -> list[Any]:
        return [self.encode(value, f"{path}[{index}]") for index, value in enumerate(values)]

    def _dict(self, value: dict[Any, Any], path: str) -> dict[str, Any]:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {self.encode(key, path): self.encode(value[key], _below(path, key)) for key in value}
        return {"$dict": self._pairs(value, path)}

    def _pairs(self, value: dict[Any, Any], path: str) -> list[Any]:
        return [[self._key(key, path), self.encode(item, _below(path, key))] for key, item in value.items()]

    def _key(self, key: Any, path: str) -> Any:
        if not _is_key(key):
            raise _refusal(path, f"a key or set member that is {_words(key)} cannot be kept")
        return self.encode(key, _below(path, key))

    def _members(self, value: Iterable[Any], path: str) -> list[Any]:
        """In an order that does not depend on hash seeds."""
        encoded = [self._key(member, path) for member in value]
        return sorted(encoded, key=_rank)

    def _defaultdict(self, value: defaultdict[Any, Any], path: str) -> dict[str, Any]:
        factory = value.default_factory
        name = None if factory is None else getattr(factory, "__name__", "")
        if name is not None and _FACTORIES.get(name) is not factory:
            raise _refusal(path, f"a defaultdict whose default is {_words(factory)} cannot be kept")
        return {"$defaultdict": self._pairs(value, path), "default": name}

    def _deque(self, value: deque[Any], path: str) -> dict[str, Any]:
        return {"$deque": self._items(value, path), "maxlen": value.maxlen}

    def _namespace(self, tag: str, value: Any, path: str) -> dict[str, Any]:
        return {f"${tag}": self._dict(dict(vars(value)), path)}

    def _data_class(self, kind: str, value: Any, path: str) -> dict[str, Any]:
        name, fields = classes.name_of(type(value)), classes.fields_of(value)
        if kind != "enum":
            return {f"${kind}": name, "fields": self._dict(fields, path)}
        try:
            return {"$enum": name, "name": fields["name"], "value": encode(fields["value"])}
        except UsageError:  # for people only: the member is found by its name
            return {"$enum": name, "name": fields["name"]}

    def _unknown(self, value: UnknownClass, path: str) -> dict[str, Any]:
        if value.class_name.startswith("$") or "fields" not in value.data:
            return value.data
        return {**value.data, "fields": self._dict(dict(value), path)}


_CONTAINERS: dict[type, Callable[[_Encoder, Any, str], Any]] = {
    tuple: lambda to, value, path: {"$tuple": to._items(value, path)},
    set: lambda to, value, path: {"$set": to._members(value, path)},
    frozenset: lambda to, value, path: {"$frozenset": to._members(value, path)},
    deque: _Encoder._deque,
    OrderedDict: lambda to, value, path: {"$ordered_dict": to._pairs(value, path)},
    Counter: lambda to, value, path: {"$counter": to._pairs(value, path)},
    defaultdict: _Encoder._defaultdict,
    types.SimpleNamespace: lambda to, value, path: to._namespace("namespace", value, path),
    argparse.Namespace: lambda to, value, path: to._namespace("argparse", value, path),
}


def _is_plain(value: object, path: str) -> bool:
    """Whether JSON has a word for the value."""
    if type(value) is int and value.bit_length() > _LONGEST_INT_BITS:
        raise _refusal(path, "an integer of more than 4,000 digits cannot be kept")
    if type(value) is str and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _refusal(path, "a string that is not valid Unicode cannot be kept") from None
    if type(value) is int:
        return value.bit_length() <= _PLAIN_INT_BITS
    return type(value) in _PLAIN or (type(value) is float and math.isfinite(value))


def _refusal(path: str, text: str) -> UsageError:
    return UsageError(f"{path}: {text}", _HINT)


def _below(path: str, key: Any) -> str:
    return f"{path}.{key}" if type(key) is str and key.isidentifier() else f"{path}[{key!r}]"


def _rank(member: Any) -> tuple[str, float, str]:
    """Numbers by size, everything else by its text."""
    return type(member).__name__, member if isinstance(member, int | float) else 0, repr(member)


def _words(value: Any) -> str:
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        return "a lambda" if value.__name__ == "<lambda>" else f"the function `{value.__name__}`"
    if isinstance(value, types.ModuleType):
        return f"the module `{value.__name__}`"
    cls = value if isinstance(value, type) else type(value)
    name = (
        cls.__qualname__
        if cls.__module__ in ("builtins", "__main__")
        else f"{cls.__module__}.{cls.__qualname__}"
    )
    return f"the class `{name}`" if cls is value else f"a `{name}`"


def _is_key(value: Any) -> bool:
    """Whether hashing the value runs no `__hash__` on contents of a file's choice."""
    if type(value) in (tuple, frozenset):
        return all(_is_key(item) for item in value)
    if isinstance(value, enum.Enum) or type(value) in (*_PLAIN, float):
        return True
    return classes.kind_of(value) is None and type(value) in leaves.HASHABLE


# ---- back


def _decode(data: Any, depth: int) -> Any:
    """Only exact dicts and lists are taken apart: an OrderedDict among them is a value already."""
    if depth > _DEEPEST + 1 or type(data) not in (dict, list):
        return data
    if type(data) is list:
        return [_decode(item, depth + 1) for item in data]
    first = next(iter(data), "")
    if type(first) is not str or not first.startswith("$"):
        return {key: _decode(item, depth + 1) for key, item in data.items()}
    try:
        return _decode_tagged(first[1:], data, depth)
    except Exception:  # damaged, foreign or from a later version: nothing to run here, something to show
        return UnknownClass(data, first, data)


def _decode_tagged(tag: str, data: dict[str, Any], depth: int) -> Any:
    if leaves.is_leaf(tag):
        return leaves.decode(tag, data)
    content = data[f"${tag}"]
    if tag in _KINDS:
        return _decode_data_class(tag, content, data, depth)
    if tag in _NAMESPACES:
        made = _NAMESPACES[tag]()
        vars(made).update(_decode(content, depth + 1))
        return made
    if tag in _SEQUENCES:
        return _SEQUENCES[tag]([_decode(item, depth + 1) for item in content], data)
    if tag in ("set", "frozenset"):
        return (set if tag == "set" else frozenset)(_decode_key(item, depth) for item in content)
    pairs = [(_decode_key(key, depth), _decode(item, depth + 1)) for key, item in content]
    return _MAPPINGS[tag](pairs, data)


def _decode_key(data: Any, depth: int) -> Any:
    key = _decode(data, depth + 1)
    if not _is_key(key):
        raise ValueError("it is not a key")
    return key


def _decode_data_class(kind: str, class_name: str, data: dict[str, Any], depth: int) -> object:
    kept = data if kind == "enum" else data["fields"]
    fields = {name: _decode(item, depth + 1) for name, item in kept.items() if not name.startswith("$")}
    made = classes.build(kind, class_name, fields)
    return UnknownClass(fields, class_name, data) if made is None else made


_SEQUENCES: dict[str, Callable[[list[Any], dict[str, Any]], Any]] = {
    "tuple": lambda items, data: tuple(items),
    "deque": lambda items, data: deque(items, data["maxlen"]),
}
_MAPPINGS: dict[str, Callable[[list[Any], dict[str, Any]], Any]] = {
    "dict": lambda pairs, data: dict(pairs),
    "ordered_dict": lambda pairs, data: OrderedDict(pairs),
    "counter": lambda pairs, data: Counter(dict(pairs)),
    "defaultdict": lambda pairs, data: defaultdict(
        None if data["default"] is None else _FACTORIES[data["default"]], pairs
    ),
}
