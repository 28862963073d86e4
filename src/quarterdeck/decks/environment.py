"""The decks "Source Code" and "Environment": what the run store knows of a run anyway, as the inside of a
page. Made in the kernel, when somebody looks.
"""

from __future__ import annotations

from pathlib import Path

from quarterdeck.decks.packages import kept_packages
from quarterdeck.decks.phases import events
from quarterdeck.decks.render.html import escaped, fold, note, table
from quarterdeck.decks.render.plain import code
from quarterdeck.decks.text import Code
from quarterdeck.present.tables import Raw
from quarterdeck.store.format import GroupEvent, RunHeader, read_header


def source(folder: Path) -> str:
    """ "" if it is not known."""
    header = _header(folder)
    if header is None or not header.source:
        return ""
    title = f"{header.title.removesuffix('()')}({header.arguments})" if header.arguments else header.title
    return code(Code(header.source, title=title))


def has_source(folder: Path) -> bool:
    header = _header(folder)
    return header is not None and bool(header.source)


def environment(folder: Path) -> str:
    header = _header(folder)
    if header is None:
        return note("The run has not said where it runs.")
    found = {"run": header.run_id, "notebook": header.notebook, "folder": header.cwd, **header.environment}
    group = next((event for event in reversed(list(events(folder))) if isinstance(event, GroupEvent)), None)
    if group is not None:
        found |= {
            "ranks": str(group.world_size),
            "backend": group.backend,
            "devices": ", ".join(group.devices),
        }
    rows = [(name, Raw(f"<code>{escaped(value)}</code>")) for name, value in found.items() if value]
    return table([], rows) + _packages(folder)


def _packages(folder: Path) -> str:
    packages = kept_packages(folder)
    if not packages:
        return ""
    listed = table(["package", "version"], packages.items())
    return f'<div class="qd-fold">{fold(f"{len(packages):,} packages", listed)}</div>'


def _header(folder: Path) -> RunHeader | None:
    try:
        return read_header(folder)
    except (OSError, ValueError):
        return None
