"""The way of the ranks' output to the kernel. Text that comes faster than the kernel takes it is left out,
rather than kept in memory (the log has all of it); a rank's last lines are always shown.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from quarterdeck.protocol.async_channel import AsyncChannel
from quarterdeck.protocol.channel import encode
from quarterdeck.protocol.worker import Output

SLOW_READER_BYTES = 8_000_000
"""Output the kernel has not taken yet; beyond this, text is held back."""
KEPT_CHARS = 40_000
"""So much of the end of the text that is held back is shown when the kernel has caught up."""
_RETRY_S = 0.1


@dataclass
class _Held:
    """What one rank wrote meanwhile."""

    parts: deque[Output] = field(default_factory=deque)
    chars: int = 0
    dropped: int = 0

    def add(self, output: Output) -> None:
        self.parts.append(output)
        self.chars += len(output.text)
        while self.chars - len(self.parts[0].text) > KEPT_CHARS:
            dropped = len(self.parts.popleft().text)
            self.chars -= dropped
            self.dropped += dropped


class OutputThrottle:
    """One for each call. `show` keeps the order of each rank's outputs."""

    def __init__(self, channel: AsyncChannel) -> None:
        self.left_out = 0
        """Characters that the kernel was never sent."""
        self._channel = channel
        self._held: dict[int, _Held] = {}
        self._in_line: dict[int, bool] = {}
        self._retry: asyncio.TimerHandle | None = None

    def show(self, output: Output, raw: bytes) -> None:
        slow = self._channel.queued_bytes > SLOW_READER_BYTES
        if output.text and (slow or output.rank in self._held):
            self._held.setdefault(output.rank, _Held()).add(output)
            self._retry = self._retry or self._later()
        else:
            self._release(output.rank)
            self._forward(output, raw)

    def finish(self) -> None:
        """The cell is over: what is held goes out now."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        for rank in list(self._held):
            self._release(rank)

    def _later(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(_RETRY_S, self._try_again)

    def _try_again(self) -> None:
        if self._channel.queued_bytes > SLOW_READER_BYTES // 2:
            self._retry = self._later()
        else:
            self.finish()

    def _release(self, rank: int) -> None:
        held = self._held.pop(rank, None)
        if held is None:
            return
        if held.dropped:
            self._begin_anew(held, rank)
        for output in held.parts:
            self._forward(output, encode(output))

    def _begin_anew(self, held: _Held, rank: int) -> None:
        """After the gap: a line that says so, then whole lines."""
        first = held.parts[0]
        cut, newline, rest = first.text.partition("\n")
        if not newline:
            cut, rest = "", first.text
        left_out = held.dropped + len(cut) + len(newline)
        self.left_out += left_out
        mark = f"… {left_out:,} characters left out …\n"
        first.text = ("\n" if self._in_line.get(rank) else "") + mark + rest

    def _forward(self, output: Output, raw: bytes) -> None:
        if output.text:
            self._in_line[output.rank] = output.text[-1] not in "\n\r"
        self._channel.forward(raw)
