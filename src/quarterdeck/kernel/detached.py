"""Detached runs from the kernel's side: start a coordinator for one, and reach it from a later kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Literal

from quarterdeck.errors import UsageError, WorkersLost
from quarterdeck.kernel import coordinator_process
from quarterdeck.kernel.await_cell import await_frame, refuse_silent
from quarterdeck.kernel.coordinator_process import BOOT, Coordinator
from quarterdeck.kernel.notebook import AT_IMPORT
from quarterdeck.protocol import channel
from quarterdeck.protocol.channel import Channel, Frame
from quarterdeck.protocol.kernel import Answer, AskSetups, Reach, Refused, SetUp
from quarterdeck.store import detached_socket
from quarterdeck.store.owner import node
from quarterdeck.store.reader import StoredRun

_ORPHAN = "import os\nif os.fork(): os._exit(0)\n"
"""Who ends the kernel with all its children does not find it."""
_NO_GUARD = "-1"
"""It makes one of its own."""
_ANSWER_LIMIT_S = 5.0


class DetachedCoordinator(Coordinator):
    """One run's coordinator. `close` lets go of it, and ends it only where no run is on record yet."""

    @classmethod
    def start(cls) -> DetachedCoordinator:
        ours, theirs = channel.pair()
        fd = str(theirs.fileno())
        errors_fd = os.memfd_create("quarterdeck-errors", os.MFD_CLOEXEC)
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", _ORPHAN + BOOT, json.dumps(sys.path), fd, _NO_GUARD, "detached"],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=errors_fd,
                stderr=errors_fd,
                env=AT_IMPORT,
                start_new_session=True,
            )
            process.wait()
        finally:
            theirs.close()
        return cls(process, Channel(ours), -1, errors_fd)

    @property
    def named(self) -> str:
        return "The background process of this detached run"

    def end(self, why: str) -> WorkersLost:
        """Not by us: it may be on another task, and stops as soon as it can."""
        return self.lost()

    def lost(self) -> WorkersLost:
        text = f"{self.named} is gone, and its workers with it."
        return WorkersLost("\n".join(filter(None, (text, self.last_errors()))))

    def close(self, timeout_s: float = 0.0) -> None:
        self.control.close()
        with self._errors_lock:
            if self.errors_fd >= 0:
                os.close(self.errors_fd)
            self.errors_fd = -1


def setups_of(session: str) -> list[Frame]:
    """The set-up cells of a session of this kernel, with their blobs."""
    found: list[Frame] = []
    process = coordinator_process.running()
    if process is None:
        return found
    try:
        with process.call(AskSetups(session=session)) as call:
            while isinstance((frame := await_frame(call, refuse_silent)).message, SetUp):
                found.append(frame)
    except WorkersLost:  # then there is no session, either
        pass
    return found


def reach(run: StoredRun, action: Literal["ask", "stop", "stacks"]) -> Answer:
    """Ask the coordinator of a detached run whether it is there, where its ranks are, or to stop the run.
    UsageError with the reason if it cannot be reached.
    """
    keeper = run.header.keeper
    assert keeper is not None
    if keeper.node != node():
        where = keeper.node.partition("/")[0]
        raise UsageError(f"{run.run_id} runs on another machine or in another container ({where}).")
    try:
        with Channel(detached_socket.connect(keeper)) as line:
            line.send(Reach(run_id=run.run_id, action=action))
            frame = line.receive() if line.poll(_ANSWER_LIMIT_S) else None
    except OSError as error:
        why = error.strerror or error
        raise UsageError(
            f"The background process of {run.run_id} (pid {keeper.pid}) cannot be reached: {why}."
        ) from None
    if frame is not None and isinstance(frame.message, Refused):
        raise UsageError(frame.message.text)
    if frame is None or not isinstance(frame.message, Answer):
        raise UsageError(f"The background process of {run.run_id} (pid {keeper.pid}) does not answer.")
    return frame.message
