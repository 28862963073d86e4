"""Load and unload: what `%load_ext quarterdeck` puts into the shell, and how it is taken out again."""

from __future__ import annotations

import atexit
import sys
from typing import Any

from quarterdeck.errors import UsageError
from quarterdeck.kernel import coordinator_process
from quarterdeck.kernel import notebook as notebooks
from quarterdeck.kernel.magics import completion
from quarterdeck.kernel.magics.display import ShellSink
from quarterdeck.kernel.magics.magics import QuarterdeckMagics, cell_number
from quarterdeck.kernel.notebook import Notebook

_CELL_NAMES, _LINE_NAMES = ("distributed", "rank"), ("workers", "push", "pull", "checkpoints")
_loaded: dict[int, dict[str, Any]] = {}


def load(shell: Any) -> None:
    """Register the magics and start the coordinator; torch is imported by its zygote, in the background."""
    if sys.platform != "linux":
        raise UsageError(
            "quarterdeck needs Linux: its workers are forked, guarded and fed with Linux's own calls."
        )
    if id(shell) in _loaded:
        return
    coordinator_process.current()
    notebooks.use(_notebook(shell))
    shell.register_magics(QuarterdeckMagics(shell))
    matcher = completion.matcher()
    shell.Completer.custom_matchers.append(matcher)
    _loaded[id(shell)] = {"matcher": matcher}
    kernel = getattr(shell, "kernel", None)
    if kernel is not None:
        kernel.do_inspect = completion.inspecting(kernel.do_inspect)
    atexit.register(coordinator_process.close)


def unload(shell: Any) -> None:
    """End the workers and leave the shell as it was."""
    loaded = _loaded.pop(id(shell), None)
    if loaded is None:
        return
    shell.Completer.custom_matchers.remove(loaded["matcher"])
    for name in _CELL_NAMES:
        shell.magics_manager.magics["cell"].pop(name, None)
    for name in _LINE_NAMES:
        shell.magics_manager.magics["line"].pop(name, None)
    kernel = getattr(shell, "kernel", None)
    if kernel is not None:
        kernel.__dict__.pop("do_inspect", None)
    notebooks.use(None)
    coordinator_process.close()
    atexit.unregister(coordinator_process.close)


def _notebook(shell: Any) -> Notebook:
    return Notebook(
        shell.user_ns,
        set(shell.user_ns_hidden),
        shell.compile,
        lambda: ShellSink(shell),
        lambda: cell_number(shell),
        lambda number: _cell_source(shell, number),
    )


def _cell_source(shell: Any, number: int) -> str:
    inputs = shell.history_manager.input_hist_raw
    return str(inputs[number]) if 0 <= number < len(inputs) else ""
