"""The zygotes of this coordinator: started when needed, renewed when what they read at import has changed."""

from __future__ import annotations

import asyncio

from quarterdeck.agent.placement import Plan, plan
from quarterdeck.agent.stuck import NAME_AFTER_S, Tell, place_of, told_after
from quarterdeck.agent.zygote import Zygote, ZygoteLost, hung_up
from quarterdeck.protocol.messages import GroupSpec, KernelContext, ZygoteReady

# Read when torch and its libraries are imported (or CUDA is counted): a change needs another zygote.
_IMPORT_TIME = (
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH", "PYTHONHOME",
    "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TORCH_FR_BUFFER_SIZE", "TORCH_LOGS",
)  # fmt: skip


class ZygotePool:
    """At most one warm zygote (torch imported) and one bare one (`--start-method spawn`) for new groups."""

    def __init__(self, guard_fd: int) -> None:
        self._guard_fd = guard_fd
        self._zygotes: dict[bool, Zygote] = {}
        self._retired: list[Zygote] = []

    def zygote(self, context: KernelContext, bare: bool = False) -> Zygote:
        """The running one of this kind, started if there is none."""
        zygote = self._zygotes.get(bare)
        if zygote is None or not zygote.alive:
            zygote = Zygote(self._guard_fd, bare, context.environ, context.sys_path)
            self._zygotes[bare] = zygote
        return zygote

    async def prepare(self, spec: GroupSpec, context: KernelContext, tell: Tell) -> tuple[Plan, Zygote]:
        """How the group will look, and who forks it; waits for torch. Raises BadRequest and ZygoteLost."""

        async def importing() -> str:
            pid = self.zygote(context).pid
            return (
                f"torch has not been imported for the workers after {NAME_AFTER_S:g} s: {place_of(pid)}. "
                "`%workers restart` begins anew."
            )

        async with told_after(NAME_AFTER_S, importing, tell):
            ready = await self._ready(context)
        planned = plan(spec, ready.gpus)
        return planned, self.zygote(context, bare=planned.start_method == "spawn")

    async def _ready(self, context: KernelContext) -> ZygoteReady:
        """Of the zygote that is for new groups by then: another caller may have left the one we wait for."""
        while True:
            zygote = self.zygote(context)
            try:
                return await asyncio.shield(zygote.ready)
            except ZygoteLost:
                if zygote not in self._retired:
                    raise

    def gpus(self, context: KernelContext) -> int | None:
        """How many this machine has for us; None while they have not been counted."""
        ready = self.zygote(context).ready
        return ready.result().gpus if ready.done() and not ready.exception() else None

    def outdated(self, context: KernelContext) -> list[str]:
        """Variables that the warm zygote read when it started, and that have changed in the kernel since."""
        zygote, now = self._zygotes.get(False), context.environ
        if zygote is None or not zygote.alive:
            return []
        return [name for name in _IMPORT_TIME if zygote.environ.get(name) != now.get(name)]

    def renew(self, context: KernelContext) -> str:
        """Leave the zygotes if they are outdated: they end with their last worker. A notice if they were."""
        changed = self.outdated(context)
        if not changed:
            return ""
        self._retired = [zygote for zygote in self._retired if zygote.alive]
        for zygote in self._zygotes.values():
            self._retired.append(zygote)
            zygote.retire()
        self._zygotes.clear()
        return f"{', '.join(changed)} changed: torch is imported anew for the workers."

    def leave_hung(self) -> None:
        """End the zygotes that somebody has waited for in vain, with all that has come from them."""
        for zygote in [zygote for zygote in self._zygotes.values() if zygote.waited_s > NAME_AFTER_S]:
            zygote.close()

    def kernel_gone(self) -> bool:
        """The guard pipe has no writer any more: whatever ends now ends because of that."""
        return hung_up(self._guard_fd)

    def close(self) -> None:
        for zygote in (*self._zygotes.values(), *self._retired):
            zygote.close()
