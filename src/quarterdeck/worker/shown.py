"""An exception as it is shown: one whose text cannot be had, or never ends, by a stand-in."""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Any

from quarterdeck.errors import KEPT_CHARS, SHOWN_CHARS, shortened, text_of
from quarterdeck.worker.frames import chain

_HERE = __name__.partition(".")[0]


def presentable(error: BaseException) -> BaseException:
    """It itself, unless its text, or that of one that it came from, is not fit to be shown."""
    texts = {id(one): text_of(one) for one in chain(error)}
    if all(_is_fit(one, texts[id(one)]) for one in chain(error)):
        return error
    stand_ins = {id(one): _stand_in(one, texts[id(one)]) for one in chain(error)}
    for one in chain(error):
        stand_in = stand_ins[id(one)]
        stand_in.__cause__ = stand_ins.get(id(one.__cause__))
        stand_in.__context__ = stand_ins.get(id(one.__context__))
        stand_in.__suppress_context__ = one.__suppress_context__
        stand_in.__traceback__ = one.__traceback__
    return stand_ins[id(error)]


def _is_fit(error: BaseException, text: str) -> bool:
    if len(text) > SHOWN_CHARS:
        return False
    try:
        return str(error) == text
    except BaseException:
        return False


def _stand_in(error: BaseException, text: str) -> BaseException:
    names = {"__module__": type(error).__module__, "__qualname__": type(error).__qualname__}
    kind: Any = type(type(error).__name__, (BaseException,), names)
    made: BaseException = kind(shortened(text, SHOWN_CHARS))
    return made


def lines_of(error: BaseException, frames: TracebackType | None) -> list[str]:
    """As plain Python writes it."""
    shown = presentable(error)
    return "".join(traceback.format_exception(type(shown), shown, frames)).splitlines()


def bounded(lines: list[str]) -> list[str]:
    """Without the middle of a traceback that has no end."""
    if sum(map(len, lines)) <= KEPT_CHARS:
        return lines
    return shortened("\n".join(lines), KEPT_CHARS).split("\n")


def without_ours(frames: TracebackType | None) -> TracebackType | None:
    """The frames of user code and of libraries."""
    kept = []
    while frames is not None:
        if _package(frames) != _HERE:
            kept.append(frames)
        frames = frames.tb_next
    rest = None
    for one in reversed(kept):
        rest = TracebackType(rest, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return rest


def from_script_on(frames: TracebackType | None) -> TracebackType | None:
    """Without the frames of what ran a script: of IPython, runpy and ours, up to its own first one."""
    while frames is not None and _package(frames) in ("runpy", "IPython", _HERE):
        frames = frames.tb_next
    return frames


def _package(frames: TracebackType) -> str:
    return str(frames.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
