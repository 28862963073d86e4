"""Tensors and arrays: what they are, the statistics of their values, and a histogram. Imported with torch or
numpy, when one is shown.

Nothing here communicates with other ranks, or leaves a trace in autograd: of a sharded tensor it is the local
part that is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from quarterdeck.decks.render import images
from quarterdeck.decks.render.html import card, dims, escaped, note, number, table
from quarterdeck.present.tables import Raw
from quarterdeck.present.words import size

BINS = 40
SHOWN_VALUES = 100
"""So many are shown themselves, in a table."""
EXACT_ELEMENTS = 1 << 22
"""The most values that are all counted; of more, every n-th one counts."""
QUICK_ELEMENTS = 1 << 18
_SMALL = 4096
"""Fetched from a device as they are: one transfer in any case."""

_exact: ContextVar[int] = ContextVar("exact", default=EXACT_ELEMENTS)


@contextmanager
def quick() -> Iterator[None]:
    """Inside, large tensors are looked at less closely: for decks that nobody has asked for."""
    token = _exact.set(QUICK_ELEMENTS)
    try:
        yield
    finally:
        _exact.reset(token)


@dataclass
class Stats:
    """Over the finite values."""

    nan: int
    inf: int
    least: float
    greatest: float
    mean: float
    std: float
    bins: list[float]


def tensor(value: Any) -> str:
    import torch

    with torch.no_grad():
        return _tensor(value)


def array(value: Any) -> str:
    facts = [str(value.dtype), dims(value.shape), size(value.nbytes)]
    if value.dtype.kind not in "biufc" or value.size == 0:
        text = str(value) if value.size <= SHOWN_VALUES else ""
        return card(type(value).__name__, facts, Raw(f"<pre>{escaped(text)}</pre>") if text else "")
    if images.channels_first(value.shape) is not None:
        return images.grid(value, lambda part: part) + _array_card(value, facts)
    return _array_card(value, facts)


# ---- tensors


def _tensor(value: Any) -> str:
    kind = type(value).__name__
    facts = [str(value.dtype).removeprefix("torch."), dims(value.shape), str(value.device)]
    if value.requires_grad:
        facts.append("requires grad")
    if hasattr(value, "to_local"):  # of a DTensor every operation on the whole would be a collective
        value = value.to_local()
        facts.append(f"of which this rank holds {dims(value.shape)}")
    value = value.detach()
    facts.append(size(value.numel() * value.element_size()))
    if value.is_sparse or value.layout != _strided():
        return card(kind, [*facts, str(value.layout).removeprefix("torch.")], "")
    if value.device.type == "meta" or not value.numel() or value.is_quantized:
        return card(kind, facts, "")
    picture = ""
    if images.channels_first(tuple(value.shape)) is not None and not value.is_complex():
        picture = images.grid(value, _fetched)
    if value.numel() <= _SMALL:
        value = value.cpu()
    return picture + _tensor_card(kind, value, facts)


def _strided() -> Any:
    import torch

    return torch.strided


def _fetched(part: Any) -> Any:
    import torch

    plain = part.float() if part.dtype in (torch.bfloat16, torch.float16) else part
    return plain.cpu().numpy()


def _tensor_card(kind: str, value: Any, facts: list[str]) -> str:
    step = _step(value.numel())
    flat = _sampled(value, step, value.is_contiguous())
    stats = _tensor_stats(flat.abs() if flat.is_complex() else flat)
    shown = value.ndim <= 2 and value.numel() <= SHOWN_VALUES
    return card(kind, facts, _body(stats, step, value.numel(), value.tolist() if shown else None))


def _tensor_stats(flat: Any) -> Stats:
    """All on the tensor's device; one transfer."""
    import torch

    exact = flat.device.type == "cpu" or flat.dtype in (torch.float64, torch.int64)
    double = torch.float64 if exact and flat.device.type != "mps" else torch.float32
    x = flat.to(double)
    finite = torch.isfinite(x)
    count = finite.sum()
    zero = torch.zeros((), dtype=double, device=x.device)
    least = torch.where(finite, x, zero + torch.inf).min()
    greatest = torch.where(finite, x, zero - torch.inf).max()
    mean = torch.where(finite, x, zero).sum() / count
    std = (torch.where(finite, (x - mean) ** 2, zero).sum() / (count - 1)).sqrt()
    span = torch.where(greatest > least, greatest - least, zero + 1)
    place = torch.where(finite, (x - least) / span * BINS, zero + BINS + 1)
    place = torch.where(finite, place.clamp(0, BINS - 1), zero + BINS).long()
    ones = torch.ones((), dtype=torch.int64, device=x.device).expand(place.shape)
    bins = torch.zeros(BINS + 1, dtype=torch.int64, device=x.device).scatter_add_(0, place, ones)[:BINS]
    head = torch.stack([torch.isnan(x).sum(), torch.isinf(x).sum()])
    moments = torch.stack([least, greatest, mean, std])
    nan, inf, low, high, middle, spread, *counts = torch.cat(
        [head.to(double), moments, bins.to(double)]
    ).tolist()
    return Stats(int(nan), int(inf), low, high, middle, spread, counts)


