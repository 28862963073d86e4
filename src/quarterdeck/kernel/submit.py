"""Hand a run to the coordinator, and wait for it as a cell does. In the kernel."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from quarterdeck.errors import RunInterrupted
from quarterdeck.kernel import coordinator_process, detached, run_registry
from quarterdeck.kernel import notebook as notebooks
from quarterdeck.kernel.active_run import ActiveRun, accept
from quarterdeck.kernel.await_cell import note_silence, show
from quarterdeck.kernel.coordinator_process import Call
from quarterdeck.kernel.encode_call import packed_cell
from quarterdeck.kernel.interruptible import LATE_SIGNAL_S, Interruptible
from quarterdeck.kernel.options import Options
from quarterdeck.kernel.pulse import Pulse
from quarterdeck.kernel.run import Run
from quarterdeck.kernel.session import with_options
from quarterdeck.protocol.blob import Blob
from quarterdeck.protocol.kernel import Submit
from quarterdeck.protocol.parts import KernelContext, Parent
from quarterdeck.protocol.worker import RunCell
from quarterdeck.store.format import RunHeader
from quarterdeck.transfer.names import CellNames
from quarterdeck.views.cell.cell import CellView

_TICK_S = 0.05


def submit(
    request: Submit, blob: Blob | None, view: CellView, awaited: bool = False, detach: bool = False
) -> Run:
    """The run, on record and on its way. Its failure is shown, unless it is `awaited`: then it is over, and
    an interrupt, which never comes at a bad moment here, has stopped it. Raises UsageError if it is refused,
    WorkersLost. With `detach` it outlives this kernel.
    """
    if not detach:
        coordinator_process.current()
    for text in coordinator_process.take_notices():
        view.notice(text, level="warning")
    with Interruptible() as interrupts:  # none is raised before somebody has the run
        call, let_go = _call_detached(request, blob) if detach else _call(request, blob)
        try:
            with Pulse(call) as pulse:
                while not interrupts.wait(call.channel, pulse.due_in())[0]:
                    if interrupts.count:
                        raise RunInterrupted("stopped by you before it began: nothing was run")
                    if pulse.silent():
                        note_silence(view)(call)
            accepted = accept(call, lambda message: show(message, view))
            if detach:
                view.notice(_detached_words(request, accepted.run_id))
                view.flush(force=True)  # before the cell is over; the rest is shown by the run's own thread
            limit_s = request.work.timeout_s
            live = ActiveRun(call, view, accepted, lambda _: let_go(), timeout_s=limit_s, awaited=awaited)
            run = run_registry.begin(live, _header(request))
        except BaseException:
            call.cancel()
            call.close()
            let_go()
            raise
        if interrupts.count or interrupts.came():
            run.stop()
            if not awaited:
                raise KeyboardInterrupt
        while awaited and not run.wait(_TICK_S):
            if interrupts.came():
                run.stop()
    return run


def _call(request: Submit, blob: Blob | None) -> tuple[Call, Callable[[], None]]:
    return coordinator_process.current().call(request, blob), lambda: None


def _call_detached(request: Submit, blob: Blob | None) -> tuple[Call, Callable[[], None]]:
    """To a coordinator of its own, with what ours would have known; and what ends our hold on it."""
    setups = detached.setups_of(request.session)
    process = detached.DetachedCoordinator.start()
    try:
        call = process.call(msgspec.structs.replace(request, setups=len(setups)), blob)
        for frame in setups:
            call.channel.send(frame.message, frame.blob)
    except OSError:  # the end of the channel is there to be read
        pass
    except BaseException:
        process.close()
        raise
    return call, process.close


def _detached_words(request: Submit, run_id: str) -> str:
    name = request.work.name or run_id
    return f"{run_id} is detached: qd.runs()[{name!r}].attach() gets it back, from any kernel."


def submit_cell(cell: RunCell, names: CellNames, options: Options) -> Run:
    """A cell in a group of its own."""
    notebook = notebooks.current()
    context, title = notebook.context(), f"cell [{cell.number}]"
    parent = continued(options.resume, options.name, title, cell.code, context)
    work, blob = packed_cell(notebook, with_options(cell, options, names), names)
    request = Submit(
        spec=options.spec,
        work=work,
        context=context,
        title=title,
        session=options.session,
        max_restarts=options.max_restarts or 0,
        restart=options.restart or "recoverable",
        parent=parent,
    )
    return submit(request, blob, CellView(notebook.new_sink()), options.is_awaited, options.detach)


def continued(which: Any, name: str, title: str, source: str, context: KernelContext) -> Parent:
    """The run that `resume=which` means for a new one that is called so. UsageError if there is none."""
    if not which:
        return Parent()
    from quarterdeck.kernel.resume import Wanted, parent_of  # few runs need it

    return parent_of(which, Wanted(name, title, source, context))


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
        parent=request.parent.run_id,
        parent_folder=request.parent.folder,
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
