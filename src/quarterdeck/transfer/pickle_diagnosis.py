"""Names the value that cannot be pickled, and the way to it. Called by the kernel (or by a worker, for
`%pull`) after `dumps` has failed.

One more attempt finds the object at which pickling stops; a bounded walk over live objects then finds a
path to it.
"""

from __future__ import annotations

import functools
import itertools
import time
import types
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from quarterdeck.errors import shortened, text_of
from quarterdeck.transfer.pickler import PayloadPickler
from quarterdeck.transfer.references import is_bulk, is_filled, referenced_globals

_LIMIT_S = 2.0
_DEEPEST = 12
_MOST_ITEMS = 2000
_LINE_CHARS = 1000


def name_culprit(values: Mapping[str, object], namespace: dict[str, object], error: BaseException) -> str:
    """A sentence such as "`loader.dataset._lock` (a `_thread.lock`), used by `train`, cannot be pickled".

    Takes at most about 2 s and never raises; without a better answer it repeats the error.
    """
    try:
        return _sentence(values, namespace, error, time.monotonic() + _LIMIT_S)
    except KeyboardInterrupt:
        raise
    except BaseException:  # of user code, which the search runs once more
        return f"a value cannot be pickled: {_first_line(error)}"


@dataclass(frozen=True, slots=True)
class _Step:
    """An object on the way, as the reader would write it, and how it is reached where writing does not say
    it."""

    value: object
    text: str
    root: str
    reached: str = ""


def _sentence(
    values: Mapping[str, object], namespace: dict[str, object], error: BaseException, deadline: float
) -> str:
    for name, value in values.items():
        stopped = _try(name, value, namespace, deadline)
        if stopped is None:
            continue
        at, failure = stopped
        found = _find(name, value, at, deadline) if at is not None else None
        step = found or _Step(value, name, name)
        users = _users(step.root, values, namespace)
        place = f"`{step.text}` (a `{_type_name(step.value)}`){step.reached}{users}"
        return f"{place} cannot be pickled{_reason(failure)}"
    return f"a value cannot be pickled: {_first_line(error)}"


def _users(root: str, values: Mapping[str, object], namespace: dict[str, object]) -> str:
    users = [name for name, value in values.items() if name != root and root in _refers(value, namespace)]
    return f", used by {', '.join(f'`{name}`' for name in users[:3])}," if users else ""


def _refers(value: object, namespace: dict[str, object]) -> set[str]:
    return referenced_globals(value, namespace) if callable(value) else set()


def _type_name(value: object) -> str:
    cls = type(value)
    plain = cls.__module__ in ("builtins", "__main__")
    return cls.__qualname__ if plain else f"{cls.__module__}.{cls.__qualname__}"


def _reason(failure: BaseException) -> str:
    """The failure's own words, unless they only repeat that this type cannot be pickled."""
    line = _first_line(failure)
    return "" if not line or line.startswith("cannot pickle '") else f": {line}"


def _first_line(failure: BaseException) -> str:
    return shortened(text_of(failure).strip().partition("\n")[0], _LINE_CHARS)


# ---- where pickling stops


class _OutOfTime(Exception):
    pass


class _Sink:
    """A file that keeps nothing and stops the pickling when time is up."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline

    def write(self, data: Any) -> int:
        if time.monotonic() > self._deadline:
            raise _OutOfTime
        return len(data)


class _Tracer(PayloadPickler):
    """Remembers the object it is busy with."""

    last: object = None
    deadline = 0.0

    def reducer_override(self, obj: Any) -> Any:
        if time.monotonic() > self.deadline:
            raise _OutOfTime
        self.last = obj
        return super().reducer_override(obj)


def _try(
    name: str, value: object, namespace: dict[str, object], deadline: float
) -> tuple[object, BaseException] | None:
    """The object at which pickling `value` fails, with the failure; None if it does not fail in time."""
    tracer = _Tracer(_Sink(deadline), namespace)
    tracer.deadline = deadline
    try:
        tracer.dump({name: value})
    except _OutOfTime:
        return None
    except RecursionError as failure:
        return value, failure
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # `sys.exit()` in a `__reduce__`, too
        return (value if isinstance(failure.__cause__, RecursionError) else tracer.last), failure
    return None


# ---- the way there


def _find(name: str, value: object, target: object, deadline: float) -> _Step | None:
    seen: set[int] = set()
    waiting = deque([(_Step(value, name, name), 0)])
    while waiting and time.monotonic() < deadline:
        step, depth = waiting.popleft()
        if step.value is target:
            return step
        if id(step.value) in seen or depth > _DEEPEST or is_bulk(step.value):
            continue
        seen.add(id(step.value))
        waiting.extend((child, depth + 1) for child in _children(step))
    return None


def _children(step: _Step) -> Iterator[_Step]:
    value: Any = step.value
    if isinstance(value, str | bytes | bytearray | int | float | complex | types.ModuleType | types.CodeType):
        return
    match value:
        case types.FunctionType():
            yield from _inside_function(step, value)
        case types.MethodType():
            yield _Step(value.__self__, f"{step.text}.__self__", step.root, step.reached)
            yield _Step(value.__func__, f"{step.text}.__func__", step.root, step.reached)
        case functools.partial():
            yield from _items(step, "func", [value.func])
            yield from _items(step, "args", value.args)
            yield from _keys(step, value.keywords, ".keywords")
        case dict():
            yield from _keys(step, value)
        case list() | tuple() | set() | frozenset() | deque():
            yield from _items(step, "", value)
    attributes = getattr(value, "__dict__", None)
    if isinstance(attributes, Mapping):
        for name, child in list(attributes.items()):
            yield _Step(child, f"{step.text}.{name}", step.root, step.reached)
    for name in _slots(value):
        if hasattr(value, name):
            yield _Step(getattr(value, name), f"{step.text}.{name}", step.root, step.reached)


def _slots(value: object) -> list[str]:
    names: list[str] = []
    for cls in type(value).__mro__:
        declared = vars(cls).get("__slots__", ())
        names += [declared] if isinstance(declared, str) else list(declared)
    return [name for name in names if not name.startswith("__")]


def _items(step: _Step, attribute: str, items: Any) -> Iterator[_Step]:
    if attribute == "func":
        yield _Step(items[0], f"{step.text}.func", step.root, step.reached)
        return
    text = f"{step.text}.{attribute}" if attribute else step.text
    for index, child in enumerate(itertools.islice(items, _MOST_ITEMS)):
        yield _Step(child, f"{text}[{index}]", step.root, step.reached)


def _keys(step: _Step, items: Mapping[Any, Any], attribute: str = "") -> Iterator[_Step]:
    for key, child in list(itertools.islice(items.items(), _MOST_ITEMS)):
        label = repr(key) if isinstance(key, str | int) else f"<{type(key).__name__}>"
        yield _Step(child, f"{step.text}{attribute}[{label}]", step.root, step.reached)
        yield _Step(key, f"{step.text}{attribute}", step.root, ", one of its keys,")


def _inside_function(step: _Step, function: types.FunctionType) -> Iterator[_Step]:
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        if is_filled(cell):
            told = f", through the variable `{name}` that `{step.text}` closes over,"
            yield _Step(cell.cell_contents, name, step.root, told)
    for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield _Step(default, f"{step.text}.__defaults__", step.root, ", a default argument,")
