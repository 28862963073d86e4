"""What a payload's pickle stream calls while it loads: in a worker, or in the kernel for a pulled value.

The functions that concern tensors import torch; the others do not. Their names are part of the stream,
and so of every stored value: one that is renamed or moved is found by its old name through `renamed`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from quarterdeck.transfer.identity import TravelTable


class _Receiver:
    """Where the payload that is being loaded arrives. One load at a time per process."""

    namespace: dict[str, object] | None = None
    table: TravelTable | None = None
    buffers: Iterable[Any] = ()
    """The buffers of the function that `load_function` is to load."""


@contextlib.contextmanager
def receiving(
    namespace: dict[str, object], table: TravelTable | None, buffers: Iterable[Any] = ()
) -> Iterator[None]:
    """Loads inside the block arrive in `namespace` and `table`; loads may nest (a `__setstate__` that
    loads)."""
    before = _Receiver.namespace, _Receiver.table, _Receiver.buffers
    _Receiver.namespace, _Receiver.table, _Receiver.buffers = namespace, table, buffers
    try:
        yield
    finally:
        _Receiver.namespace, _Receiver.table, _Receiver.buffers = before


def function_buffers() -> Iterable[Any]:
    return _Receiver.buffers


def receiver_namespace() -> dict[str, object]:
    if _Receiver.namespace is None:
        raise RuntimeError(
            "what quarterdeck has pickled can only be loaded by quarterdeck.transfer.pickler.loads"
        )
    return _Receiver.namespace


def import_modules(names: tuple[str, ...]) -> None:
    """Import submodules that the sender's code reaches through their package. One that is missing here is
    left to the AttributeError of the code that needs it."""
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


# ---- functions


def make_function(
    code: types.CodeType, namespace: dict[str, object], name: str, cells: tuple[types.CellType, ...] | None
) -> types.FunctionType:
    return types.FunctionType(code, namespace, name, None, cells)


def restore_function(
    function: types.FunctionType, state: tuple[dict[str, Any], dict[str, Any], object]
) -> None:
    """Second half of `make_function`, after the function is memoised, so that it may refer to itself."""
    attributes, slots, _ = state
    vars(function).update(attributes)
    for name, value in slots.items():
        setattr(function, name, value)


def fill_cell(cell: types.CellType, contents: tuple[object]) -> None:
    cell.cell_contents = contents[0]


def make_lru_cache(function: Callable[..., Any], maxsize: int | None, typed: bool) -> object:
    """An empty cache: results computed in the notebook stay there."""
    return functools.lru_cache(maxsize=maxsize, typed=typed)(function)


def make_cached_property(function: Callable[[Any], Any], name: str | None) -> object:
    made = functools.cached_property(function)
    made.attrname = name
    return made


# ---- stateful torch objects


def held(travel_id: int) -> object:
    """The receiver's own object. Raises `travel.Gone`."""
    if _Receiver.table is None:
        raise RuntimeError("what arrived refers to objects that came earlier, and there is no table of them")
    return _Receiver.table.get(travel_id)


def arrive(obj: Any, state: tuple[int, Any, Callable[[Any, Any], object] | None]) -> None:
    """Register an object under its travel id, then give it its state as pickle would have."""
    travel_id, inner, setter = state
    if _Receiver.table is not None:
        _Receiver.table.put(travel_id, obj)
    if inner is None:
        return
    if setter is not None:
        setter(obj, inner)
    elif hasattr(obj, "__setstate__"):
        obj.__setstate__(inner)
    else:
        _build(obj, inner)


def _build(obj: Any, state: Any) -> None:
    slots: dict[str, Any] | None = None
    if isinstance(state, tuple) and len(state) == 2:
        state, slots = state
    if state:
        vars(obj).update(state)
    for name, value in (slots or {}).items():
        setattr(obj, name, value)


# ---- tensors


def load_storage(buffer: Any, was_on_gpu: bool) -> Any:
    """A storage over the mapped buffer, writable and not copied; small ones come in band and are copied once.

    One that lay on a GPU goes to this process's current GPU, or stays on the CPU where there is none.
    """
    import torch

    size = memoryview(buffer).nbytes
    flat = (
        torch.frombuffer(buffer, dtype=torch.uint8)
        if size
        else torch.empty(0, dtype=torch.uint8, device="cpu")
    )
    storage = (flat.clone() if isinstance(buffer, bytearray) else flat).untyped_storage()
    if was_on_gpu and torch.cuda.is_available():
        return storage.cuda(torch.cuda.current_device())
    return storage


def itself(storage: Any) -> Any:
    """For a storage that is a value of its own and shares its memory with tensors of the payload."""
    return storage


def load_typed_storage(storage: Any, dtype: Any) -> Any:
    """What torch's own reductions of tensors hold: those of subclasses, quantised and conjugate ones."""
    import torch

    typed: Any = torch.storage.TypedStorage
    return typed(wrap_storage=storage, dtype=dtype, _internal=True)


def load_other_tensor(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """As torch itself makes one again, but where its parts are: a default device would be a sparse one's."""
    import torch

    with torch._C.DisableTorchFunction():
        return function(*args)


def load_tensor(
    storage: Any,
    dtype: Any,
    offset: int,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool,
) -> Any:
    import torch

    tensor = torch.empty(0, dtype=dtype, device=storage.device).set_(storage, offset, shape, stride)
    return tensor.requires_grad_() if requires_grad else tensor
