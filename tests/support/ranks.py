"""Ranks of a run in forked processes, for what they do together without workers or groups."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from typing import Any

import torch

from quarterdeck.checkpointing.save import finish
from quarterdeck.context import Context, working_for

_DEADLINE_S = 30


def forked_ranks(context: Context, count: int, work: Callable[[int], Any]) -> list[str]:
    """Each in a process of its own; what `work` returned, as text, or the text of its error."""
    started = [_start(context, rank, count, work) for rank in range(count)]
    texts = []
    for pid, answer in started:
        with os.fdopen(answer, "rb") as file:
            texts.append(file.read().decode())
        os.waitpid(pid, 0)
    return texts


def _start(context: Context, rank: int, count: int, work: Callable[[int], Any]) -> tuple[int, int]:
    """The pid, and a pipe that its answer comes by."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(_DEADLINE_S)
        torch.set_num_threads(1)
        os.write(write, _answer(context, rank, count, work).encode())
        os._exit(0)
    os.close(write)
    return pid, read


def _answer(context: Context, rank: int, count: int, work: Callable[[int], Any]) -> str:
    try:
        with working_for(dataclasses.replace(context, rank=rank, world_size=count, checkpoint=None)):
            result = str(work(rank))
            finish()
        return result
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
