"""`%%distributed`, `%%rank`, `%workers`, `%push` and `%pull`: parse the line, call the session, show what
comes back.
"""

from __future__ import annotations

import ast
from typing import Any

from IPython.core.magic import Magics, cell_magic, line_magic, magics_class

from quarterdeck.client.session import CellOptions, Session
from quarterdeck.client.view import CellView, failure
from quarterdeck.errors import RunInterrupted, UsageError
from quarterdeck.magics import debug, options, tables
from quarterdeck.magics.display import ShellSink
from quarterdeck.payload.names import CellNames, analyse
from quarterdeck.protocol.messages import Control, RunCell


@magics_class
class QuarterdeckMagics(Magics):
    """The line and cell magics. One instance per kernel, made by `load_ipython_extension`."""

    shell: Any

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self.session = Session(shell.user_ns, set(shell.user_ns_hidden), shell.compile)

    @cell_magic
    def distributed(self, line: str, cell: str = "") -> None:
        asked = options.distributed_parser().parse_line(line)
        self._run_cell("%%distributed", options.cell_options(asked), cell, asked.debug)

    @cell_magic
    def rank(self, line: str, cell: str = "") -> None:
        asked = options.rank_parser().parse_line(line)
        self._run_cell("%%rank", options.cell_options(asked), cell, asked.debug)

    @line_magic
    def workers(self, line: str) -> None:
        asked = options.workers_parser().parse_line(line)
        if asked.verb in ("status", "stacks", "doctor"):
            tables.show(self.shell, asked.verb, self.session.ask(asked.verb))
            return
        text, notices = self.session.control(Control(action=asked.verb, spec=options.group_spec(asked)))
        print("\n".join([*notices, text]))

    @line_magic
    def push(self, line: str) -> None:
        asked = options.push_parser().parse_line(line)
        with _view(self.shell) as view:
            replaced = self.session.push(asked.names, asked.ranks, view)
            for name, what in replaced.items():
                view.notice(f"`{name}`: replaced the workers' own ({what}).")

    @line_magic
    def pull(self, line: str) -> None:
        asked = options.pull_parser().parse_line(line)
        target = options.pull_target(asked)
        with _view(self.shell) as view:
            value = self.session.pull(asked.name, target, asked.rank, view)
        self.shell.user_ns[target] = value

    def _run_cell(self, magic: str, asked: CellOptions, cell: str, in_process: bool) -> None:
        if not cell.strip():
            raise UsageError(f"{magic} has no code under it.", "Write the code on the lines after the magic.")
        number = _cell_number(self.shell)
        names, plain = self._analyse(cell, number)
        if in_process:
            debug.run(self.shell, cell, number, asked)
            return
        try:
            with _view(self.shell) as view:
                code = RunCell(code=cell, number=number, plain=plain)
                finished, world_size = self.session.run_cell(code, names, asked, view)
        except RunInterrupted:
            raise
        except KeyboardInterrupt:  # elsewhere than in the waiting: while values were pickled, for one
            raise RunInterrupted("stopped by you while the cell was sent to the workers") from None
        error = failure(finished, self.shell.user_ns.__contains__, asked.timeout_s, world_size)
        if error is not None:
            raise error from None

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


class _view:
    """A CellView that shows everything at the end, however it comes."""

    shell: Any

    def __init__(self, shell: Any) -> None:
        self._view = CellView(ShellSink(shell))

    def __enter__(self) -> CellView:
        return self._view

    def __exit__(self, *_: object) -> None:
        self._view.finish()


def _cell_number(shell: Any) -> int:
    """Of the cell that runs: newer IPython counts `execution_count` up before it, older ones after it."""
    return len(shell.history_manager.input_hist_raw) - 1


def _syntax_words(error: SyntaxError, number: int) -> str:
    line = (error.text or "").rstrip("\n")
    caret = " " * max(0, (error.offset or 1) - 1) + "^"
    where = f"Cell In[{number}], line {error.lineno}"
    kind = type(error).__name__
    return f"{kind}: {error.msg}\n  {where}\n    {line}\n    {caret}\nNothing was run on the workers."


QuarterdeckMagics.distributed.__doc__ = options.distributed_parser().format_help()
QuarterdeckMagics.rank.__doc__ = options.rank_parser().format_help()
QuarterdeckMagics.workers.__doc__ = options.workers_parser().format_help()
QuarterdeckMagics.push.__doc__ = options.push_parser().format_help()
QuarterdeckMagics.pull.__doc__ = options.pull_parser().format_help()
