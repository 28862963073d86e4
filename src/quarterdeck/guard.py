"""Nothing outlives its parent. Called first thing in the zygote and in every worker.

Two guards, because each has a hole: the parent-death signal follows the parent *thread* and is cleared by
fork; the signal on end-of-file of a pipe whose write end only the kernel holds needs neither a thread nor the
GIL, but not every process has it. Linux only.

An interpreter that is started anew may hang before the first line of ours, in a `sitecustomize`, a `.pth`
file or an import from a disk that does not answer. The parent-death signal outlives exec, so it is set
between fork and exec.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import os
import select
import signal
import threading
from collections.abc import Callable

_F_SETSIG = 10
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def die_with(parent_pid: int, guard_fd: int) -> None:
    """SIGKILL this process when `parent_pid` (our parent) dies, or when the last writer of `guard_fd`'s pipe
    is gone.
    """
    # F_SETOWN belongs to the open file description: with a shared one, only the last process that set it
    # would be killed.
    own = os.open(f"/proc/self/fd/{guard_fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(own, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(own, fcntl.F_SETFL, fcntl.fcntl(own, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([own], [], [], 0)[0]:
        os._exit(1)  # the kernel was gone before we asked
    _die_with_parent(parent_pid)


def dying_with_us(group: bool = False) -> Callable[[], None]:
    """For `preexec_fn`: the new process dies with the thread that starts it; with `group`, as the head of a
    process group of its own.
    """
    parent = os.getpid()

    def before_exec() -> None:
        if group:
            os.setpgid(0, 0)
        _die_with_parent(parent)

    return before_exec


def _die_with_parent(parent_pid: int) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)  # the parent was gone before we asked


def hung_up(pipe_fd: int) -> bool:
    """This pipe has no writer any more."""
    poller = select.poll()
    poller.register(pipe_fd, 0)
    return bool(poller.poll(0))


def guard_forks() -> None:
    """Let user code's own forks (DataLoader workers, multiprocessing) die with this worker as well, and leave
    this worker's garbage alone: an old process group that the child's collector found would wait for its
    threads, which the child has not, for ever.

    A fork from a thread does not die with us: the signal follows the thread, and one that ends would take its
    child with it.
    """
    forking = {"pid": 0, "main": False}

    def before() -> None:
        forking["pid"] = os.getpid()
        forking["main"] = threading.current_thread() is threading.main_thread()

    def after_in_child() -> None:
        gc.freeze()
        if forking["main"]:
            _die_with_parent(forking["pid"])

    os.register_at_fork(before=before, after_in_child=after_in_child)
