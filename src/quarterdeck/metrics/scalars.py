"""What `qd.log` takes, as numbers. Pure; objects of torch and numpy are known by what they can.

A number is kept as float64: an int beyond 2**53 loses its last digits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

plain_types: set[type] = {float, int, bool}
"""Types whose values `struct` packs as they are. numpy's scalars join them when they are first seen."""


class OnGpu(NamedTuple):
    """A tensor that is still to be read."""

    tensor: Any


def flat(metrics: dict[str, Any]) -> dict[str, float | OnGpu]:
    """By name; a dict among the values as `name/key`. Raises TypeError with the name of what is no number."""
    values: dict[str, float | OnGpu] = {}
    for name, value in metrics.items():
        if isinstance(value, dict):
            values |= {f"{name}/{key}": _number(f"{name}/{key}", item) for key, item in value.items()}
        else:
            values[name] = _number(name, value)
    return values


def _number(name: str, value: Any) -> float | OnGpu:
    if type(value) is float:
        return value
    if getattr(value, "is_cuda", False) is True:
        if value.numel() != 1 or value.is_complex():
            raise TypeError(_advice(name, value))
        return OnGpu(value)
    try:
        number = _to_float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise TypeError(_advice(name, value)) from None
    if type(value).__module__ == "numpy" and not hasattr(value, "__len__"):
        plain_types.add(type(value))
    return number


def _to_float(value: Any) -> float:
    """`item` first: it is silent about gradients, and takes one element of any shape."""
    item = getattr(value, "item", None)
    number = item() if callable(item) else value
    if isinstance(number, str | bytes | bytearray | complex):  # float("3") would do
        raise TypeError
    return float(number)


def _advice(name: str, value: Any) -> str:
    """What is wrong with it, and what to write instead."""
    kind = type(value).__name__
    shape = getattr(value, "shape", None)
    if isinstance(value, str | bytes):
        return (
            f"qd.log takes numbers, and {name!r} is a {kind}: {value!r:.40}. Write float(...) if it is one."
        )
    if isinstance(value, int):
        return f"qd.log keeps numbers as float64, and {name!r} is too large for one. Log its logarithm."
    if value is None:
        return f"qd.log takes numbers, and {name!r} is None. Leave it out where there is no value."
    if isinstance(value, dict):
        return (
            f"qd.log takes one level of dicts, and {name!r} is a dict in a dict. Name its numbers one by one."
        )
    if getattr(value, "is_meta", False) is True:
        return f"qd.log takes numbers, and {name!r} is on the meta device, without a value."
    if shape is not None and len(shape):
        text = " x ".join(str(size) for size in shape)
        return f"qd.log takes single numbers, and {name!r} is a {kind} of {text}. Log its .mean(), for one."
    if isinstance(value, list | tuple | set):
        return f"qd.log takes single numbers, and {name!r} is a {kind}. Log its mean, or one name for each."
    return f"qd.log takes numbers, and {name!r} is a {kind}. Write float(...) if it can be one."
