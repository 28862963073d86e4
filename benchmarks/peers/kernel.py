"""A real Jupyter kernel, driven as a front end would drive it, and never waited for without a limit."""

import json
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from tests.support.kernel import Kernel as Connected
from tests.support.kernel import ends

from benchmarks.peers.drivers import Driver


@dataclass
class Ran:
    """One cell: whether and when it ended, and every message it sent, with its time of arrival."""

    began_s: float
    took_s: float | None = None
    status: str | None = None
    messages: list[tuple[float, str]] = field(default_factory=list)

    def first_seen_s(self, pattern: str) -> float | None:
        """Seconds from the cell's start to the first message that matches."""
        for arrived_s, text in self.messages:
            if re.search(pattern, text):
                return arrived_s - self.began_s
        return None


class Kernel:
    def __init__(self, driver: Driver, python: str, folder: Path, n: int) -> None:
        self.driver = driver
        self._folder = folder
        self._env = _environment(python, folder, driver.kernel_env(n))
        self._manager = KernelManager(
            kernel_name="measured", kernel_spec_manager=_specs(driver, python, folder)
        )

    def __enter__(self) -> Self:
        self._kernel = Connected(self._folder, self._env, self._manager)
        if self.driver.updates_comm:
            self._open_comm(self.driver.updates_comm)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kernel.close(now=True)

    def run(self, code: str, limit_s: float) -> Ran:
        ran = Ran(began_s=time.time())
        return self._follow(ran, self._kernel.client.execute(code, store_history=True), limit_s)

    def interrupt(self) -> None:
        self._kernel.interrupt()

    def _follow(self, ran: Ran, msg_id: str, limit_s: float) -> Ran:
        end = time.monotonic() + limit_s
        while not self._take_output(ran, msg_id, end):
            if time.monotonic() >= end:
                return ran
        ran.status = self._kernel.reply(msg_id, end)
        if ran.status is not None:
            ran.took_s = time.time() - ran.began_s
        return ran

    def _take_output(self, ran: Ran, msg_id: str, end: float) -> bool:
        """Take one message; whether it is the cell's last."""
        message = self._kernel.message(end)
        if message is None:
            return False
        kind, content = message["msg_type"], message["content"]
        if kind not in ("execute_input", "status"):
            ran.messages.append((time.time(), json.dumps(content, default=str)))
        return ends(message, msg_id)

    def _open_comm(self, target: str) -> None:
        content: dict[str, Any] = {"comm_id": uuid4().hex, "target_name": target, "data": {}}
        client = self._kernel.client
        client.shell_channel.send(client.session.msg("comm_open", content))


def _specs(driver: Driver, python: str, folder: Path) -> KernelSpecManager:
    spec = folder / "kernels" / "measured"
    spec.mkdir(parents=True)
    argv = [python, "-m", driver.kernel_module, "-f", "{connection_file}"]
    described = {
        "argv": argv,
        "display_name": driver.name,
        "language": "python",
        "interrupt_mode": driver.interrupt_mode,
    }
    (spec / "kernel.json").write_text(json.dumps(described))
    return KernelSpecManager(kernel_dirs=[str(spec.parent)], ensure_native_kernel=False)


def _environment(python: str, folder: Path, more: dict[str, str]) -> dict[str, str]:
    own = {
        "PATH": f"{Path(python).parent}:{os.environ['PATH']}",
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    return own | more
