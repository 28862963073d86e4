"""The notebook's display system as a view's sink. Used by the magics, in the kernel's main thread."""

from __future__ import annotations

from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from quarterdeck.client.view.sink import Bundle


class ShellSink:
    """Outputs of the cell that runs now, through the shell's display publisher."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._publisher: Any = shell.display_pub
        self.live = hasattr(shell, "kernel")

    def show(self, data: Bundle, metadata: Bundle, display_id: str) -> None:
        """display_data."""
        transient = {"display_id": display_id} if display_id else {}
        self._publisher.publish(dict(data), dict(metadata), transient=transient, update=False)

    def update(self, data: Bundle, metadata: Bundle, display_id: str) -> None:
        """update_display_data."""
        self._publisher.publish(dict(data), dict(metadata), transient={"display_id": display_id}, update=True)

    def clear(self, wait: bool) -> None:
        """clear_output."""
        self._publisher.clear_output(wait=wait)
