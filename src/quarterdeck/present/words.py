"""Numbers, sizes, durations, lists of ranks and ends of processes, in words: "ranks 0, 1 and 3", "0.21 s"."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterable, Iterator

DASH = "\u2013"
"""En dash, between the first and the last of a run."""


_STEERS = re.compile(
    r"\x1b\[[0-9;:?]*[ -/]*[@-~]"
    r"|[\x00-\x08\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""What is not to be seen but acts on a terminal, or on the order of the text around it."""


def one_line(text: str, most: int) -> str:
    """Of whatever a user or a file has called something, as it can stand in a table."""
    line = " ".join(_STEERS.sub("", text[: 16 * most]).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def runs(ranks: Iterable[int]) -> Iterator[tuple[int, int]]:
    """(first, last) of every run of consecutive ranks, ascending."""
    first = last = -2
    for rank in sorted(ranks):
        if rank != last + 1:
            if first >= 0:
                yield first, last
            first = rank
        last = rank
    if first >= 0:
        yield first, last


def labels(ranks: Iterable[int], world_size: int) -> list[str]:
    """What stands in chips: runs of three or more (or of all ranks) as "0-3", others one by one."""
    found: list[str] = []
    for first, last in runs(ranks):
        if last - first >= 2 or (first == 0 and last == world_size - 1 and last):
            found.append(f"{first}{DASH}{last}")
        else:
            found.extend(str(rank) for rank in range(first, last + 1))
    return found


def short(ranks: Iterable[int], world_size: int) -> str:
    """ "0-3" or "0, 2": the rank column of plain text."""
    return ", ".join(labels(ranks, world_size))


def ranks_in_words(ranks: Iterable[int], world_size: int = 0) -> str:
    """ "rank 2", "ranks 0, 1 and 3", "ranks 0-7"; for running text, lower case."""
    parts = labels(ranks, world_size)
    if len(parts) == 1:
        return f"rank{'s' if DASH in parts[0] else ''} {parts[0]}"
    return f"ranks {', '.join(parts[:-1])} and {parts[-1]}"


def number(value: int) -> str:
    """Integers with a thousands comma."""
    return f"{value:,}"


def size(n_bytes: int) -> str:
    """Decimal units, as files are shown: "512 B", "1.5 MB"."""
    value = float(n_bytes)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"


def seconds(value: float) -> str:
    """ "38 ms", "0.21 s", "58 s", "2 min 23 s", "3 h 04 min", "2 d 5 h"."""
    if value < 0.1:
        return f"{value * 1000:.0f} ms"
    if value < 10:
        return f"{value:.2f}".rstrip("0").rstrip(".") + " s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def signal_name(number: int) -> str:
    """ "SIGKILL", "signal 40"."""
    try:
        return signal.Signals(number).name
    except ValueError:  # those for real time have no names
        return f"signal {number}"


def end_in_words(status: int) -> str:
    """ "ended with exit code 1", "was killed by SIGKILL"; `status` as os.waitpid gives it."""
    if os.WIFSIGNALED(status):
        return f"was killed by {signal_name(os.WTERMSIG(status))}"
    return f"ended with exit code {os.WEXITSTATUS(status)}"
