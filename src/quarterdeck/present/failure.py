"""How a cell failed, in words: the root cause, what became of the other ranks, what is kept, what comes next.

Called by the session when a cell is over; the result is raised and renders itself in the notebook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from quarterdeck.errors import RunFailed, RunInterrupted, RunTimedOut
from quarterdeck.present import ansi, words
from quarterdeck.protocol.messages import Finished, Outcome

_NATIVE = {
    "SIGSEGV": "a crash in native code",
    "SIGBUS": "a crash in native code, often because shared memory is full",
    "SIGILL": "a crash in native code",
    "SIGFPE": "a crash in native code",
    "SIGABRT": "native code gave up",
}
_FAILED = ("error", "killed")
_NAMES_SHOWN = 5


def failure(
    finished: Finished,
    notebook_has: Callable[[str], bool] = lambda name: False,
    timeout_s: float | None = None,
    world_size: int = 0,
    closed: bool = False,
) -> RunFailed | None:
    """The exception for a cell that did not succeed; None if it did.

    Args:
        finished: as the coordinator reports it.
        notebook_has: whether the user's namespace in the kernel has a name.
        timeout_s: the cell's `--timeout`, for its sentence.
        world_size: size of the group, when the cell ran on some of its ranks only.
        closed: it ran in a group of its own, whose variables are gone however it ends.
    """
    report = _Report(finished, notebook_has, timeout_s, world_size or len(finished.outcomes), closed)
    root = report.root
    if root is None and not finished.stopped:
        return None
    kinds = {"interrupt": RunInterrupted, "timeout": RunTimedOut, "": RunFailed}
    ename = "" if finished.stopped or root is None else root.ename or _signal(root)
    headline, rank = report.headline(), None if root is None else root.rank
    return kinds[finished.stopped](headline, report.lines(), finished.outcomes, rank, ename)


class _Report:
    """The lines of one failure."""

    def __init__(
        self,
        finished: Finished,
        notebook_has: Callable[[str], bool],
        timeout_s: float | None,
        world_size: int,
        closed: bool = False,
    ) -> None:
        self.finished, self.notebook_has = finished, notebook_has
        self.timeout_s, self.world_size = timeout_s, world_size
        self.closed = closed
        self.outcomes = sorted(finished.outcomes, key=lambda outcome: outcome.rank)
        self.root = _root(finished)
        self.same = [outcome for outcome in self.outcomes if self.root and _alike(outcome, self.root)]

    def headline(self) -> str:
        """The one sentence that says it."""
        if self.finished.stopped == "interrupt":
            after = f" after {words.seconds(self.finished.duration_s)}" if self.finished.duration_s else ""
            return f"stopped by you{after}"
        if self.finished.stopped:
            return f"ran longer than its time-out of {words.seconds(self.timeout_s or 0)}"
        assert self.root is not None
        return f"{self._name(self.same)} {_what(self.root, len(self.same))}"

    def lines(self) -> list[str]:
        """Everything, in ANSI."""
        sections = [
            [f"\x1b[1m{self.headline()}\x1b[0m"],
            self._traceback(),
            self._hint(),
            self._others(),
            self._evidence(),
            self._ending(),
        ]
        shown = [section for section in sections if section]
        return [line for number, section in enumerate(shown) for line in ([""] if number else []) + section]

    # ---- sections

    def _traceback(self) -> list[str]:
        if self.root is not None and not self.finished.stopped:
            return list(self.root.traceback)
        where = next((outcome for outcome in self.outcomes if outcome.traceback), None)
        if where is None:
            return []
        same = [outcome for outcome in self.outcomes if _alike(outcome, where)]
        verb = "was" if len(same) == 1 else "were"
        return [f"{self._name(same, capital=True)} {verb} here:", *where.traceback]

    def _hint(self) -> list[str]:
        outcomes = self.same or self.outcomes
        names = [name for name in dict.fromkeys(outcome.missing_name for outcome in outcomes) if name]
        if self.closed:
            return [
                f"A run of its own takes names from the notebook, and `{name}` is not there: define or "
                "import it in an ordinary cell."
                for name in names
                if not self.notebook_has(name)
            ]
        return [
            f"`{name}` exists in the notebook: `%push {name}` sends it to the workers."
            for name in names
            if self.notebook_has(name)
        ]

    def _others(self) -> list[str]:
        """One line for ranks with the same fate; not for the root cause, unless the cell was stopped."""
        fates: dict[str, list[Outcome]] = {}
        for outcome in self.outcomes:
            if self.finished.stopped or outcome not in self.same:
                fates.setdefault(self._fate(outcome), []).append(outcome)
        lines = []
        for fate, outcomes in fates.items():
            was, its = ("was", "its") if len(outcomes) == 1 else ("were", "their")
            verb = fate.format(was=was, its=its, after=self._after(outcomes))
            lines.append(f"{self._name(outcomes)} {verb}")
        return lines

    def _fate(self, outcome: Outcome) -> str:
        if outcome.state == "ok":
            return "finished"
        kept = "" if self.closed else "; variables kept"
        if outcome.state == "released":
            return f"{{was}} released{{after}}{kept}"
        if outcome.state == "interrupted":
            return f"{{was}} interrupted{kept}"
        if outcome.state == "skipped":
            return "did not run the cell"
        if self.root is None or outcome is self.root or outcome.by_quarterdeck:
            return _escape(_what(outcome, 1))
        first = self._name(self.same)
        if outcome.state == "error" and outcome.secondary:
            return f"lost {{its}} connection to {first}{kept}"
        return _escape(f"{_what(outcome, 1)} (after {first})")

    def _after(self, outcomes: Sequence[Outcome]) -> str:
        """How long after the root cause the last of them came free."""
        if self.root is None or not self.root.time_unix_ns:
            return ""
        late_s = (max(outcome.time_unix_ns for outcome in outcomes) - self.root.time_unix_ns) / 1e9
        return f" after {words.seconds(late_s)}" if late_s > 0 else ""

    def _evidence(self) -> list[str]:
        lines: list[str] = []
        for outcome in self.outcomes:
            if outcome.evidence:
                lines.append(f"Evidence on rank {outcome.rank}:")
                lines.extend(f"  {line}" for line in outcome.evidence)
        return lines

    def _ending(self) -> list[str]:
        """What is kept, what is lost, where to read on, what works."""
        gone = [outcome for outcome in self.outcomes if outcome.state == "killed"]
        lines = [f"Full log: {self.finished.log_dir}"] if self.finished.log_dir else []
        if self.closed:
            return lines
        if self.finished.group_lost:
            lines += [_lost(gone), "The next cell starts new workers."]
        elif gone:
            lines += [
                _lost(gone),
                self._replaced(gone),
                "Run their cells again, or `%push` them from the notebook.",
            ]
        elif self.finished.kept:
            every = "The variables of all ranks" if len(self.outcomes) > 1 else "The variables"
            lines.append(f"{every} are kept.")
        else:
            lines += [
                "The workers were replaced; their variables are lost.",
                "Run the cells that made them again.",
            ]
        if not self.finished.group_lost:
            lines[-1] += " The next cell works."
        return lines

    def _replaced(self, gone: Sequence[Outcome]) -> str:
        verb = "is replaced by an empty worker" if len(gone) == 1 else "are replaced by empty workers"
        rest = "; the other ranks keep their variables" if len(gone) < len(self.outcomes) else ""
        return f"{self._name(gone, capital=True)} {verb}{rest}."

    def _name(self, outcomes: Iterable[Outcome], capital: bool = False) -> str:
        name = words.ranks_in_words([outcome.rank for outcome in outcomes], self.world_size)
        return name[0].upper() + name[1:] if capital else name


def _root(finished: Finished) -> Outcome | None:
    """The outcome that the coordinator names, else the first failure that is not the echo of another."""
    named = [outcome for outcome in finished.outcomes if outcome.rank == finished.root_cause]
    if named:
        return named[0]
    failed = [one for one in finished.outcomes if one.state in _FAILED and not one.by_quarterdeck]
    return min(failed, key=lambda one: (one.secondary, one.time_unix_ns, one.rank), default=None)


def _alike(outcome: Outcome, other: Outcome) -> bool:
    """Whether two ranks failed at the same place in the same way."""
    if outcome.rank == other.rank:
        return True
    if outcome.state != other.state or outcome.state in ("ok", "released", "skipped", "killed"):
        return False
    return _seen(outcome) == _seen(other)


def _seen(outcome: Outcome) -> tuple[str, str, list[str]]:
    return outcome.ename, outcome.evalue, [ansi.strip(line) for line in outcome.traceback]


def _what(outcome: Outcome, ranks: int) -> str:
    """The verb of a failure: "raised ValueError: boom", "was killed by SIGSEGV, a crash in native code"."""
    was = "was" if ranks == 1 else "were"
    if outcome.state != "killed":
        first = outcome.summary
        return f"raised {outcome.ename or 'an exception'}" + (f": {first}" if first else "")
    if outcome.evalue:
        return outcome.evalue.split("\n")[0]
    if not outcome.signal:
        return f"ended with exit code {outcome.exitcode} in the middle of the cell"
    name = _signal(outcome)
    if name == "SIGKILL" and any("oom" in line.lower() for line in outcome.evidence):
        return f"{was} killed by SIGKILL, most likely by the OOM killer"
    return f"{was} killed by {name}" + (f", {_NATIVE[name]}" if name in _NATIVE else "")


def _lost(gone: Sequence[Outcome]) -> str:
    """Whose variables died, by name."""
    parts = []
    for outcome in gone:
        names = [f"`{name}`" for name in outcome.lost]
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        listed = f" ({', '.join(names[:_NAMES_SHOWN])}{more})" if names else ""
        parts.append(f"rank {outcome.rank}'s variables{listed}")
    return f"Lost: {'; '.join(parts)}."


def _signal(outcome: Outcome) -> str:
    return words.signal_name(outcome.signal) if outcome.signal else ""


def _escape(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
