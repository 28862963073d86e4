"""`--debug`: the cell in the notebook's own process, as the only rank, with the debugger at the first error.

It runs in a copy of the notebook's namespace, so the notebook's names stay as they are; objects are shared,
and torch is imported into the kernel, which nothing else of quarterdeck does.
"""

from __future__ import annotations

import ast
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from IPython.display import display

from quarterdeck.kernel.options import Options


def run(shell: Any, cell: str, number: int, options: Options) -> None:
    """Run it; an error is shown as that of an ordinary cell, with the debugger if the front end can ask for
    input.
    """
    import torch

    namespace = dict(shell.user_ns)
    namespace.update(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
    if options.seed is not None:
        random.seed(options.seed)
        torch.manual_seed(options.seed)
    with _group_of_one():
        try:
            _execute(shell, cell, number, namespace)
        except Exception as error:
            _begin_at_the_cell(shell, error)
            _post_mortem(shell)
            raise


def _execute(shell: Any, cell: str, number: int, namespace: dict[str, Any]) -> None:
    """Like the shell's own `run_cell`: known to tracebacks as the notebook's cell, its last value shown."""
    source = "\n" + shell.transform_cell(cell)
    filename = shell.compile.cache(source, number, raw_code=cell)
    tree = shell.compile.ast_parse(source, filename)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, filename, "exec", shell.compile.flags, dont_inherit=True), namespace)
    if last is not None:
        expression = ast.Expression(last.value)
        value = eval(compile(expression, filename, "eval", shell.compile.flags, dont_inherit=True), namespace)
        if value is not None:
            display(value)  # type: ignore[no-untyped-call]


def _begin_at_the_cell(shell: Any, error: Any) -> None:
    """The traceback shows none of our own frames. `_render_traceback_` is IPython's hook."""
    traceback = error.__traceback__
    while traceback.tb_next is not None and traceback.tb_frame.f_code.co_filename == __file__:
        traceback = traceback.tb_next
    lines = shell.InteractiveTB.structured_traceback(type(error), error, traceback, tb_offset=0)
    error._render_traceback_ = lambda: lines


@contextmanager
def _group_of_one() -> Iterator[None]:
    import torch.distributed as dist

    if dist.is_initialized():
        yield
        return
    store = dist.HashStore()  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _post_mortem(shell: Any) -> None:
    """pdb at the frame that raised. A front end that cannot ask (nbclient, "Run All" in CI) just gets the
    error.
    """
    kernel = getattr(shell, "kernel", None)
    if kernel is not None and not getattr(kernel, "_allow_stdin", False):
        return
    shell.showtraceback()
    from IPython.core.debugger import Pdb

    debugger: Any = Pdb()
    debugger.reset()
    debugger.interaction(None, sys.exc_info()[2])
