"""Pickles notebook values for the workers, and worker values for the notebook. Runs in the kernel and in
the workers.

Guarantees beyond cloudpickle's: functions of the sender's namespace get the receiver's namespace as their
globals and bring no global values along, so loading never rebinds a name there; tensors and arrays leave
the stream as buffers; modules, parameters and optimizers that the receiver still holds travel as a
reference to its own object.
"""

from __future__ import annotations

import ctypes
import functools
import io
import pickle
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import cloudpickle

from quarterdeck.errors import text_of
from quarterdeck.modes import without_inference_mode
from quarterdeck.renamed import module_today, name_today
from quarterdeck.transfer import unpickle
from quarterdeck.transfer.identity import TravelTable
from quarterdeck.transfer.references import global_names, is_filled

__all__ = ["Pickled", "TravelTable", "dumps", "loads"]

_IN_BAND_BYTES = 1024
_CODE = (
    "argcount", "posonlyargcount", "kwonlyargcount", "nlocals", "stacksize", "flags", "code", "consts",
    "names", "varnames", "filename", "name", "qualname", "firstlineno", "linetable", "exceptiontable",
    "freevars", "cellvars",
)  # fmt: skip
"""The fields of a code object, in the order in which its constructor takes them, from Python 3.11 on."""
_SLOTS = ("__qualname__", "__module__", "__doc__", "__defaults__", "__kwdefaults__", "__annotations__")


class Pickled(NamedTuple):
    data: bytes
    buffers: list[memoryview]
    """Flat views of the senders' own memory, in pickling order; they keep it alive. Pack them before it
    changes."""


def dumps(
    values: Mapping[str, object],
    namespace: dict[str, object],
    known: Callable[[object], int | None] | None = None,
    remember: Callable[[object], int] | None = None,
    imports: Iterable[str] = (),
) -> Pickled:
    """Pickle `values` so that `loads` gives them to another process.

    `known` gives the travel id of a stateful object that every receiver still holds; `remember` gives one
    to an object that goes in full (without it, objects arrive unregistered). `imports` are modules to
    import on arrival. Raises whatever the first value that cannot be pickled raises:
    `transfer.pickle_diagnosis` finds out which it was.
    """
    file = io.BytesIO()
    pickler = PayloadPickler(file, namespace, known, remember)
    receiver = pickler.receiver
    with _NoExit("pickled"):
        pickler.dump((tuple(imports), {k: receiver if v is namespace else v for k, v in values.items()}))
    return Pickled(file.getvalue(), pickler.buffers)


def loads(
    data: bytes, buffers: Iterable[Any], namespace: dict[str, object], table: TravelTable | None = None
) -> dict[str, object]:
    """The values, by name. Does not bind them: that is the caller's to do, in `namespace`.

    Raises `identity.Gone` for a reference to an object that has died meanwhile, and what unpickling raises.
    """
    with unpickle.receiving(namespace, table), without_inference_mode(), _NoExit("unpickled"):
        imports, values = _Reader(io.BytesIO(data), buffers=buffers).load()
        unpickle.import_modules(imports)
    result: dict[str, object] = values
    return result


def load_function(data: bytes) -> Callable[..., Any]:
    """A function pickled alone, by `dumps_function` or by plain cloudpickle. The former, inside
    `unpickle.receiving` with the buffers that came with it.
    """
    with without_inference_mode(), _NoExit("unpickled"):
        function: Callable[..., Any] = pickle.loads(data, buffers=unpickle.function_buffers())
    return function


def dumps_function(function: Callable[..., Any], namespace: dict[str, object]) -> Pickled:
    """As `dumps`, for one function, in the form that `worker.spawn_helper` takes."""
    file = io.BytesIO()
    pickler = PayloadPickler(file, namespace)
    with _NoExit("pickled"):
        pickler.dump(function)
    return Pickled(file.getvalue(), pickler.buffers)


class _Reader(pickle.Unpickler):
    """Also of values that an earlier version has stored."""

    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(module_today(module), name_today(module, name))


class _NoExit:
    """`sys.exit()`, and its like, in user code that pickles or unpickles a value (or in a module that is
    imported for it) is an error of that value. It must not end whoever carries it.
    """

    def __init__(self, done: str) -> None:
        self._done = done

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, raised: BaseException | None, frames: object) -> None:
        if raised is None or isinstance(raised, (Exception, KeyboardInterrupt)):
            return
        what = f"{type(raised).__name__}: {text_of(raised)}".removesuffix(": ")
        raise pickle.PickleError(f"{what}, raised while it was {self._done}") from raised


