"""The bytes of a deck's file, `decks/attempt-A/rank-R/NAME-DIGEST.deck`. The only truth about the format.
Pure; written by `writer` in the processes of user code, read by `reader` in the kernel.

The file is a series of records, little-endian:

    "qd"; version u8; kind u8; a checked record (see `store.records`)

    label JSON: {"name": str, "created_unix_ns": int, "automatic": bool}; the first record
    part  UTF-8: HTML, as it was appended
    cut   JSON: how many parts were left out for the deck's size; the last one counts

A file grows at its end only; a deck whose content is replaced gets a new file in the old one's place. So a
reader sees one content or the other, up to the last whole record.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from quarterdeck import files
from quarterdeck.store.layout import deck_folder
from quarterdeck.store.records import CHECK_BYTES, checked, content_at, length_at

LIMIT_BYTES = 10_000_000
"""The most that all parts of a deck hold together."""
SUFFIX = ".deck"

_HEAD = struct.Struct("<2sBB")
_FRONT_BYTES = _HEAD.size + CHECK_BYTES
_MARK, _VERSION = b"qd", 1
_LABEL, _PART, _CUT = range(3)
_NUMBER = re.compile(rb"[0-9]{1,15}")
_SLUG_CHARS = 40
_LABEL_BYTES = 1 << 20
_READ_BYTES = 4 * LIMIT_BYTES
"""The most that is read of a file: there is something around each part."""


@dataclass(frozen=True)
class Label:
    """What a file tells of its deck; never changes."""

    name: str
    created_unix_ns: int
    automatic: bool


@dataclass(frozen=True)
class Body:
    """What a deck holds."""

    parts: tuple[str, ...] = ()
    cut: int = 0
    """Parts that were left out: there was no room."""

    @property
    def html(self) -> str:
        return "\n".join(self.parts)


def place_of(attempt: int, rank: int) -> tuple[str, ...]:
    """The place of a rank's decks in the run's folder."""
    return deck_folder(attempt, rank)


def folder_of(run_folder: Path, attempt: int, rank: int) -> Path:
    return run_folder.joinpath(*place_of(attempt, rank))


def file_name(name: str) -> str:
    """The same for the same name, another one for any other."""
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:_SLUG_CHARS].strip("-") or "deck"
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{slug}-{digest}{SUFFIX}"


def label_record(label: Label) -> bytes:
    return _record(_LABEL, json.dumps(vars(label)).encode())


def records(parts: Sequence[str], cut: int) -> bytes:
    written = [_record(_PART, part.encode("utf-8", "replace")) for part in parts]
    return b"".join(written) + (_record(_CUT, str(cut).encode()) if cut else b"")


def read_label(run_folder: Path, *names: str) -> Label | None:
    """None for what is no deck, or not yet one. Raises OSError."""
    descriptor = files.open_file(run_folder, *names)
    try:
        front = os.pread(descriptor, _FRONT_BYTES, 0)
        length = length_at(front, _HEAD.size)
        data = front + os.pread(descriptor, min(length, _LABEL_BYTES), _FRONT_BYTES)
    finally:
        os.close(descriptor)
    return next((_label(content) for kind, content in _parsed(data) if kind == _LABEL), None)


def read_body(run_folder: Path, *names: str) -> Body:
    """As far as it is there. Raises OSError."""
    descriptor = files.open_file(run_folder, *names)
    try:
        data = os.pread(descriptor, _READ_BYTES, 0)
    finally:
        os.close(descriptor)
    parts: list[str] = []
    cut = 0
    for kind, content in _parsed(data):
        if kind == _PART:
            parts.append(content.decode("utf-8", "replace"))
        elif kind == _CUT and _NUMBER.fullmatch(content):
            cut = int(content)
    return Body(tuple(parts), cut)


def _record(kind: int, data: bytes) -> bytes:
    return _HEAD.pack(_MARK, _VERSION, kind) + checked(data)


def _parsed(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Up to the first record that is not whole."""
    place = 0
    while len(data) - place >= _HEAD.size:
        mark, version, kind = _HEAD.unpack_from(data, place)
        content = content_at(data, place + _HEAD.size)
        if mark != _MARK or version != _VERSION or content is None:
            return
        yield kind, content
        place += _FRONT_BYTES + len(content)


def _label(data: bytes) -> Label | None:
    try:
        known: dict[str, Any] = json.loads(data)
        return Label(str(known["name"]), int(known["created_unix_ns"]), bool(known["automatic"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
