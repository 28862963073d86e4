"""Who writes a run, so that any process can tell whether that one is gone. Pure; used by every process."""

from __future__ import annotations

import functools
import os
from typing import Annotated

import msgspec

from quarterdeck.bounds import Count


class RunOwner(msgspec.Struct, frozen=True):
    """The process that writes a run: one coordinator's life."""

    pid: Annotated[int, msgspec.Meta(ge=1, lt=1 << 31)]
    start_ticks: Count
    """When the process started, in ticks after boot: a later process of the same pid has another."""
    node: str
    """Within what `pid` means something: machine, boot and pid namespace."""
    socket: str = ""
    """Where it listens, if its run is detached: see `detached_socket`."""

    @classmethod
    def here(cls) -> RunOwner:
        pid = os.getpid()
        return cls(pid=pid, start_ticks=_start_ticks(pid), node=node())

    def gone(self) -> bool:
        """True only if it is certain. Of a process on another node, or in another container, nothing is."""
        if self.node != node():
            return False
        try:
            return _start_ticks(self.pid) != self.start_ticks
        except ProcessLookupError:
            return True
        except OSError:
            return not _answers(self.pid)


@functools.cache
def node() -> str:
    """Hostname, pid namespace and boot: a home on NFS is shared by machines, a volume by containers, and the
    copies of one virtual machine have the same boot id.
    """
    try:
        namespace = str(os.stat("/proc/self/ns/pid").st_ino)
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
    except OSError:
        namespace, boot = "", ""
    return f"{os.uname().nodename}/{namespace}/{boot}"


def _start_ticks(pid: int) -> int:
    """Raises ProcessLookupError for a process that has ended, reaped or not."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        text = file.read()
    fields = text.rpartition(b")")[2].split()  # the program's name, in (), may hold spaces and brackets
    if fields[0] in (b"Z", b"X", b"x"):
        raise ProcessLookupError(pid)
    return int(fields[19])


def _answers(pid: int) -> bool:
    """Without a readable /proc entry (`hidepid` hides those of other users)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
