"""Ranks and ends of processes in plain words."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence


def ranks_in_words(ranks: Sequence[int]) -> str:
    """ "rank 2", "ranks 0 and 1", "ranks 0, 1 and 3"."""
    *first, last = map(str, ranks)
    return f"ranks {', '.join(first)} and {last}" if first else f"rank {last}"


def signal_name(number: int) -> str:
    """ "SIGKILL", "signal 40"."""
    try:
        return signal.Signals(number).name
    except ValueError:  # those for real time have no names
        return f"signal {number}"


def end_in_words(status: int) -> str:
    """ "ended with exit code 1", "was killed by SIGKILL"; of a status as os.waitpid gives it."""
    if os.WIFSIGNALED(status):
        return f"was killed by {signal_name(os.WTERMSIG(status))}"
    return f"ended with exit code {os.WEXITSTATUS(status)}"
