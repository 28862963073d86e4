"""The names of one worker: who owns each, what travelled in, what changed since the last report. Main thread
of the worker.
"""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from quarterdeck.protocol.blob import Blob
from quarterdeck.protocol.parts import Owner, Payload
from quarterdeck.transfer.pickler import TravelTable, dumps, loads
from quarterdeck.transfer.shared_buffers import map_buffers, pack

INJECTED = ("rank", "local_rank", "world_size", "device")
_SHARED = (int, float, complex, str, bytes, tuple, frozenset, type(None))
_CODE = (type, types.FunctionType, types.ModuleType)
_QD = sys.modules["quarterdeck"]  # not imported: what is above is not to be known here


class Names:
    """Keeps the owners. A name belongs to the notebook as long as it is bound to what travelled."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace
        namespace.setdefault("qd", _QD)
        self._hidden = {*namespace, *INJECTED, "_exit_code"} - {
            "qd"
        }  # the last one is IPython's, of `!command`
        self._travelled: dict[str, Any] = {}
        self._reported: dict[str, Owner] = {}
        self._table = TravelTable()

    def inject(self, values: dict[str, Any]) -> None:
        self.namespace.update(values)

    def install(self, payload: Payload, blob: Blob | None) -> None:
        """Bind what travelled."""
        values = loads(payload.data, map_buffers(blob, payload.spans), self.namespace, self._table)
        self.namespace.update(values)
        self._travelled.update({name: _holder(value) for name, value in values.items()})

    def replaced_by(self, names: Iterable[str]) -> dict[str, str]:
        """A short description of each value that is lost when these names are bound anew."""
        return {
            name: describe(self.namespace[name])
            for name in names
            if name in self.namespace and not self._is_refresh(name) and not self._is_hidden(name)
        }

    def _is_refresh(self, name: str) -> bool:
        """What travelled by itself and cannot have changed here: nothing is lost when it is sent again."""
        value = self.namespace[name]
        return self._owner(name) == "notebook" and isinstance(value, (*_SHARED, *_CODE))

    def fetch(self, name: str) -> tuple[Payload, Blob | None]:
        """Pickle one value for the notebook. Raises KeyError if there is none."""
        pickled = dumps({name: self.namespace[name]}, self.namespace)
        blob, spans = pack(pickled.buffers)
        return Payload(data=pickled.data, spans=spans, names=[name]), blob

    def rebound(self, names: Iterable[str]) -> None:
        """A cell may have bound these. Python keeps one object for equal small values, so identity does not
        tell: they are the worker's from here, like everything else that the cell bound."""
        for name in names:
            if issubclass(type(self.namespace.get(name)), _SHARED):
                self._travelled.pop(name, None)

    def changes(self) -> tuple[dict[str, Owner | None], list[int]]:
        """Names bound (owner) or removed (None), and travel ids that died, since the last call."""
        now: dict[str, Owner] = {
            name: self._owner(name)
            for name in self.namespace
            if isinstance(name, str) and not self._is_hidden(name)
        }
        for name in [name for name in self._travelled if now.get(name) != "notebook"]:
            del self._travelled[name]
        changed: dict[str, Owner | None] = {n: o for n, o in now.items() if self._reported.get(n) != o}
        changed.update({name: None for name in self._reported if name not in now})
        self._reported = now
        return changed, self._table.take_dropped()

    def _is_hidden(self, name: str) -> bool:
        """`qd` counts as a name like any other where it came with a cell, or is bound to something else."""
        if name == "qd" and name not in self._travelled:
            return self.namespace[name] is _QD
        return name in self._hidden or name.startswith("__")

    def _owner(self, name: str) -> Owner:
        holder = self._travelled.get(name)
        return "notebook" if holder is not None and holder() is self.namespace[name] else "worker"


def _holder(value: Any) -> Any:
    """Something that gives the value back when called, weakly where that is possible."""
    try:
        return weakref.ref(value)
    except TypeError:
        return lambda: value


def describe(value: Any) -> str:
    """A few words for messages: "Tensor (3, 4) float32", "list of 3", "int"."""
    kind = type(value).__name__
    with suppress(Exception):  # of user code, in a `shape` or a `__len__`
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            return f"{kind} {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
        if isinstance(value, (list, dict, set, tuple)):
            return f"{kind} of {len(value)}"
    return kind
