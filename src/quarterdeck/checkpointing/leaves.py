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
from typing import Any

from quarterdeck.checkpointing import arrays

Tagged = dict[str, Any]


def encode(value: object) -> Tagged | None:
    """The value under its tag, or None if it is of no type that is known here. Raises ValueError, in words,
    for one that is and cannot be kept all the same."""
    tag, write = _WRITERS.get(type(value), ("", _nothing))
    if tag:
        written = write(value)
        return written if isinstance(written, dict) else {f"${tag}": written}
    return arrays.encode(value)


def decode(tag: str, data: Tagged) -> object:
    """Raises KeyError for an unknown tag, and what a damaged value raises."""
    return _READERS[tag](data[f"${tag}"], data)


def is_leaf(tag: str) -> bool:
    return tag in _READERS


def _nothing(value: Any) -> Any:
    return None


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


def _write_timedelta(value: dt.timedelta) -> Tagged:
    parts = {"days": value.days, "seconds": value.seconds, "microseconds": value.microseconds}
    return {"$timedelta": {unit: count for unit, count in parts.items() if count}}


def _read_fraction(text: str) -> fractions.Fraction:
    """In its own form only: it would also take "1e999999999", a number that fills the memory."""
    numerator, _, denominator = text.partition("/")
    return fractions.Fraction(int(numerator), int(denominator or 1))


def _write_complex(value: complex) -> str:
    return str(value).strip("()")


_WRITERS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    int: ("int", str),
    float: ("float", str),
    complex: ("complex", _write_complex),
    bytes: ("bytes", _write_bytes),
    bytearray: ("bytearray", _write_bytes),
    pathlib.PosixPath: ("path", str),
    pathlib.WindowsPath: ("path", str),
    pathlib.PurePosixPath: ("pure_posix_path", str),
    pathlib.PureWindowsPath: ("pure_windows_path", str),
    dt.datetime: ("datetime", _write_datetime),
    dt.date: ("date", dt.date.isoformat),
    dt.time: ("time", _write_time),
    dt.timedelta: ("timedelta", _write_timedelta),
    decimal.Decimal: ("decimal", str),
    fractions.Fraction: ("fraction", str),
    uuid.UUID: ("uuid", str),
    range: ("range", lambda value: [value.start, value.stop, value.step]),
}

HASHABLE = frozenset(_WRITERS) - {bytearray}
"""Types whose values may be keys and members of sets."""


_READERS: dict[str, Callable[[Any, Tagged], object]] = {
    "int": lambda text, data: int(text),
    "float": lambda text, data: float(text),
    "complex": lambda text, data: complex(text),
    "bytes": lambda text, data: _read_bytes(text),
    "bytearray": lambda text, data: bytearray(_read_bytes(text)),
    "path": lambda text, data: pathlib.Path(text),
    "pure_posix_path": lambda text, data: pathlib.PurePosixPath(text),
    "pure_windows_path": lambda text, data: pathlib.PureWindowsPath(text),
    "datetime": _read_datetime,
    "date": lambda text, data: dt.date.fromisoformat(text),
    "time": lambda text, data: dt.time.fromisoformat(text),
    "timedelta": lambda parts, data: dt.timedelta(**parts),
    "decimal": lambda text, data: decimal.Decimal(text),
    "fraction": lambda text, data: _read_fraction(text),
    "uuid": lambda text, data: uuid.UUID(text),
    "range": lambda parts, data: range(*parts),
    **arrays.READERS,
}
