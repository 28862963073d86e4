"""What `PyTorchCheckpoint.schema()` gives to user code: the methods of a marshmallow schema."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from quarterdeck.errors import ArgumentError, UsageError
from quarterdeck.public import public

if TYPE_CHECKING:
    from quarterdeck.flyte.pytorch_checkpoint import PyTorchCheckpoint

_UNKNOWN = ("raise", "exclude")


@public
class CheckpointSchema:
    """Some or all fields of checkpoints, as JSON-able dicts and back; one checkpoint or, with `many`, a list.
    It has the methods of marshmallow's schemas, as what `schema()` of flytekit's `PyTorchCheckpoint` gives.

    Attributes:
        fields: names that `dump` gives.
        load_fields: names that `load` takes.
        many: whether `dump` and `load` stand for lists, unless a call says otherwise.
        unknown: "raise" or "exclude": what `load` does with other keys.
    """

    def __init__(
        self,
        cls: type[PyTorchCheckpoint],
        fields: Iterable[str],
        load_fields: Iterable[str],
        many: bool,
        unknown: str,
    ) -> None:
        if unknown not in _UNKNOWN:
            raise ArgumentError(
                f"unknown={unknown!r} is not possible.", 'Write unknown="raise" or unknown="exclude".'
            )
        self._cls = cls
        self.fields, self.load_fields = tuple(fields), tuple(load_fields)
        self.many, self.unknown = many, unknown

    def dump(self, obj: Any, many: bool | None = None) -> Any:
        """A checkpoint as a dict that JSON can carry, or a list of them. State dicts are told by their hash,
        names and shapes.
        """
        if self.many if many is None else many:
            return [self.dump(item, many=False) for item in obj]
        told = obj.to_dict(encode_json=True)
        return {name: told[name] for name in self.fields}

    def dumps(self, obj: Any, many: bool | None = None, **options: Any) -> str:
        """`dump` as text; `options` are those of `json.dumps`."""
        return json.dumps(self.dump(obj, many), **options)

    def load(
        self, data: Any, many: bool | None = None, *, unknown: str | None = None, weights: Any = None
    ) -> Any:
        """The checkpoint, or a list of them, of what `dump` gave.

        Args:
            data: a dict, or a list of them.
            many: as the schema's, if it is given.
            unknown: as the schema's, if it is given.
            weights: see `PyTorchCheckpoint.from_dict`.

        Raises:
            ArgumentError: the data has a key that is not a field. CheckpointRefused is such an error, too.
        """
        if self.many if many is None else many:
            return [self.load(item, many=False, unknown=unknown, weights=weights) for item in data]
        if (unknown or self.unknown) == "exclude" and isinstance(data, Mapping):
            data = {name: data[name] for name in self.load_fields if name in data}
        for name in data if isinstance(data, Mapping) else ():
            if name not in self.load_fields:
                raise ArgumentError(
                    f"The schema has no field {name!r}.", f"It has {', '.join(self.load_fields)}."
                )
        return self._cls.from_dict(data, weights=weights)

    def loads(self, json_data: str | bytes, many: bool | None = None, **options: Any) -> Any:
        """`load` of a JSON text; `options` are those of `load`.

        Raises:
            ArgumentError: as `load`.
            ValueError: the text is not JSON.
        """
        return self.load(json.loads(json_data), many, **options)

    def validate(self, data: Any, many: bool | None = None) -> dict[Any, Any]:
        """Find out whether `load` would take the data.

        Returns:
            What is wrong: texts by field, or by index and field; empty if nothing is.
        """
        if self.many if many is None else many:
            found = {index: self.validate(item, many=False) for index, item in enumerate(data)}
            return {index: texts for index, texts in found.items() if texts}
        try:
            self.load(data, many=False)
        except UsageError as error:
            return {"_schema": [str(error)]}
        return {}
