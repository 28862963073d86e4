"""The notebook's display system as a view's sink. Used by the magics, in the kernel's main thread."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.interactiveshell import InteractiveShell

from quarterdeck.views.sink import Bundle, Control

if TYPE_CHECKING:
    from quarterdeck.views.checkpoints.location import Location


class ShellSink:
    """Outputs of the cell that runs now, through the shell's display publisher."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._publisher: Any = shell.display_pub
        self.live = hasattr(shell, "kernel")
        self._namespace = shell.user_ns
        self._draws_widgets = self.live and draws_widgets(shell.user_ns)

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

    def live_view(self, folder: Path, control: Control, opens_output: bool) -> Bundle | None:
        """A widget; None where no page would draw it, and a saved notebook would only carry its code."""
        if not self._draws_widgets:
            return None
        from quarterdeck.views.run.widget import RunView

        return _bundle_of(RunView(folder, control, opens_output))

    def checkpoints_view(self, scope: Location) -> Bundle | None:
        """The same for the checkpoint browser, which may put a variable into the notebook."""
        if not self._draws_widgets:
            return None
        from quarterdeck.views.checkpoints.widget import CheckpointBrowser

        return _bundle_of(CheckpointBrowser(scope, self._namespace))


def _bundle_of(widget: Any) -> Bundle:
    data: Any = widget._repr_mimebundle_()
    bundle: Bundle = data[0] if isinstance(data, tuple) else data
    # Without a page, as on GitHub, it would say "<RunView object>" above what a saved notebook shows.
    return {**bundle, "text/plain": ""}


def draws_widgets(namespace: dict[str, Any]) -> bool:
    """Whether a page is there: a Jupyter server, VS Code or Colab leave signs of themselves, and what
    executes notebooks without a page does not. `QUARTERDECK_VIEW=live` or `static` decides where this errs.
    """
    asked = os.environ.get("QUARTERDECK_VIEW", "")
    if asked in ("live", "static"):
        return asked == "live"
    return bool(
        os.environ.get("JPY_SESSION_NAME")
        or namespace.get("__vsc_ipynb_file__")
        or "google.colab" in sys.modules
    )
