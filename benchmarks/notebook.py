"""A real kernel, driven as a front end drives it, with the time at which every message arrived.

Nothing is waited for without a limit, and nothing that the kernel started outlives it.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from tests.support.kernel import Kernel, ends, is_warm, worker_pids

LIMIT_S = 60.0
_TEXTS = ("stream", "display_data", "update_display_data", "execute_result", "error")


@dataclass
class Ran:
    """One cell: how it ended, seconds from sending it to its reply and its idle message, its texts."""

    sent_ns: int
    status: str = ""
    took_s: float = 0.0
    texts: list[tuple[int, str, str]] = field(default_factory=list)
    """(unix time of arrival in ns, kind of message, plain text), of all messages that show something."""

    @property
    def text(self) -> str:
        return "\n".join(text for _, _, text in self.texts)

    def arrived_ns(self, kind: str) -> int:
        """When the first message of this kind came."""
        return next(arrived_ns for arrived_ns, of_kind, _ in self.texts if of_kind == kind)


class Notebook(Kernel):
    """A kernel in a folder of its own. With `ready=False` it is not waited for; cells may be sent."""

    def __init__(self, ready: bool = True) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="quarterdeck-bench-"))
        env = {"IPYTHONDIR": str(self.folder / "ipython")}
        super().__init__(self.folder, env, ready=ready, stderr=subprocess.DEVNULL)

    def start(self, code: str) -> tuple[str, Ran]:
        """Send a cell; `finish` waits for it."""
        ran = Ran(time.time_ns())
        return self.client.execute(code), ran

    def finish(self, cell: tuple[str, Ran], limit_s: float = LIMIT_S) -> Ran:
        message_id, ran = cell
        end_s = time.monotonic() + limit_s
        while not self._take(message_id, ran, end_s):
            pass
        ran.status = self.reply(message_id, end_s) or _overdue(ran)
        ran.took_s = (time.time_ns() - ran.sent_ns) / 1e9
        return ran

    def run(self, code: str, expect: str = "ok", limit_s: float = LIMIT_S) -> Ran:
        """A cell that has to end as expected."""
        ran = self.finish(self.start(code), limit_s)
        if ran.status != expect:
            raise RuntimeError(f"{ran.status} instead of {expect} from:\n{code}\n{ran.text}")
        return ran

    def workers(self) -> list[int]:
        """Process ids of ranks 0, 1, ..."""
        return worker_pids(self.run("%workers status").text)

    def wait_until_warm(self) -> None:
        """Until the zygote has imported all that it imports in the background."""
        end_s = time.monotonic() + LIMIT_S
        while not is_warm(text := self.run("%workers doctor").text):
            if time.monotonic() > end_s:
                raise TimeoutError(text)
            time.sleep(0.2)

    def _take(self, message_id: str, ran: Ran, end_s: float) -> bool:
        """One message; whether it was the cell's last."""
        message = self.message(end_s) or _overdue(ran)
        arrived_ns = time.time_ns()
        kind, content = message["msg_type"], message["content"]
        if kind in _TEXTS:
            ran.texts.append((arrived_ns, kind, _plain(kind, content)))
        return ends(message, message_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        started = self.everything() if self.manager.is_alive() else set()
        self.close(now=True)
        if left := wait_for_ends(started, 5.0)[1]:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            print(f"    warning: {len(left)} processes had to be ended")
        shutil.rmtree(self.folder, ignore_errors=True)


def _overdue(ran: Ran) -> NoReturn:
    raise TimeoutError(f"the cell did not end; it showed:\n{ran.text}")


def _plain(kind: str, content: dict[str, Any]) -> str:
    if kind == "stream":
        return str(content["text"])
    if kind == "error":
        return "\n".join(content["traceback"])
    return str(content["data"].get("text/plain", ""))


def wait_for_ends(pids: Iterable[int], limit_s: float) -> tuple[float, set[int]]:
    """Seconds until all of them have ended, and those that have not within the limit."""
    began_s = time.monotonic()
    waiting: dict[int, int] = {}
    for pid in pids:
        try:
            waiting[os.pidfd_open(pid)] = pid
        except ProcessLookupError:
            continue
    poller = select.poll()
    for pidfd in waiting:
        poller.register(pidfd, select.POLLIN)
    while waiting and (left_s := began_s + limit_s - time.monotonic()) > 0:
        for pidfd, _ in poller.poll(left_s * 1000):
            poller.unregister(pidfd)
            os.close(pidfd)
            del waiting[pidfd]
    took_s = time.monotonic() - began_s
    for pidfd in waiting:
        os.close(pidfd)
    return took_s, set(waiting.values())
