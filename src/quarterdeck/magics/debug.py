"""`--debug`: the cell in the notebook's own process, as the only rank, with the debugger at the first error.

It runs in a copy of the notebook's namespace, so the notebook's names stay as they are; objects are shared,
and torch is imported into the kernel, which nothing else of quarterdeck does.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from quarterdeck.client.session import CellOptions


def run(shell: Any, cell: str, options: CellOptions) -> None:
    """Run it; an error is shown as that of an ordinary cell, with the debugger if the front end can ask for
    input.
    """
    import torch

    namespace = dict(shell.user_ns)
    namespace.update(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
    if options.seed is not None:
        random.seed(options.seed)
        torch.manual_seed(options.seed)
    code = shell.compile(
        "\n" + shell.transform_cell(cell), f"<debug of cell {shell.execution_count}>", "exec"
    )
    with _group_of_one():
        try:
            exec(code, namespace)
        except Exception:
            _post_mortem(shell)
            raise


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
