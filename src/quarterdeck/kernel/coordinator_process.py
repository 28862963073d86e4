"""Start the coordinator and open calls to it. Runs in the kernel; calls may be opened from any thread."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field

from quarterdeck.errors import WorkersLost
from quarterdeck.kernel.notebook import AT_IMPORT
from quarterdeck.present.words import signal_name
from quarterdeck.protocol import channel
from quarterdeck.protocol.blob import Blob
from quarterdeck.protocol.channel import Channel, Frame
from quarterdeck.protocol.kernel import Cancel, Open, Refused
from quarterdeck.protocol.parts import Message

SILENT_S = 3.0
"""It answers at once what needs no waiting; without an answer for so long, the reader is told."""
_END_LIMIT_S = 0.5
"""From the end of a channel to the end of its process."""
BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    "from quarterdeck.start import coordinator; coordinator(sys.argv[2:])"
)


@dataclass
class Coordinator:
    """The process and what ties it to this kernel: the control channel and the guard pipe. Both end with the
    kernel.
    """

    process: subprocess.Popen[bytes]
    control: Channel
    guard_fd: int
    """Write end; the workers and the zygote hold the read end and die with it. The coordinator, which only
    hands it on, ends with its channel.
    """
    errors_fd: int
    """Unnamed file that our processes' standard error goes to: the kernel's own would put it under some cell.
    """
    told: bool = False
    """The reader knows that it is gone."""
    ended_by: str = ""
    """Why this kernel ended it, as the verb of a sentence; empty if it did not."""
    _errors_lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def start(cls) -> Coordinator:
        """Returns at once; the process imports torch (in its zygote) in the background.

        It gets a session of its own, since Jupyter stops a kernel by signalling the kernel's process group.
        """
        ours, theirs = channel.pair()
        guard_read, guard_write = os.pipe()
        errors_fd = os.memfd_create("quarterdeck-errors", os.MFD_CLOEXEC)
        handles = (theirs.fileno(), guard_read)
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", BOOT, json.dumps(sys.path), *map(str, handles)],
                pass_fds=handles,
                stdin=subprocess.DEVNULL,
                stdout=errors_fd,
                stderr=errors_fd,
                env=AT_IMPORT,
                start_new_session=True,
            )
        finally:
            theirs.close()
            os.close(guard_read)
        return cls(process, Channel(ours), guard_write, errors_fd)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def call(self, first: Message, blob: Blob | None = None) -> Call:
        """Open a call with its first message. Raises WorkersLost when the coordinator is gone."""
        ours, theirs = channel.pair()
        call = Call(Channel(ours), self)
        try:
            with theirs:
                self.control.send(Open(), handles=[theirs.fileno()])
            call.channel.send(first, blob)
        except OSError as error:
            call.close()
            raise self.lost() from error
        except BaseException:  # encoding fails for what no message can carry; an interrupt
            call.close()
            raise
        return call

    def lost(self) -> WorkersLost:
        """The error to raise when it does not answer any more."""
        self.told = True
        text = (
            f"{self.named} {self._how()}: all workers and their variables are lost. The next cell starts new "
            "ones."
        )
        return WorkersLost("\n".join(filter(None, (text, self.last_errors()))))

    @property
    def named(self) -> str:
        return f"quarterdeck's background process (pid {self.process.pid})"

    def silent_words(self) -> str:
        """For a reader who waits for it."""
        return f"{self.named} has not answered for {SILENT_S:g} s: it hangs, or the machine is very busy."

    def end(self, why: str) -> WorkersLost:
        """It does not answer: end it, so that the next call starts another. `why` as `ended_by`."""
        self.ended_by = why
        self.process.kill()
        return self.lost()

    def _how(self) -> str:
        try:
            code = self.process.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            return "does not answer"
        if self.ended_by:
            return self.ended_by
        return f"was killed by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"

    def last_errors(self) -> str:
        """Also after `close`: threads that followed runs hear of the end when they can."""
        with self._errors_lock:
            if self.errors_fd < 0:
                return ""
            size = os.fstat(self.errors_fd).st_size
            return os.pread(self.errors_fd, 2000, max(0, size - 2000)).decode("utf-8", "replace").strip()

    def close(self, timeout_s: float = 3.0) -> None:
        """End everything and wait for it."""
        self.control.close()
        os.close(self.guard_fd)
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        with self._errors_lock:
            os.close(self.errors_fd)
            self.errors_fd = -1


class Call:
    """The kernel's end of one call. Closing it gives up what waits, and interrupts what runs."""

    def __init__(self, channel: Channel, coordinator: Coordinator) -> None:
        self.channel = channel
        self.coordinator = coordinator

    def receive(self) -> Frame:
        """The next message. Raises WorkersLost, or Refusal with the coordinator's words."""
        frame = self.channel.receive()
        if frame is None:
            raise self.coordinator.lost()
        if isinstance(frame.message, Refused):
            raise Refusal(frame.message.text, frame.message.cancelled)
        return frame

    def cancel(self) -> None:
        """Interrupt what this call runs or waits for; from any thread. Asked again, a step of the ladder is
        skipped.
        """
        with suppress(OSError):  # the end of the channel is there to be read
            self.channel.send(Cancel())

    def lost(self) -> WorkersLost:
        return self.coordinator.lost()

    def close(self) -> None:
        self.channel.close()

    def __enter__(self) -> Call:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Refusal(Exception):
    """The coordinator refused before anything started; `cancelled`: as the user wanted it."""

    def __init__(self, text: str, cancelled: bool = False) -> None:
        super().__init__(text)
        self.cancelled = cancelled


_current: Coordinator | None = None
_lock = threading.Lock()
_notices: list[str] = []


def current() -> Coordinator:
    """This kernel's coordinator, started if there is none or the last one is gone."""
    global _current
    with _lock:
        if _current is not None and not _current.alive:
            if not _current.told:
                _notices.append(str(_current.lost()))
            _current.close()
            _current = None
        if _current is None:
            _current = Coordinator.start()
        return _current


def running() -> Coordinator | None:
    """This kernel's coordinator, if there is one."""
    with _lock:
        return _current if _current is not None and _current.alive else None


def take_notices() -> list[str]:
    """What the reader has to know of coordinators that have vanished since the last call."""
    notices = list(_notices)
    _notices.clear()
    return notices


def close() -> None:
    """End this kernel's coordinator, if there is one."""
    global _current
    with _lock:
        if _current is not None:
            _current.close()
            _current = None
