"""What messages are made of. No message of its own."""

import os
from collections.abc import Mapping
from typing import Literal

import msgspec

Restart = Literal["recoverable", "always", "never"]


Owner = Literal["worker", "notebook"]
"""Who a name in a worker's namespace belongs to: bound by a worker cell, or travelled from the notebook."""


class Message(msgspec.Struct, tag=True, omit_defaults=True):
    """Base of everything on the wire."""


Changes = dict[str, str | None]
"""What each variable of an environment is now, None for one that is gone."""


class KernelContext(msgspec.Struct):
    """What a new worker takes over from the kernel."""

    changes: Changes
    """What has changed in the kernel's environment since quarterdeck was imported. The changes are made to
    the environment that a node has itself, which may have variables of its own and lack others: `environ`.
    """
    cwd: str
    sys_path: list[str]
    notebook: str = ""
    """Path or name of the notebook's file, as far as it is known; for the run store."""

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a new worker on this process's node. In the kernel it is the present one."""
        return changed(os.environ, self.changes)


def changed(environ: Mapping[str, str], changes: Changes) -> dict[str, str]:
    now = {**environ, **changes}
    return {name: value for name, value in now.items() if value is not None}


class RunPlace(msgspec.Struct, omit_defaults=True, frozen=True):
    """Which run a worker works for, and where that run is kept."""

    run_id: str = ""
    name: str = ""
    folder: str = ""
    attempt: int = 0
    closed: bool = False
    """It has a group of its own, so it has checkpoints of its own, attempt by attempt."""
    parent: str = ""
    """Folder of the run that this one continues."""
    resume: str = ""
    """Where that has its checkpoints, or the one that the user named."""


class Parent(msgspec.Struct, omit_defaults=True, frozen=True):
    """The earlier run that a new one continues (`--resume`); all empty without one."""

    run_id: str = ""
    folder: str = ""
    """The folder of that run; empty for checkpoints that belong to no run."""
    resume: str = ""
    """Folder of its checkpoints, or the one checkpoint that the user named."""


class GroupSpec(msgspec.Struct, omit_defaults=True, frozen=True):
    """The group a cell asks for; None means: as the session has it, or the default for its first group."""

    nproc_per_node: int | Literal["auto", "gpu", "cpu"] | None = None
    backend: str | None = None
    start_method: Literal["fork", "spawn"] | None = None
    environ: dict[str, str] = {}
    """`--env` of the call: also in the environment of a group that it starts."""
    join_timeout_s: float | None = None
    """How long workers that have just started may take to find each other."""


class Payload(msgspec.Struct, omit_defaults=True, frozen=True):
    """Pickled notebook values, by name. Large buffers lie in the memfd that travels with the message."""

    data: bytes = b""
    spans: list[tuple[int, int]] = []
    """(offset, length) in bytes of each out-of-band buffer in the memfd, in pickling order."""
    names: list[str] = []
    sources: dict[str, tuple[int, str]] = {}
    """Source of travelling functions for tracebacks: co_filename -> (notebook cell number, text)."""


class WorkerNames(msgspec.Struct):
    """The public names of one worker, as the coordinator last heard of them."""

    rank: int
    life: str
    """Identifies one life of the worker process; another one after it was replaced."""
    names: dict[str, Owner]
    dropped: list[int] = []
    """Travel ids whose objects this worker no longer holds (see `transfer.pickler`)."""
