"""Start a group of workers on the nodes there are, for a session or for a run of its own, and know which
devices are in use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import msgspec

from quarterdeck.coordinator.group import WorkerGroup
from quarterdeck.coordinator.placement import Placement, place
from quarterdeck.coordinator.stuck import NAME_AFTER_S, Tell, place_of, told_after
from quarterdeck.coordinator.worker import Worker
from quarterdeck.protocol.agent import Agent, NodeFacts
from quarterdeck.protocol.parts import GroupSpec, KernelContext
from quarterdeck.protocol.worker import Output


class Launcher:
    """One per coordinator."""

    def __init__(self, agents: Sequence[Agent]) -> None:
        """`agents`: of the nodes, the one of rank 0 first."""
        self.agents = agents
        self._users: dict[str, tuple[str, Placement]] = {}
        """Each living group, by its key: what it is called, and what it is made of."""

    async def launch(
        self,
        key: str,
        label: str,
        spec: GroupSpec,
        context: KernelContext,
        on_output: Callable[[Output, bytes], None],
        on_death: Callable[[Worker], None],
        restart_count: int = 0,
        max_restarts: int = 0,
        tell: Tell = lambda _: None,
    ) -> tuple[WorkerGroup, list[str]]:
        """The group, up and joined, and lines for the reader. `label` is what others are told about it; its
        key also becomes TORCHELASTIC_RUN_ID. `tell`: what the reader hears while it takes long.

        Raises BadRequest, GroupFailed and ZygoteLost; nothing is left running then. May be cancelled. After
        its end, the caller says `ended`.
        """
        notices = [self._renew(context)]
        placement = place(spec, [await _ready(agent, context, tell) for agent in self.agents])
        notices.append(self._shared(label, placement))
        for agent in self.agents:
            agent.open_group(key, context, placement.start_method)
        inside = msgspec.structs.replace(context, changes={**context.changes, **spec.environ})
        group = WorkerGroup(
            key, placement, self.agents, inside, on_output, on_death, restart_count, max_restarts, tell
        )
        self._users[key] = label, placement
        try:
            await _start(group, spec.join_timeout_s)
        except BaseException:
            self.ended(key)
            raise
        return group, [text for text in notices if text]

    def ended(self, key: str) -> None:
        """The group is gone, or about to be."""
        for agent in self.agents:
            agent.close_group(key)
        with suppress(KeyError):
            del self._users[key]

    def refuse_impossible(self, spec: GroupSpec, context: KernelContext) -> None:
        """Raise BadRequest for a group that these nodes cannot have, as far as that is known already."""
        facts = [agent.status(context).facts for agent in self.agents]
        known = [one for one in facts if one is not None]
        if len(known) == len(facts) and not any(agent.outdated(context) for agent in self.agents):
            place(spec, known)

    def leave_hung(self) -> None:
        """End what somebody has waited for in vain."""
        for agent in self.agents:
            agent.leave_hung(NAME_AFTER_S)

    def _renew(self, context: KernelContext) -> str:
        changed = sorted({name for agent in self.agents for name in agent.renew(context)})
        return f"{', '.join(changed)} changed: torch is imported anew for the workers." if changed else ""

    def _shared(self, label: str, placement: Placement) -> str:
        """A line about other groups that use the same GPUs."""
        gpus = placement.gpus()
        others = [name for name, used in self._users.values() if gpus & used.gpus()]
        if not others:
            return ""
        return f"{label} shares GPUs with {' and '.join(others)}: memory and speed are divided between them."


async def _ready(agent: Agent, context: KernelContext, tell: Tell) -> NodeFacts:
    """Waits for torch."""

    async def importing() -> str:
        return (
            f"torch has not been imported for the workers after {NAME_AFTER_S:g} s: "
            f"{place_of(agent.status(context).zygote)}. `%workers restart` begins anew."
        )

    async with told_after(NAME_AFTER_S, importing, tell):
        return await agent.ready(context)


async def _start(group: WorkerGroup, join_timeout_s: float | None) -> None:
    try:
        await group.start(join_timeout_s)
    except BaseException:
        await group.kill()
        raise
