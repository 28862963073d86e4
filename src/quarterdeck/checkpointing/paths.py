"""How checkpoints and what is around them are called in their folder. Pure; used by `storage` and `save`.

step-00001200               a checkpoint
.step-00001200.KEY.qd-tmp   one in the making
.step-00001200.qd-old       one that is just being replaced; it counts if the new one is not there
.step-00001200.KEY.qd-del   one that is being removed
.saves/KEY/                 what its ranks tell each other: `attempt`, `offers`, `rank_rendezvous`
.saves/KEY/answers/         what they were told is "latest": see `answers`
"""

from __future__ import annotations

import re

TMP, OLD, DELETED = ".qd-tmp", ".qd-old", ".qd-del"
SAVES, ANSWERS = ".saves", "answers"

_STEP = re.compile(r"step-(\d{8,})")
_OLD = re.compile(rf"\.(step-\d{{8,}}){re.escape(OLD)}")
_FLYTE = re.compile(r"(rank|attempt)-\d+")


def step_name(step: int) -> str:
    return f"step-{step:08d}"


def step_of(name: str) -> int | None:
    found = _STEP.fullmatch(name)
    return int(found.group(1)) if found else None


def replaced(name: str) -> str | None:
    """The checkpoint that this folder was, if it is one that is being replaced."""
    found = _OLD.fullmatch(name)
    return found.group(1) if found else None


def is_listed(name: str) -> bool:
    """Hidden folders are ours; those of `context.checkpoint`, in Flyte's form, are no checkpoints of
    steps.
    """
    return not name.startswith(".") and not _FLYTE.fullmatch(name)
