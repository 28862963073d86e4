"""A real kernel and a front end's connection to it, for tests and benchmarks. Each wait has a limit."""

from __future__ import annotations

import os
import time
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

READY_LIMIT_S = 60.0


class Kernel:
    """One kernel in a folder. With `ready=False` it is not waited for; cells may be sent all the same."""

    def __init__(
        self,
        folder: Path,
        env: dict[str, str] | None = None,
        manager: KernelManager | None = None,
        ready: bool = True,
        **options: Any,
    ) -> None:
        self.manager = manager or KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(folder), env={**os.environ, **(env or {})}, **options)
        self.client: BlockingKernelClient = self.manager.client()
        self.client.start_channels()
        if ready:
            self.client.wait_for_ready(timeout=READY_LIMIT_S)

    @property
    def pid(self) -> int:
        return int(self.manager.provisioner.pid)  # type: ignore[union-attr]

    def message(self, end_s: float) -> dict[str, Any] | None:
        """The next thing that any cell shows or says; None when the monotonic clock says `end_s`."""
        try:
            return dict(self.client.get_iopub_msg(timeout=max(0.01, end_s - time.monotonic())))
        except Empty:
            return None

    def reply(self, message_id: str, end_s: float) -> str | None:
        """The status in the reply to a cell; None when the monotonic clock says `end_s`."""
        while (left_s := end_s - time.monotonic()) > 0:
            try:
                reply = self.client.get_shell_msg(timeout=left_s)
            except Empty:
                return None
            if reply["parent_header"].get("msg_id") == message_id:
                return str(reply["content"]["status"])
        return None

    def interrupt(self) -> None:
        """The front end's Stop button."""
        self.manager.interrupt_kernel()

    def everything(self) -> set[int]:
        """The kernel and all that it started."""
        return {self.pid, *descendants(self.pid)}

    def close(self, now: bool) -> None:
        """End the kernel, with `now` by force, and the connection."""
        self.client.stop_channels()
        if self.manager.is_alive():
            self.manager.shutdown_kernel(now=now)
        self.manager.cleanup_resources()
        self.manager.context.destroy(linger=0)


def ends(message: dict[str, Any], message_id: str) -> bool:
    """It is the last one of that cell."""
    idle = message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"
    return bool(idle and message["parent_header"].get("msg_id") == message_id)


def worker_pids(status: str, state: str = "") -> list[int]:
    """The pids of ranks 0, 1, ... in what `%workers status` shows; with `state` of those in that state."""
    rows = [line.split() for line in status.splitlines()]
    rows = [row for row in rows if row and row[0].isdigit() and len(row) >= 7]
    return [int(row[3]) for row in rows if not state or state in row]


def is_warm(doctor: str) -> bool:
    """Whether all has been imported that workers are forked with, as `%workers doctor` shows it."""
    return "importing" not in doctor


def descendants(pid: int) -> set[int]:
    """Children, their children and so on, also those in sessions of their own."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            parents.setdefault(_parent(int(name)), []).append(int(name))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found.update(children)
        waiting += children
    return found


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0
