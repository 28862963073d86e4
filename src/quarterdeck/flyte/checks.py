"""What `PyTorchCheckpoint` takes, and how it says no. In the processes where user code runs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from quarterdeck.checkpointing import classes
from quarterdeck.errors import ArgumentError, UsageError
from quarterdeck.public import public

MODULE, OPTIMIZER = "module_state_dict", "optimizer_state_dict"
FIELDS = ("module", "hyperparameters", "optimizer")
STATES = {"module": MODULE, "optimizer": OPTIMIZER}


@public
class CheckpointRefused(ArgumentError, ValueError, AssertionError):
    """What a `PyTorchCheckpoint` cannot be made of. It has all the types that flytekit's own errors have
    there, so that code written for Flyte catches it.
    """


@public
class MissingWeights(UsageError, KeyError):
    """The weights of a `PyTorchCheckpoint` from JSON, which tells them by their hash only. It is also a
    KeyError.
    """

    __str__ = Exception.__str__


def check_types(module: Any, given: Any, optimizer: Any) -> None:
    torch = sys.modules.get("torch")
    if module is not None and not (torch and isinstance(module, torch.nn.Module)):
        raise CheckpointRefused(f"module must be a torch.nn.Module. Got {type(module)}")
    if optimizer is not None and not (
        hasattr(optimizer, "state_dict") and hasattr(optimizer, "param_groups")
    ):
        raise CheckpointRefused(f"optimizer must be a torch.optim.Optimizer. Got {type(optimizer)}")
    if given is not None:
        try:
            classes.entries(given)
        except TypeError as error:
            raise CheckpointRefused(str(error)) from None


def check_names(named: Mapping[Any, Any]) -> None:
    for key in STATES.values():
        if key in named:
            hint = "Give it another name: this one is that of the weights in the checkpoint."
            raise CheckpointRefused(f"hyperparameters must not have the name {key!r}.", hint)


def check_states(states: Mapping[str, Any]) -> None:
    for key, state in states.items():
        if not isinstance(state, Mapping):
            raise CheckpointRefused(f"{key} must be a state dict. Got {type(state)}")


def check_keys(kvs: Any) -> None:
    if not isinstance(kvs, Mapping):
        raise CheckpointRefused(f"A checkpoint is made of a dict. Got {type(kvs)}")
    odd = [key for key in kvs if key not in FIELDS]
    if odd:
        hint = 'Its keys are "module", "hyperparameters" and "optimizer"; each may be missing.'
        raise CheckpointRefused(f"A checkpoint has no {odd[0]!r}.", hint)


def chosen(only: Iterable[str] | None, left_out: Iterable[str]) -> tuple[str, ...]:
    wanted, unwanted = set(FIELDS if only is None else only), set(left_out)
    odd = sorted((wanted | unwanted) - set(FIELDS))
    if odd:
        raise CheckpointRefused(f"A checkpoint has no field {odd[0]!r}.", f"It has {', '.join(FIELDS)}.")
    return tuple(name for name in FIELDS if name in wanted - unwanted)
