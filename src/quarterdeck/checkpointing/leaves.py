"""Values without parts, as JSON under a tag, and back: paths, dates, numbers and, by `arrays`, those
of numpy and torch. Called by `hyperparameters` in every process.

What is made of a file here is always a value of one of these types, whatever the file says.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import fractions
import pathlib
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any, NamedTuple

from quarterdeck.checkpointing import arrays

Tagged = dict[str, Any]


def encode(value: object) -> Tagged | None:
    """The value under its tag, or None if it is of no type that is known here. Raises ValueError, in words,
    for one that is and cannot be kept all the same."""
    if type(value) is dt.datetime:
        return _write_datetime(value)
    kind = _KINDS.get(type(value))
    return {f"${kind.tag}": kind.write(value)} if kind else arrays.encode(value)


def decode(tag: str, data: Tagged) -> object:
    """Raises KeyError for an unknown tag, and what a damaged value raises."""
    content = data[f"${tag}"]
    return _READERS[tag](content) if tag in _READERS else _READERS_OF_ALL[tag](content, data)


def is_leaf(tag: str) -> bool:
    return tag in _READERS or tag in _READERS_OF_ALL


# ---- standard library


def _write_bytes(value: bytes | bytearray) -> str:
    return base64.b64encode(value).decode("ascii")


def _read_bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _write_datetime(value: dt.datetime) -> Tagged:
    """With the name of its time zone and the `fold`, which the ISO text does not tell."""
    _check_zone(value)
    told: Tagged = {"$datetime": value.isoformat()}
    if isinstance(value.tzinfo, zoneinfo.ZoneInfo):
        told["zone"] = value.tzinfo.key
    if value.fold:
        told["fold"] = 1
    return told


def _read_datetime(text: str, data: Tagged) -> dt.datetime:
    value = dt.datetime.fromisoformat(text).replace(fold=1 if data.get("fold") else 0)
    if "zone" not in data:
        return value
    try:
        return value.replace(tzinfo=zoneinfo.ZoneInfo(data["zone"]))
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        return value


def _write_time(value: dt.time) -> str:
    _check_zone(value)
    if isinstance(value.tzinfo, zoneinfo.ZoneInfo) or value.fold:
        raise ValueError("would lose its time zone: keep a datetime")
    return value.isoformat()


def _check_zone(value: dt.datetime | dt.time) -> None:
    zone = value.tzinfo
    named = isinstance(zone, zoneinfo.ZoneInfo) and bool(zone.key)
    if not (zone is None or type(zone) is dt.timezone or named):
        raise ValueError(f"would lose its time zone, a `{type(zone).__module__}.{type(zone).__qualname__}`")


def _write_timedelta(value: dt.timedelta) -> dict[str, int]:
    parts = {"days": value.days, "seconds": value.seconds, "microseconds": value.microseconds}
    return {unit: count for unit, count in parts.items() if count}


def _read_fraction(text: str) -> fractions.Fraction:
    """In its own form only: it would also take "1e999999999", a number that fills the memory."""
    numerator, _, denominator = text.partition("/")
    return fractions.Fraction(int(numerator), int(denominator or 1))


def _write_complex(value: complex) -> str:
    return str(value).strip("()")


class _Kind(NamedTuple):
    tag: str
    write: Callable[[Any], Any]
    read: Callable[[Any], object]
    """The value of what `write` gives; may raise anything for something else."""


_KINDS: dict[type, _Kind] = {
    int: _Kind("int", str, int),
    float: _Kind("float", str, float),
    complex: _Kind("complex", _write_complex, complex),
    bytes: _Kind("bytes", _write_bytes, _read_bytes),
    bytearray: _Kind("bytearray", _write_bytes, lambda text: bytearray(_read_bytes(text))),
    pathlib.PosixPath: _Kind("path", str, pathlib.Path),
    pathlib.WindowsPath: _Kind("path", str, pathlib.Path),
    pathlib.PurePosixPath: _Kind("pure_posix_path", str, pathlib.PurePosixPath),
    pathlib.PureWindowsPath: _Kind("pure_windows_path", str, pathlib.PureWindowsPath),
    dt.date: _Kind("date", dt.date.isoformat, dt.date.fromisoformat),
    dt.time: _Kind("time", _write_time, dt.time.fromisoformat),
    dt.timedelta: _Kind("timedelta", _write_timedelta, lambda parts: dt.timedelta(**parts)),
    decimal.Decimal: _Kind("decimal", str, decimal.Decimal),
    fractions.Fraction: _Kind("fraction", str, _read_fraction),
    uuid.UUID: _Kind("uuid", str, uuid.UUID),
    range: _Kind("range", lambda value: [value.start, value.stop, value.step], lambda parts: range(*parts)),
}

HASHABLE = frozenset((*_KINDS, dt.datetime)) - {bytearray}
"""Types whose values may be keys and members of sets."""

_READERS: dict[str, Callable[[Any], object]] = {kind.tag: kind.read for kind in _KINDS.values()}
_READERS_OF_ALL: dict[str, Callable[[Any, Tagged], object]] = {"datetime": _read_datetime, **arrays.READERS}
"""The readers of all tags, those of values that stand beside their tag, too."""