class _ReceiverNamespace:
    """Stands for the receiver's namespace in the stream."""

    def __reduce__(self) -> tuple[Any, ...]:
        return unpickle.receiver_namespace, ()


class _Storage:
    """One tensor storage, pickled once however many tensors view it."""

    def __init__(self, storage: Any) -> None:
        self._on_gpu = storage.device.type == "cuda"
        self._original = storage
        self._storage = storage.cpu() if self._on_gpu else storage

    def __reduce__(self) -> tuple[Any, ...]:
        size = self._storage.nbytes()
        if not size:
            return unpickle.load_storage, (b"", self._on_gpu)
        memory = (ctypes.c_ubyte * size).from_address(self._storage.data_ptr())
        memory.owner = self._storage
        return unpickle.load_storage, (pickle.PickleBuffer(memory), self._on_gpu)


class PayloadPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """See the module. `buffers` fills while it dumps. One use each."""

    def __init__(
        self,
        file: Any,
        namespace: Mapping[str, object],
        known: Callable[[object], int | None] | None = None,
        remember: Callable[[object], int] | None = None,
    ) -> None:
        super().__init__(file, protocol=5, buffer_callback=self._take_buffer)
        self.buffers: list[memoryview] = []
        self.receiver = _ReceiverNamespace()
        self._namespace = namespace
        self._known, self._remember = known, remember
        self._cells: set[int] = set()
        self._storages: dict[tuple[str, int, int], _Storage] = {}
        torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
        self._tensor = getattr(torch, "Tensor", None)
        self._array = getattr(numpy, "ndarray", None)
        self._untyped_storage = getattr(torch, "UntypedStorage", None)
        self._typed_storage = getattr(getattr(torch, "storage", None), "TypedStorage", None)
        self._stateful = _stateful_types(torch)

    def _take_buffer(self, buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _IN_BAND_BYTES:
            return True
        self.buffers.append(raw)
        return False

    def reducer_override(self, obj: Any) -> Any:
        """Called by pickle for every object that is not a plain builtin."""
        kind = type(obj)
        if kind is types.FunctionType and obj.__globals__ is self._namespace:
            return self._reduce_function(obj)
        if kind is types.CodeType:
            return _reduce_code(obj)
        if kind is types.CellType and id(obj) in self._cells:
            return _reduce_cell(obj)
        if kind is self._tensor:
            return self._reduce_tensor(obj) if _is_plain(obj) else _reduce_other_tensor(obj)
        if kind is self._typed_storage and _is_reachable(obj._untyped_storage):
            return unpickle.load_typed_storage, (self._held(obj._untyped_storage), obj.dtype)
        if kind is self._untyped_storage and _is_reachable(obj):
            return unpickle.itself, (self._held(obj),)
        if self._stateful and issubclass(kind, self._stateful):
            return self._reduce_stateful(obj)
        if kind is self._array and _is_scattered(obj):
            return obj.copy().__reduce_ex__(5)
        if kind in _FUNCTOOLS:
            return _FUNCTOOLS[kind](obj) or super().reducer_override(obj)
        return super().reducer_override(obj)

    def _reduce_function(self, function: types.FunctionType) -> tuple[Any, ...]:
        cells = function.__closure__
        self._cells.update(map(id, cells or ()))
        slots = {name: getattr(function, name) for name in _SLOTS}
        if getattr(function, "__type_params__", ()):
            slots["__type_params__"] = function.__type_params__  # type: ignore[attr-defined]
        submodules = _Imports(self._submodules(function))
        state = (dict(vars(function)), slots, submodules)
        args = (function.__code__, self.receiver, function.__name__, cells)
        return unpickle.make_function, args, state, None, None, unpickle.restore_function

    def _submodules(self, function: types.FunctionType) -> tuple[str, ...]:
        """Submodules the function reaches as attributes: `xml.etree.ElementTree`, where only `xml` is a
        global."""
        code, namespace = function.__code__, function.__globals__
        values = [namespace[name] for name in global_names(code) if name in namespace]
        values += [cell.cell_contents for cell in function.__closure__ or () if is_filled(cell)]
        words = set(_all_names(code))
        packages = [v for v in values if isinstance(v, types.ModuleType) and hasattr(v, "__path__")]
        return tuple(found for package in packages for found in _loaded_below(package.__name__, words))

    def _reduce_tensor(self, tensor: Any) -> tuple[Any, ...]:
        storage = self._held(tensor.untyped_storage())
        view = tensor.storage_offset(), tuple(tensor.shape), tensor.stride()
        return unpickle.load_tensor, (storage, tensor.dtype, *view, tensor.requires_grad)

    def _held(self, storage: Any) -> _Storage:
        """The same for every object that stands for this memory. What torch's own reductions leave in the
        stream comes here, too: theirs of a storage could not be loaded where its GPU is missing."""
        key = str(storage.device), storage.data_ptr(), storage.nbytes()
        if key not in self._storages:
            self._storages[key] = _Storage(storage)
        return self._storages[key]

    def _reduce_stateful(self, obj: Any) -> Any:
        travel_id = self._known(obj) if self._known else None
        if travel_id is not None:
            return unpickle.held, (travel_id,)
        registered = self.dispatch_table.get(type(obj))
        plain = registered(obj) if registered else obj.__reduce_ex__(5)
        if isinstance(plain, str) or self._remember is None:
            return plain
        function, args, state, items, pairs, setter = list(plain) + [None] * (6 - len(plain))
        return function, args, (self._remember(obj), state, setter), items, pairs, unpickle.arrive


class _Imports:
    """Imports modules when it is loaded."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def __reduce__(self) -> tuple[Any, ...]:
        return unpickle.import_modules, (self._names,)


def _stateful_types(torch: Any) -> tuple[type, ...]:
    """Classes of objects with an identity worth keeping. Empty while torch is not (fully) imported here."""
    places = ("nn", "Module"), ("nn", "Parameter"), ("optim", "Optimizer")
    found = (getattr(getattr(torch, package, None), name, None) for package, name in places)
    return tuple(cls for cls in found if isinstance(cls, type))


def _is_reachable(memory: Any) -> bool:
    return memory.device.type in ("cpu", "cuda")


def _is_plain(tensor: Any) -> bool:
    """Whether storage, dtype and strides say everything about a tensor. conj and neg views carry a bit
    beside them, which torch's own reduction keeps."""
    return (
        _is_reachable(tensor)
        and tensor.layout is sys.modules["torch"].strided
        and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg() or tensor._is_zerotensor())
        and not (tensor.is_nested or vars(tensor) or tensor._backward_hooks)
    )


