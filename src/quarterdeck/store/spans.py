"""`spans-attempt-A-rank-R.jsonl` of a run: named stretches of a rank's time. Written by the ranks, read by
whoever draws a time axis.

A span is a line at its start, with the end null, and a whole one at its end: of two lines with the same name,
start and depth the later one counts. One that stays null was cut off: its process was killed in it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

_FILE = re.compile(r"spans-attempt-(\d+)-rank-(\d+)\.jsonl")


class Span(msgspec.Struct, frozen=True):
    name: str
    start_unix_ns: int
    end_unix_ns: int | None
    depth: int
    """Number of spans of the same thread around it."""


def spans_name(attempt: int, rank: int) -> str:
    return f"spans-attempt-{attempt}-rank-{rank}.jsonl"


def span_files(folder: Path) -> list[tuple[int, int, Path]]:
    """(attempt, rank, path). Never raises OSError."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    found = ((_FILE.fullmatch(name), folder / name) for name in names)
    return sorted((int(known[1]), int(known[2]), path) for known, path in found if known)


def read_spans(folder: Path, attempt: int) -> dict[int, list[Span]]:
    """By rank; each as `spans_in` gives them."""
    return {rank: spans_in(path) for number, rank, path in span_files(folder) if number == attempt}


def spans_in(path: Path) -> list[Span]:
    """In order of their starts. Damaged lines are left out; never raises OSError."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return []
    latest: dict[tuple[str, int, int], Span] = {}
    for line in lines:
        try:
            span = msgspec.json.decode(line, type=Span)
        except msgspec.DecodeError:
            continue
        latest[span.name, span.start_unix_ns, span.depth] = span
    return sorted(latest.values(), key=lambda span: (span.start_unix_ns, span.depth))
