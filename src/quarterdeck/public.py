"""What users import, catch and see in messages is called `quarterdeck.NAME`, wherever it is defined. Pure.

The name holds from the definition on: a worker that pickles a value of a public class need not have looked
it up as `qd.NAME`. Whoever loads the value does, and so imports the module that defines it.

`typing.get_type_hints`, and msgspec and pydantic in the same way, look up annotations that are strings in the
module of the class, which now is `quarterdeck`. A public dataclass, NamedTuple or Struct is therefore in a
module without `from __future__ import annotations`.
"""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def public(thing: T) -> T:
    """Decorates the classes and functions in `quarterdeck.__all__`, as the outermost decorator."""
    thing.__module__ = "quarterdeck"
    return thing
