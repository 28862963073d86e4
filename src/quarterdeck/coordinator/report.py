"""A run as its coordinator tells of it: everything to the store, and what the kernel takes to the kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quarterdeck.coordinator.output_throttle import OutputThrottle
from quarterdeck.coordinator.record import Answer, RunRecord
from quarterdeck.protocol.async_channel import AsyncChannel
from quarterdeck.protocol.kernel import Accepted, Finished, Notice
from quarterdeck.protocol.parts import Message
from quarterdeck.protocol.worker import Output

KernelGone = Callable[[], bool]


class RunReport:
    """For a session's cell, or an isolated run with all its attempts."""

    def __init__(self, record: RunRecord, channel: AsyncChannel, kernel_gone: KernelGone | None) -> None:
        """Without `kernel_gone`, for a detached run, the end of the kernel is of no matter."""
        self.record = record
        self._channel = channel
        self._kernel_gone = kernel_gone
        self._throttle = OutputThrottle(channel)

    def accept(self) -> None:
        """The run is on record: under which name."""
        self._channel.send(Accepted(run_id=self.record.run_id, folder=str(self.record.folder)))

    def tell(self, text: str) -> None:
        """A line for the reader of the notebook."""
        self._channel.send(Notice(text=text, level="warning"))

    def show(self, output: Output, raw: bytes) -> None:
        self.record.write(output)
        self._throttle.show(output, raw)

    async def tidy_up(self, answers: Sequence[Answer] = (), attempt: int = 0) -> None:
        """All ranks have ended. With the values that they sent, which the kernel gets first."""
        self._throttle.finish()
        for outcome, blob in answers:
            self._channel.send(outcome, blob)
        await self.record.results(answers, attempt)
        await self.record.tidy_up()

    def end(self, finished: Finished, attempt: int = 0) -> None:
        """The last word to the store, then to the kernel."""
        if self.record.opened:
            self.record.outcomes(finished.outcomes, attempt)
            self.record.end(finished, attempt, self.kernel_gone)
        self._tell_left_out()
        finished.log_dir = str(self.record.folder) if self.record.has_logs else ""
        self._channel.send(finished)

    def end_without_run(self, last: Message) -> None:
        """No rank ever ran a line of it, and the store has its last word."""
        self._throttle.finish()
        self._channel.send(last)

    @property
    def kernel_gone(self) -> bool:
        """Whatever ends now ends because of that. It closes the channel and the guard pipe, in any order."""
        return self._kernel_gone is not None and (self._channel.closed or self._kernel_gone())

    def _tell_left_out(self) -> None:
        if left_out := self._throttle.left_out:
            text = f"{left_out:,} characters came too fast to be shown: they are in {self.record.folder}."
            self._channel.send(Notice(text=text))
        if self.record.notice:
            self.tell(self.record.notice)
