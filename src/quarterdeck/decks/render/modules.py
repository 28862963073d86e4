"""Modules, optimizers and checkpoints. Imported with torch, when one is shown. No values are read, only what
parameters are: nothing waits for a device, or for another rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from quarterdeck.decks.render.html import brief, card, dims, escaped, number, table
from quarterdeck.present.tables import Raw
from quarterdeck.present.words import size

MODULES = 500
_OPEN_DEPTH = 2


@dataclass
class _Amount:
    parameters: int = 0
    trainable: int = 0
    size_bytes: int = 0

    def add(self, value: Any) -> None:
        try:
            count, bytes_ = value.numel(), value.numel() * value.element_size()
        except (ValueError, RuntimeError, NotImplementedError):  # lazy: it has no shape yet
            return
        self.parameters += count
        self.trainable += count * bool(value.requires_grad)
        self.size_bytes += bytes_


def module(value: Any) -> str:
    """The tree of layers, each with what it holds in all."""
    whole, buffers = _amount(value), _Amount()
    for buffer in value.buffers():
        buffers.add(buffer)
    facts = [_parameters(whole), size(whole.size_bytes)]
    if buffers.size_bytes:
        facts.append(f"buffers {size(buffers.size_bytes)}")
    facts.append("training" if value.training else "evaluating")
    tree = _Tree()
    body = "".join(tree.inside(value, 1))
    return card(type(value).__name__, facts, Raw(f'<div class="qd-tree qd-mod">{body}</div>'))


def optimizer(value: Any) -> str:
    """Groups with their settings, and how much state there is."""
    groups = value.param_groups
    given = [(name, value) for group in groups for name, value in group.items() if name != "params"]
    names = list(dict.fromkeys(name for name, value in given if value is not None and value is not False))
    heads = ["group", "parameters", *names]
    rows = [
        [
            place,
            f"{sum(p.numel() for p in group['params']):,}",
            *(_setting(group.get(name)) for name in names),
        ]
        for place, group in enumerate(groups)
    ]
    states = [one for state in value.state.values() for one in state.values()]
    held = sum(one.numel() * one.element_size() for one in states if hasattr(one, "element_size"))
    facts = [f"{len(groups)} group{'s' * (len(groups) != 1)}", f"state {size(held)}"]
    return card(type(value).__name__, facts, table(heads, rows, range(1, len(heads))))


def checkpoint(value: Any) -> str:
    """Anything that has a step, metrics and a path."""
    metrics = dict(value.metrics or {})
    rows: list[list[object]] = [["step", _setting(value.step)]]
    rows += [[name, _setting(one)] for name, one in metrics.items()]
    rows.append(["path", str(value.path)])
    if isinstance(bytes_ := getattr(value, "size_bytes", None), int):
        rows.append(["size", size(bytes_)])
    return card(type(value).__name__, [], table([], rows))


class _Tree:
    def __init__(self) -> None:
        self.left = MODULES

    def inside(self, value: Any, depth: int) -> Iterator[str]:
        """Its own parameters, then its layers."""
        for name, one in value.named_parameters(recurse=False):
            yield _line(f"<b>{escaped(name)}</b>", _shape(one), _amount_of(one))
        for name, child in value.named_children():
            if self.left <= 0:
                yield f"<div><span>only the first {MODULES} modules</span></div>"
                return
            self.left -= 1
            yield self._node(name, child, depth)

    def _node(self, name: str, child: Any, depth: int) -> str:
        label = f"<b>{escaped(name)}</b> {escaped(_title(child), 300)}"
        amount = _amount(child)
        inner = "".join(self.inside(child, depth + 1)) if self.left > 0 else ""
        if not inner:
            return _line(label, "", amount)
        opened = " open" if depth < _OPEN_DEPTH else ""
        return f"<details{opened}><summary>{_cells(label, '', amount)}</summary>{inner}</details>"


def _line(label: str, shape: str, amount: _Amount) -> str:
    return f"<div>{_cells(label, shape, amount)}</div>"


def _cells(label: str, shape: str, amount: _Amount) -> str:
    frozen = "frozen" if amount.parameters and not amount.trainable else ""
    count = f"{amount.parameters:,}" if amount.parameters else ""
    weight = size(amount.size_bytes) if amount.size_bytes else ""
    return f"<span>{label}</span><i>{shape}</i><i>{frozen}</i><i>{count}</i><i>{weight}</i>"


def _title(child: Any) -> str:
    own = child.extra_repr() if next(child.children(), None) is None else ""
    return f"{type(child).__name__}({own})" if own else type(child).__name__


def _shape(value: Any) -> str:
    try:
        return f"{dims(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    except (ValueError, RuntimeError):
        return "no shape yet"


def _amount(value: Any) -> _Amount:
    amount = _Amount()
    for one in value.parameters():
        amount.add(one)
    return amount


def _amount_of(parameter: Any) -> _Amount:
    amount = _Amount()
    amount.add(parameter)
    return amount


def _parameters(amount: _Amount) -> str:
    trainable = "" if amount.trainable == amount.parameters else f", {amount.trainable:,} of them trainable"
    return f"{amount.parameters:,} parameters{trainable}"


def _setting(value: Any) -> str:
    if isinstance(value, float) and value == value and abs(value) != float("inf"):
        return number(value)
    return "" if value is None else brief(value, 80)
