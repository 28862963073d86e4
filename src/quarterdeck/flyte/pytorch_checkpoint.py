"""`qd.PyTorchCheckpoint`: Flyte's type of that name. For user code, in the kernel and in the workers.

Without torch until there is a module, an optimizer or a file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quarterdeck.checkpointing import classes, hyperparameters
from quarterdeck.flyte.checks import (
    FIELDS,
    MODULE,
    OPTIMIZER,
    STATES,
    CheckpointRefused,
    MissingWeights,
    check_keys,
    check_names,
    check_states,
    check_types,
    chosen,
)
from quarterdeck.present.words import size
from quarterdeck.public import public

if TYPE_CHECKING:
    import torch

    from quarterdeck.flyte.schema import CheckpointSchema


@public
class PyTorchCheckpoint(Mapping[str, Any]):
    """A model's weights, hyperparameters and optimizer state, in one value that functions take and return, as
    flytekit's `PyTorchCheckpoint`.

    A read-only mapping with the keys of Flyte's layout: "module_state_dict", every hyperparameter under its
    own name, "optimizer_state_dict". The state dicts are the live ones of `module` and `optimizer`: what
    happens to these shows, until the checkpoint is saved or sent. Sent to or returned from a worker (or
    copied), it carries the state dicts and no module: load them into one of your own. What lay on a GPU
    arrives on the receiver's GPU, or on the CPU where there is none.

    DistributedDataParallel and torch.compile are looked through: the names are those of the bare model.

    Attributes:
        module: as given; None after a journey and after `load`.
        hyperparameters: a dict, a NamedTuple or a dataclass instance.
        optimizer: as given; None after a journey and after `load`.

    Raises:
        CheckpointRefused: nothing is given, or something of another type, or a hyperparameter has the name of
            a state dict.
        UsageError: the module is sharded over the ranks.
        MissingWeights: a state dict is asked for that JSON told by its hash only.
    """

    def __init__(
        self,
        module: torch.nn.Module | None = None,
        hyperparameters: Any = None,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        check_types(module, hyperparameters, optimizer)
        if module is not None:
            from quarterdeck.flyte.states import refuse_sharded

            refuse_sharded(module)
        self._fill(hyperparameters, {"module": module, "optimizer": optimizer}, {}, {})

    def _fill(
        self, given: Any, live: dict[str, Any], states: dict[str, Any], references: dict[str, Any]
    ) -> None:
        self.module: torch.nn.Module | None = live.get("module")
        self.optimizer: torch.optim.Optimizer | None = live.get("optimizer")
        self.hyperparameters = given
        self._states = states
        self._references = references
        check_names(self._named())
        if not (self._named() or states or references) and self.module is None and self.optimizer is None:
            raise CheckpointRefused("Must have at least one of module, hyperparameters, or optimizer")

    def _named(self) -> dict[Any, Any]:
        return {} if self.hyperparameters is None else classes.entries(self.hyperparameters)

    # ---- the mapping

    def __getitem__(self, key: Any) -> Any:
        if key == MODULE and self.module is not None:
            from quarterdeck.flyte.states import module_state

            return module_state(self.module)
        if key == OPTIMIZER and self.optimizer is not None:
            return self.optimizer.state_dict()
        if key in self._states:
            return self._states[key]
        if key in self._references:
            hint = "Give the file that it was saved to: PyTorchCheckpoint.from_json(text, weights=path)."
            raise MissingWeights(f"This checkpoint comes from JSON, which names its {key} by hash.", hint)
        return self._named()[key]

    def __iter__(self) -> Iterator[Any]:
        if self.module is not None or MODULE in self._states:
            yield MODULE
        yield from self._named()
        if self.optimizer is not None or OPTIMIZER in self._states:
            yield OPTIMIZER

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, key: object) -> bool:
        return key in list(self)

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        parts = [_words(name, self[key]) for name, key in STATES.items() if key in self]
        parts += [f"{key} by hash" for key in self._references]
        kept = [f"hyperparameters={self.hyperparameters!r}"] if self.hyperparameters is not None else []
        return f"PyTorchCheckpoint({', '.join([*parts, *kept])})"

    def __reduce__(self) -> tuple[Any, ...]:
        states = {key: self[key] for key in STATES.values() if key in self}
        return _rebuild, (self.hyperparameters, states, self._references)

    # ---- files

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one file in Flyte's layout, which plain `torch.load` reads, too.

        A file that is there stays until the new one is complete.

        Returns:
            The path.

        Raises:
            UsageError: a hyperparameter would not come back; the text names it (`hyperparameters.loss: a
                lambda cannot be kept`).
            MissingWeights: the weights are told by their hash only.
            OSError: the file cannot be written.
        """
        from quarterdeck.flyte import checkpoint_file

        place = Path(path)
        check_names(self._named())
        states = [self._state(key) for key in (MODULE, OPTIMIZER)]
        checkpoint_file.write(place, states[0], self.hyperparameters, states[1])
        return place

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, trust: bool = False, map_location: Any = "auto"
    ) -> PyTorchCheckpoint:
        """Read a file in Flyte's layout, flytekit's own ones included.

        Args:
            path: the file.
            trust: load also a file that holds more than tensors and plain values, and so run what code it
                brings.
            map_location: as in `torch.load`. "auto": what lay on a GPU comes to this process's current GPU,
                or to the CPU where there is none.

        Raises:
            UntrustedCheckpoint: the file holds more than that, and `trust` is False.
            DamagedCheckpoint: the file is not whole, or is not a checkpoint.
            FileNotFoundError: the file is not there.
        """
        from quarterdeck.flyte import checkpoint_file

        flat = checkpoint_file.read(Path(path), trust, map_location)
        states = {key: flat.pop(key) for key in (MODULE, OPTIMIZER) if key in flat}
        kept = checkpoint_file.typed_hyperparameters(Path(path))
        return _rebuild(flat or None if kept is None else kept, states, {})

    def _state(self, key: str) -> Any:
        return self[key] if key in self or key in self._references else None

    # ---- dicts and JSON

    def to_dict(self, encode_json: bool = False) -> dict[str, Any]:
        """ "module", "hyperparameters" and "optimizer", for `from_dict`; nothing is copied.

        Args:
            encode_json: True: everything in it is JSON, and state dicts are told by their hash, names and
                shapes.

        Raises:
            UsageError: with `encode_json`, a hyperparameter would not come back.
        """
        if encode_json:
            return {
                "module": self._reference(MODULE),
                "hyperparameters": hyperparameters.encode(self.hyperparameters),
                "optimizer": self._reference(OPTIMIZER),
            }
        held = {name: self._states.get(key, self._references.get(key)) for name, key in STATES.items()}
        return {
            "module": held["module"] if self.module is None else self.module,
            "hyperparameters": self.hyperparameters,
            "optimizer": held["optimizer"] if self.optimizer is None else self.optimizer,
        }

    def _reference(self, key: str) -> dict[str, Any] | None:
        from quarterdeck.flyte.states import reference

        return reference(self[key]) if key in self else self._references.get(key)

    @classmethod
    def from_dict(
        cls, kvs: Mapping[str, Any], *, infer_missing: bool = False, weights: Any = None
    ) -> PyTorchCheckpoint:
        """The checkpoint of what `to_dict` gave, with state dicts or objects.

        Args:
            kvs: some of "module", "hyperparameters" and "optimizer". Hyperparameters may be values or, as
                `to_dict(encode_json=True)` gives them, their JSON.
            infer_missing: changes nothing: what is missing is None in any case.
            weights: a checkpoint, or the path of one: it has the state dicts that JSON names by hash.

        Raises:
            CheckpointRefused: it cannot be made of that, or `weights` has other state dicts.
        """
        check_keys(kvs)
        given = {name: kvs[name] for name in FIELDS if kvs.get(name) is not None}
        kept = hyperparameters.decode(given.get("hyperparameters"))
        live = {name: given[name] for name in STATES if hasattr(given.get(name), "state_dict")}
        check_types(live.get("module"), kept, live.get("optimizer"))
        states = {key: given[name] for name, key in STATES.items() if name in given and name not in live}
        check_states(states)
        references = {key: state for key, state in states.items() if _is_reference(state)}
        resolved = {} if weights is None else _resolved(references, weights)
        made = cls.__new__(cls)
        made._fill(
            kept,
            live,
            {key: state for key, state in {**states, **resolved}.items() if not _is_reference(state)},
            {key: state for key, state in references.items() if key not in resolved},
        )
        return made

    def to_json(
        self,
        *,
        skipkeys: bool = False,
        ensure_ascii: bool = True,
        check_circular: bool = True,
        allow_nan: bool = True,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        default: Callable[[Any], Any] | None = None,
        sort_keys: bool = False,
        **kw: Any,
    ) -> str:
        """`to_dict(encode_json=True)` as text; the options are those of `json.dumps`.

        Raises:
            UsageError: a hyperparameter would not come back.
        """
        options: dict[str, Any] = {"skipkeys": skipkeys, "ensure_ascii": ensure_ascii, "indent": indent}
        options |= {"check_circular": check_circular, "allow_nan": allow_nan, "separators": separators}
        return json.dumps(self.to_dict(True), default=default, sort_keys=sort_keys, **options, **kw)

    @classmethod
    def from_json(
        cls,
        s: str | bytes | bytearray,
        *,
        parse_float: Callable[[str], Any] | None = None,
        parse_int: Callable[[str], Any] | None = None,
        parse_constant: Callable[[str], Any] | None = None,
        infer_missing: bool = False,
        weights: Any = None,
        **kw: Any,
    ) -> PyTorchCheckpoint:
        """The checkpoint of what `to_json` gave: hyperparameters with their types, and the weights from
        `weights`.

        Args:
            s: the JSON text. The options are those of `json.loads`.
            infer_missing: changes nothing.
            weights: see `from_dict`.

        Raises:
            CheckpointRefused: as `from_dict`.
            ValueError: the text is not JSON.
        """
        parsed = json.loads(
            s, parse_float=parse_float, parse_int=parse_int, parse_constant=parse_constant, **kw
        )
        return cls.from_dict(parsed, infer_missing=infer_missing, weights=weights)

    @classmethod
    def schema(
        cls,
        *,
        infer_missing: bool = False,
        only: Iterable[str] | None = None,
        exclude: Iterable[str] = (),
        many: bool = False,
        context: Mapping[str, Any] | None = None,
        load_only: Iterable[str] = (),
        dump_only: Iterable[str] = (),
        partial: bool = False,
        unknown: str | None = None,
    ) -> CheckpointSchema:
        """`dump`, `dumps`, `load`, `loads` and `validate`, with the options that marshmallow's schemas have.

        Args:
            only: the fields that it has, of "module", "hyperparameters" and "optimizer"; None: all.
            exclude: fields that it does not have.
            many: whether `dump` and `load` stand for lists.
            load_only: fields that `dump` leaves out.
            dump_only: fields that `load` does not take.
            unknown: "raise" or "exclude": what `load` does with other keys; None: "raise".
            infer_missing, context, partial: change nothing.

        Raises:
            CheckpointRefused: there is no such field.
            ArgumentError: `unknown` is anything else.
        """
        from quarterdeck.flyte.schema import CheckpointSchema

        dumped = chosen(only, (*exclude, *load_only))
        return CheckpointSchema(cls, dumped, chosen(only, (*exclude, *dump_only)), many, unknown or "raise")


def _rebuild(given: Any, states: dict[str, Any], references: dict[str, Any]) -> PyTorchCheckpoint:
    made = PyTorchCheckpoint.__new__(PyTorchCheckpoint)
    made._fill(given, {}, states, references)
    return made


def _is_reference(state: Any) -> bool:
    return isinstance(state, Mapping) and isinstance(state.get("sha256"), str)


def _resolved(references: Mapping[str, Any], weights: Any) -> dict[str, Any]:
    """The state dicts that are referred to."""
    from quarterdeck.flyte.states import digest

    source = weights if isinstance(weights, PyTorchCheckpoint) else PyTorchCheckpoint.load(weights)
    for key, reference in references.items():
        if key not in source or digest(source[key]) != reference["sha256"]:
            hint = "Give the checkpoint, or the file, that the JSON was made of."
            raise CheckpointRefused(f"The weights have another {key} than the JSON names.", hint)
    return {key: source[key] for key in references}


def _words(name: str, state: Mapping[str, Any]) -> str:
    from quarterdeck.flyte.states import reference

    told = reference(state, with_hash=False)
    return f"{name}: {len(told['tensors'])} tensors, {size(told['size_bytes'])}"
