"""This rank's process group, one incarnation after another. Runs in the worker's main thread.

Every life of the group has a TCPStore of its own on a socket that the agent of rank 0's node opened, and keys
under a prefix of its own: torch's elastic restart reuses one store and reads the addresses of the dead.
`env://` in user code resolves to the same store, so a torchrun script runs unchanged: the automatic group
yields to its `init_process_group`.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

from quarterdeck.protocol.worker import Join, Joined
from quarterdeck.worker import naming, revive, sockets

_SETTLE_S = 0.005
"""Before a group is destroyed: gloo's thread may still hold the last work, and a rank once hung in the end of
its group, right after a collective.
"""
_STORE_TIMEOUT = timedelta(minutes=30)
_CONNECT_TIMEOUT = timedelta(seconds=0.5)

Owner = Literal["auto", "user", "none"]

_real_init = c10d.init_process_group
_real_destroy = c10d.destroy_process_group
_real_build = c10d._new_process_group_helper

_of_this_process: Group | None = None
"""None in the zygote, whose workers inherit the hooks."""


class Group:
    """The default process group of this worker, automatic or the user's."""

    def __init__(self) -> None:
        self._store: Any = None
        self._incarnation = 0
        self._owner: Owner = "none"
        self._released = threading.Event()
        self._made_in_cell = False
        self._user_groups = 0
        hook_torch(self)

    @property
    def owner(self) -> Owner:
        return self._owner if dist.is_initialized() else "none"

    def join(self, join: Join, listen_fd: int | None) -> Joined:
        """Make the automatic group of an incarnation, and put the user's objects on it. All ranks at the same
        time.
        """
        self._released.clear()
        self._incarnation = join.incarnation
        self._user_groups = 0
        sockets.forget()
        self._connect(join, listen_fd)
        revival = revive.revive(lambda: self._init_auto(join), self._agree(join))
        return Joined(
            incarnation=join.incarnation,
            not_revived=revival.not_revived,
            checksums=revival.checksums,
        )

    @contextmanager
    def cell(self, collective_timeout_s: float | None) -> Iterator[None]:
        """Around user code: a group the user made in an earlier cell yields to a new `init_process_group`."""
        self._made_in_cell = False
        self._bound_collectives(collective_timeout_s)
        try:
            yield
        finally:
            if collective_timeout_s is not None:
                self._bound_collectives(c10d.default_pg_timeout.total_seconds())

    def _bound_collectives(self, timeout_s: float | None) -> None:
        if timeout_s is not None and dist.is_initialized():
            c10d._set_pg_timeout(timedelta(seconds=timeout_s), c10d._get_default_group())

    def release(self) -> None:
        """Free this rank from a collective, or a join. From a service thread; every rank must join anew after
        it.
        """
        self._released.set()
        sockets.release()
        for group in list(c10d._world.pg_map):
            for device in group._device_types:
                if device.type == "cuda":
                    group._get_backend(device).abort()  # NCCL has no sockets of ours to shut

    def leave(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()

    def _connect(self, join: Join, listen_fd: int | None) -> None:
        """torch tries until its time-out, whatever is done to its sockets, and rank 0 may be dead: so it gets
        little time, again and again.
        """
        while True:
            try:
                with sockets.tracked():
                    self._store = dist.TCPStore(  # type: ignore[attr-defined]
                        join.master_addr,
                        join.port,
                        join.world_size,
                        listen_fd is not None,
                        timeout=_CONNECT_TIMEOUT,
                        wait_for_workers=False,
                        master_listen_fd=listen_fd,
                    )
            except dist.DistError:
                if listen_fd is not None or self._released.is_set():
                    raise
            else:
                self._store.set_timeout(_STORE_TIMEOUT)
                return

    def _init_auto(self, join: Join) -> None:
        store = c10d.PrefixStore(f"incarnation/{join.incarnation}/auto", self._store)
        _real_init(join.backend, store=store, rank=join.rank, world_size=join.world_size)
        self._owner = "auto"

    def _agree(self, join: Join) -> revive.Agree:
        store = c10d.PrefixStore(f"incarnation/{join.incarnation}/groups", self._store)

        def agree(names: list[str]) -> list[set[str]]:
            store.set(str(join.rank), "\n".join(names))
            return [set(store.get(str(rank)).decode().split("\n")) for rank in range(join.world_size)]

        return agree

    def destroy(self, group: Any = None) -> None:
        """`torch.distributed.destroy_process_group`."""
        time.sleep(_SETTLE_S)
        default = c10d._world.default_pg
        _real_destroy(group)
        if default is not None and not dist.is_initialized():
            naming.all_gone()
            revive.default_is_gone(default)

    def init_for_user(
        self, backend: str | None = None, init_method: str | None = None, *args: Any, **kwargs: Any
    ) -> None:
        """`torch.distributed.init_process_group`."""
        if dist.is_initialized() and not self._made_in_cell:
            dist.destroy_process_group()  # the automatic group, or the user's own from an earlier cell
        if (init_method is None or init_method == "env://") and kwargs.get("store") is None and not args:
            self._user_groups += 1
            prefix = f"incarnation/{self._incarnation}/user/{self._user_groups}"
            kwargs["store"] = c10d.PrefixStore(prefix, self._store)
            kwargs["rank"] = _given(kwargs.get("rank"), "RANK")
            kwargs["world_size"] = _given(kwargs.get("world_size"), "WORLD_SIZE")
            init_method = None
        _real_init(backend, init_method, *args, **kwargs)
        revive.follow_default()
        self._owner = "user"
        self._made_in_cell = True


def hook_torch(group: Group | None = None) -> None:
    """Let torch's functions ask the group of this process, which is `group` from now on.

    The zygote calls it once for all its workers, which inherit the hooks: to look for torch's functions in
    every module costs a worker 15 ms, since each page that it looks at is copied.
    """
    global _of_this_process
    _of_this_process = group
    if c10d.init_process_group is not _real_init:
        return
    c10d._new_process_group_helper = _tracked_build
    c10d._process_group_name = naming.name_of  # type: ignore[assignment]
    _put_everywhere("init_process_group", _real_init, _init_process_group)
    _put_everywhere("destroy_process_group", _real_destroy, _destroy_process_group)


def _tracked_build(*args: Any, **kwargs: Any) -> Any:
    with sockets.tracked():
        return _real_build(*args, **kwargs)


@functools.wraps(_real_init)
def _init_process_group(*args: Any, **kwargs: Any) -> None:
    init = _real_init if _of_this_process is None else _of_this_process.init_for_user
    init(*args, **kwargs)


@functools.wraps(_real_destroy)
def _destroy_process_group(*args: Any, **kwargs: Any) -> None:
    destroy = _real_destroy if _of_this_process is None else _of_this_process.destroy
    destroy(*args, **kwargs)


def _put_everywhere(name: str, function: Any, replacement: Any) -> None:
    """Also where a module of torch has imported it by name."""
    for module in list(sys.modules.values()):
        if getattr(module, "__dict__", {}).get(name) is function:
            setattr(module, name, replacement)


def _given(value: int | None, variable: str) -> int:
    return int(os.environ[variable]) if value is None or value < 0 else value


def torchrun_environment(join: Join) -> dict[str, str]:
    """What torchrun sets for a worker (`TORCHELASTIC_USE_AGENT_STORE`: nobody hosts a store of its own), and
    on a single node gloo's interface.
    """
    world = str(join.world_size)
    interface = {"GLOO_SOCKET_IFNAME": "lo"} if join.nnodes == 1 else {}
    return {
        **interface,
        "RANK": str(join.rank),
        "LOCAL_RANK": str(join.local_rank),
        "WORLD_SIZE": world,
        "LOCAL_WORLD_SIZE": str(join.local_world_size),
        "GROUP_RANK": str(join.node_rank),
        "GROUP_WORLD_SIZE": str(join.nnodes),
        "ROLE_NAME": "default",
        "ROLE_RANK": str(join.rank),
        "ROLE_WORLD_SIZE": world,
        "MASTER_ADDR": join.master_addr,
        "MASTER_PORT": str(join.port),
        "TORCHELASTIC_RUN_ID": join.run_id,
        "TORCHELASTIC_RESTART_COUNT": str(join.restart_count),
        "TORCHELASTIC_MAX_RESTARTS": str(join.max_restarts),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "2",  # torchrun sets 1, which ends the process after an abort
    }
