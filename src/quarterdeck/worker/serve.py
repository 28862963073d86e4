"""A worker serves cells: its main thread runs them one after another, a service thread hears everything else.

    coordinator --> service thread --(queue)--> main thread: Join, RunCell, Install, Fetch, Leave
                         |
                         +-- at once, also while a cell runs: Raise, Release
                         +--(queue)--> assisting thread: Complete, Inspect

Called through `spawn_helper` in a process the zygote has just forked (or started).
"""

from __future__ import annotations

import builtins
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from quarterdeck.context import working_for
from quarterdeck.errors import SHOWN_CHARS, shortened, text_of
from quarterdeck.guard import guard_forks
from quarterdeck.metrics import log, progress
from quarterdeck.metrics.integrations import hooks
from quarterdeck.protocol.blob import Blob
from quarterdeck.protocol.channel import Channel, Frame
from quarterdeck.protocol.parts import Message
from quarterdeck.protocol.worker import (
    CallFunction,
    Complete,
    Completed,
    Fetch,
    Fetched,
    Importing,
    Inspect,
    Inspected,
    Install,
    Join,
    Joined,
    Leave,
    Outcome,
    Output,
    Raise,
    Release,
    RunCell,
    Started,
    Warm,
)
from quarterdeck.worker import environment, output, sources
from quarterdeck.worker.cell import run_cell
from quarterdeck.worker.frames import forget
from quarterdeck.worker.function import call_function
from quarterdeck.worker.imports import import_next
from quarterdeck.worker.interrupts import interrupts
from quarterdeck.worker.names import Names
from quarterdeck.worker.run_context import context_of
from quarterdeck.worker.run_monitor import Watch, Watcher
from quarterdeck.worker.shell import WorkerShell
from quarterdeck.worker.startup import Phases

_IDLE_S = 0.5
"""Before a worker that nobody asks for anything imports what it may need."""


