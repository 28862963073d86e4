"""Exceptions that a cell left, and the frames that they hold."""

from __future__ import annotations


def chain(error: BaseException | None) -> list[BaseException]:
    """It and what it came from, each once: `raise error from error` makes a ring."""
    found: dict[int, BaseException] = {}
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in found:
            found[id(one)] = one
            waiting += [one.__context__, one.__cause__]
    return list(found.values())
