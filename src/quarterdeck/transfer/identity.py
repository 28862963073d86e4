"""Stateful objects that travel once: the worker's table of those it holds, by travel id."""

from __future__ import annotations

import pickle
import weakref
from collections import deque
from collections.abc import Iterable


class Gone(pickle.UnpicklingError):
    """A payload refers to an object that this worker no longer holds. Sent again in full, it would load."""

    def __init__(self, travel_id: int) -> None:
        super().__init__(
            f"object {travel_id} of the notebook is no longer on this worker: run the cell again"
        )
        self.travel_id = travel_id


class TravelTable:
    """Travel id -> the worker's own object. Keeps no object alive; remembers which ids died.

    Lives in a worker and is used by its main thread; objects may be collected in any thread.
    """

    def __init__(self) -> None:
        self._held: dict[int, weakref.ref[object]] = {}
        self._dropped: deque[int] = deque()

    def put(self, travel_id: int, obj: object) -> None:
        """Hold `obj` under the id, in the place of what was held there."""

        def collected(reference: weakref.ref[object]) -> None:
            if self._held.get(travel_id) is reference:
                del self._held[travel_id]
                self._dropped.append(travel_id)

        try:
            self._held[travel_id] = weakref.ref(obj, collected)
        except TypeError:
            self._dropped.append(travel_id)

    def get(self, travel_id: int) -> object:
        """The object. Raises `Gone`."""
        reference = self._held.get(travel_id)
        obj = None if reference is None else reference()
        if obj is None:
            self._dropped.append(travel_id)  # said again: the sender must have missed it
            raise Gone(travel_id)
        return obj

    def take_dropped(self) -> list[int]:
        """Ids whose objects are gone since the last call, for the report to the coordinator."""
        taken = [self._dropped.popleft() for _ in range(len(self._dropped))]
        return [travel_id for travel_id in taken if travel_id not in self._held]


class TravelIds:
    """The sender's side: which objects have travel ids, and which workers (by life) still hold them.

    Lives in the kernel's ledger. An id given while pickling counts only once the payload is confirmed to
    have arrived.
    """

    def __init__(self) -> None:
        self._ids: dict[int, tuple[int, weakref.ref[object]]] = {}
        """id() of an object -> its travel id; entries go when the object does."""
        self._holders: dict[int, set[str]] = {}
        self._pending: set[int] = set()
        self._next = 1

    def known(self, obj: object, lives: Iterable[str]) -> int | None:
        """The travel id of `obj` if every one of these lives holds it."""
        travel_id, _ = self._ids.get(id(obj), (0, None))
        targets = set(lives)
        return travel_id if targets and targets <= self._holders.get(travel_id, set()) else None

    def remember(self, obj: object) -> int:
        """The travel id under which `obj` is now being sent in full; the same for each sending."""
        key = id(obj)
        if key not in self._ids:
            travel_id, self._next = self._next, self._next + 1

            def collected(_: weakref.ref[object]) -> None:
                self._ids.pop(key, None)
                self._holders.pop(travel_id, None)

            self._ids[key] = travel_id, weakref.ref(obj, collected)
        travel_id = self._ids[key][0]
        self._pending.add(travel_id)
        return travel_id

    def confirm(self, lives: Iterable[str]) -> None:
        """What was remembered since `abandon` has arrived in these lives."""
        for travel_id in self._pending:
            self._holders.setdefault(travel_id, set()).update(lives)
        self._pending.clear()

    def abandon(self) -> None:
        """What was remembered and not confirmed was not sent."""
        self._pending.clear()

    def dropped(self, life: str, travel_ids: Iterable[int]) -> None:
        """A worker has reported that it no longer holds these."""
        for travel_id in travel_ids:
            self._holders.get(travel_id, set()).discard(life)

    def forget(self, life: str) -> None:
        for holders in self._holders.values():
            holders.discard(life)
