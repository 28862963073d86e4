"""Plain values: what `torch.load(weights_only=True)` gives back as it was. Used by `capture`, which refuses
the rest when a checkpoint is saved, by name, and by `staging`, which copies them.
"""

from __future__ import annotations

import copy
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from quarterdeck.errors import UsageError

_ATOMS = frozenset((type(None), bool, int, float, complex, str, bytes, bytearray))
_DICTS = (dict, OrderedDict, Counter)
_LISTS = (list, tuple, set)
_DEEPEST = 200
_PARTS_OF_BYTES = re.compile(r"torch\.u?int[1-7]")


def check(value: Any, name: str) -> None:
    """Raises UsageError naming the path to the first thing that is not plain: "extra['cfg'][2]"."""
    _check(value, name, ())


def _check(value: Any, name: str, at: tuple[Any, ...]) -> None:
    """The path is put into words only when something is wrong: an optimizer has thousands of tensors."""
    kind = type(value)
    if kind in _ATOMS:
        return
    if len(at) > _DEEPEST:
        raise UsageError(f"{_path(name, at[:4])}... is nested too deeply for a checkpoint, or holds itself.")
    if kind in _DICTS:
        for key, item in value.items():
            if type(key) not in _ATOMS:
                _check(key, f"the key {key!r:.40} of {_path(name, at)}", ())
            _check(item, name, (*at, key))
    elif kind in _LISTS:
        for index, item in enumerate(value):
            _check(item, name, (*at, index))
    elif not _is_plain_torch(value):
        _refuse(value, _path(name, at))


def _path(name: str, at: tuple[Any, ...]) -> str:
    return name + "".join(f"[{key!r:.40}]" for key in at)


def _is_plain_torch(value: Any) -> bool:
    import torch

    if isinstance(value, torch.Tensor):
        return type(value) in (torch.Tensor, torch.nn.Parameter) and not unkept(value)
    return type(value) in (torch.Size, torch.dtype, torch.device, torch.layout)


def unkept(tensor: Any) -> tuple[str, str] | None:
    """What a tensor is that can be copied into no file, and what to do; None for all others."""
    if tensor.is_meta or type(tensor).__name__ == "FakeTensor":
        return (
            "a tensor on the meta device: it has no data that could be saved",
            "Give the module memory with model.to_empty(device=...), and values.",
        )
    if tensor.is_nested:
        return "a nested tensor, which is not kept", "Keep the list x.unbind()."
    if tensor.is_quantized:
        return (
            f"a quantized tensor ({tensor.dtype}), which is not kept",
            "Keep x.dequantize(), or what it is made of: x.int_repr(), x.q_scale(), x.q_zero_point().",
        )
    if str(tensor.layout) != "torch.strided":
        return (
            f"a tensor of the layout {tensor.layout}, which is not kept",
            "Keep x.to_dense(), or what it is made of: indices, values and shape.",
        )
    if _PARTS_OF_BYTES.fullmatch(str(tensor.dtype)):
        return f"a tensor of {tensor.dtype}, which torch cannot copy", "Keep x.view(torch.uint8)."
    return None


def _refuse(value: Any, path: str) -> None:
    import torch

    if isinstance(value, torch.Tensor) and (found := unkept(value)) is not None:
        raise UsageError(f"{path} is {found[0]}.", found[1])
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    hint = "Keep it as plain numbers, strings, lists, dicts and tensors"
    if kind.__module__ == "numpy":
        hint = "Convert it: x.item() for a number, torch.from_numpy(x) for an array"
    elif callable(value):
        hint = "Leave it out, and make it anew when the checkpoint is loaded"
    raise UsageError(
        f"{path} is {name}, which cannot be loaded again without running code.",
        f"{hint}; hyperparameters={{...}} also takes dataclasses, enums, paths and dates.",
    )


def copied(value: Any, tensor: Callable[[Any, tuple[Any, ...]], Any], at: tuple[Any, ...] = ()) -> Any:
    """The same containers anew, each tensor as `tensor(it, the path to it)` has it."""
    import torch

    if isinstance(value, torch.Tensor):
        return tensor(value, at)
    if isinstance(value, Mapping):
        items = ((key, copied(item, tensor, (*at, key))) for key, item in value.items())
        return Counter(dict(items)) if isinstance(value, Counter) else type(value)(items)  # type: ignore[call-arg]
    if isinstance(value, torch.Size):
        return value
    if isinstance(value, list | tuple):
        return type(value)(copied(item, tensor, (*at, index)) for index, item in enumerate(value))
    return copy.deepcopy(value)
