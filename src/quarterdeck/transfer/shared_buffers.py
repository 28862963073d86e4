"""Buffers of a payload in one blob: filled once by the sender, mapped copy-on-write by every receiver."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Sequence

from quarterdeck.protocol.blob import Blob

_ALIGNMENT = 64
_CHUNK_BYTES = 4 << 20
"""Between chunks a KeyboardInterrupt can end a long copy."""


def pack(buffers: Iterable[memoryview]) -> tuple[Blob | None, list[tuple[int, int]]]:
    """Copy flat buffers into a new blob; None without buffers. Spans are (offset, size) in bytes.

    One copy into fresh pages: `pwrite` needs 0.6 of the time of a memcpy into fresh anonymous memory, since
    the pages it fills are not zeroed or faulted in first; a mapping needs 1.6, a second thread gains
    nothing. Raises OSError when memory is short; nothing is left behind then.
    """
    flat = [buffer.cast("B") if buffer.format != "B" else buffer for buffer in buffers]
    if not flat:
        return None, []
    spans, size = _lay_out([buffer.nbytes for buffer in flat])
    blob = Blob.new()
    os.ftruncate(blob.fileno(), size)
    for buffer, (offset, _) in zip(flat, spans, strict=True):
        _write(blob.fileno(), buffer, offset)
    return blob, spans


def map_buffers(blob: Blob | None, spans: Sequence[tuple[int, int]]) -> list[memoryview]:
    """The buffers of a blob, writable, private to this process page by page as it writes.

    The blob may be closed afterwards; the memory stays until the last view is gone. Raises ValueError
    for spans that lie outside the blob.
    """
    if not spans or blob is None:
        return []
    size = max(offset + length for offset, length in spans)
    if min(min(span) for span in spans) < 0 or size > blob.size_bytes:
        raise ValueError(f"what arrived has {blob.size_bytes} bytes, and values end at byte {size}")
    if size == 0:
        return [memoryview(bytearray()) for _ in spans]
    mapping = mmap.mmap(blob.fileno(), size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    whole = memoryview(mapping)
    return [whole[offset : offset + length] for offset, length in spans]


def _lay_out(sizes: Iterable[int]) -> tuple[list[tuple[int, int]], int]:
    spans, end = [], 0
    for size in sizes:
        start = -(-end // _ALIGNMENT) * _ALIGNMENT
        spans.append((start, size))
        end = start + size
    return spans, end


def _write(descriptor: int, buffer: memoryview, offset: int) -> None:
    done, size = 0, buffer.nbytes
    while done < size:
        done += os.pwrite(descriptor, buffer[done : min(size, done + _CHUNK_BYTES)], offset + done)
