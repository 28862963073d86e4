"""Who may act on a session: one at a time, in the order they asked, but for stops and restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

_AGAIN_S = 0.2
"""Until what goes on is ended once more: it may have begun since."""


class TurnQueue:
    """One for each session."""

    def __init__(self) -> None:
        self.holder = ""
        """Title of the call that has the turn."""
        self.ending = 0
        """Stops and restarts that want the turn, or have it."""
        self._lock = asyncio.Lock()

    @property
    def busy(self) -> bool:
        return self._lock.locked()

    @asynccontextmanager
    async def turn(self, title: str) -> AsyncIterator[None]:
        await self._lock.acquire()
        while self.ending:  # those come first
            self._lock.release()
            await asyncio.sleep(0)
            await self._lock.acquire()
        with self._held_by(title):
            yield

    @asynccontextmanager
    async def at_once(self, title: str, end: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """The turn for a stop or restart, which does not wait for what goes on: `end` ends that."""
        self.ending += 1
        try:
            await self._take_over(end)
            with self._held_by(title):
                yield
        finally:
            self.ending -= 1

    async def _take_over(self, end: Callable[[], Awaitable[None]]) -> None:
        taking = asyncio.create_task(self._lock.acquire())
        try:
            while not (await asyncio.wait([taking], timeout=0))[0]:
                await end()
                await asyncio.wait([taking], timeout=_AGAIN_S)
        except BaseException:
            if not taking.cancel():
                self._lock.release()
            raise

    @contextmanager
    def _held_by(self, title: str) -> Iterator[None]:
        self.holder = title
        try:
            yield
        finally:
            self.holder = ""
            self._lock.release()
