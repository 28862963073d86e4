"""How a run failed, in words: the root cause, what became of the other ranks, what is kept, what comes next.

The only place that says so. An `Outcome` is what is known of one rank, as data; `verb`, `sentence` and
`short` put it in words for whoever shows it (records, restarts, tables, views), and `failure` makes the
exception of the whole run, which renders itself in the notebook.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from quarterdeck.errors import RunFailed, RunInterrupted, RunTimedOut
from quarterdeck.present import ansi, words
from quarterdeck.protocol.kernel import Finished
from quarterdeck.protocol.worker import Evidence, Outcome


class Cause(NamedTuple):
    """Why a process was killed, most likely, and what to do about it."""

    words: str = ""
    cure: str = ""


_LESS_MEMORY = (
    "Take a smaller batch, fewer DataLoader workers, or fewer ranks (`-n N`): the "
    "ranks share the machine's memory."
)
_C_CODE = 'Update the library that "Where it was" leads into, or try whether it goes without it.'
OUT_OF_MEMORY = Cause("by the kernel's out-of-memory killer", _LESS_MEMORY)
SIGKILL = Cause(
    "most likely by the out-of-memory killer or by `kill -9`",
    f"If nobody killed it, memory was full. {_LESS_MEMORY}",
)
GLOO_GAVE_UP = Cause(
    "gloo gave up; shapes or dtypes that differ between ranks do this",
    "Print the shape and the dtype of what each rank gives to the collective, and compare them.",
)
_CAUSES: dict[int, Cause] = {
    signal.SIGSEGV: Cause("a crash in C or C++ code (an extension, or a bug in a library)", _C_CODE),
    signal.SIGBUS: Cause(
        "a memory-mapped file or shared memory that became too small (a full /dev/shm?)",
        "Look with `df -h /dev/shm` whether it is full; DataLoader workers keep their batches there.",
    ),
    signal.SIGABRT: Cause("a C or C++ library gave up (abort)", f"Its last output may say why. {_C_CODE}"),
    signal.SIGFPE: Cause("an integer division by zero in C or C++ code", _C_CODE),
    signal.SIGILL: Cause(
        "an instruction this processor does not have",
        "Install builds of torch and of extensions that are made for this processor.",
    ),
    signal.SIGTERM: Cause(
        "somebody, or a batch system, asked it to end",
        "Look into the log of the batch system for a limit of time or memory.",
    ),
}
FAILED = ("error", "killed")
_NAMES_SHOWN = 5


def cause_of(number: int) -> Cause:
    """What such a signal mostly means."""
    return _CAUSES.get(number, Cause())


def killed(number: int, exitcode: int, cause: str = "") -> str:
    """What became of a process, as the verb of a sentence about its rank: "was killed by SIGKILL: ...".

    Args:
        number: of the signal; 0 if it ended by itself.
        exitcode: with which it did.
        cause: what is known of it; else what such a signal mostly means is said.
    """
    if not number:
        return f"ended its process with exit code {exitcode} (os._exit, or exit in C)"
    cause = cause or cause_of(number).words
    return f"was killed by {words.signal_name(number)}" + (f": {cause}" if cause else "")


def verb(outcome: Outcome) -> str:
    """What a rank did that failed, on one line: "raised ValueError: boom", "was killed by SIGKILL: ..."."""
    if outcome.state == "killed":
        return outcome.evalue.partition("\n")[0] or killed(outcome.signal, outcome.exitcode)
    first = outcome.summary
    return f"raised {outcome.ename or 'an exception'}" + (f": {first}" if first else "")


def sentence(outcome: Outcome) -> str:
    """ "rank 2 raised ValueError: boom"."""
    return f"rank {outcome.rank} {verb(outcome)}"


def short(outcome: Outcome) -> str:
    """For a table: "ValueError: boom", "was killed by SIGKILL: ..."; "" if nothing is to be said."""
    if outcome.state == "killed":
        return verb(outcome)
    return f"{outcome.ename}: {outcome.summary}" if outcome.ename else ""


def evidence(outcome: Outcome) -> list[Evidence]:
    """What is known beside the exception, and what to do. 0.1 has stored it as lines of text."""
    found: list[Evidence] = []
    for one in outcome.evidence:
        if isinstance(one, Evidence):
            found.append(one)
        elif one.startswith(" ") and found:
            known = found.pop()
            found.append(Evidence(known.label, "\n".join(filter(None, [known.text, one.strip()]))))
        else:
            label, _, text = one.partition(":")
            found.append(Evidence(label[:1].upper() + label[1:], text.strip()))
    return [*found, Evidence("What to do", outcome.cure)] if outcome.cure else found


def failed(outcomes: Iterable[Outcome], root: Outcome | None = None) -> list[Outcome]:
    """The root cause first, then by time; what another rank's end caused comes last. What quarterdeck ended
    has not failed.
    """
    found = [outcome for outcome in outcomes if outcome.state in FAILED and not outcome.by_quarterdeck]
    return sorted(found, key=lambda one: (one is not root, one.secondary, one.time_unix_ns, one.rank))


def alike(outcomes: Iterable[Outcome]) -> list[list[Outcome]]:
    """Ranks that failed at the same place in the same way together, in the order of the first of each."""
    groups: dict[object, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(_seen(outcome), []).append(outcome)
    return list(groups.values())


def _seen(outcome: Outcome) -> tuple[object, ...]:
    if outcome.state not in ("error", "interrupted"):
        return (outcome.rank,)
    return outcome.state, outcome.ename, outcome.evalue, ansi.strip("\n".join(outcome.traceback))


def evidence_lines(found: Iterable[Evidence]) -> list[str]:
    """A label and its text on one line, or the text's own lines below it."""
    lines = []
    for one in found:
        first, *more = one.text.split("\n")
        lines += [f"{one.label}: {first}"] if not more else [f"{one.label}:", f"  {first}"]
        lines += [f"  {line}" for line in more]
    return lines


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
        self.same = self._like(self.root)

    def headline(self) -> str:
        """The one sentence that says it."""
        if self.finished.stopped == "interrupt":
            after = f" after {words.seconds(self.finished.duration_s)}" if self.finished.duration_s else ""
            return f"stopped by you{after}"
        if self.finished.stopped:
            return f"ran longer than its time-out of {words.seconds(self.timeout_s or 0)}"
        assert self.root is not None
        return f"{self._name(self.same)} {verb(self.root)}"

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
        same = self._like(where)
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
        if self.root is None or outcome is self.root or outcome.by_quarterdeck:
            return _escape(verb(outcome))
        first = self._name(self.same)
        if outcome.state == "error" and outcome.secondary:
            return f"lost {{its}} connection to {first}{kept}"
        return _escape(f"{verb(outcome)} (after {first})")

    def _after(self, outcomes: Sequence[Outcome]) -> str:
        """How long after the root cause the last of them came free."""
        if self.root is None or not self.root.time_unix_ns:
            return ""
        late_s = (max(outcome.time_unix_ns for outcome in outcomes) - self.root.time_unix_ns) / 1e9
        return f" after {words.seconds(late_s)}" if late_s > 0 else ""

    def _evidence(self) -> list[str]:
        lines: list[str] = []
        for outcome in self.outcomes:
            if outcome.evidence or outcome.cure:
                lines.append(f"Evidence on rank {outcome.rank}:")
                lines.extend(f"  {line}" for line in evidence_lines(evidence(outcome)))
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

    def _like(self, one: Outcome | None) -> list[Outcome]:
        """It, and those that failed alike."""
        return next((group for group in alike(self.outcomes) if one in group), [])

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
    return next(iter(failed(finished.outcomes)), None)


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
