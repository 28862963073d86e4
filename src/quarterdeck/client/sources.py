"""Source text of notebook functions on their way to the workers. Called by the kernel with what it sends."""

from __future__ import annotations

import linecache
import types
from collections.abc import Mapping

from quarterdeck.payload.references import code_of


def sources_of(
    values: Mapping[str, object], compile_cache: object, namespace: Mapping[str, object] | None = None
) -> dict[str, tuple[int, str]]:
    """Cell number and text of the notebook cells that travelling functions and classes come from, by
    co_filename.

    `compile_cache` is IPython's `shell.compile`. For `Payload.sources`: tracebacks of workers show these
    lines.
    """
    cells: Mapping[str, int] = getattr(compile_cache, "_filename_map", {})
    found: dict[str, tuple[int, str]] = {}
    for value in values.values():
        for part in code_of(value, namespace or {}):
            if isinstance(part, types.FunctionType):
                filename = part.__code__.co_filename
                if filename in cells and filename not in found:
                    found[filename] = cells[filename], "".join(linecache.getlines(filename))
    return found
