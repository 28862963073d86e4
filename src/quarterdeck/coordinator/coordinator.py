"""What one coordinator process holds: the agents of its nodes, the sessions by name, and the isolated runs
on their way.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence

from quarterdeck.coordinator.group_launcher import Launcher
from quarterdeck.coordinator.isolated_run import IsolatedRun
from quarterdeck.coordinator.report import KernelGone
from quarterdeck.coordinator.session import Session
from quarterdeck.coordinator.worker import Worker
from quarterdeck.protocol.agent import Agent
from quarterdeck.protocol.parts import KernelContext
from quarterdeck.store.owner import RunOwner


class Coordinator:
    """One per process."""

    def __init__(
        self,
        agents: Sequence[Agent],
        kernel_gone: KernelGone | None,
        keeper: RunOwner | None = None,
    ) -> None:
        """A coordinator that is detached has a `keeper`, and no kernel that it would end with; torch is
        imported for its run, not before.
        """
        self.kernel_gone = kernel_gone
        self.keeper = keeper
        self.on_run: Callable[[IsolatedRun], None] = lambda _: None
        """Called before a closed run goes on record."""
        self.launcher = Launcher(agents)
        self.sessions: dict[str, Session] = {}
        self.runs: set[IsolatedRun] = set()
        self._first_context = KernelContext(changes={}, cwd=os.getcwd(), sys_path=list(sys.path))
        if keeper is None:
            for agent in agents:
                agent.status(self._first_context)  # which begins to import torch

    def session(self, name: str) -> Session:
        """The session of this name; one that has no workers yet, the first time."""
        if name not in self.sessions:
            known = self.sessions.get("default")
            context = known.context if known is not None else self._first_context
            self.sessions[name] = Session(name, context, self.launcher, self.kernel_gone)
        return self.sessions[name]

    def workers_of(self, run_id: str) -> list[Worker] | None:
        """Those that a run has now; None for a run that is not on its way here."""
        for run in self.runs:
            if run.run_id == run_id:
                return run.workers()
        for session in self.sessions.values():
            if session.record is not None and session.record.run_id == run_id:
                return session.workers()
        return None

    async def close(self) -> None:
        """The kernel is gone, or says goodbye: everything ends."""
        await asyncio.gather(
            *(run.kernel_ended() for run in self.runs),
            *(session.close() for session in self.sessions.values()),
        )
        self.close_nodes()

    def close_nodes(self) -> None:
        """End all that is left on them."""
        for agent in self.launcher.agents:
            agent.close()
