"""What a config's field may be: checked when the config is made, with an error that says what to write."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Iterable
from typing import Any, NoReturn

from quarterdeck.errors import UsageError
from quarterdeck.public import public


@public
class ConfigError(UsageError, ValueError):
    """A field of a config, or an option of `distributed`, that cannot be; nothing was started. It is also a
    ValueError, as in flytekit.
    """


class Fixed(dict[str, Any]):
    """A dict that equals, prints, copies and pickles as any other, but cannot be changed in place."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise ConfigError("A config cannot be changed.", "Make a new one: dataclasses.replace(config, ...).")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return Fixed, (dict(self),)


def refuse(config: Any, name: str, value: Any, hint: str) -> NoReturn:
    raise ConfigError(f"{type(config).__name__}: {name}={value!r} is not possible.", hint)


# A field's rule: what to write, and whether a value is that.
Rule = tuple[str, Callable[[Any], bool]]


def whole(least: int) -> Rule:
    return f"a whole number from {least}", lambda value: type(value) is int and value >= least


def a(kind: type, words: str) -> Rule:
    return words, lambda value: isinstance(value, kind)


def one_of(*choices: str) -> Rule:
    words = " or ".join(f'"{choice}"' for choice in choices)
    return words, lambda value: isinstance(value, str) and value in choices


def or_none(rule: Rule) -> Rule:
    return f"{rule[0]}, or None", lambda value: value is None or rule[1](value)


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


SECONDS: Rule = ("seconds above 0", _is_time)
FLAG = a(bool, "True or False")


def check(config: Any, **rules: Rule) -> None:
    for name, (words, is_right) in rules.items():
        if not is_right(value := getattr(config, name)):
            refuse(config, name, value, f"Write {words}.")


def check_keys(config: Any, name: str, entries: Iterable[Any], known: Collection[str]) -> None:
    for unknown in (key for key in entries if key not in known):
        near = difflib.get_close_matches(str(unknown), list(known), n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"Keys are {', '.join(known)}."
        raise ConfigError(f"{type(config).__name__}: {name} has no key {unknown!r}.", hint)


def given(**entries: Any) -> dict[str, Any]:
    return {name: value for name, value in entries.items() if value is not None}
