"""`qd.log` per call, beside what else one may do with a number. In one process of its own, interleaved: the
ratios hold while the machine has other work. `python -m benchmarks.metrics` prints the line.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from timeit import Timer
from typing import Any

from benchmarks import alone
from benchmarks.table import Line, spread, times

LIMIT_S = 300.0
CALLS = 20_000


def metrics(repeats: int) -> list[Line]:
    """One call with two numbers and a step."""
    found: dict[str, list[float]] = alone.measured("benchmarks.metrics", repeats, LIMIT_S)
    ours, n = found.pop("qd.log"), f"{repeats} x {CALLS:,}"
    targets = {"an empty call": "<= 15 x", "add_scalar": ">= 25 x faster"}
    return [
        Line(
            "`qd.log(loss=, acc=, step=)`",
            spread(ours, "us"),
            f"{name}: {spread(values, 'us')}",
            times(_ratios(name, ours, values)),
            targets.get(name, ""),
            n,
        )
        for name, values in found.items()
    ]


def _ratios(name: str, ours: list[float], values: list[float]) -> list[float]:
    """How many times as long as an empty call; of what is slower, how many times faster."""
    pairs = list(zip(ours, values, strict=True))
    if name == "an empty call":
        return [mine / other for mine, other in pairs]
    return [other / mine for mine, other in pairs]


def measure(repeats: int) -> dict[str, list[float]]:
    """Microseconds per call, by what is called. Each repeat calls all of them, one after another."""
    timers = {name: Timer(statement, globals=scope) for name, statement, scope in _calls()}
    found: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(repeats):
        for name, timer in timers.items():
            number = CALLS if name != "add_scalar" else CALLS // 20
            found[name].append(timer.timeit(number) / number * 1e6)
    return found


def _calls() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, statement, and what it refers to."""
    from quarterdeck.metrics.log import log

    def empty(step: int | None = None, **metrics: float) -> None:
        pass

    numbers = {"loss": 0.5, "acc": 0.9, "step": 12_345}
    call = "(loss=loss, acc=acc, step=step)"
    yield "qd.log", f"log{call}", {"log": log, **numbers}
    yield "an empty call", f"empty{call}", {"empty": empty, **numbers}
    line = "print(f'step {step} loss {loss} acc {acc}', file=file, flush=True)"
    yield "print to a file", line, {"file": open("printed", "w"), **numbers}  # noqa: SIM115
    if importlib.util.find_spec("tensorboard") is not None:
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter("tensorboard")  # type: ignore[no-untyped-call]
        yield "add_scalar", "writer.add_scalar('loss', loss, step)", {"writer": writer, **numbers}


if __name__ == "__main__":
    alone.main(measure, lambda: metrics(9))
