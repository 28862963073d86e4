"""Numbers, sizes, durations, lists of ranks and ends of processes, in words: "ranks 0, 1 and 3", "0.21 s".

`labextension/packages/views/src/basics/words.ts` is its twin: `tests/contract` holds them together, case by
case.
"""

from __future__ import annotations

import math
import os
import re
import signal
from collections.abc import Iterable, Iterator
from decimal import ROUND_HALF_UP, Decimal

DASH = "\u2013"
"""En dash, between the first and the last of a run."""


_STEERS = re.compile(
    r"\x1b\[[0-9;:?]*[ -/]*[@-~]"
    r"|[\x00-\x08\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""What is not to be seen but acts on a terminal, or on the order of the text around it."""


def one_line(text: str, most: int) -> str:
    """Whatever a user or a file has called something, as it can stand in a table."""
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


def number(value: float) -> str:
    """A whole number with commas: "1,204"."""
    return f"{_rounded(value, 0):,}" if math.isfinite(value) else _unreal(value)


def metric(value: float | None) -> str:
    """Three decimals, four digits that matter below 0.01, "1.2e-5" below 0.001; "" for None."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return _unreal(value)
    amount = abs(value)
    if amount == 0:
        return "0.000"
    if amount < 1e-3:
        return _scientific(value, 2)
    if amount < 0.01:
        return _digits(value, 4)
    if amount >= 1e7:
        return _scientific(value, 4)
    if amount >= 1000:
        whole = value == int(value) or amount >= 1e5
        return number(value) if whole else f"{_rounded(value, 1):,}"
    return str(_rounded(value, 3))


def size(n_bytes: float) -> str:
    """In units of 1,000, as files are shown: "512 B", "1.5 MB", "412 kB"."""
    if n_bytes < 1000:
        return f"{n_bytes:.0f} B"
    value, units = n_bytes / 1000, ["kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        del units[0]
    return f"{_rounded(value, 1) if value < 9.95 else number(value)} {units[0]}"


def gib(n_bytes: float) -> str:
    """Memory in GiB, without the unit: "11.4", "0.38"."""
    value = n_bytes / 2**30
    if value >= 99.5:
        return number(value)
    return str(_rounded(value, 2 if value < 0.995 else 1))


def seconds(value: float) -> str:
    """ "0.38 ms", "38 ms", "0.21 s", "58 s", "2 min 23 s", "3 h 04 min", "2 d 5 h"; "" below 0."""
    if not math.isfinite(value) or value < 0:
        return ""
    if 0 < value < 0.000995:
        return f"{_digits(value * 1000, 2)} ms"
    if value < 0.1:
        return f"{_rounded(value * 1000, 0)} ms"
    if value < 9.95:
        return f"{_plain(_rounded(value, 2 if value < 0.995 else 1))} s"
    whole = int(_rounded(value, 0))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def _rounded(value: float, decimals: int) -> Decimal:
    """Halves away from zero, as JavaScript does."""
    return Decimal(value).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)


def _digits(value: float, digits: int) -> str:
    """So many digits that matter, without zeros at the end."""
    exponent = Decimal(value).adjusted()
    return _plain(_rounded(value, digits - 1 - exponent))


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _scientific(value: float, digits: int) -> str:
    exact = Decimal(value)
    exponent = exact.adjusted()
    front = exact.scaleb(-exponent).quantize(Decimal(1).scaleb(1 - digits), ROUND_HALF_UP)
    if abs(front) >= 10:
        front, exponent = front / 10, exponent + 1
    return f"{_plain(front)}e{exponent}"


def _unreal(value: float) -> str:
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


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
