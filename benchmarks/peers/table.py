"""Turns the figures of several tools into one Markdown table."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

Figures = dict[str, Any]
NONE = "-"


def table(tools: dict[str, Figures]) -> str:
    rows = [["", *(figures.get("version", name) for name, figures in tools.items())]]
    rows.append(["---"] * len(rows[0]))
    for title, cell in ROWS:
        rows.append([title, *(_guarded(cell, figures) for figures in tools.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _guarded(cell: Callable[[Figures], str], figures: Figures) -> str:
    return NONE if "failed" in figures else cell(figures)


def _spread(values: Sequence[float], unit: str, digits: int = 1) -> str:
    low, mid, high = (f"{value:.{digits}f}" for value in (min(values), median(values), max(values)))
    return f"{mid} {unit} ({low}-{high})"


def _cold(figures: Figures) -> str:
    return _spread([start["took_s"] for start in figures["cold"]], "s")


def _cold_ratio(figures: Figures) -> str:
    return _spread([start["ratio"] for start in figures["cold"]], "x", 2)


def _warm(figures: Figures) -> str:
    return _spread(figures["warm"]["ranks_ms"], "ms")


def _ordinary(figures: Figures) -> str:
    ordinary = figures["warm"]["ordinary_ms"]
    return _spread(ordinary, "ms") if ordinary else NONE


def _warm_ratio(figures: Figures) -> str:
    warm = figures["warm"]
    if not warm["ordinary_ms"]:
        return NONE
    return f"{median(warm['ranks_ms']) / median(warm['ordinary_ms']):.2f} x"


def _print(figures: Figures) -> str:
    latency = figures["print"]["latency_ms"]
    return f"{_spread(latency, 'ms')}, {len(latency)} of 24 lines" if latency else "none seen"


def _push(figures: Figures) -> str:
    return _spread(figures["push"]["push_s"], "s", 2) if figures["push"] else NONE


def _push_ratio(figures: Figures) -> str:
    if not figures["push"]:
        return NONE
    return f"{median(figures['push']['push_s']) / median(figures['push']['copy_s']):.1f} x"


def _ended(fault: str) -> Callable[[Figures], str]:
    def cell(figures: Figures) -> str:
        ended_s, status = figures[fault]["ended_s"], figures[fault]["status"]
        return "not within 20 s" if ended_s is None else f"{ended_s:.1f} s, status {status}"

    return cell


def _named(fault: str) -> Callable[[Figures], str]:
    def cell(figures: Figures) -> str:
        named_s = figures[fault]["named_s"]
        return "no" if named_s is None else f"after {named_s:.1f} s"

    return cell


def _next(fault: str) -> Callable[[Figures], str]:
    def cell(figures: Figures) -> str:
        if not figures[fault]["next_cell"]:
            return "no"
        return "yes" if figures[fault]["next_collective"] else "yes, but collectives do not"

    return cell


ROWS: list[tuple[str, Callable[[Figures], str]]] = [
    ("kernel launch to first user code on 2 ranks, process group up", _cold),
    ("the same, in units of one `import torch` just before", _cold_ratio),
    ("warm cell `x = rank`", _warm),
    ("ordinary cell `x = 0` in the same kernel", _ordinary),
    ("warm cell / ordinary cell", _warm_ratio),
    ("a rank's `print` to the client", _print),
    ("256 MiB tensor to both ranks", _push),
    ("the same, in units of one copy in memory", _push_ratio),
    ("rank 1 raises, rank 0 waits in `all_reduce`: the cell ends", _ended("raises")),
    ("… its message is shown", _named("raises")),
    ("… the next cell works", _next("raises")),
    ("rank 1 killed by SIGKILL, rank 0 sleeps: the cell ends", _ended("dies")),
    ("… the signal is named", _named("dies")),
    ("… the next cell works", _next("dies")),
]
