"""From which cell a function or class comes. Used by the kernel, for what it sends, and by the workers, for
`inspect.getsource`.
"""

from __future__ import annotations

import linecache
import re
import types
from collections.abc import Collection, Iterator
from typing import Any


def file_of(part: types.FunctionType | type, cells: Collection[str]) -> str:
    """Which of `cells`, file names in the order in which they ran; "" if it comes from none of them."""
    if isinstance(part, types.FunctionType):
        return part.__code__.co_filename if part.__code__.co_filename in cells else ""
    own = (code.co_filename for value in vars(part).values() for code in _codes(value))
    named = re.compile(rf"^[ \t]*class[ \t]+{re.escape(part.__name__)}\b", re.MULTILINE)
    return next(
        (file for file in own if file in cells and named.search(text_of(file))),
        next((file for file in reversed(list(cells)) if named.search(text_of(file))), ""),
    )


def text_of(file: str) -> str:
    return "".join(linecache.getlines(file))


def _codes(attribute: Any) -> Iterator[types.CodeType]:
    """A method's code, or that of what stands for one; that of a decorated function is elsewhere."""
    parts = (
        [attribute.fget] if isinstance(attribute, property) else [getattr(attribute, "__func__", attribute)]
    )
    yield from (part.__code__ for part in parts if isinstance(part, types.FunctionType))
