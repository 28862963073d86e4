"""Data classes by name: a dataclass, NamedTuple or Enum value as its fields, and back. Called by
`hyperparameters` in every process.

A file may name any class, so making a value again runs nothing: the class is looked up in modules that are
imported already, or are quarterdeck's own, without the attribute hooks of modules and classes, and gets its
fields without its `__new__`, `__init__`, `__post_init__` or property setters. A class with a `__del__` is not
made at all, since that would run on fields of the file's choice.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import sys
import types
from collections.abc import Callable, Mapping
from inspect import getattr_static
from typing import Any

from quarterdeck.public import public
from quarterdeck.renamed import module_today

_QUARTERDECK = sys.modules["quarterdeck"]
_FACTORIES = (list, dict, set, tuple)
"""Default factories that run nothing of the class's own."""


@public
class UnknownClass(dict[str, Any]):
    """The fields of a value whose class is not defined in this process, or would run code to be made. A dict.

    Attributes:
        class_name: "module:Name", as it was when it was kept.
        data: its JSON; kept again, it is the same, so another process can still make the value of it.
    """

    def __init__(self, fields: Mapping[str, Any], class_name: str, data: dict[str, Any]) -> None:
        super().__init__(fields)
        self.class_name = class_name
        self.data = data

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.items())
        return f"<{self.class_name}, not defined here: {fields}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return UnknownClass, (dict(self), self.class_name, self.data)


def kind_of(value: object) -> str | None:
    """ "dataclass", "namedtuple" or "enum" for an instance of one, otherwise None."""
    if isinstance(value, enum.Enum):
        return "enum"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return "dataclass"
    if isinstance(value, tuple) and isinstance(getattr(type(value), "_fields", None), tuple):
        return "namedtuple"
    return None


def name_of(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def entries(value: Any) -> dict[Any, Any]:
    """What a dict, a dataclass or a NamedTuple holds, by name. Raises TypeError for anything else."""
    kind = kind_of(value)
    if isinstance(value, dict):
        return dict(value)
    if kind == "dataclass":
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if kind == "namedtuple":
        return dict(zip(type(value)._fields, value, strict=True))
    raise TypeError(f"hyperparameters must be a dict, dataclass, or NamedTuple. Got {type(value)}")


def fields_of(value: Any) -> dict[str, Any]:
    """What the value is made of. Raises ValueError, in words, if that is not all of it or would not make it
    again."""
    kind, cls = kind_of(value), type(value)
    _check_name(cls)
    fields = _READERS[kind](value) if kind else {}
    made = _make(kind or "", cls, fields)
    if made is None or (kind == "enum" and made is not value):
        raise ValueError("could not be made again from its fields alone")
    return fields


def build(kind: str, class_name: str, fields: Mapping[str, Any]) -> object | None:
    """The value, or None if its class is not defined here or does not fit. Never raises for a class of a
    stranger's choice."""
    cls = find(class_name)
    return None if cls is None else _make(kind, cls, fields)


def find(class_name: str) -> type | None:
    """The class "module:Outer.Inner", if its module is imported and has it. Imports and runs nothing but what
    defines the public classes of quarterdeck.
    """
    module_name, _, qualname = class_name.partition(":")
    if module_name.partition(".")[0] == _QUARTERDECK.__name__:
        _define(qualname.partition(".")[0])
    module = sys.modules.get(module_today(module_name))
    if not issubclass(type(module), types.ModuleType):
        return None
    names: Mapping[str, Any] = object.__getattribute__(module, "__dict__")
    found: Any = None
    for part in qualname.split("."):
        found = names.get(part)
        if not issubclass(type(found), type):  # isinstance would ask a proxy for its __class__
            return None
        names = type.__dict__["__dict__"].__get__(found)
    result: type = found
    return result


def _define(name: str) -> None:
    """The first look-up of a public name imports the module of ours that defines it."""
    if name in _QUARTERDECK.__all__:
        getattr(_QUARTERDECK, name)


def _check_name(cls: type) -> None:
    """A notebook class need not be bound to its name in this process: it travels inside its instances."""
    if "<locals>" in cls.__qualname__:
        raise ValueError("could not be found again, since its class is defined inside a function")
    if cls.__module__ != "__main__" and find(name_of(cls)) is None:
        raise ValueError(f"could not be found again: `{cls.__module__}` has no `{cls.__qualname__}`")


# ---- fields of a value


def _dataclass_fields(value: Any) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(value)]
    missing = [name for name in names if not hasattr(value, name)]
    if missing:
        raise ValueError(f"could not be made again: its field `{missing[0]}` has no value")
    _check_attributes(value, names)
    return entries(value)