# ---- arrays


def _array_card(value: Any, facts: list[str]) -> str:
    import numpy as np

    step = _step(value.size)
    flat = _sampled(value, step, value.flags.c_contiguous)
    stats = _array_stats(np.abs(flat) if flat.dtype.kind == "c" else flat)
    shown = value.ndim <= 2 and value.size <= SHOWN_VALUES
    return card(
        type(value).__name__, facts, _body(stats, step, value.size, value.tolist() if shown else None)
    )


def _array_stats(flat: Any) -> Stats:
    import numpy as np

    x = np.asarray(flat).astype(np.float64)
    finite = x[np.isfinite(x)]
    nan = int(np.isnan(x).sum())
    if not finite.size:
        none = float("nan")
        return Stats(nan, x.size - nan, none, none, none, none, [0.0] * BINS)
    bins = np.histogram(finite, BINS)[0].tolist() if np.ptp(finite) > 0 else [float(finite.size)]
    std = float(finite.std(ddof=1)) if finite.size > 1 else float("nan")
    least, greatest = float(finite.min()), float(finite.max())
    return Stats(nan, x.size - nan - finite.size, least, greatest, float(finite.mean()), std, bins)


# ---- drawing


def _step(elements: int) -> int:
    return -(-elements // _exact.get())


def _sampled(value: Any, step: int, contiguous: bool) -> Any:
    """Every n-th value, flat; never a copy of more. An expanded tensor may have more values than there is
    memory.
    """
    if contiguous or step == 1:
        return value.reshape(-1)[::step]
    for axis in sorted(range(len(value.shape)), key=lambda axis: -value.shape[axis]):
        each = min(step, value.shape[axis])
        value = value[(slice(None),) * axis + (slice(None, None, each),)]
        step = -(-step // each)
    return value.reshape(-1)


def _body(stats: Stats, step: int, elements: int, values: Any) -> Raw:
    if elements == 1:
        return Raw(f'<p class="qd-num">{escaped(_value(_only(values)))}</p>')
    facts = {"min": stats.least, "mean": stats.mean, "max": stats.greatest, "std": stats.std}
    cells = [f"<dt>{name}</dt><dd>{number(value)}</dd>" for name, value in facts.items() if value == value]
    cells += [f"<dt>{name}</dt><dd>{count:,}</dd>" for name, count in _odd(stats)]
    list_ = f'<dl class="qd-stats">{"".join(cells)}</dl>'
    sampled = note(f"Statistics of every {step:,}th value.") if step > 1 else ""
    drawn = histogram(stats) if elements - stats.nan - stats.inf > 0 else ""
    return Raw(f'<div class="qd-row">{drawn}{list_}</div>{sampled}{_values(values)}')


def _odd(stats: Stats) -> list[tuple[str, int]]:
    return [(name, count) for name, count in (("NaN", stats.nan), ("inf", stats.inf)) if count]


def histogram(stats: Stats) -> str:
    """Bars of the finite values, from the least to the greatest."""
    top, width = max(stats.bins) or 1, 240 / len(stats.bins)
    bars = "".join(
        f'<rect x="{place * width:.1f}" y="{44 - 42 * count / top:.1f}" width="{max(width - 1, 1):.1f}"'
        f' height="{42 * count / top:.1f}"/>'
        for place, count in enumerate(stats.bins)
        if count
    )
    words = f"histogram from {number(stats.least)} to {number(stats.greatest)}"
    return (
        f'<svg class="qd-hist" viewBox="0 0 240 60" width="240" height="60" role="img" aria-label="{words}">'
        f'{bars}<path d="M0 44.5H240"/><text x="0" y="57">{number(stats.least)}</text>'
        f'<text x="240" y="57" text-anchor="end">{number(stats.greatest)}</text></svg>'
    )


def _values(values: Any) -> str:
    """The values themselves, of a vector or a matrix."""
    if not isinstance(values, list):
        return ""
    rows: Sequence[Any] = values if values and isinstance(values[0], list) else [values]
    return table([], ([_value(one) for one in row] for row in rows), range(len(rows[0])))


def _value(one: Any) -> str:
    if isinstance(one, float) and one == one and abs(one) != float("inf"):
        return number(one)
    return str(one)


def _only(values: Any) -> Any:
    while isinstance(values, list):
        values = values[0]
    return values
