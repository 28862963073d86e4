"""Start a group of workers, for a session or for a run of its own, and know which devices are in use."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from quarterdeck.agent.group import WorkerGroup
from quarterdeck.agent.placement import Plan
from quarterdeck.agent.stuck import Tell
from quarterdeck.agent.worker import Worker
from quarterdeck.agent.zygote_pool import ZygotePool
from quarterdeck.protocol.messages import GroupSpec, KernelContext, Output


class Launcher:
    """One per coordinator."""

    def __init__(self, zygote_pool: ZygotePool) -> None:
        self.zygote_pool = zygote_pool
        self._users: dict[str, tuple[str, Plan]] = {}
        """Of each living group, by its key: what it is called, and what it is made of."""

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
        notices = [self.zygote_pool.renew(context)]
        plan, zygote = await self.zygote_pool.prepare(spec, context, tell)
        notices.append(self._shared(label, plan))
        environ = {**context.environ, **spec.environ}
        inside = KernelContext(environ=environ, cwd=context.cwd, sys_path=context.sys_path)
        group = WorkerGroup(plan, zygote, inside, key, on_output, on_death, restart_count, max_restarts, tell)
        self._users[key] = label, plan
        try:
            await _start(group, spec.join_timeout_s)
        except BaseException:
            self.ended(key)
            raise
        return group, [text for text in notices if text]

    def ended(self, key: str) -> None:
        """The group is gone, or about to be."""
        with suppress(KeyError):
            del self._users[key]

    def _shared(self, label: str, plan: Plan) -> str:
        """A line about other groups that use the same GPUs."""
        gpus = {device for device in plan.devices if device.startswith("cuda")}
        others = [name for name, used in self._users.values() if gpus & set(used.devices)]
        if not others:
            return ""
        return f"{label} shares GPUs with {' and '.join(others)}: memory and speed are divided between them."


async def _start(group: WorkerGroup, join_timeout_s: float | None) -> None:
    try:
        await group.start(join_timeout_s)
    except BaseException:
        await group.kill()
        raise
