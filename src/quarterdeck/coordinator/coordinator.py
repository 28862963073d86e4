"""What one coordinator process holds: its zygotes, the sessions by name, and the closed runs on their way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from quarterdeck.agent.zygote_pool import ZygotePool
from quarterdeck.coordinator.group_launcher import Launcher
from quarterdeck.coordinator.isolated_run import IsolatedRun
from quarterdeck.coordinator.session import Session
from quarterdeck.protocol.messages import KernelContext
from quarterdeck.store.owner import RunOwner


class Coordinator:
    """One per process."""

    def __init__(self, context: KernelContext, guard_fd: int, keeper: RunOwner | None = None) -> None:
        """`keeper`: of a coordinator that is detached; its zygote is started with its run, not before."""
        self.zygote_pool = ZygotePool(guard_fd)
        self.keeper = keeper
        self.on_run: Callable[[IsolatedRun], None] = lambda _: None
        """Called before a closed run goes on record."""
        self.launcher = Launcher(self.zygote_pool)
        self.sessions: dict[str, Session] = {}
        self.runs: set[IsolatedRun] = set()
        self._first_context = context
        if keeper is None:
            self.zygote_pool.zygote(context)

    def session(self, name: str) -> Session:
        """The session of this name; one that has no workers yet, the first time."""
        if name not in self.sessions:
            known = self.sessions.get("default")
            context = known.context if known is not None else self._first_context
            self.sessions[name] = Session(name, context, self.launcher)
        return self.sessions[name]

    async def close(self) -> None:
        """The kernel is gone, or says goodbye: everything ends."""
        await asyncio.gather(
            *(run.kernel_ended() for run in self.runs),
            *(session.close() for session in self.sessions.values()),
        )
        self.zygote_pool.close()
