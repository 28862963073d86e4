"""Source text of notebook functions and classes on their way to the workers. Called by the kernel with what
it sends.
"""

from __future__ import annotations

from collections.abc import Mapping

from quarterdeck.transfer.references import code_of
from quarterdeck.transfer.sources import file_of, text_of


def sources_of(
    values: Mapping[str, object], compile_cache: object, namespace: Mapping[str, object] | None = None
) -> dict[str, tuple[int, str]]:
    """Cell number and text of the notebook cells that travelling functions and classes come from, by
    co_filename.

    `compile_cache` is IPython's `shell.compile`. For `Payload.sources`: tracebacks and `inspect` show these
    lines on the workers.
    """
    cells: Mapping[str, int] = getattr(compile_cache, "_filename_map", {})
    parts = (part for value in values.values() for part in code_of(value, namespace or {}))
    files = dict.fromkeys(file_of(part, cells) for part in parts)
    return {file: (cells[file], text_of(file)) for file in files if file}
