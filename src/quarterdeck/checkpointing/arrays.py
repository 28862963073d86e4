"""Scalars and small arrays of numpy, small tensors, dtypes and devices of torch, as JSON and back. Called by
`leaves`; numpy and torch are imported only to make a value of theirs again.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from typing import Any

from quarterdeck.modes import without_modes

Tagged = dict[str, Any]
MOST_ITEMS = 100_000
"""The most numbers of an array or tensor among hyperparameters; a larger one is data."""

_NUMPY_NAME = re.compile(
    r"bool|u?int(8|16|32|64)|float(16|32|64)|complex(64|128)|(datetime|timedelta)64(\[\w+\])?"
)
_TORCH_NAME = re.compile(r"bool|u?int(8|16|32|64)|b?float(16|32|64)|complex(64|128)")


def encode(value: object) -> Tagged | None:
    """None if the value is of neither library. Raises ValueError, in words, for one that cannot be kept."""
    return _encode_numpy(value) or _encode_torch(value)


def _encode_numpy(value: Any) -> Tagged | None:
    numpy = sys.modules.get("numpy")
    if numpy is None or not (isinstance(value, numpy.generic) or type(value) is numpy.ndarray):
        return None
    if type(value) is numpy.str_:
        return {"$numpy": "str", "value": str(value)}
    name = value.dtype.name
    if not (_NUMPY_NAME.fullmatch(name) and value.dtype.isnative):
        raise ValueError(f"cannot be kept with its dtype, {value.dtype}")
    if value.dtype.kind in "Mm" and type(value) is numpy.ndarray:
        raise ValueError(f"cannot be kept with its dtype, {name}: keep a list of datetimes")
    if isinstance(value, numpy.generic):
        return {"$numpy": name, "value": _number(_item(value))}
    return {"$array": _listed(value.tolist(), value.size), "dtype": name, "shape": list(value.shape)}


def _item(value: Any) -> Any:
    kind = value.dtype.kind
    return str(value) if kind == "M" else int(value.astype("int64")) if kind == "m" else value.item()


def _encode_torch(value: Any) -> Tagged | None:
    torch = sys.modules.get("torch")
    if not hasattr(torch, "Size"):
        return None
    assert torch is not None
    if isinstance(value, torch.dtype | torch.device):
        kind = type(value).__name__
        return {f"$torch.{kind}": str(value).removeprefix("torch.")}
    if type(value) is torch.Size:
        return {"$torch.Size": list(value)}
    return _encode_tensor(value) if type(value) is torch.Tensor else None


def _encode_tensor(tensor: Any) -> Tagged:
    """Its values; the device is that of the process which makes it again, the CPU."""
    name = str(tensor.dtype).removeprefix("torch.")
    if tensor.requires_grad:
        raise ValueError("that requires a gradient belongs to the module")
    if not _TORCH_NAME.fullmatch(name) or tensor.is_sparse or tensor.device.type == "meta":
        raise ValueError(f"of {tensor.dtype}, {tensor.layout}, {tensor.device} cannot be kept")
    items = _listed(tensor.detach().cpu().tolist(), tensor.numel())
    return {"$tensor": items, "dtype": name, "shape": list(tensor.shape)}


def _listed(items: Any, count: int) -> Any:
    if count > MOST_ITEMS:
        raise ValueError(f"of {count:,} numbers is too large for hyperparameters (at most {MOST_ITEMS:,})")
    return _numbers(items)


def _numbers(items: Any) -> Any:
    return [_numbers(item) for item in items] if isinstance(items, list) else _number(items)


def _number(item: Any) -> Any:
    """A number that JSON has no word for is a string."""
    plain = not isinstance(item, float | complex) or (isinstance(item, float) and math.isfinite(item))
    return item if plain else str(item).strip("()")


def _read_numpy(name: str, data: Tagged) -> Any:
    import numpy

    value = data["value"]
    if name == "str":
        return numpy.str_(value)
    number = complex(value) if name.startswith("complex") else value
    return numpy.array(number, dtype=_checked(name, _NUMPY_NAME))[()]


def _read_array(items: Any, data: Tagged) -> Any:
    import numpy

    name = _checked(data["dtype"], _NUMPY_NAME)
    return numpy.array(_parsed(items, name), dtype=name).reshape(data["shape"])


def _read_tensor(items: Any, data: Tagged) -> Any:
    import torch

    name = _checked(data["dtype"], _TORCH_NAME)
    with without_modes():
        return torch.tensor(_parsed(items, name), dtype=vars(torch)[name]).reshape(data["shape"])


def _parsed(items: Any, dtype: str) -> Any:
    if isinstance(items, list):
        return [_parsed(item, dtype) for item in items]
    return complex(items) if dtype.startswith("complex") else float(items) if "float" in dtype else items


def _checked(name: str, pattern: re.Pattern[str]) -> str:
    if not pattern.fullmatch(name):
        raise ValueError(name)
    return name


def _read_torch(name: str, data: Tagged) -> Any:
    import torch

    found = vars(torch)[name]
    if not isinstance(found, torch.dtype):
        raise ValueError(name)
    return found


def _read_device(name: str, data: Tagged) -> Any:
    import torch

    return torch.device(name)


def _read_size(sizes: list[int], data: Tagged) -> Any:
    import torch

    return torch.Size(sizes)


READERS: dict[str, Callable[[Any, Tagged], object]] = {
    "numpy": _read_numpy,
    "array": _read_array,
    "tensor": _read_tensor,
    "torch.dtype": _read_torch,
    "torch.device": _read_device,
    "torch.Size": _read_size,
}
