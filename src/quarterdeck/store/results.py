"""What a rank returned, in a file: a pickle stream, its out-of-band buffers, and proof of who wrote it.

Written by the coordinator (never unpickled there), read by the kernel. Little-endian:

    magic 8s, version u32, number of spans u32, length of stream u64, start of image u64
    spans     (offset, length) u64 each, within the image
    HMAC      32 bytes, SHA-256 with the user's key, over all of the above and the stream
    stream
    zeros     up to the next page
    image     the blob that the rank sent, as it was

Only what is executed is authenticated: loading a pickle runs what it says. The buffers are the raw numbers of
tensors and arrays; whoever changes them changes values and nothing else, and a hash over gigabytes would cost
more than writing them.
"""

from __future__ import annotations

import hmac
import mmap
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quarterdeck import files
from quarterdeck.errors import QuarterdeckError
from quarterdeck.protocol.blob import Blob
from quarterdeck.public import public
from quarterdeck.store.key import key

KEPT_BYTES = 64_000_000
"""Per rank and attempt. The store is a notebook's history, not its data."""

_MAGIC = b"QDRESULT"
_VERSION = 1
_HEAD = struct.Struct("<8sIIQQ")
_SPAN = struct.Struct("<QQ")
_HMAC_BYTES = 32
_PAGE = 4096
_CHUNK_BYTES = 4 << 20
_MOST_BYTES = 4 * KEPT_BYTES
"""The most that a file takes: there are spans, too, and the gap before the image."""


@public
class UntrustedResult(QuarterdeckError):
    """A result that this user's quarterdeck did not write, or that was changed since. Nothing of it was run.

    Attributes:
        path: the path of its file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} was not written by this user's quarterdeck; unpickling it could run any code.\n"
            "`trust=True` loads it if you know where it comes from."
        )
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path,), vars(self)


Untrusted = UntrustedResult
"""Its name in results of 0.1.0."""


def write_result(path: Path, stream: bytes, spans: Sequence[tuple[int, int]], blob: Blob | None) -> str:
    """Keep a result; returns "" or why it was not kept. The file is there as a whole or not at all.

    May run in a thread.
    """
    if any(min(span) < 0 for span in spans):
        return "its buffers begin before their memory"
    end = max((offset + length for offset, length in spans), default=0)
    if len(stream) + end > KEPT_BYTES:
        size, limit = -(-(len(stream) + end) // 1_000_000), KEPT_BYTES // 1_000_000
        return f"{size:,} MB is more than the {limit} MB that the store keeps per rank"
    if end and (blob is None or blob.size_bytes < end):
        return "its buffers did not arrive"
    try:
        with files.atomic_write(path.parent, path.name) as file:
            files.write_all(file.fileno(), _front(stream, spans))
            if blob is not None:
                _copy(blob.fileno(), file.fileno(), end)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def read_result(path: Path, trust: bool = False) -> tuple[bytes, list[memoryview]]:
    """The stream, and the buffers in pickling order: writable, private to this process page by page.

    Raises UntrustedResult, ValueError for a damaged file or one of a later version, and OSError. `trust`
    loads also what somebody else wrote.
    """
    whole = _map(path)
    head, spans, stream, image = _parse(path, whole)
    mac = bytes(whole[len(head) : len(head) + _HMAC_BYTES])
    if not trust and not hmac.compare_digest(mac, _sign(head, stream)):
        raise UntrustedResult(path)
    if any(offset + length > len(image) for offset, length in spans):
        raise _damaged(path)
    return stream, [image[offset : offset + length] for offset, length in spans]


# ---- writing


def _front(stream: bytes, spans: Sequence[tuple[int, int]]) -> bytes:
    """All before the image; ends at a page, so that the buffers keep the alignment they have in the blob."""
    size = _HEAD.size + _SPAN.size * len(spans) + _HMAC_BYTES + len(stream)
    start = -(-size // _PAGE) * _PAGE
    head = _HEAD.pack(_MAGIC, _VERSION, len(spans), len(stream), start)
    head += b"".join(_SPAN.pack(*span) for span in spans)
    return (head + _sign(head, stream) + stream).ljust(start, b"\0")


def _sign(head: bytes, stream: bytes) -> bytes:
    return hmac.digest(key(), head + stream, "sha256")


def _copy(source: int, target: int, size: int) -> None:
    """Not through user space. copy_file_range refuses to go from one kind of file system to another."""
    done = 0
    while done < size:
        copied = os.sendfile(target, source, done, min(_CHUNK_BYTES, size - done))
        if copied == 0:
            raise OSError("its buffers were cut while they were copied")
        done += copied


# ---- reading


def _map(path: Path) -> memoryview:
    descriptor = files.open_file(path.parent, path.name)
    try:
        if not _HEAD.size + _HMAC_BYTES <= os.fstat(descriptor).st_size <= _MOST_BYTES:
            raise _damaged(path)
        return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY))
    finally:
        os.close(descriptor)


def _parse(path: Path, whole: memoryview) -> tuple[bytes, list[tuple[int, int]], bytes, memoryview]:
    """Head, spans, stream and image. Copies of the first three: what is checked is what is used, also if
    somebody changes the file meanwhile.
    """
    magic, version, count, length, start = _HEAD.unpack_from(whole)
    if magic != _MAGIC:
        raise _damaged(path)
    if version > _VERSION:
        raise ValueError(f"{path} was written by a later version of quarterdeck")
    end = _HEAD.size + _SPAN.size * count
    begin = end + _HMAC_BYTES
    if not begin + length <= start <= len(whole):
        raise _damaged(path)
    head = bytes(whole[:end])
    spans = [(offset, size) for offset, size in _SPAN.iter_unpack(head[_HEAD.size :])]
    return head, spans, bytes(whole[begin : begin + length]), whole[start:]


def _damaged(path: Path) -> ValueError:
    return ValueError(f"{path} is damaged")
