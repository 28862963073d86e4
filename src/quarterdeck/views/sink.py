"""Where a cell's outputs go. The notebook's own display system in magics.display; lists in tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from quarterdeck.views.checkpoints.location import Location

Bundle = Mapping[str, Any]
"""A mime bundle: JSON values for JSON types, base64 text for binary types."""

BYTES_PER_S = 2_000_000
"""What a browser takes in without falling behind: what is large is sent less often."""


class Control:
    """What a live view can do about its run. Of a run that nobody here can stop: this class itself."""

    can_stop = False
    stopping = ""
    """How far a stop has come, in words; "" if nobody asked."""

    def stop(self) -> None:
        """Ask for the run's end; asked again, a step of the ladder is skipped. From any thread."""


class Sink(Protocol):
    """Called from the thread that runs the cell."""

    live: bool
    """Shown outputs can be updated. False in a terminal: what is shown stays as it is."""

    def show(self, data: Bundle, metadata: Bundle, display_id: str) -> None:
        """Append an output to the cell."""

    def update(self, data: Bundle, metadata: Bundle, display_id: str) -> None:
        """Replace a shown output, in place."""

    def clear(self, wait: bool) -> None:
        """Remove all outputs of the cell; with `wait` when the next one comes."""

    def live_view(self, folder: Path, control: Control, opens_output: bool) -> Bundle | None:
        """A view that follows the run of that folder by itself, to be shown; None where nobody could see it.
        `opens_output`: its output tab is open at first, as nothing beside it shows what the ranks write.
        """

    def checkpoints_view(self, scope: Location) -> Bundle | None:
        """A checkpoint browser, to be shown; None where nobody could see it."""


class PrintSink:
    """A script's: plain text on the standard output."""

    live = False

    def show(self, data: Bundle, metadata: Bundle, display_id: str) -> None:
        print(data.get("text/plain", ""), flush=True)

    def update(self, data: Bundle, metadata: Bundle, display_id: str) -> None:
        """Never called: it is not live."""

    def clear(self, wait: bool) -> None:
        """What is printed stays."""

    def live_view(self, folder: Path, control: Control, opens_output: bool) -> Bundle | None:
        return None

    def checkpoints_view(self, scope: Location) -> Bundle | None:
        return None
