"""The loops of all ranks as one bar. Pure; used by `snapshot`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from quarterdeck.metrics.progress import Bar
from quarterdeck.views.run.messages import Progress

_STEPS_TO_GUESS = 20


def progress(by_rank: Mapping[int, Sequence[Bar]], now_unix_ns: int) -> Progress | None:
    """How far the ranks' loop is: the outermost that knows its end, else the innermost. None if no rank has
    a loop.
    """
    chosen = {rank: bar for rank, bars in by_rank.items() if (bar := _chosen(bars)) is not None}
    if not chosen:
        return None
    bars = _same_loop(chosen)
    counts = {rank: bar.n for rank, bar in sorted(bars.items())}
    total = Counter(bar.total for bar in bars.values()).most_common(1)[0][0]
    fastest, slowest = max(counts, key=lambda r: counts[r]), min(counts, key=lambda r: counts[r])
    apart = counts[fastest] > counts[slowest]  # else no rank is ahead of another
    return Progress(
        desc=next(iter(bars.values())).desc,
        n=sum(counts.values()) // len(counts),
        total=total,
        left_s=_left_s(list(bars.values()), now_unix_ns),
        fastest=fastest if apart else None,
        fastest_n=counts[fastest],
        slowest=slowest if apart else None,
        slowest_n=counts[slowest],
    )


def _chosen(bars: Sequence[Bar]) -> Bar | None:
    """The loop of a rank that is shown. One that is over counts only while no other one goes on."""
    going = [bar for bar in bars if not bar.done]
    if not going:
        return max(bars, key=lambda bar: bar.updated_unix_ns, default=None)
    return next((bar for bar in going if bar.total), going[-1])


def _same_loop(chosen: Mapping[int, Bar]) -> dict[int, Bar]:
    """Ranks that are in the loop that most of them are in; of two equally frequent, the later one."""
    frequent = Counter(bar.desc for bar in chosen.values())
    latest = {
        bar.desc: bar.started_unix_ns for bar in sorted(chosen.values(), key=lambda b: b.started_unix_ns)
    }
    desc = max(frequent, key=lambda desc: (frequent[desc], latest[desc]))
    return {rank: bar for rank, bar in chosen.items() if bar.desc == desc}


def _left_s(bars: Sequence[Bar], now_unix_ns: int) -> float | None:
    """The time left for the rank that is last to end."""
    left: list[float] = []
    for bar in bars:
        if bar.total is None or bar.n < _STEPS_TO_GUESS or bar.updated_unix_ns <= bar.started_unix_ns:
            return None
        step_ns = (bar.updated_unix_ns - bar.started_unix_ns) / bar.n
        since_ns = max(0, now_unix_ns - bar.updated_unix_ns)
        left.append(max(0.0, (bar.total - bar.n) * step_ns - since_ns) / 1e9)
    return max(left)
