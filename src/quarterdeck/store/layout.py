"""What the files and folders of a run are called. The only module that spells them; pure.

HOME/runs/RUN_ID/
    run.json, events.jsonl                 HEADER, EVENTS: what it is, and what became of it
    coordinator.log                        what the processes of a detached run had to say
    rank-R.log, output.bin                 LOG: the text of each rank; OUTPUT: its order
    attempt-A-rank-R.result                RESULT: a pickled value
    metrics-attempt-A-rank-R.bin           METRICS;  progress-... PROGRESS;  arrivals-... ARRIVALS
    spans-attempt-A-rank-R.jsonl           SPANS
    vitals.bin                             VITALS
    decks/fields.json, decks/packages.json
    decks/attempt-A/rank-R/NAME.deck       `deck_folder`; what a deck's file is called: `decks.file`
    checkpoints/                           CHECKPOINTS: what is in it: `checkpointing.paths`
    checkpoints/attempt-A/rank-R/          `own_checkpoints`: a rank's own, in Flyte's form
    raw/rank-R/                            `raw_folder`: the rank's own, for whatever it likes
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from quarterdeck import files
from quarterdeck.bounds import ATTEMPT_DIGITS, RANK_DIGITS

HEADER = "run.json"
EVENTS = "events.jsonl"
OUTPUT = "output.bin"
VITALS = "vitals.bin"
COORDINATOR_LOG = "coordinator.log"
CHECKPOINTS = "checkpoints"
DECKS = "decks"
DECK_FIELDS = (DECKS, "fields.json")
PACKAGES = (DECKS, "packages.json")

_ATTEMPT = re.compile(f"attempt-{ATTEMPT_DIGITS}")
_RANK = re.compile(f"rank-{RANK_DIGITS}")
_LOG = re.compile(rf"rank-{RANK_DIGITS}\.log")


class RankFile:
    """A kind of file of which each rank has one in each attempt."""

    def __init__(self, before: str, after: str) -> None:
        self.before = before
        self.after = after

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        middle = f"attempt-{ATTEMPT_DIGITS}-rank-{RANK_DIGITS}"
        return re.compile(f"{re.escape(self.before)}{middle}{re.escape(self.after)}")

    def name(self, attempt: int, rank: int) -> str:
        return f"{self.before}attempt-{attempt}-rank-{rank}{self.after}"

    def read(self, name: str) -> tuple[int, int] | None:
        """Attempt and rank; None for a file of another kind."""
        found = self._pattern.fullmatch(name)
        return (int(found[1]), int(found[2])) if found else None

    def all_in(self, folder: Path) -> list[tuple[int, int, Path]]:
        """(attempt, rank, path) of those that are there, in this order. Never raises OSError."""
        found = ((self.read(name), name) for name in files.names_in(folder))
        return sorted((*known, folder / name) for known, name in found if known)


METRICS = RankFile("metrics-", ".bin")
PROGRESS = RankFile("progress-", ".bin")
ARRIVALS = RankFile("arrivals-", ".bin")
SPANS = RankFile("spans-", ".jsonl")
RESULT = RankFile("", ".result")


def attempt_name(attempt: int) -> str:
    return f"attempt-{attempt}"


def rank_name(rank: int) -> str:
    return f"rank-{rank}"


def attempt_of(name: str) -> int | None:
    """The attempt that a folder's name gives."""
    return _number(_ATTEMPT, name)


def rank_of(name: str) -> int | None:
    return _number(_RANK, name)


def log_name(rank: int) -> str:
    return f"{rank_name(rank)}.log"


def rank_of_log(name: str) -> int | None:
    return _number(_LOG, name)


def _number(pattern: re.Pattern[str], name: str) -> int | None:
    found = pattern.fullmatch(name)
    return int(found[1]) if found else None


def deck_folder(attempt: int, rank: int) -> tuple[str, str, str]:
    """Below the run's folder."""
    return DECKS, attempt_name(attempt), rank_name(rank)


def own_checkpoints(folder: Path, attempt: int, rank: int) -> Path:
    return folder / CHECKPOINTS / attempt_name(attempt) / rank_name(rank)


def attempts_in(folder: Path) -> Iterator[Path]:
    """The folders of attempts in it, the latest first. Never raises OSError."""
    known = ((attempt_of(name), name) for name in files.names_in(folder))
    for _, name in sorted(((at, name) for at, name in known if at is not None), reverse=True):
        yield folder / name


def raw_folder(folder: Path, rank: int) -> Path:
    return folder / "raw" / rank_name(rank)
