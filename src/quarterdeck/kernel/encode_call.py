"""A function call, or a cell, as bytes for workers that have nothing yet. Called by the kernel."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from quarterdeck.errors import ArgumentError, UsageError
from quarterdeck.kernel.notebook import Notebook
from quarterdeck.protocol.blob import Blob
from quarterdeck.protocol.parts import Payload, WorkerNames
from quarterdeck.protocol.worker import CallFunction, RunCell
from quarterdeck.transfer.names import CellNames, referenced_globals
from quarterdeck.transfer.pickle_diagnosis import name_culprit
from quarterdeck.transfer.pickler import Pickled, dumps, dumps_function
from quarterdeck.transfer.shared_buffers import pack
from quarterdeck.transfer.transfer_state import Plan, TransferState, sources_of

_INSTEAD = "Create it inside the function, or pass what it can be made from."
_EMPTY_WORKER = WorkerNames(rank=0, life="new", names={})


def plan_for_empty(names: CellNames, notebook: Notebook) -> Plan:
    """What has to travel to workers without any names. UsageError for what cannot be run there."""
    plan = TransferState().plan(names, notebook.namespace, [_EMPTY_WORKER], notebook.hidden)
    if plan.refusal:
        raise UsageError(plan.refusal)
    return plan


def packed_cell(notebook: Notebook, cell: RunCell, names: CellNames) -> tuple[RunCell, Blob | None]:
    """The cell with all that it refers to, and the blob of that."""
    plan = plan_for_empty(names, notebook)
    with naming_culprit(plan.send, notebook, "Create it in the %%distributed cell instead."):
        pickled = dumps(plan.send, notebook.namespace, imports=plan.imports)
    payloads, blob = packed([pickled])
    cell.payload = named(payloads[0], plan, notebook, plan.send)
    return cell, blob


def packed_call(
    notebook: Notebook, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[CallFunction, Blob | None, list[str]]:
    """The call with all that it refers to, the blob of that, and lines for the reader.

    Raises ArgumentError for arguments that the function does not take, as calling it would, and UsageError
    with the path to what cannot be pickled.
    """
    call, keywords = _by_name(function, args, kwargs)
    namespace = notebook.namespace
    led_to = set().union(*(referenced_globals(value, namespace) for value in (call, *keywords.values())))
    plan = plan_for_empty(CellNames(frozenset(led_to)), notebook)
    name = getattr(function, "__name__", "function")
    with naming_culprit({name: call, **keywords, **plan.send}, notebook, _INSTEAD):
        pickled = [
            dumps(plan.send, namespace, imports=plan.imports),
            dumps_function(call, namespace),
            dumps(keywords, namespace),
        ]
    payloads, blob = packed(pickled)
    message = CallFunction(
        number=notebook.cell_number(),
        payload=named(payloads[0], plan, notebook, {**keywords, **plan.send, "": call}),
        function=payloads[1],
        kwargs=payloads[2],
    )
    return message, blob, plan.notices


def _by_name(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Arguments as `spawn_helper` takes them: by name. Those that have no name are bound to the function.

    Of a wrapper (`functools.wraps`) its own parameters count, not those of what it wraps.
    """
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except ValueError:  # some functions written in C do not tell
        return (functools.partial(function, *args) if args else function), kwargs
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        name = getattr(function, "__name__", "function")
        raise ArgumentError(f"{name}(): {error}", f"It is {name}{signature}. Nothing was started.") from None
    nameless = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
    claimed = hasattr(function, "__signature__")  # what it really takes may differ
    if claimed or any(signature.parameters[name].kind in nameless for name in bound.arguments):
        return functools.partial(function, *bound.args), bound.kwargs
    extra = next((p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), None)
    named = {name: value for name, value in bound.arguments.items() if name != extra}
    return function, {**named, **bound.arguments.get(extra or "", {})}


@contextmanager
def naming_culprit(values: Mapping[str, object], notebook: Notebook, hint: str) -> Iterator[None]:
    """An error of pickling becomes one that names the object."""
    try:
        yield
    except Exception as error:
        raise UsageError(name_culprit(dict(values), notebook.namespace, error), hint) from error


def packed(pickled: list[Pickled]) -> tuple[list[Payload], Blob | None]:
    """One blob for all of them."""
    blob, spans = pack([buffer for one in pickled for buffer in one.buffers])
    payloads, start = [], 0
    for one in pickled:
        payloads.append(Payload(data=one.data, spans=spans[start : start + len(one.buffers)]))
        start += len(one.buffers)
    return payloads, blob


def named(payload: Payload, plan: Plan, notebook: Notebook, code: Mapping[str, object]) -> Payload:
    """With the names that it binds, and the source of the functions that travel, for tracebacks."""
    sources = sources_of(code, notebook.compile_cache, notebook.namespace)
    return msgspec.structs.replace(payload, names=list(plan.send), sources=sources)
