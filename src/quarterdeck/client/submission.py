"""Hand a run to the coordinator, and wait for it as a cell does. In the kernel."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from quarterdeck.client import coordinator, held
from quarterdeck.client import notebook as notebooks
from quarterdeck.client.following import show
from quarterdeck.client.interruptible import LATE_SIGNAL_S, Interruptible
from quarterdeck.client.live import LiveRun, accept
from quarterdeck.client.packing import packed_cell
from quarterdeck.client.run import Run
from quarterdeck.client.session import CellOptions, with_options
from quarterdeck.client.view import CellView
from quarterdeck.payload.names import CellNames
from quarterdeck.protocol.messages import RunCell, Submit
from quarterdeck.store.format import RunHeader

_TICK_S = 0.05


def submit(request: Submit, fds: Sequence[int], view: CellView, awaited: bool = False) -> Run:
    """The run, on record and on its way. Its failure is shown, unless it is `awaited`: then it is over, and
    an interrupt, which never comes at a bad moment here, has stopped it. Raises UsageError if it is refused,
    WorkersLost.
    """
    process = coordinator.current()
    for text in coordinator.take_notices():
        view.notice(text, level="warning")
    with Interruptible() as interrupts:  # none is raised before somebody has the run
        call = process.call(request, fds)
        try:
            while not interrupts.wait(call.channel, None)[0]:
                if interrupts.count:
                    raise KeyboardInterrupt
            accepted = accept(call, lambda message: show(message, view))
            live = LiveRun(call, view, accepted, timeout_s=request.work.timeout_s, awaited=awaited)
            run = held.begin(live, _header(request))
        except BaseException:
            call.close()
            raise
        if interrupts.count or interrupts.came():
            run.stop()
            if not awaited:
                raise KeyboardInterrupt
        while awaited and not run.wait(_TICK_S):
            if interrupts.came():
                run.stop()
    return run


def submit_cell(
    cell: RunCell, names: CellNames, options: CellOptions, session: str, awaited: bool = False
) -> Run:
    """A `--fresh` cell, in a group of its own."""
    notebook = notebooks.current()
    with packed_cell(notebook, with_options(cell, options, names), names) as (work, fds):
        request = Submit(
            spec=options.spec,
            work=work,
            context=notebook.context(),
            title=f"cell [{cell.number}]",
            session=session,
            max_restarts=options.max_restarts or 0,
            restart=options.restart,
        )
        return submit(request, fds, CellView(notebook.new_sink()), awaited)


def _header(request: Submit) -> RunHeader:
    work = request.work
    return RunHeader(
        name=work.name,
        kind="cell" if isinstance(work, RunCell) else "function",
        title=request.title,
        source=work.code if isinstance(work, RunCell) else request.source,
        arguments=request.arguments,
        notebook=request.context.notebook,
        created_unix_ns=time.time_ns(),
    )


def run_blocking(run: Run) -> Any:
    """Its result. An interrupt stops the run, and another takes the next step of the ladder."""
    while True:
        try:
            while not run.wait(LATE_SIGNAL_S):
                pass
            return run.result()
        except KeyboardInterrupt:
            if run.wait(0):
                raise
            run.stop()
