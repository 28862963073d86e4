"""What the widgets of the live views share: the page's half, and the line to it. In the kernel; the only
module that knows anywidget, imported when the first view is shown, as that takes a moment.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anywidget
import msgspec

NOBODY_S = 180.0
"""How long all views have to be silent until nobody is taken to look."""


class LiveWidget(anywidget.AnyWidget):
    """The model of some views: nothing but a line to the page, so nothing of it is worth saving. `take` gets
    what the page asks, in whatever thread the kernel serves its comms.
    """

    _esm = Path(__file__).parent / "static" / "run_view.js"
    """Built by `make view`."""

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        _hear_at_once(self.comm)
        self.on_msg(lambda _widget, content, _buffers: self.take(content))

    def take(self, content: Any) -> None:
        """A message of the page."""
        raise NotImplementedError

    def tell(self, message: Any, buffer: bytes = b"") -> None:
        """One message to all pages."""
        content, buffers = msgspec.to_builtins(message), [buffer] if buffer else None
        try:
            self.send(content, buffers)
        except UnicodeEncodeError:  # the name of a metric, or a file, may hold what UTF-8 cannot
            text = json.dumps(content, ensure_ascii=False).encode(errors="replace")
            self.send(json.loads(text), buffers)


def asked(content: Any, kinds: Any) -> Any:
    """The page's message. None for what is none of `kinds`: a newer page may ask for more."""
    try:
        return msgspec.convert(content, kinds)
    except msgspec.ValidationError:
        return None


def _hear_at_once(comm: Any) -> None:
    """ipykernel 7.4 serves a comm in the thread that last sent on it: the one that is busy with the cell.
    Left to the page's own choice, a message is heard while the cell runs.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda data, default: default
