"""Output for a kernel that reads slower than the ranks write: bounded, in order, with the last lines."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import pytest

from quarterdeck.coordinator.output_throttle import KEPT_CHARS, SLOW_READER_BYTES, OutputThrottle
from quarterdeck.protocol.channel import encode
from quarterdeck.protocol.messages import Anything
from quarterdeck.protocol.worker import Output


class _Channel:
    """Takes everything; `queued_bytes` is what the test says."""

    def __init__(self) -> None:
        self.queued_bytes = 0
        self.sent: list[Output] = []

    def forward(self, raw: bytes) -> None:
        message = msgspec.msgpack.decode(raw, type=Anything)
        assert isinstance(message, Output)
        self.sent.append(message)

    def text(self, rank: int = 0) -> str:
        return "".join(output.text for output in self.sent if output.rank == rank)


def _show(outlet: OutputThrottle, text: str, rank: int = 0, **fields: Any) -> None:
    output = Output(rank=rank, kind="stdout", text=text, **fields)
    outlet.show(output, encode(output))


@pytest.fixture
def channel() -> _Channel:
    return _Channel()


def _outlet(channel: _Channel) -> OutputThrottle:
    return OutputThrottle(cast(Any, channel))


def test_a_kernel_that_keeps_up_gets_everything(channel: _Channel) -> None:
    outlet = _outlet(channel)
    for number in range(3):
        _show(outlet, f"{number}\n")
    assert channel.text() == "0\n1\n2\n"
    assert outlet.left_out == 0


def test_a_slow_kernel_gets_the_last_lines_and_is_told_what_is_missing(channel: _Channel) -> None:
    async def flood() -> OutputThrottle:
        outlet = _outlet(channel)
        _show(outlet, "begin\n")
        channel.queued_bytes = SLOW_READER_BYTES + 1
        for number in range(20_000):
            _show(outlet, f"line {number}\n")
        outlet.finish()
        return outlet

    outlet = asyncio.run(flood())
    text = channel.text()
    assert text.startswith(f"begin\n… {outlet.left_out:,} characters left out …\nline ")
    assert text.endswith("line 19999\n")
    assert len(text) < 2 * KEPT_CHARS
    written = sum(len(f"line {number}\n") for number in range(20_000))
    assert outlet.left_out + len(text) - len(text.splitlines(keepends=True)[1]) == written + len("begin\n")


def test_what_is_held_goes_out_as_soon_as_the_kernel_has_caught_up(channel: _Channel) -> None:
    async def pause() -> None:
        outlet = _outlet(channel)
        channel.queued_bytes = SLOW_READER_BYTES + 1
        _show(outlet, "last words before a long silence\n")
        assert channel.sent == []
        channel.queued_bytes = 0
        while not channel.sent:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(pause(), 10))
    assert channel.text() == "last words before a long silence\n"


def test_a_display_never_overtakes_the_text_before_it(channel: _Channel) -> None:
    async def mixed() -> None:
        outlet = _outlet(channel)
        channel.queued_bytes = SLOW_READER_BYTES + 1
        _show(outlet, "text of rank 0\n")
        _show(outlet, "text of rank 1\n", rank=1)
        picture = Output(rank=0, kind="display", data={"text/plain": "picture"})
        outlet.show(picture, encode(picture))
        assert [output.kind for output in channel.sent] == ["stdout", "display"]
        outlet.finish()

    asyncio.run(mixed())
    assert channel.text(rank=1) == "text of rank 1\n"
