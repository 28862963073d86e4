"""Every message between the two halves of the checkpoint browser, as msgspec structs. The only truth about
it: `labextension/packages/protocol/src/checkpoints.ts` is generated from here (`make view`).

Each is a custom message of the widget, in JSON. A view begins with `Sync`, and gets a whole `Shelf`; then
only the groups that changed. What is listed has an id, and a message names nothing in any other way: no path
ever comes from a browser. Numbers that JSON has no word for are the texts "nan", "inf" and "-inf".
"""

from __future__ import annotations

from typing import Literal

import msgspec

ExportForm = Literal["safetensors", "pt"]


class ShelfMessage(msgspec.Struct, tag_field="kind", tag=str.lower):
    """Base of all of them."""


# ---- parts


class Row(msgspec.Struct):
    """One checkpoint of a list."""

    id: str
    step: int
    """-1 if nobody knows."""
    name: str
    """The name of its folder."""
    epoch: float | None
    created_ms: float
    """0 if nobody knows."""
    size_bytes: int
    metrics: dict[str, float | str]
    problem: str
    """Why it cannot be loaded; "" if it can."""
    needs: list[str]
    """What loading it would run, as "module.name": it is refused."""
    pinned: bool
    best: list[str]
    """The metrics by which it is the best of its group."""


class Group(msgspec.Struct):
    """The checkpoints of one run, or of one folder."""

    id: str
    name: str
    words: str
    """How the run is: "failed at step 1,342: rank 1 raised ValueError"; "" for a folder."""
    path: str
    created_ms: float
    live: bool
    """The run goes on."""
    rows: list[Row]
    """By step, the highest first."""


class Deleted(msgspec.Struct):
    """One that can still come back."""

    id: str
    words: str


class Fact(msgspec.Struct):
    name: str
    value: str


class TensorRow(msgspec.Struct, array_like=True):
    name: str
    shape: list[int]
    dtype: str
    """As torch calls it, without "torch."."""
    size_bytes: int
    part: Literal["model", "optimizer"]
    alias_of: str


class Pair(msgspec.Struct, array_like=True):
    """A value on both sides; null where a side has none."""

    name: str
    left: str | None
    right: str | None


class Change(msgspec.Struct, array_like=True):
    """How far a tensor has moved: the norm of the difference over the norm of the left one."""

    name: str
    shape: list[int]
    change: float | str | None
    """Null if it cannot be told: another shape or type on the other side."""
    note: str


# ---- kernel -> browser


class Shelf(ShelfMessage):
    """The list."""

    where: str
    """What it is a list of, in words."""
    now_ms: float
    whole: bool
    """Replaces all that the view knows."""
    groups: list[Group]
    """New or changed ones; of a whole list all, the newest first."""
    gone: list[str]
    """Ids of groups that are no longer there."""
    deleted: list[Deleted]
    """All that can still be undone."""


class Detail(ShelfMessage):
    """Answers `WantDetail`. From metadata alone."""

    id: str
    facts: list[Fact]
    hyperparameters: list[Fact]
    parameters: int
    tensors: list[TensorRow]
    problem: str
    """Why no more is known."""
    resume: str
    """The code that continues from here."""


class Statistics(ShelfMessage):
    """Answers `WantStatistics`. Of the finite values; null where there are none."""

    id: str
    tensor: str
    values: int
    looked_at: int
    """How many values were looked at: a large tensor is sampled."""
    mean: float | None
    std: float | None
    least: float | None
    greatest: float | None
    zeros: int
    nans: int
    infs: int
    counts: list[int]
    """A histogram in bins of equal width from `least` to `greatest`."""
    note: str


class Comparison(ShelfMessage):
    """Answers `Compare`; comes again and again, until `done` is `total`."""

    left: str
    right: str
    pairs: list[Pair]
    """Hyperparameters, metrics and facts, also the equal ones."""
    changes: list[Change]
    """How the tensors differ that both have, as far as it is worked out."""
    only_left: list[str]
    only_right: list[str]
    done: int
    total: int
    """Tensors of both."""
    sampled: bool
    """Large tensors were not read to the end."""


class Done(ShelfMessage):
    """What was asked for has happened."""

    about: str
    id: str
    text: str


class Trouble(ShelfMessage):
    """A request that could not be answered, in words."""

    about: str
    id: str
    text: str


# ---- browser -> kernel


class Sync(ShelfMessage):
    """A view was drawn: in a new output, or after the page was loaded again."""


class Alive(ShelfMessage):
    """Every 20 seconds: somebody looks. Where nobody has for three minutes, nothing more is read."""


class WantDetail(ShelfMessage):
    id: str


class WantStatistics(ShelfMessage):
    """Ends the work on what was asked for before."""

    id: str
    tensor: str


class Compare(ShelfMessage):
    """Ends the work on what was asked for before."""

    left: str
    right: str


class Load(ShelfMessage):
    """Into a variable of the notebook, of this name."""

    id: str
    name: str


class Export(ShelfMessage):
    """To a file beside the notebook, whose name the kernel chooses."""

    id: str
    form: ExportForm


class Pin(ShelfMessage):
    id: str
    pinned: bool


class Delete(ShelfMessage):
    """Can be undone for a while."""

    id: str
    confirmed: bool
    """A pinned one is deleted only so."""


class Undo(ShelfMessage):
    """Bring a deleted one back."""

    id: str


ToBrowser = Shelf | Detail | Statistics | Comparison | Done | Trouble
ToKernel = Sync | Alive | WantDetail | WantStatistics | Compare | Load | Export | Pin | Delete | Undo
