"""A notebook for tests: a real kernel, driven as a front end drives it. Every call has a deadline."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from support.kernel import READY_LIMIT_S, Kernel, ends, is_warm, worker_pids
from support.waiting import until

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_HTML = re.compile(r"<[^>]+>")


SLOW = """
class Slow:
    def __reduce__(self):
        return exec, ("import time; open('unpickling', 'w').close(); time.sleep(%s)",)
slow = Slow()
"""
"""For a cell: `slow` takes so many seconds to be unpickled, and says with a file that it has begun."""


@dataclass
class Ran:
    """What one executed cell left in the notebook, as a front end would show it in the end."""

    status: str = ""
    duration_s: float = 0.0
    outputs: list[dict[str, Any]] = field(default_factory=list)
    ename: str = ""
    traceback: str = ""
    """Without colours."""

    @property
    def text(self) -> str:
        """All streams and the text/plain of all displays, one after another."""
        return "\n".join(filter(None, map(_plain, self.outputs)))

    @property
    def html(self) -> str:
        return "\n".join(str(o["data"].get("text/html", "")) for o in self.outputs if "data" in o)

    def mimes(self) -> set[str]:
        return {mime for o in self.outputs for mime in o.get("data", {})}

    def lines(self) -> list[str]:
        return self.text.splitlines()


def _plain(output: dict[str, Any]) -> str:
    if output["type"] == "stream":
        return str(output["text"])
    return str(output["data"].get("text/plain", ""))


class _Screen:
    """Applies a cell's messages as a front end does: updates in place, clear_output, streams joined."""

    def __init__(self) -> None:
        self.ran = Ran()
        self._clear_later = False
        self.message_times: list[tuple[float, dict[str, Any]]] = []

    def take(self, message: dict[str, Any]) -> None:
        self.message_times.append((time.monotonic(), message))
        kind, content = message["msg_type"], message["content"]
        if kind == "clear_output":
            self._clear_later = bool(content["wait"])
            if not content["wait"]:
                self.ran.outputs.clear()
        elif kind == "update_display_data":
            self._update(content)
        elif kind in ("stream", "display_data", "execute_result", "error"):
            if self._clear_later:
                self.ran.outputs.clear()
                self._clear_later = False
            self._append(kind, content)

    def _append(self, kind: str, content: dict[str, Any]) -> None:
        if kind == "error":
            self.ran.ename = content["ename"]
            self.ran.traceback = _ANSI.sub("", "\n".join(content["traceback"]))
        elif kind == "stream":
            self.ran.outputs.append({"type": "stream", "name": content["name"], "text": content["text"]})
        else:
            display_id = content.get("transient", {}).get("display_id")
            self.ran.outputs.append(
                {
                    "type": "display",
                    "data": content["data"],
                    "metadata": content["metadata"],
                    "id": display_id,
                }
            )

    def _update(self, content: dict[str, Any]) -> None:
        for output in self.ran.outputs:
            if output.get("id") == content["transient"]["display_id"]:
                output["data"] = content["data"]


