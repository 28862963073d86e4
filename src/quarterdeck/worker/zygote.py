"""The zygote: a single-threaded Python that has imported torch and forks workers in milliseconds. A process
of its own.

Started by the coordinator, which tells it by message to fork, to signal and when to end; it tells when a
worker exits. It never initialises CUDA and never does tensor arithmetic: either would make forked children
hang or fail. A bare one imports nothing and starts its workers as fresh interpreters
(`--start-method spawn`).
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from quarterdeck.guard import die_with, dying_with_us
from quarterdeck.protocol.channel import Channel, Frame, close_all
from quarterdeck.protocol.zygote import Exited, Fork, Forked, Signal, ZygoteReady
from quarterdeck.worker.imports import LATER

_FIRST = ("torch", "torch.distributed", "IPython", "quarterdeck.worker.serve", "quarterdeck.worker.group")
_FIRST_REQUESTS_S = 0.1
"""A cell that waits since the cold start asks for its workers this soon; the next import takes a second."""


def main(arguments: list[str]) -> None:
    """Entry of the process. Arguments: channel descriptor, guard descriptor, parent pid, "warm" or "bare"."""
    channel_fd, guard_fd, parent_pid = (int(a) for a in arguments[:3])
    die_with(parent_pid, guard_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Zygote(Channel.from_fd(channel_fd), guard_fd).run(bare=arguments[3] == "bare")


class Zygote:
    def __init__(self, channel: Channel, guard_fd: int) -> None:
        self._channel = channel
        self._guard_fd = guard_fd
        self._pids: dict[str, int] = {}
        self._pidfds: dict[int, str] = {}

    def run(self, bare: bool) -> None:
        if not bare:
            self._import_all()
        while True:
            self._serve(None)

    def _import_all(self) -> None:
        """Announce as soon as workers can be forked; import the rest between requests."""
        began_s = time.monotonic()
        gc.disable()  # imports leave next to no garbage, and looking for it takes a tenth of their time
        for name in _FIRST:
            importlib.import_module(name)
        from quarterdeck.worker import group, shell

        group.hook_torch()
        shell.make()
        gc.freeze()
        gc.enable()
        self._announce("torch", began_s)
        while self._serve(_FIRST_REQUESTS_S):
            pass
        for name in LATER:
            self._serve(0)
            with self._reaping():
                importlib.import_module(name)
        _render_a_traceback()
        self._announce("all", began_s)

    def _announce(self, level: str, began_s: float) -> None:
        import torch

        gc.collect()
        gc.freeze()  # children would otherwise copy every page whose objects their collector looks at
        self._channel.send(
            ZygoteReady(
                level="all" if level == "all" else "torch",
                gpus=_count_gpus(),
                torch_version=str(torch.__version__),
                import_s=time.monotonic() - began_s,
            )
        )

    def _serve(self, timeout_s: float | None) -> bool:
        """Handle what has arrived (waiting `timeout_s` for it), report the workers that have exited; whether
        there was anything.
        """
        control_fd = self._channel.fileno()
        ready, _, _ = select.select([control_fd, *self._pidfds], [], [], timeout_s)
        for fd in ready:
            if fd == control_fd:
                self._receive()
            elif fd in self._pidfds:
                self._reap(fd)
        return bool(ready)

    @contextmanager
    def _reaping(self) -> Iterator[None]:
        """Report at once the workers that exit during an import, which may take seconds."""
        busy = False

        def on_child(*_: object) -> None:
            nonlocal busy
            if busy:  # signals nest, and the channel's lock does not; `_serve` finds what is missed here
                return
            busy = True
            for pidfd in select.select([*self._pidfds], [], [], 0)[0]:
                self._reap(pidfd)
            busy = False

        signal.signal(signal.SIGCHLD, on_child)
        try:
            yield
        finally:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _receive(self) -> None:
        frame = self._channel.receive()
        if frame is None:
            os._exit(0)  # the coordinator is gone; the workers' parent-death signal takes them along
        match frame.message:
            case Fork() as request:
                self._start(request, frame)
            case Signal(life=life, number=number, group=group):
                self._signal(life, number, group)

    def _start(self, request: Fork, frame: Frame) -> None:
        start = self._fork if request.start_method == "fork" else self._spawn
        try:
            pid = start(frame.handles)
        except OSError as error:  # no memory, too many processes: this worker cannot be, the others live on
            print(f"a worker could not be started: {error}", file=sys.stderr, flush=True)
            close_all(frame.handles)
            self._channel.send(Forked(life=request.life, pid=0))
            self._channel.send(Exited(life=request.life, pid=0, status=1 << 8))
            return
        self._pids[request.life] = pid
        self._pidfds[os.pidfd_open(pid)] = request.life
        close_all(frame.handles)
        self._channel.send(Forked(life=request.life, pid=pid))

    def _fork(self, handles: Sequence[int]) -> int:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_worker(parent, handles)
        return pid

    def _become_worker(self, parent: int, handles: Sequence[int]) -> NoReturn:
        status = 1
        try:
            self._channel.close()
            close_all(list(self._pidfds))
            worker_main(parent, self._guard_fd, handles)
            status = 0
        except BaseException:
            os.write(2, traceback.format_exc().encode("utf-8", "replace"))
        finally:
            os._exit(status)

    def _spawn(self, handles: Sequence[int]) -> int:
        code = (
            "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
            "from quarterdeck.worker.zygote import worker_main;"
            "worker_main(int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4]))"
        )
        arguments = [json.dumps(sys.path), str(os.getpid()), str(self._guard_fd), json.dumps(handles)]
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            pass_fds=[*handles, self._guard_fd],
            preexec_fn=dying_with_us(group=True),  # safe: this process has one thread
        )
        process.returncode = 0  # we reap it ourselves, through its pidfd
        return process.pid

    def _signal(self, life: str, number: int, group: bool) -> None:
        pid = self._pids.get(life)
        if pid is None:
            return
        try:
            if group:
                os.killpg(pid, number)
            else:
                os.kill(pid, number)
        except ProcessLookupError:
            pass

    def _reap(self, pidfd: int) -> None:
        life = self._pidfds.pop(pidfd)
        os.close(pidfd)
        pid = self._pids.pop(life)
        _end_process_group(pid)  # before it is reaped: until then its number is not given to another group
        _, status, usage = os.wait4(pid, 0)
        self._channel.send(
            Exited(life=life, pid=pid, status=status, peak_memory_bytes=usage.ru_maxrss * 1024)
        )


def worker_main(parent_pid: int, guard_fd: int, handles: Sequence[int]) -> None:
    """A worker's first lines, forked or not: guards, its own process group, its descriptors; then
    `spawn_helper`.
    """
    os.setpgid(0, 0)
    die_with(parent_pid, guard_fd)
    channel_fd, stdout_fd, stderr_fd, stacks_fd = handles
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (stdout_fd, 1), (stderr_fd, 2)):
        os.dup2(source, target)
        os.close(source)
    os.set_inheritable(channel_fd, False)
    os.set_inheritable(stacks_fd, False)
    faulthandler.enable(file=stacks_fd)  # the coordinator shows the reader the user's frames
    faulthandler.register(signal.SIGUSR1, file=stacks_fd, all_threads=True, chain=False)
    import cloudpickle  # one that was not forked imports torch here: an import that hangs has a stack by now

    from quarterdeck.flyte.spawn_helper import spawn_helper
    from quarterdeck.worker.serve import serve

    spawn_helper(cloudpickle.dumps(serve), "", None, None, {"channel_fd": channel_fd})


def _end_process_group(pid: int) -> None:
    """What the worker had started with `subprocess` and left behind."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _count_gpus() -> int:
    """GPUs this process may use, asked of NVML in a child: no library of the driver is loaded in the zygote
    itself.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            import torch

            count = torch.cuda._device_count_nvml()
            os.write(write, str(max(count, 0)).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with os.fdopen(read) as answer:
        return int(answer.read() or 0)


def _render_a_traceback() -> None:
    """IPython imports its traceback machinery at the first error: do that here, once for all workers."""
    from quarterdeck.worker.shell import WorkerShell

    shell = WorkerShell.instance()
    try:
        exec(compile("def f():\n    1 / 0\nf()", "<quarterdeck>", "exec"), {})
    except ZeroDivisionError:
        shell._depth = 1
        shell.showtraceback(running_compiled_code=True)
        shell._depth = 0
    shell.traceback_lines.clear()
