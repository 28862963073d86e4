"""`spans-attempt-A-rank-R.jsonl` of a run: named stretches of a rank's time. Written by the ranks, read by
whoever draws a time axis.

A span is a line at its start, with the end null, and one with the same name, start and depth at its end. One
that stays null was cut off: its process was killed in it.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Annotated

import msgspec

from quarterdeck.bounds import UnixNs
from quarterdeck.store.layout import SPANS
from quarterdeck.store.records import LINES, RecordReader, TooLong

_LINES = 200_000
"""The most lines that are read of a file; a rank keeps 10,000 spans of an attempt."""


class Span(msgspec.Struct, frozen=True):
    name: str
    start_unix_ns: UnixNs
    end_unix_ns: UnixNs | None
    depth: Annotated[int, msgspec.Meta(ge=-1, le=1_000_000)]
    """Number of spans of the same thread around it."""


def read_spans(folder: Path, attempt: int) -> dict[int, list[Span]]:
    """By rank; each as `spans_in` gives them."""
    return {rank: spans_in(path) for number, rank, path in SPANS.all_in(folder) if number == attempt}


def spans_in(path: Path) -> list[Span]:
    """In order of their starts. Damaged lines are left out; never raises OSError."""
    found: list[Span] = []
    begun: dict[tuple[str, int, int], list[int]] = {}
    """Places of those without an end: two threads may begin two that look alike."""
    with suppress(OSError, TooLong):
        for line in islice(RecordReader(path.parent, path.name, LINES).new(with_rest=True), _LINES):
            with suppress(msgspec.MsgspecError, ValueError, RecursionError):
                span = msgspec.json.decode(line, type=Span)
                places = begun.setdefault((span.name, span.start_unix_ns, span.depth), [])
                if span.end_unix_ns is None:
                    places.append(len(found))
                if span.end_unix_ns is not None and places:
                    found[places.pop(0)] = span
                else:
                    found.append(span)
    return sorted(found, key=lambda span: (span.start_unix_ns, span.depth))
