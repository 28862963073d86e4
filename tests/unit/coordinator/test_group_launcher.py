"""Groups that share GPUs: said once, to the one that comes second."""

import asyncio
from typing import Any

import pytest

from quarterdeck.coordinator.group import WorkerGroup
from quarterdeck.coordinator.group_launcher import Launcher
from quarterdeck.protocol.agent import NodeFacts
from quarterdeck.protocol.parts import GroupSpec, KernelContext

CONTEXT = KernelContext(changes={}, cwd="/", sys_path=[])


class FourGpus:
    """The agent of a node with four GPUs, which starts nobody."""

    async def ready(self, context: KernelContext) -> NodeFacts:
        return NodeFacts(cores=8, gpus=4)

    def renew(self, context: KernelContext) -> list[str]:
        return []

    def open_group(self, key: str, context: KernelContext, start_method: str) -> None:
        pass

    def close_group(self, key: str) -> None:
        pass


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Launcher:
    async def start(self: WorkerGroup, join_timeout_s: float | None = None) -> None:
        """Nothing is forked here."""

    monkeypatch.setattr(WorkerGroup, "start", start)
    agent: Any = FourGpus()
    return Launcher([agent])


def launch(launcher: Launcher, key: str, n: int, backend: str | None = None) -> list[str]:
    spec = GroupSpec(nproc_per_node=n, backend=backend)
    ignore: Any = lambda *_: None  # noqa: E731
    _, notices = asyncio.run(launcher.launch(key, f"run {key}", spec, CONTEXT, ignore, ignore))
    return notices


def test_two_groups_on_the_same_gpu_are_told(launcher: Launcher) -> None:
    assert launch(launcher, "a", 2) == []
    [notice] = launch(launcher, "b", 1)
    assert notice == "run b shares GPUs with run a: memory and speed are divided between them."
    [notice] = launch(launcher, "c", 4)
    assert "with run a and run b" in notice


def test_groups_on_the_cpu_share_nothing_that_needs_a_word(launcher: Launcher) -> None:
    assert launch(launcher, "a", 2) == []
    assert launch(launcher, "b", 2, "gloo") == []
    assert launch(launcher, "c", 2, "gloo") == []


def test_a_group_that_has_ended_uses_no_gpu_any_more(launcher: Launcher) -> None:
    launch(launcher, "a", 2)
    launcher.ended("a")
    launcher.ended("a")
    assert launch(launcher, "b", 2) == []


def test_a_group_that_could_not_start_uses_none(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: WorkerGroup, join_timeout_s: float | None = None) -> None:
        raise RuntimeError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(WorkerGroup, "start", fail)
        with pytest.raises(RuntimeError, match="no memory"):
            launch(launcher, "a", 2)
    assert launch(launcher, "b", 2) == []
