"""The zygotes of a node: started when needed, renewed when what they read at import has changed."""

from __future__ import annotations

import asyncio

from quarterdeck.agent.zygote import Zygote
from quarterdeck.protocol.agent import ZygoteLost
from quarterdeck.protocol.parts import KernelContext
from quarterdeck.protocol.zygote import ZygoteReady

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

    async def ready(self, context: KernelContext) -> ZygoteReady:
        """What the zygote tells that is for new groups by then: another caller may have left the one that we
        wait for. Raises ZygoteLost.
        """
        while True:
            zygote = self.zygote(context)
            try:
                return await asyncio.shield(zygote.ready)
            except ZygoteLost:
                if zygote not in self._retired:
                    raise

    def outdated(self, context: KernelContext) -> list[str]:
        """Variables that the warm zygote read when it started, and that have changed in the kernel since."""
        zygote, now = self._zygotes.get(False), context.environ
        if zygote is None or not zygote.alive:
            return []
        return [name for name in _IMPORT_TIME if zygote.environ.get(name) != now.get(name)]

    def renew(self) -> None:
        """Leave the zygotes: they end with their last worker."""
        self._retired = [zygote for zygote in self._retired if zygote.alive]
        for zygote in self._zygotes.values():
            self._retired.append(zygote)
            zygote.retire()
        self._zygotes.clear()

    def leave_hung(self, limit_s: float) -> None:
        """End those that somebody has waited for in vain, with all that has come from them."""
        for zygote in [zygote for zygote in self._zygotes.values() if zygote.waited_s > limit_s]:
            zygote.close()

    def close(self) -> None:
        for zygote in (*self._zygotes.values(), *self._retired):
            zygote.close()
