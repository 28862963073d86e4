"""A group over two agents: what is one machine here is two nodes to the coordinator."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator

import pytest

from quarterdeck.agent.local import LocalAgent
from quarterdeck.coordinator.group import WorkerGroup
from quarterdeck.coordinator.group_launcher import Launcher
from quarterdeck.coordinator.run import CellRun
from quarterdeck.protocol.channel import encode
from quarterdeck.protocol.kernel import Finished
from quarterdeck.protocol.parts import GroupSpec, KernelContext
from quarterdeck.protocol.worker import Output, RunCell

LIMIT_S = 120
CELL = """
import os, torch, torch.distributed as dist
both = torch.tensor([float(rank)]); dist.all_reduce(both)
words = [os.environ[name] for name in WORDS]
print(rank, *words, int(both), os.environ.get("OF_THE_NODE"), "LEFT" in os.environ)
"""
WORDS = ("LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE")


@pytest.fixture
def guard() -> Iterator[int]:
    read, write = os.pipe()
    yield read
    os.close(write)
    os.close(read)


def _context() -> KernelContext:
    """What is told of a notebook that has removed a variable, and that lacks one which its nodes have."""
    changes = {"GLOO_SOCKET_IFNAME": "lo", "LEFT": None}
    return KernelContext(changes=changes, cwd=os.getcwd(), sys_path=list(sys.path))


async def _run(group: WorkerGroup, code: str) -> Finished:
    run = CellRun(group.workers, timeout_s=60, tell=lambda _: None)
    return await run.execute(encode(RunCell(number=1, code=code)), None)


def test_ranks_of_two_nodes_find_each_other_and_one_that_is_lost_is_replaced(
    guard: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_NODE", "kept")
    monkeypatch.setenv("LEFT", "1")
    shown: list[Output] = []

    async def scenario() -> None:
        agents = [LocalAgent(guard), LocalAgent(guard)]
        try:
            launcher = Launcher(agents)
            group, _ = await launcher.launch(
                "key",
                "the session",
                GroupSpec(nproc_per_node=2, backend="gloo"),
                _context(),
                lambda output, _: shown.append(output),
                lambda _: None,
            )
            assert [worker.agent for worker in group.workers] == [agents[0]] * 2 + [agents[1]] * 2
            finished = await _run(group, f"WORDS = {WORDS}\n{CELL}")
            assert finished.root_cause is None
            assert sorted(output.text for output in shown) == [
                f"{rank} {rank % 2} 4 2 {rank // 2} 2 6 kept False\n" for rank in range(4)
            ]
            dead = await _run(
                group, "import os, signal\nif rank == 3: os.kill(os.getpid(), 9)\ndist.barrier()"
            )
            assert dead.root_cause == 3
            assert await group.replace_dead() == [3]
            await group.join(fresh=[3])
            shown.clear()
            assert (await _run(group, f"WORDS = {WORDS}\n{CELL}")).root_cause is None
            assert len(shown) == 4
            await group.stop()
        finally:
            for agent in agents:
                agent.close()

    asyncio.run(asyncio.wait_for(scenario(), LIMIT_S))
