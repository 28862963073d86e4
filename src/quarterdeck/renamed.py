"""Where the classes and functions are today whose old module stands in what was stored: in returned values
and in hyperparameters. Used by whoever reads those.

A module of quarterdeck whose names can be stored is not renamed without a line here.
"""

from __future__ import annotations

_TODAY = {
    "checkpointing.flyte": "flyte.pytorch_checkpoint",
    "checkpointing.flyte_checks": "flyte.checks",
    "checkpointing.listing": "checkpointing.checkpoint",
    "checkpointing.loading": "checkpointing.load",
    "checkpointing.problems": "checkpointing.errors",
    "client.call_options": "kernel.options",
    "client.function": "kernel.function",
    "config.elastic": "flyte.elastic",
    "config.job": "flyte.job",
    "config.rules": "flyte.rules",
    "decks.words": "decks.text",
    "payload.loaders": "transfer.unpickle",
    "payload.travel": "transfer.identity",
    "worker.helper": "flyte.spawn_helper",
}
"""The names in 0.1.0, and 0.1.1."""
_NAMES_TODAY = {("quarterdeck.client.call_options", "CallOptions"): "Options"}


def module_today(name: str) -> str:
    """The module that has what `name` had, by its full name; `name` itself for all others."""
    package, _, rest = name.partition(".")
    return f"quarterdeck.{_TODAY[rest]}" if package == "quarterdeck" and rest in _TODAY else name


def name_today(module: str, name: str) -> str:
    """What `name` of `module` is called there."""
    return _NAMES_TODAY.get((module, name), name)
