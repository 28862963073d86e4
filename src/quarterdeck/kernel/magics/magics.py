"""`%%distributed`, `%%rank`, `%workers`, `%push`, `%pull` and `%checkpoints`: parse the line, call the
session, show what comes back.
"""

from __future__ import annotations

import ast
import functools
from argparse import Namespace
from collections.abc import Callable
from typing import Any, TypeVar, cast

from IPython.core.magic import Magics, cell_magic, line_magic, magics_class

from quarterdeck.errors import RunInterrupted, UsageError
from quarterdeck.kernel import notebook as notebooks
from quarterdeck.kernel.magics import debug, parsers, tables
from quarterdeck.kernel.options import Options
from quarterdeck.kernel.run import Run
from quarterdeck.kernel.sessions import calls_of
from quarterdeck.kernel.stacks import Stacks
from quarterdeck.kernel.submit import run_blocking, submit_cell
from quarterdeck.present.failure import failure
from quarterdeck.protocol.kernel import Control
from quarterdeck.protocol.worker import RunCell
from quarterdeck.transfer.names import CellNames, analyse
from quarterdeck.views.cell.cell import CellView

Magic = TypeVar("Magic", bound=Callable[..., Any])


def _stoppable(magic: Magic) -> Magic:
    """An interrupt is one line, wherever in our code it came."""

    @functools.wraps(magic)
    def stoppable(*arguments: Any) -> Any:
        try:
            return magic(*arguments)
        except RunInterrupted:
            raise
        except KeyboardInterrupt:
            raise RunInterrupted(f"stopped by you in `%{magic.__name__}`") from None

    return cast(Magic, stoppable)


@magics_class
class QuarterdeckMagics(Magics):
    """The line and cell magics. One instance per kernel, made by `load_ipython_extension`."""

    shell: Any

    @cell_magic
    @_stoppable
    def distributed(self, line: str, cell: str = "") -> Run | None:
        asked = parsers.distributed_parser().parse_line(line)
        return self._cell("%%distributed", asked, cell)

    @cell_magic
    @_stoppable
    def rank(self, line: str, cell: str = "") -> Run | None:
        asked = parsers.rank_parser().parse_line(line)
        return self._cell("%%rank", asked, cell)

    @line_magic
    @_stoppable
    def workers(self, line: str) -> None:
        asked = parsers.workers_parser().parse_line(line)
        session = calls_of(parsers.asked_options(asked).session)
        if asked.verb == "stacks":
            told = session.ask(asked.verb)
            print(Stacks(told, notebooks.current()) if told.stacks else told.text)
            return
        if asked.verb in ("status", "doctor"):
            tables.show(self.shell, asked.verb, session.ask(asked.verb))
            return
        text, notices = session.control(Control(action=asked.verb, spec=parsers.asked_options(asked).spec))
        print("\n".join(filter(None, [*notices, text])))

    @line_magic
    @_stoppable
    def push(self, line: str) -> None:
        asked = parsers.push_parser().parse_line(line)
        with notebooks.cell_view() as view:
            replaced = calls_of(parsers.asked_options(asked).session).push(asked.names, asked.ranks, view)
            for name, what in replaced.items():
                view.notice(f"`{name}` replaced the workers' own value ({what}).")

    @line_magic
    @_stoppable
    def pull(self, line: str) -> None:
        asked = parsers.pull_parser().parse_line(line)
        target = parsers.pull_target(asked)
        with notebooks.cell_view() as view:
            value = calls_of(parsers.asked_options(asked).session).pull(asked.name, target, asked.rank, view)
        self.shell.user_ns[target] = value

    @line_magic
    def checkpoints(self, line: str) -> None:
        asked = parsers.checkpoints_parser().parse_line(line)
        from quarterdeck.kernel import checkpoints  # loading the extension needs none

        checkpoints.named(asked.place).show()

    # ---- cells

    def _cell(self, magic: str, asked: Namespace, cell: str) -> Run | None:
        """The Run of a background cell, if the user gave it no name."""
        if not cell.strip():
            raise UsageError(f"{magic} has no code under it.", "Write the code on the lines after the magic.")
        wanted = parsers.asked_options(asked)
        wanted.check_together(magic)
        number = cell_number(self.shell)
        names, plain = self._analyse(cell, number)
        if wanted.debug:
            debug.run(self.shell, cell, number, wanted)
            return None
        code = RunCell(code=cell, number=number, plain=plain)
        run = self._started(code, names, wanted)
        if wanted.bind_as and run is not None:
            self.shell.user_ns[wanted.bind_as] = run
        return run if not wanted.is_awaited and not wanted.bind_as else None

    def _started(self, code: RunCell, names: CellNames, wanted: Options) -> Run | None:
        """Run it, or send it on its way."""
        try:
            if wanted.own_group:
                run = submit_cell(code, names, wanted)
                if wanted.is_awaited:
                    if wanted.bind_as:
                        self.shell.user_ns[wanted.bind_as] = run
                    run_blocking(run)
                return run
            if wanted.background:
                return calls_of(wanted.session).submit_cell(code, names, wanted, _new_view())
            return self._run_cell(code, names, wanted)
        except RunInterrupted:
            raise
        except KeyboardInterrupt:  # elsewhere than in the waiting: while values were pickled, for one
            raise RunInterrupted("stopped by you while the cell was sent to the workers") from None

    def _run_cell(self, code: RunCell, names: CellNames, wanted: Options) -> Run | None:
        session = calls_of(wanted.session)
        with notebooks.cell_view() as view:
            finished, world_size = session.run_cell(code, names, wanted, view)
        run = session.last_run() if wanted.bind_as else None
        error = failure(finished, self.shell.user_ns.__contains__, wanted.timeout_s, world_size)
        if error is not None:
            if run is not None:
                self.shell.user_ns[wanted.bind_as] = run
            raise error from None
        return run

    def _analyse(self, cell: str, number: int) -> tuple[CellNames, bool]:
        """Names of the cell, and whether it is plain Python. A syntax error is found here, before anything
        starts, with the notebook's line number.
        """
        transformed = "\n" + self.shell.transform_cell(cell)
        try:
            compile(
                transformed, f"Cell In[{number}]", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
            )
        except SyntaxError as error:
            raise UsageError(_syntax_words(error, number)) from None
        return analyse(transformed), transformed.rstrip() == f"\n{cell}".rstrip()


def _new_view() -> CellView:
    return CellView(notebooks.current().new_sink())


def cell_number(shell: Any) -> int:
    """The running cell's number: newer IPython counts `execution_count` up before it, older ones after it."""
    return len(shell.history_manager.input_hist_raw) - 1


def _syntax_words(error: SyntaxError, number: int) -> str:
    line = (error.text or "").rstrip("\n")
    caret = " " * max(0, (error.offset or 1) - 1) + "^"
    where = f"Cell In[{number}], line {error.lineno}"
    kind = type(error).__name__
    return f"{kind}: {error.msg}\n  {where}\n    {line}\n    {caret}\nNothing was run on the workers."


QuarterdeckMagics.distributed.__doc__ = parsers.distributed_parser().format_help()
QuarterdeckMagics.rank.__doc__ = parsers.rank_parser().format_help()
QuarterdeckMagics.workers.__doc__ = parsers.workers_parser().format_help()
QuarterdeckMagics.push.__doc__ = parsers.push_parser().format_help()
QuarterdeckMagics.checkpoints.__doc__ = parsers.checkpoints_parser().format_help()
QuarterdeckMagics.pull.__doc__ = parsers.pull_parser().format_help()