def _reduce_lru_cache(cached: Any) -> tuple[Any, ...] | None:
    """By value where the function travels by value; pickle would name it in the receiver's `__main__`."""
    if cached.__module__ != "__main__":
        return None
    parameters = cached.cache_parameters()
    return unpickle.make_lru_cache, (cached.__wrapped__, parameters["maxsize"], parameters["typed"])


def _reduce_cached_property(cached: Any) -> tuple[Any, ...]:
    """Without the lock that it holds before Python 3.12."""
    return unpickle.make_cached_property, (cached.func, cached.attrname)


_FUNCTOOLS: dict[type, Callable[[Any], tuple[Any, ...] | None]] = {
    functools._lru_cache_wrapper: _reduce_lru_cache,
    functools.cached_property: _reduce_cached_property,
}


def _reduce_other_tensor(tensor: Any) -> tuple[Any, ...]:
    function, args, *rest = tensor.__reduce_ex__(5)
    return unpickle.load_other_tensor, (function, args), *rest


def _is_scattered(array: Any) -> bool:
    return array.nbytes >= _IN_BAND_BYTES and not (array.flags.forc or array.dtype.hasobject)


def _reduce_code(code: types.CodeType) -> tuple[Any, ...]:
    """With its file name, by which tracebacks and `inspect` find its source; cloudpickle 3.1.3 drops it."""
    return types.CodeType, tuple(getattr(code, f"co_{part}") for part in _CODE)


def _reduce_cell(cell: types.CellType) -> tuple[Any, ...]:
    """Made empty, filled once memoised: functions that share a variable share it after the journey too."""
    if not is_filled(cell):
        return types.CellType, ()
    return types.CellType, (), (cell.cell_contents,), None, None, unpickle.fill_cell


def _all_names(code: types.CodeType) -> Iterable[str]:
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _all_names(const)


def _loaded_below(package: str, words: set[str]) -> list[str]:
    found = [name for word in words if (name := f"{package}.{word}") in sys.modules]
    return [*found, *(deeper for name in found for deeper in _loaded_below(name, words))]
