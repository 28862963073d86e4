"""The bytes of `metrics-attempt-A-rank-N.bin`, the metrics of one rank in one attempt. The only truth about
the format. Pure; written by `log`, read by `reader`.

The file is a series of records, each appended by a single write, by any number of processes. All is
little-endian and counts in words of 8 bytes.

    names    "qd" and the version 1, "NAMES"; layout; length u32 and CRC-32 u32 of the JSON; the JSON, padded
             {"names": [...], "rank": N, "attempt": A}: more keys may come
    values   layout; time i64, ns since 1970; step i64; a float64 per name; ~time i64

A layout is the names of one call, in order: "qd", 1, and 5 bytes of the digest of the names. So processes
that know nothing of each other give the same names the same layout. Each writes the names before its first
values under them: whatever it writes is readable, wherever the file begins.

A record is whole if both of its times fit, or its CRC. (Were they the same, the layouts of two records that
follow a torn one could pass for them.) What is not whole was torn by a full disk
or a crash; reading goes on at the next "qd", 1 that begins a whole record.
"""

from __future__ import annotations

import json
import struct
import zlib
from hashlib import blake2b
from typing import NamedTuple

FORMAT = 1
MARK = b"qd" + bytes([FORMAT])
NAMES = MARK + b"NAMES"
WORD = 8
NAMES_LIMIT_BYTES = 1 << 24
"""The most that the JSON takes. A length beyond it is garbage, not a record to wait for."""

_HEAD = struct.Struct("<8sqII")
_NAMES_LIMIT = 100_000
"""The most names of one call."""


class Layout:
    """The names of one call, in their order; how their record is packed.

    `pack` takes, and `unpack_from` gives: id, time, step, the values, ~time.
    """

    __slots__ = ("id", "names", "pack", "size_bytes", "text", "unpack_from")

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.text = json.dumps(names).encode()
        """ASCII, whatever the names hold."""
        digest = blake2b(self.text, digest_size=WORD - len(MARK)).digest()
        self.id = int.from_bytes(MARK + digest, "little", signed=True)
        record = struct.Struct(f"<qqq{len(names)}dq")
        self.pack, self.unpack_from, self.size_bytes = record.pack, record.unpack_from, record.size


class Definition(NamedTuple):
    layout: Layout
    size_bytes: int


def definition(layout: Layout, attempt: int, rank: int) -> bytes:
    """The record that tells a layout's names."""
    text = b'{"names": %b, "rank": %d, "attempt": %d}' % (layout.text, rank, attempt)
    text += b" " * (-len(text) % WORD)
    return _HEAD.pack(NAMES, layout.id, len(text), zlib.crc32(text)) + text


def length_of_names(data: bytes, start: int) -> int:
    """The length of the JSON, as the record that begins there says; 0 where it cannot be so."""
    length: int = _HEAD.unpack_from(data, start)[2] if len(data) - start >= _HEAD.size else 0
    return length if length <= NAMES_LIMIT_BYTES else 0


def read_definition(data: bytes, start: int) -> Definition | None:
    """The record of names that begins there.

    Raises ValueError if there is none, or a damaged one; None if it is not there to its end.
    """
    if len(data) - start < _HEAD.size:
        return None
    mark, _, length, crc = _HEAD.unpack_from(data, start)
    if mark != NAMES or length > NAMES_LIMIT_BYTES:
        raise ValueError("not a record of names")
    text = data[start + _HEAD.size : start + _HEAD.size + length]
    if len(text) < length:
        return None
    if zlib.crc32(text) != crc:
        raise ValueError("a damaged record of names")
    try:
        names = json.loads(text)["names"]
        if not all(isinstance(name, str) for name in names) or not 0 < len(names) <= _NAMES_LIMIT:
            raise ValueError("not names")
    except (KeyError, TypeError, RecursionError):
        raise ValueError("a record of names that has none") from None
    return Definition(Layout(tuple(names)), _HEAD.size + length)
