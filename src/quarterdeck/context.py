"""Where user code is: `qd.current()`. Pure; filled in by the worker for each run, with a stand-in elsewhere.

In a worker it tells of the run that the worker works for. In a notebook's own process, or a script, it is
that of a run of one rank, so that the same function runs undistributed.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quarterdeck import files
from quarterdeck.public import public
from quarterdeck.store.folder_checkpoint import FolderCheckpoint
from quarterdeck.store.layout import CHECKPOINTS, rank_name
from quarterdeck.store.paths import home, keep_out_of_git

if TYPE_CHECKING:
    from quarterdeck.decks import Deck

LOCAL = "local"
"""Id of the run that a process outside of any worker works for."""


def _nobody() -> None:
    """Outside of a worker nobody is told."""


@public
class Decks(list["Deck"]):
    """A list of decks, in the order they were made; `decks["loss"]` is the one of that name.

    Raises KeyError, which names those that there are, or IndexError.
    """

    def __getitem__(self, place: Any) -> Any:
        if not isinstance(place, str):
            return super().__getitem__(place)
        for deck in self:
            if deck.name == place:
                return deck
        raise KeyError(f"there is no deck {place!r}; there are {[deck.name for deck in self]}")


@public
@dataclass
class Resumption:
    """What a run that continues an earlier one begins with.

    Attributes:
        source: the folder of the earlier run's checkpoints, or the one checkpoint that was named.
        parent_dir: the earlier run's folder; None if the checkpoints are not those of a run.
        loaded: called with the step that was loaded, -1 where it is not known: the run then counts as
            resumed.
    """

    source: Path
    parent_dir: Path | None
    loaded: Callable[[int], None] = field(default=lambda _: None, repr=False, compare=False)


@public
@dataclass
class Context:
    """One rank of one run, one attempt.

    Attributes:
        run_id: name of the run's folder in the run store; "local" outside of a worker.
        name: as the user named the run, or its function's name.
        rank: 0 up to `world_size` - 1, as torch.distributed counts.
        local_rank: the same on this machine: torchrun's LOCAL_RANK.
        world_size: number of ranks.
        attempt: 0, then one more with each restart.
        run_dir: the run's folder in the store; it may not exist yet, and is the user's to write into.
        raw_output_prefix: a folder of this rank's own below it, as in flytekit's `ExecutionParameters`.
        checkpoint: reads and writes this rank's own checkpoint in Flyte's form; None where there is none.
            Ranks may have saved different steps when a run was killed: let rank 0 read, and broadcast.
        resumption: what a run that continues an earlier one begins with; see `parent_dir` and `resume_from`.
        decks: this rank's decks, in the order they were made; also by name, `decks["loss"]`.
        annotations: what `annotate` noted, as JSON texts by name.
        announce: called when this rank begins to keep something in `run_dir` that is to be looked at
            (metrics, a deck, progress), before the first byte of it: the run goes on record, and is shown.
            From any thread, as often as one likes; in a forked child it does nothing.
        deck_fields: the automatic decks that are made of the function called in it.
        pid: the process that it was made in; in a forked child another one than its own.
    """

    run_id: str = LOCAL
    name: str = ""
    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    attempt: int = 0
    run_dir: Path = field(default_factory=lambda: home(dict(os.environ), os.getcwd()) / LOCAL)
    raw_output_prefix: str = ""
    checkpoint: FolderCheckpoint | None = None
    resumption: Resumption | None = None
    decks: Decks = field(default_factory=lambda: Decks())
    annotations: dict[str, str] = field(default_factory=dict)
    announce: Callable[[], None] = field(default=_nobody, repr=False, compare=False)
    deck_fields: tuple[str, ...] = ()
    pid: int = field(default_factory=os.getpid, repr=False, compare=False)

    def annotate(self, **items: Any) -> None:
        """Note something about this rank's result: `run.outcomes[rank].annotations` and the run store keep
        it.

        Args:
            items: values that JSON can carry, by name. A name that was noted before has the new value.

        Raises:
            TypeError: JSON cannot carry a value.
        """
        self.annotations.update({name: json.dumps(value) for name, value in items.items()})

    @property
    def parent_dir(self) -> Path | None:
        """Folder of the run that this one continues (`--resume`); None where there is none."""
        return self._looks_itself().parent_dir if self.resumption else None

    @property
    def resume_from(self) -> Path | None:
        """Where that has its checkpoints, or the one checkpoint that was named; None without `--resume`."""
        return self._looks_itself().source if self.resumption else None

    def _looks_itself(self) -> Resumption:
        """Code that asks where the checkpoints are loads them in a way of its own, as far as we know."""
        assert self.resumption is not None
        self.resumption.loaded(-1)
        return self.resumption

    @property
    def default_deck(self) -> "Deck":
        """The deck named "default", made at the first use."""
        from quarterdeck.decks import Deck

        return Deck("default")


_current: Context | None = None


@public
def current() -> Context:
    """The run that this process works for, and its rank in it.

    In a process that something else than quarterdeck has started, it is what torchrun's environment variables
    say; without those, a run of one rank with the id "local".
    """
    global _current
    if _current is None:
        _current = _from_environment()
    return _current


def _from_environment() -> Context:
    """torchrun's variables, in a process that something else than quarterdeck has started."""
    number = {key: int(os.environ.get(key, default)) for key, default in _NUMBERS.items()}
    context = Context(
        run_id=os.environ.get("TORCHELASTIC_RUN_ID", LOCAL),
        rank=number["RANK"],
        local_rank=number["LOCAL_RANK"],
        world_size=number["WORLD_SIZE"],
        attempt=number["TORCHELASTIC_RESTART_COUNT"],
    )
    context.checkpoint = FolderCheckpoint(context.run_dir / CHECKPOINTS / rank_name(context.rank), None)
    return context


_NUMBERS = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "TORCHELASTIC_RESTART_COUNT": "0"}


def _write_decks() -> None:
    """Those that were to be written in a moment, if decks were used at all."""
    if live := sys.modules.get("quarterdeck.decks.writer"):
        live.flush()


@contextmanager
def working_for(context: Context) -> Iterator[Context]:
    """Inside the block it is the current one, for every thread of this process."""
    global _current
    before, _current = _current, context
    try:
        yield context
    finally:
        _current = before
        _write_decks()


@contextmanager
def entered(
    raw_output_prefix: str, checkpoint_dest: str | None, checkpoint_src: str | None
) -> Iterator[Context]:
    """The current context with other folders and no decks: what `spawn_helper` runs its function in."""
    changes: dict[str, Any] = {"raw_output_prefix": raw_output_prefix, "decks": Decks()}
    if checkpoint_dest is not None:
        changes["checkpoint"] = FolderCheckpoint(checkpoint_dest, checkpoint_src or None)
    with working_for(dataclasses.replace(current(), **changes)) as context:
        yield context


def make_run_folder(context: Context) -> None:
    """Private; that of a script, which no coordinator has made, also out of git. Raises OSError."""
    files.make_private(context.run_dir)
    if context.run_id == LOCAL:
        keep_out_of_git(context.run_dir.parent)
