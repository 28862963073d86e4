"""Python and TypeScript write numbers, sizes, durations and ranks alike: both are held to `words.json`, here
and in `labextension/packages/views/test/contract.test.ts`.

`python tests/contract/test_words.py` writes the file anew, from what Python says; look at the difference.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quarterdeck.present import words

CASES = Path(__file__).parent / "words.json"
EDGES = (
    0.0,
    0.5,
    0.949,
    0.95,
    0.994,
    0.995,
    0.9951,
    1.0,
    1.25,
    2.345,
    9.94,
    9.95,
    9.96,
    58.2,
    59.5,
    99.4,
    99.5,
)
FUNCTIONS = {
    "integer": words.number,
    "metric": words.metric,
    "size": words.size,
    "gib": words.gib,
    "duration": words.seconds,
}
"""By their name in TypeScript."""
RANKS = ([0], [2], [0, 1], [0, 2], [0, 1, 3], [1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 5, 6, 7], [3, 1, 2, 9])


def numbers(function: str) -> Iterator[float]:
    match function:
        case "duration":
            yield from (edge * scale for edge in EDGES for scale in (0.001, 1, 60, 3600, 86400))
            yield from (0.00002, 0.000994, 0.000996, 0.0999, 0.1, 143, 11040, 190800, 3599.6, 86399.7)
        case "size":
            yield from (float(round(edge * 10**power)) for edge in EDGES for power in (0, 3, 6, 9, 12, 15))
            yield from (999.0, 999_499.0, 999_500.0, 999_600.0, 1_250.0, 2.5e12)
        case "gib":
            yield from (float(round(edge * 2**power)) for edge in EDGES for power in (20, 29, 30, 31, 40))
        case _:
            yield from (
                sign * edge * 10.0**power for edge in EDGES for power in range(-7, 9, 2) for sign in (1, -1)
            )
            yield from (math.inf, -math.inf, math.nan, 1204.0, 99_999.5, 123_456.7, 9_999_999.0)


def written() -> dict[str, list[Any]]:
    """[argument, what it is written as]; numbers that JSON does not have as texts."""
    told: dict[str, list[Any]] = {
        name: [[value if math.isfinite(value) else str(value), call(value)] for value in numbers(name)]
        for name, call in FUNCTIONS.items()
    }
    told["ranks"] = [
        [ranks, size, words.ranks_in_words(ranks, size), words.short(ranks, size)]
        for ranks in RANKS
        for size in (0, 2, 4, 8)
    ]
    return told


def test_python_writes_as_the_cases_say() -> None:
    kept = json.loads(CASES.read_text())
    told = json.loads(json.dumps(written()))
    assert kept.keys() == told.keys()
    for name, cases in told.items():
        assert cases == kept[name], f"{name}: python {__file__} writes the cases anew"


def test_what_a_reader_is_to_see() -> None:
    assert [words.seconds(value) for value in (0.038, 0.21, 2.3, 58.2, 143, 11040, 190800)] == [
        "38 ms", "0.21 s", "2.3 s", "58 s", "2 min 23 s", "3 h 04 min", "2 d 5 h",
    ]  # fmt: skip
    assert [words.size(value) for value in (512, 1_500, 999_600, 264_000_000, 2.5e12)] == [
        "512 B", "1.5 kB", "1.0 MB", "264 MB", "2.5 TB",
    ]  # fmt: skip
    assert [words.metric(value) for value in (0.25, 0.00123, 1.2e-5, 1204, 12.5)] == [
        "0.250", "0.00123", "1.2e-5", "1,204", "12.500",
    ]  # fmt: skip


if __name__ == "__main__":
    CASES.write_text(json.dumps(written(), indent=None, separators=(",", ":")).replace("]],", "]],\n") + "\n")
