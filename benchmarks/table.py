"""Figures as text, and the table in README.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
HEADS = ("what", "quarterdeck", "beside it, in the same run", "ratio", "target", "n")


class Line(NamedTuple):
    """One line of the table, all of it text."""

    what: str
    ours: str
    beside: str = ""
    ratio: str = ""
    target: str = ""
    n: str = ""


def spread(values: Sequence[float], unit: str) -> str:
    """Median [least-most]."""
    low, middle, high = (_number(value) for value in (min(values), median(values), max(values)))
    return f"**{middle}** [{low}-{high}] {unit}"


def median_and_p95(values: Sequence[float], unit: str) -> str:
    p95 = quantiles(values, n=20)[-1]
    return f"**{_number(median(values))}**, p95 {_number(p95)} {unit}"


def times(values: Sequence[float]) -> str:
    """Ratios."""
    low, middle, high = min(values), median(values), max(values)
    return f"**{middle:.2f}** x" if len(values) == 1 else f"**{middle:.2f}** [{low:.2f}-{high:.2f}] x"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def markdown(lines: Sequence[Line]) -> str:
    rows = [HEADS, ("---",) * len(HEADS), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write(readme: Path, text: str) -> None:
    """Put the text between the two marks; the rest of the file stays."""
    before, _, rest = readme.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
