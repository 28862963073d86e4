"""The IPython shell of one worker: no history database, no thread, no hooks into the process. Made once, in
the zygote.

Making a shell costs 40 ms, so the zygote makes it and every forked worker inherits it. Its namespace is
`sys.modules["__main__"].__dict__`, as in a notebook. What it shows goes to `shell.emitter`.
"""

from __future__ import annotations

import base64
import json
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Type
from traitlets.config import Config

from quarterdeck.protocol.worker import Output
from quarterdeck.worker.frames import chain
from quarterdeck.worker.interrupts import interrupts
from quarterdeck.worker.output import Emitter, wire_text
from quarterdeck.worker.shown import bounded, from_script_on, lines_of, presentable, without_ours
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


@dataclass
class _Script:
    """What a magic runs."""

    error: BaseException | None = None


class WorkerShell(InteractiveShell):
    """Runs cells; see `make`. `execution_count` is the notebook's, for tracebacks."""

    display_pub_class = Type(_Publisher)
    displayhook_class = Type(_ResultHook)
    emitter: Emitter
    traceback_lines: ClassVar[list[str]] = []
    cell_code = ""
    cell_is_plain = False
    cell_is_bare = False
    failure: BaseException | None = None
    """How the last cell failed, until the next one begins; see `frames`."""
    _depth = 0
    """How deep cells are inside cells."""
    _aside = False
    """A traceback that is rendered now is output."""
    _is_quiet = False
    _script: _Script | None = None

    def show(self, kind: Any, data: dict[str, Any], metadata: Any = None, display_id: str = "") -> None:
        encoded = json.dumps(metadata, default=repr).encode() if metadata else b""
        output = Output(rank=0, kind=kind, data=wire_bundle(data), metadata=encoded, display_id=display_id)
        self.emitter.show(output)

    def transform_cell(self, raw_cell: str) -> str:
        """The magic line was line 1 of the notebook's cell: an empty one keeps the line numbers of tracebacks
        right.
        """
        if self._depth > 1:
            return str(super().transform_cell(raw_cell))  # type: ignore[no-untyped-call]
        self.cell_code = raw_cell
        magic_line = "" if self.cell_is_bare else "\n"
        if self.cell_is_plain:
            return magic_line + raw_cell
        transformed: str = super().transform_cell(raw_cell)  # type: ignore[no-untyped-call]
        return magic_line + transformed

    # ---- what went wrong

    def run_cell(self, *args: Any, **kwargs: Any) -> Any:
        self._depth += 1
        try:
            return super().run_cell(*args, **kwargs)  # type: ignore[no-untyped-call]
        finally:
            self._depth -= 1

    def showtraceback(
        self,
        exc_tuple: Any = None,
        filename: str | None = None,
        tb_offset: int | None = None,
        exception_only: bool = False,
        running_compiled_code: bool = False,
    ) -> None:
        """The failure that ends the cell is kept, for its outcome. What else IPython, or user code,
        wants to be seen (a `__repr__` that raised, a cell inside the cell) is shown, and the cell goes on.
        """
        error = (exc_tuple or sys.exc_info())[1]
        if error is None or self._is_ours_to_raise(error):
            return
        before_the_cell = exc_tuple is not None and self.displayhook.exec_result is None
        ends_it = running_compiled_code or exception_only or before_the_cell
        if self._depth == 1 and ends_it:
            if running_compiled_code:
                interrupts.disarm()  # it would only cost the reader the traceback
            self._render(error, without_ours(error.__traceback__), filename, tb_offset, running_compiled_code)
            return
        with self._as_output():
            self._render(error, error.__traceback__, filename, tb_offset, running_compiled_code)

    def show_failure(self, error: BaseException, frames: TracebackType | None) -> None:
        """The failure of a function is kept for the outcome."""
        if not self._is_ours_to_raise(error):
            self._render(error, frames, None, 0, False)

    def _is_ours_to_raise(self, error: BaseException) -> bool:
        """An interrupt, or what it did to a collective: nobody needs to see where."""
        return bool(interrupts.reason) and (isinstance(error, KeyboardInterrupt) or is_secondary(error))

    def _render(
        self, error: BaseException, frames: Any, filename: str | None, tb_offset: int | None, compiled: bool
    ) -> None:
        """Plainly what another rank's end caused: to render frames of torch's large files takes 0.3 s, and
        the others' fate should be known by then. And groups, which IPython cannot.
        """
        if is_secondary(error) or any(isinstance(one, BaseExceptionGroup) for one in chain(error)):
            self._showtraceback(type(error), error, lines_of(error, from_script_on(frames)))
            return
        shown = presentable(error)
        super().showtraceback(
            (type(error), shown, frames), filename, tb_offset, running_compiled_code=compiled
        )

    def _showtraceback(self, etype: Any, evalue: Any, stb: list[str]) -> None:
        if self._aside:
            self.emitter.write("stderr", "\n".join(bounded(stb)) + "\n")
        else:
            self.traceback_lines[:] = stb

    @contextmanager
    def _as_output(self) -> Iterator[None]:
        before, self._aside = self._aside, not self._is_quiet
        try:
            yield
        finally:
            self._aside = before

    # ---- scripts: IPython shows their failures and goes on; here they are the cell's

    def run_line_magic(self, magic_name: str, line: str, _stack_depth: int = 1) -> Any:
        """A script's failure is raised when its magic is over, which still hands the script's names on."""
        before, self._script = self._script, _Script()
        try:
            result = super().run_line_magic(magic_name, line, _stack_depth + 1)
            error = self._script.error
        finally:
            self._script = before
        if error is not None:
            raise error
        return result

    def safe_execfile(self, fname: Any, *where: Any, exit_ignore: bool = False, **options: Any) -> None:
        execute: Any = super().safe_execfile

        def run() -> None:
            execute(fname, *where, **{**options, "raise_exceptions": True})

        self._run_script(run, exit_ignore)

    def safe_run_module(self, mod_name: str, where: dict[str, Any]) -> None:
        import runpy

        self._run_script(
            lambda: where.update(runpy.run_module(mod_name, run_name="__main__", alter_sys=True))
        )

    def safe_execfile_ipy(self, *args: Any, **kwargs: Any) -> None:
        """Its cells are cells inside the cell; the failure of one is this one's, and shown once."""
        before, self._is_quiet = self._is_quiet, True
        try:
            super().safe_execfile_ipy(*args, **{**kwargs, "raise_exceptions": True})  # type: ignore[no-untyped-call]
        finally:
            self._is_quiet = before

    def _run_script(self, run: Callable[[], None], exit_ignore: bool = False) -> None:
        script = self._script
        if script is not None and script.error is not None:  # `%run -t -N10`
            return
        try:
            run()
        except BaseException as error:
            if isinstance(error, SystemExit) and (exit_ignore or not error.code):
                return
            error.__traceback__ = from_script_on(error.__traceback__)
            if script is None:  # no magic runs it
                raise
            script.error = error

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

    def _tee(self, channel: str) -> Any:
        """For the history, which workers have none of; what user code has put there may lack a `write`."""
        return nullcontext()

    def init_prompts(self) -> None:
        """`sys.ps1` would say that somebody types here; Lightning then refuses to train."""

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
