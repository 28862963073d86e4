"""What `qd.distributed` and `function.options` take beside the config, checked where it is written. In the
kernel.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, get_args

from quarterdeck.decks.automatic import FIELDS, chosen
from quarterdeck.flyte import ConfigError
from quarterdeck.metrics.tensorboard import event_folder
from quarterdeck.protocol.messages import Restart


@dataclass(frozen=True)
class CallOptions:
    """The words are those of the `%%distributed` magic."""

    name: str = ""
    backend: str | None = None
    timeout_s: float | None = None
    collective_timeout_s: float | None = None
    env: tuple[tuple[str, str], ...] = ()
    seed: int | None = None
    session: str = "default"
    tensorboard: str = ""
    deck_fields: tuple[str, ...] = FIELDS
    restart: Restart = "recoverable"
    resume: Any = ""
    """See `resuming.parent_of`."""

    def changed(self, **words: Any) -> CallOptions:
        """Raises ConfigError, or UsageError where tensorboard is not installed."""
        return dataclasses.replace(self, **{word: _checked(word, value) for word, value in words.items()})


def _checked(word: str, value: Any) -> Any:
    """As it is kept."""
    match word:
        case "backend" if value not in (None, "gloo", "nccl"):
            raise _wrong(word, value, 'Write "gloo" or "nccl".')
        case "restart" if value not in get_args(Restart):
            raise _wrong(word, value, 'Write "recoverable", "always" or "never".')
        case "timeout_s" | "collective_timeout_s" if value is not None and not value > 0:
            raise _wrong(word, value, "Write seconds, as in 90 or 2.5.")
        case "resume" if not _names_a_run(value):
            raise _wrong(word, value, 'Write "latest", a run or its name, or a path.')
        case "env":
            return tuple((str(key), str(one)) for key, one in (value or {}).items())
        case "tensorboard":
            return event_folder(value)
        case "deck_fields":
            return _fields(value)
        case _ if word not in _WORDS:
            near = difflib.get_close_matches(word, _WORDS, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(_WORDS)}."
            raise ConfigError(f"distributed(): there is no option {word!r}.", hint)
    return value


_WORDS = [field.name for field in dataclasses.fields(CallOptions)]


def _wrong(word: str, value: Any, hint: str) -> ConfigError:
    return ConfigError(f"distributed(): {word} is {value!r}.", hint)


def _names_a_run(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike)) or hasattr(value, "folder") or hasattr(value, "path")


def _fields(deck_fields: Iterable[Any]) -> tuple[str, ...]:
    try:
        return chosen(deck_fields)
    except ValueError as error:
        raise ConfigError(f"distributed(): {error}.") from None
