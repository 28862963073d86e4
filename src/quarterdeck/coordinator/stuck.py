"""Name the ranks that somebody waits for: which they are, and where they are, in words for the reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from quarterdeck.coordinator.exit_report import frame_words
from quarterdeck.coordinator.worker import Worker
from quarterdeck.present.words import ranks_in_words
from quarterdeck.protocol.agent import ProcessState
from quarterdeck.protocol.stacks import main_frames

NAME_AFTER_S = 10.0
_FRAMES_SHOWN = 3
_STATES = {
    "R": "it uses the processor",
    "D": "it waits for a disk or a network file system",
    "T": "it is stopped (SIGSTOP)",
    "t": "it is stopped (by a debugger)",
}

Tell = Callable[[str], None]
"""Shows the notebook's reader a line."""


@asynccontextmanager
async def told_after(limit_s: float, words: Callable[[], Awaitable[str]], tell: Tell) -> AsyncIterator[None]:
    """What is done inside may take its time; after `limit_s` the reader hears what it waits for."""

    async def say() -> None:
        await asyncio.sleep(limit_s)
        if text := await words():
            tell(text)

    task = asyncio.create_task(say())
    try:
        yield
    finally:
        task.cancel()


@asynccontextmanager
async def named(workers: Callable[[], Sequence[Worker]], what: str, tell: Tell) -> AsyncIterator[None]:
    """As `told_after`: those of `workers` that have not answered by then, with where they are. `what` they
    have not done: "started".
    """

    async def words() -> str:
        return await stuck_words(workers(), f"{what} after {NAME_AFTER_S:g} s")

    async with told_after(NAME_AFTER_S, words, tell):
        yield


async def stuck_words(workers: Sequence[Worker], what: str) -> str:
    """ "rank 1 has not joined the others after 10 s: it is at train.py, line 3, in f"; a sentence for each
    place. Empty without workers.
    """
    places: dict[str, list[int]] = {}
    for worker, place in zip(workers, await asyncio.gather(*map(where, workers)), strict=True):
        places.setdefault(place, []).append(worker.rank)
    return "; ".join(
        f"{ranks_in_words(ranks)} {'have' if len(ranks) > 1 else 'has'} not {what}: {place}"
        for place, ranks in sorted(places.items(), key=lambda item: len(item[1]))
    )


async def where(worker: Worker) -> str:
    """In one line, innermost call first; of a process without a stack, what the system says of it."""
    process = await worker.agent.stacks(worker.life)
    frames = main_frames(process.stacks)
    if frames:
        return "it is at " + ", called by ".join(map(frame_words, frames[:_FRAMES_SHOWN]))
    if not process.pid:
        return "the process that starts it has not answered"
    place = place_of(process)
    if worker.started or process.state == "T":
        return place
    return (
        f"{place}; its interpreter has not reached quarterdeck's first line, which comes after sitecustomize "
        "and all .pth files"
    )


def place_of(process: ProcessState) -> str:
    """What the system says of a process: "it uses the processor (pid 30272)"."""
    waiting = f"it waits in {process.waits_in}" if process.waits_in else "it waits"
    return f"{_STATES.get(process.state, waiting)} (pid {process.pid})"
