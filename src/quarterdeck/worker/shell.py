"""The IPython shell of one worker: no history database, no thread, no hooks into the process. Made once, in
the zygote.

Making a shell costs 40 ms, so the zygote makes it and every forked worker inherits it. Its namespace is
`sys.modules["__main__"].__dict__`, as in a notebook. What it shows goes to `shell.emitter`.
"""

from __future__ import annotations

import base64
import json
import sys
import traceback
import types
import warnings
from typing import Any, ClassVar

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Type
from traitlets.config import Config

from quarterdeck.protocol.messages import Output
from quarterdeck.worker.interrupts import interrupts
from quarterdeck.worker.output import Emitter, wire_text
from quarterdeck.worker.sockets import is_secondary


def wire_bundle(data: dict[str, Any]) -> dict[str, str]:
    """A mime bundle as text: binary data in base64, JSON types as JSON text."""
    wire = {}
    for mime, value in data.items():
        if isinstance(value, bytes):
            wire[mime] = base64.b64encode(value).decode("ascii")
        else:
            wire[mime] = wire_text(value if isinstance(value, str) else json.dumps(value, default=repr))
    return wire


class _Publisher(DisplayPublisher):
    shell: WorkerShell

    def publish(  # type: ignore[override]
        self,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        *,
        transient: dict[str, Any] | None = None,
        update: bool = False,
        **_: Any,
    ) -> None:
        display_id = str((transient or {}).get("display_id", ""))
        self.shell.show("update" if update else "display", data, metadata, display_id)

    def clear_output(self, wait: bool = False) -> None:
        self.shell.emitter.show(Output(rank=0, kind="clear", wait=wait))


class _ResultHook(DisplayHook):
    shell: WorkerShell

    def quiet(self) -> bool:
        """A semicolon at the end hides the value. IPython looks into the history; workers have none."""
        return bool(self.semicolon_at_end_of_expression(self.shell.cell_code))  # type: ignore[no-untyped-call]

    def write_output_prompt(self) -> None:
        pass

    def write_format_data(self, format_dict: Any, md_dict: Any = None) -> None:
        self.shell.show("result", format_dict, md_dict)

    def finish_displayhook(self) -> None:
        pass


class WorkerShell(InteractiveShell):
    """Runs cells; see `make`. `execution_count` is the notebook's, for tracebacks."""

    display_pub_class = Type(_Publisher)
    displayhook_class = Type(_ResultHook)
    emitter: Emitter
    traceback_lines: ClassVar[list[str]] = []
    cell_code = ""
    cell_is_plain = False
    cell_is_bare = False

    def show(self, kind: Any, data: dict[str, Any], metadata: Any = None, display_id: str = "") -> None:
        encoded = json.dumps(metadata, default=repr).encode() if metadata else b""
        output = Output(rank=0, kind=kind, data=wire_bundle(data), metadata=encoded, display_id=display_id)
        self.emitter.show(output)

    def transform_cell(self, raw_cell: str) -> str:
        """The magic line was line 1 of the notebook's cell: an empty one keeps the line numbers of tracebacks
        right.
        """
        self.cell_code = raw_cell
        magic_line = "" if self.cell_is_bare else "\n"
        if self.cell_is_plain:
            return magic_line + raw_cell
        transformed: str = super().transform_cell(raw_cell)  # type: ignore[no-untyped-call]
        return magic_line + transformed

    def showtraceback(self, *args: Any, **kwargs: Any) -> None:
        """Not of an interrupt, which nobody sees, and plainly of what another rank's end caused: to render
        frames of torch's large files takes 0.3 s, and the others' fate should be known by then.
        """
        error = sys.exc_info()[1]
        secondary = error is not None and is_secondary(error)
        if interrupts.reason and (secondary or isinstance(error, KeyboardInterrupt)):
            return
        if error is not None and secondary:
            self.traceback_lines[:] = traceback.format_exception(error)
            return
        if kwargs.get("running_compiled_code"):
            interrupts.disarm()  # user code is over: an interrupt would only cost the reader the traceback
        super().showtraceback(*args, **kwargs)

    def _showtraceback(self, etype: Any, evalue: Any, stb: list[str]) -> None:
        self.traceback_lines[:] = stb

    def system_piped(self, cmd: str) -> None:
        """`!cmd`. IPython ends the command at an interrupt and goes on; the cell is to end as well."""
        super().system_piped(cmd)  # type: ignore[no-untyped-call]
        if interrupts.reason:
            raise KeyboardInterrupt

    system = system_piped

    def ask_exit(self) -> None:
        """`exit()` and `quit()`: the end of the cell."""
        raise SystemExit

    def enable_gui(self, gui: str | None = None) -> None:
        """A worker has no screen; `%matplotlib inline` asks for none, and must not fail."""

    def init_io(self) -> None:
        pass

    def init_virtualenv(self) -> None:
        pass

    def init_sys_modules(self) -> None:
        sys.modules["__main__"] = self.user_module


def make() -> WorkerShell:
    """The process's only shell. Must be the singleton: `display()` publishes through
    `InteractiveShell.instance()`.
    """
    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    config.InteractiveShell.cache_size = 0  # `Out` would keep every result, and its GPU memory, alive
    config.InteractiveShell.autoindent = False
    config.InteractiveShell.xmode = "Context"
    config.InteractiveShell.colors = "neutral"
    config.Completer.use_jedi = False  # a second of imports, and the real namespace knows more
    # sys.exit(0) is how scripts end; a worker has no "exit" or Ctrl-D to recommend.
    warnings.filterwarnings("ignore", "To exit: use", UserWarning, "IPython")
    main = types.ModuleType("__main__")
    shell: WorkerShell = WorkerShell.instance(config=config, user_module=main)
    return shell