def serve(channel_fd: int) -> None:
    """Serve until the coordinator says Leave or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # until a cell runs
    guard_forks()
    worker = _Worker(Channel.from_fd(channel_fd))
    worker.run()


@dataclass
class _Worker:
    channel: Channel
    frames: queue.SimpleQueue[Frame] = field(default_factory=queue.SimpleQueue)
    questions: queue.SimpleQueue[Message] = field(default_factory=queue.SimpleQueue)
    rank: int = 0
    world_size: int = 1
    pid: int = field(default_factory=os.getpid)
    is_warming: bool = False
    """There are modules to import while there is nothing else to do."""
    phases: Phases = field(default_factory=Phases)
    watcher: Watcher = field(default_factory=Watcher)

    def run(self) -> None:
        self.channel.send(Started(pid=os.getpid()))
        for work, name in ((self._listen, "quarterdeck-service"), (self._assist, "quarterdeck-assist")):
            threading.Thread(target=work, name=name, daemon=True).start()
        self._prepare()
        while self._serve_one(self._next_frame()):
            pass
        self.group.leave()

    def _serve_one(self, frame: Frame) -> bool:
        """Whether another may follow."""
        try:
            self._handle(frame)
        except BaseException as bug:  # ours: the worker and its variables must outlive it
            _note_bug()
            self._apologise(frame.message, f"quarterdeck itself failed: {_words(bug)}")
        return not isinstance(frame.message, Leave)

    def _next_frame(self) -> Frame:
        """What comes next. Where nothing does for a while, a module is imported meanwhile: the cells of a
        notebook that runs all of them follow each other at once.
        """
        while self.is_warming:
            try:
                return self.frames.get(timeout=_IDLE_S)
            except queue.Empty:
                self.is_warming = import_next()
        return self.frames.get()

    def _apologise(self, request: Message, text: str) -> None:
        if isinstance(request, (RunCell, CallFunction)):
            outcome = Outcome(rank=self.rank, state="error", ename="RuntimeError", evalue=text)
            outcome.traceback, outcome.group = [text], self.group.owner
            with suppress(Exception):  # what it has bound is there all the same
                outcome.names, outcome.dropped = self.names.changes()
            self.channel.send(outcome)
        else:
            self.channel.send(Fetched(error=text))

    def _prepare(self) -> None:
        from quarterdeck.worker.group import Group

        self.shell: WorkerShell = shell_of_this_process()
        self.emitter = output.Emitter(self.channel.send)
        self.shell.emitter = self.emitter
        output.install(self.emitter)
        hooks.install()
        progress.claim()
        sources.teach_inspect(self.shell)
        sys.breakpointhook = _no_breakpoint
        builtins.input = _no_input
        interrupts.tell = lambda module: self.channel.send(Importing(module=module))
        self.names = Names(self.shell.user_ns)
        self.group = Group()

    def _tell_logged(self) -> None:
        self.emitter.show(Output(rank=self.rank, kind="logged"))

    def _tell_loaded(self, step: int) -> None:
        self.emitter.show(Output(rank=self.rank, kind="loaded", step=step))

    # ---- service thread

    def _listen(self) -> None:
        while self._hear():
            pass
        os._exit(0)  # the coordinator is gone

    def _hear(self) -> bool:
        """One message, which nothing here holds afterwards: its blob may be large."""
        frame = self.channel.receive()
        if frame is None:
            return False
        match frame.message:
            case Raise(reason=reason, force=force):
                interrupts.deliver(reason, force)
            case Release():
                self._release()
            case Complete() | Inspect() as request:
                self.questions.put(request)
            case message:
                if isinstance(message, (RunCell, CallFunction, Install, Fetch)):
                    interrupts.expect()
                self.frames.put(frame)
        return True

    def _release(self) -> None:
        try:
            self.group.release()
        except Exception:  # whatever it was, this thread has to hear what comes next
            _note_bug()

    def _assist(self) -> None:
        """Completion and inspection run user code, in `__dir__` and `__repr__`, that may never end."""
        while True:
            request = self.questions.get()
            if isinstance(request, Complete):
                self._answer(self._complete, request, Completed(matches=[], start=0, end=0))
            else:
                self._answer(self._inspect, request, Inspected(found=False))

    def _answer(self, reply: Any, request: Message, otherwise: Message) -> None:
        try:
            self.channel.send(reply(request))
        except BaseException:  # user objects run code in __dir__ and __repr__
            self.channel.send(otherwise)

    def _complete(self, request: Complete) -> Completed:
        line_start = request.code.rfind("\n", 0, request.cursor) + 1
        line = request.code[line_start:].split("\n", 1)[0]
        column = request.cursor - line_start
        text, matches = self.shell.complete("", line, column)
        return Completed(matches=matches, start=request.cursor - len(text), end=request.cursor)

    def _inspect(self, request: Inspect) -> Inspected:
        from IPython.utils.tokenutil import token_at_cursor

        name = token_at_cursor(request.code, request.cursor)
        shell: Any = self.shell
        bundle = shell.object_inspect_mime(name, detail_level=request.detail_level)
        return Inspected(found=True, data={mime: str(text) for mime, text in bundle.items()})

    # ---- main thread

    def _handle(self, frame: Frame) -> None:
        match frame.message:
            case Join() as join:
                self.channel.send(self._join(join, frame))
            case RunCell() as cell:
                self.channel.send(self._run(cell, frame.blob))
            case CallFunction() as call:
                self._call(call, frame.blob)
            case Install() as install:
                self.channel.send(self._install(install, frame.blob))
            case Fetch() as fetch:
                self._fetch(fetch)
            case Warm():
                self.is_warming = True

    def _join(self, join: Join, frame: Frame) -> Joined:
        self.rank = self.emitter.rank = join.rank
        self.world_size = join.world_size
        (listen_fd,) = frame.handles or (None,)  # the store owns it from here
        try:
            if join.fresh:
                environment.take_over(join)
            environment.export_rank(join)
            device = environment.select_device(join.device)
            with self.phases.joining(join.fresh):
                joined = self.group.join(join, listen_fd)
        except BaseException as error:
            return Joined(incarnation=join.incarnation, error=_words(error))
        self.names.inject(
            {
                "rank": join.rank,
                "local_rank": join.local_rank,
                "world_size": join.world_size,
                "device": device,
            }
        )
        return joined

    def _run(self, cell: RunCell, blob: Blob | None) -> Outcome:
        error = self._try_install(cell, blob)
        if error:
            return error
        with self._working(cell):
            outcome = run_cell(self.shell, cell)
        self.names.rebound(cell.binds)
        return self._complete_outcome(outcome)

    def _call(self, call: CallFunction, blob: Blob | None) -> None:
        outcome, value = self._try_install(call, blob), None
        if outcome is None:
            with self._working(call):
                outcome, value = call_function(self.shell, call, blob)
            outcome = self._complete_outcome(outcome)
        self.channel.send(outcome, value)

    @contextmanager
    def _working(self, work: RunCell | CallFunction) -> Iterator[None]:
        """What user code finds around it."""
        context = context_of(work, self.rank, self.world_size)
        watch = Watch(context, self.phases.take(), self._tell_logged, self._tell_loaded, work.tensorboard)
        context.announce = watch.announce
        if context.resumption is not None:
            context.resumption.loaded = watch.loaded
        with (
            environment.environment(work.environ),
            self.group.cell(work.collective_timeout_s),
            working_for(context),
            self.watcher.watching(watch),
        ):
            try:
                yield
            finally:
                log.flush()
                self._end_if_forked()

    def _end_if_forked(self) -> None:
        """A child that user code has forked, and let run on, to the end of what we called: the answer is its
        parent's to give.
        """
        if os.getpid() != self.pid:
            output.flush_streams()
            os._exit(0)

    def _try_install(self, work: RunCell | CallFunction, blob: Blob | None) -> Outcome | None:
        """The outcome, if it ends before the first line of user code."""
        sources.know(self.shell, work.payload)
        try:
            self._begin(work, blob)
        except KeyboardInterrupt:
            state: Any = interrupts.reason or "interrupted"
            return self._complete_outcome(Outcome(rank=0, state=state, installed=False))
        except Exception as error:
            outcome = Outcome(rank=0, state="error", time_unix_ns=time.time_ns(), installed=False)
            outcome.ename, outcome.evalue = type(error).__name__, output.wire_text(text_of(error))
            names = ", ".join(work.payload.names)
            outcome.traceback = [
                f"{outcome.ename}: {shortened(outcome.evalue, SHOWN_CHARS)}",
                f"It was raised while {names} were unpickled on the worker, before the first line ran.",
            ]
            return self._complete_outcome(outcome)
        return None

    def _begin(self, work: RunCell | CallFunction, blob: Blob | None) -> None:
        """User code, which may be interrupted: `__del__` of what goes, `__setstate__` of what comes."""
        if self.shell.failure is not None or work.payload.names:
            with interrupts.user_code():
                forget(self.shell)
                if interrupts.reason:  # a `__del__` cannot raise
                    raise KeyboardInterrupt
                if work.payload.names:
                    self.names.install(work.payload, blob)
        if work.seed is not None:
            environment.seed_everything(work.seed, self.rank)

    def _complete_outcome(self, outcome: Outcome) -> Outcome:
        output.flush_all(self.emitter)
        names, dropped = self.names.changes()
        return msgspec.structs.replace(
            outcome,
            rank=self.rank,
            names=names,
            dropped=dropped,
            group=self.group.owner,
            cut_imports=interrupts.cut,
        )

    def _install(self, install: Install, blob: Blob | None) -> Fetched:
        try:
            with interrupts.user_code():
                sources.know(self.shell, install.payload)
                replaced = self.names.replaced_by(install.payload.names)
                self.names.install(install.payload, blob)
        except (Exception, KeyboardInterrupt) as error:
            return Fetched(error=_words(error))
        names, _ = self.names.changes()
        return Fetched(names=names, replaced=replaced)

    def _fetch(self, fetch: Fetch) -> None:
        if fetch.name not in self.names.namespace:
            self.channel.send(Fetched(error=f"rank {self.rank} has no `{fetch.name}`"))
            return
        try:
            with interrupts.user_code():
                payload, blob = self.names.fetch(fetch.name)
        except KeyboardInterrupt:
            self.channel.send(Fetched(error="interrupted"))
        except Exception as error:
            self.channel.send(Fetched(error=self._fetch_error(fetch.name, error)))
        else:
            self.channel.send(Fetched(payload=payload), blob)

    def _fetch_error(self, name: str, error: Exception) -> str:
        from quarterdeck.transfer.pickle_diagnosis import name_culprit

        values = {name: self.names.namespace[name]}
        return f"it cannot be pickled: {name_culprit(values, self.names.namespace, error)}"


def _words(error: BaseException) -> str:
    return output.wire_text(f"{type(error).__name__}: {shortened(text_of(error), SHOWN_CHARS)}")


def _note_bug() -> None:
    """For whoever mends it; the stream may be anything that user code has put there."""
    with suppress(BaseException):
        traceback.print_exc()


def _no_breakpoint(*_: object, **__: object) -> None:
    raise RuntimeError("breakpoint() has no debugger on a worker: run the cell with `--debug`")


def _no_input(*_: object) -> str:
    raise EOFError("input() has nobody to ask on a worker")


def shell_of_this_process() -> WorkerShell:
    """The zygote's shell, inherited; made here in a worker that was not forked."""
    from quarterdeck.worker import shell

    return WorkerShell.instance() if WorkerShell.initialized() else shell.make()
