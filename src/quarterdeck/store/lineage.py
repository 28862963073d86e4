"""Which run a run continues (`--resume`). Used by readers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from quarterdeck.store.format import HEADER, RunHeader, decode_header


def parent_of(folder: Path, header: RunHeader) -> Path | None:
    """The folder of the run that the one in `folder` continues: beside it, so that a store may be moved, else
    where it was then. None if it continues none, or that is gone.
    """
    if not header.parent:
        return None
    places = [folder.parent / header.parent]
    if header.parent_folder:
        places.append(Path(header.parent_folder))
    return next((place for place in places if (place / HEADER).is_file()), None)


def ancestors(folder: Path, header: RunHeader) -> Iterator[Path]:
    """Folders of the run that it continues, of the one that that continues, and so on."""
    seen = {folder}
    place = parent_of(folder, header)
    while place is not None and place not in seen:
        seen.add(place)
        yield place
        try:
            place = parent_of(place, decode_header((place / HEADER).read_bytes()))
        except (OSError, ValueError):
            return