def _tuple_fields(value: Any) -> dict[str, Any]:
    _check_attributes(value, ())
    return entries(value)


def _check_attributes(value: Any, names: Any) -> None:
    for name in getattr(value, "__dict__", {}):
        cached = isinstance(getattr_static(type(value), name, None), functools.cached_property)
        if name not in names and not cached:
            raise ValueError(f"would lose its attribute `{name}`, which is not one of its fields")


def _enum_fields(value: Any) -> dict[str, Any]:
    """A flag is the members that it is made of: "READ|WRITE"."""
    name = "|".join(str(bit.name) for bit in value) if isinstance(value, enum.Flag) else value.name
    return {"name": name, "value": value.value}


# ---- values of fields


def _make(kind: str, cls: type, fields: Mapping[str, Any]) -> object | None:
    if kind not in _MAKERS or getattr_static(cls, "__del__", None) is not None:
        return None
    try:
        return _MAKERS[kind](cls, fields)
    except (TypeError, AttributeError, ValueError, KeyError):
        return None


def _make_dataclass(cls: type, fields: Mapping[str, Any]) -> object | None:
    if type(getattr_static(cls, "__dataclass_fields__", None)) is not dict:
        return None
    declared = {field.name: field for field in dataclasses.fields(cls)}
    if set(fields) - set(declared) or not all(_is_settable(cls, name) for name in declared):
        return None
    values = {name: fields[name] if name in fields else _default(field) for name, field in declared.items()}
    made: object = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def _default(field: dataclasses.Field[Any]) -> Any:
    """The default of a field that the class has got since."""
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory in _FACTORIES:
        return field.default_factory()
    raise KeyError(field.name)


def _is_settable(cls: type, name: str) -> bool:
    """Whether assigning the attribute only stores it."""
    found = getattr_static(cls, name, None)
    slot = type(found) is types.MemberDescriptorType
    return slot or getattr_static(type(found), "__set__", None) is None


def _make_namedtuple(cls: type, fields: Mapping[str, Any]) -> object | None:
    names = getattr_static(cls, "_fields", None)
    if type(names) is not tuple or set(fields) - set(names):
        return None
    defaults = getattr_static(cls, "_field_defaults", {})
    values = [fields[name] if name in fields else defaults[name] for name in names]
    made: object = tuple.__new__(cls, values)
    return made


def _make_enum(cls: type, fields: Mapping[str, Any]) -> object | None:
    if enum.Enum not in type.mro(cls):
        return None
    members = getattr_static(cls, "_member_map_")
    name = fields["name"]
    if name in members or enum.Flag not in type.mro(cls):
        member: object | None = members.get(name)
        return member
    bits = [members[bit] for bit in name.split("|") if bit]
    made: Any = functools.reduce(enum.Flag.__or__, bits) if bits else _no_bits(list(members.values()))
    return made if bits or made.value == 0 else None


def _no_bits(members: list[Any]) -> Any:
    """Where two members have none in common; a flag with fewer cannot say nothing."""
    return enum.Flag.__and__(members[0], members[1])


_READERS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "dataclass": _dataclass_fields,
    "namedtuple": _tuple_fields,
    "enum": _enum_fields,
}
_MAKERS: dict[str, Callable[[type, Mapping[str, Any]], object | None]] = {
    "dataclass": _make_dataclass,
    "namedtuple": _make_namedtuple,
    "enum": _make_enum,
}