class Notebook(Kernel):
    """One kernel in a folder of its own. `run` executes a cell and waits; `start` does not wait.

    Each cell has a screen of its own, which still takes what comes after the cell's end.
    """

    def __init__(self, folder: Path, deadline_s: float = 60.0, env: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.deadline_s = deadline_s
        self.screen = _Screen()
        """The screen of the cell that was started last."""
        self._screens: dict[str, _Screen] = {}
        super().__init__(folder, env)

    def run(
        self,
        code: str,
        deadline_s: float | None = None,
        while_running: Callable[[], None] | None = None,
        allow_stdin: bool = False,
    ) -> Ran:
        """Execute a cell and return what it showed. Past the deadline: all stacks, then a failure."""
        message = self.start(code, allow_stdin=allow_stdin)
        if while_running is not None:
            while_running()
        return self.finish(message, deadline_s)

    def ok(self, code: str, deadline_s: float | None = None) -> Ran:
        """Execute a cell that must succeed."""
        ran = self.run(code, deadline_s)
        assert ran.status == "ok", f"{ran.status}:\n{ran.traceback}\n{ran.text}"
        return ran

    def fails(self, code: str, deadline_s: float | None = None) -> Ran:
        """Execute a cell that must fail."""
        ran = self.run(code, deadline_s)
        assert ran.status == "error", f"expected an error, got {ran.status}:\n{ran.text}"
        return ran

    def start(self, code: str, allow_stdin: bool = False) -> str:
        self._began_s = time.monotonic()
        message_id = str(self.client.execute(code, allow_stdin=allow_stdin))
        self.screen = self._screens[message_id] = _Screen()
        return message_id

    def submit(self, code: str) -> str:
        """Execute a cell that must succeed, and whose outputs go on afterwards; its id, for `shown`."""
        message_id = self.start(code)
        ran = self.finish(message_id)
        assert ran.status == "ok", f"{ran.status}:\n{ran.traceback}\n{ran.text}"
        return message_id

    def shown(self, message_id: str, until: str = "", deadline_s: float | None = None) -> Ran:
        """What a cell shows by now, also when it is over; waits until `until` is there."""
        self._until(self._screens[message_id], until, deadline_s)
        return self._screens[message_id].ran

    def finish(self, message_id: str, deadline_s: float | None = None) -> Ran:
        """Wait until the cell that `start` began is over."""
        limit_s = self._began_s + (deadline_s or self.deadline_s)
        while not self._take(message_id, limit_s):
            pass
        ran = self._screens[message_id].ran
        ran.status = self.reply(message_id, limit_s) or self._overdue()
        ran.duration_s = time.monotonic() - self._began_s
        return ran

    def until(self, shown: str, deadline_s: float | None = None) -> None:
        """Take messages until `shown` is on the running cell's screen."""
        self._until(self.screen, shown, deadline_s)

    def _until(self, screen: _Screen, shown: str, deadline_s: float | None) -> None:
        limit_s = time.monotonic() + (deadline_s or self.deadline_s)
        while shown not in screen.ran.text:
            self._take("", limit_s)

    def _take(self, message_id: str, limit_s: float) -> bool:
        """One message, to the screen of its cell; whether it was the end of that one."""
        message = self.message(limit_s) or self._overdue()
        if ends(message, message_id):
            return True
        self._screens.get(message["parent_header"].get("msg_id", ""), self.screen).take(message)
        return False

    def _overdue(self) -> NoReturn:
        """The deadline is over: fail, with the stacks of every process of the notebook."""
        shown = self.screen.ran.text
        stacks = "\n".join(dump_stacks(pid) for pid in sorted(self.everything()))
        raise AssertionError(f"deadline over; shown so far:\n{shown}\n{stacks}")

    def worker_pids(self) -> list[int]:
        """The pids of ranks 0, 1, ... as `%workers status` names them."""
        return worker_pids(self.ok("%workers status").text)

    def until_missed(self, pids: Iterable[int]) -> None:
        """Until quarterdeck has noticed that these workers are gone. No cell may run."""
        gone = set(pids)
        until(lambda: gone.isdisjoint(worker_pids(self.ok("%workers status").text, "idle")))

    def kill_workers(self, *ranks: int) -> None:
        """SIGKILL from outside, between two cells."""
        pids = self.worker_pids()
        for rank in ranks:
            os.kill(pids[rank], signal.SIGKILL)
        self.until_missed(pids[rank] for rank in ranks)

    def wait_until_warm(self) -> None:
        """Until the zygote has imported everything, so that timings and memory are a warm session's."""
        until(lambda: is_warm(self.ok("%workers doctor").text), within_s=60)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def restart(self) -> None:
        """The front end's Restart button."""
        self.manager.restart_kernel(now=False)
        self.client.wait_for_ready(timeout=READY_LIMIT_S)

    def shutdown(self) -> None:
        self.close(now=False)


def quarterdeck_processes() -> set[int]:
    """Coordinators, zygotes and workers on this machine."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                command = Path(f"/proc/{name}/cmdline").read_text()
            except OSError:
                continue
            if "quarterdeck.coordinator.main" in command or "quarterdeck.worker.zygote" in command:
                found.add(int(name))
    return found


def dump_stacks(pid: int) -> str:
    """What the process is, where it waits, and its Python stacks."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[:150]
        where = Path(f"/proc/{pid}/wchan").read_text()
    except OSError as error:
        return f"{pid}: {error}"
    return f"--- {pid} {command}\n    waits in {where or '(running)'}\n{_py_spy(pid)}"


def _py_spy(pid: int) -> str:
    import subprocess

    try:
        ran = subprocess.run(
            [str(Path(sys.executable).parent / "py-spy"), "dump", "--nonblocking", "--pid", str(pid)],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"    no stack: {error}"
    return ran.stdout


def in_child(work: Callable[[], object]) -> None:
    """Call it in a forked child, which has to end well."""
    pid = os.fork()
    if not pid:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
