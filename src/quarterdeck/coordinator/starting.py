"""Workers that are starting have nothing to lose: whoever waits for them may end that, at any time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from quarterdeck.coordinator.stuck import Tell

_AGAIN_S = 0.1
T = TypeVar("T")


class StartCancelled(Exception):
    """Workers were to be started, and somebody ended that."""


class Starting:
    """One for each session, and for each isolated run."""

    def __init__(self) -> None:
        self._start: asyncio.Task[Any] | None = None
        self._callers: list[Tell] = []

    async def of(self, start: Coroutine[Any, Any, T]) -> T:
        """Do it; it may be cancelled, and cleans up then. Raises StartCancelled."""
        self._start = task = asyncio.ensure_future(start)
        try:
            return await task
        except asyncio.CancelledError:
            raise StartCancelled from None
        finally:
            self._start = None

    def cancel(self) -> bool:
        """End the workers that are starting; whether there are any."""
        if self._start is not None and not self._start.cancelling():  # twice would cut its end short
            self._start.cancel()
        return self._start is not None

    async def whole(self, work: Coroutine[Any, Any, T]) -> T:
        """All of it, also when the caller leaves meanwhile: the next call must not meet a half-made group.
        But what is only starting is ended then.
        """
        task = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            while not task.done():
                self.cancel()
                await asyncio.wait([task], timeout=_AGAIN_S)
            if not task.cancelled():
                task.exception()  # looked at
            raise

    # ---- who waits

    @contextmanager
    def told(self, tell: Tell) -> Iterator[None]:
        """`tell` hears which ranks let the others wait."""
        self._callers.append(tell)
        try:
            yield
        finally:
            self._callers.remove(tell)

    def tell(self, text: str) -> None:
        for tell in self._callers:
            tell(text)
