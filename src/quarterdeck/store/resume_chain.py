"""Which run a run continues (`--resume`). Used by readers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from quarterdeck import files
from quarterdeck.store.format import RunHeader, read_header


def parent_of(folder: Path, header: RunHeader) -> Path | None:
    """The folder of the run that the one in `folder` continues: beside it, so that a store may be moved, else
    where it was then. None if it continues none, or that is gone, or it is no run of that name in a store.
    """
    name = header.parent
    if not name or Path(name).name != name:
        return None
    places = [folder.parent / name]
    recorded = Path(header.parent_folder)
    if recorded.name == name and recorded.parent.name == "runs":
        places.append(recorded)
    return next((place for place in places if _is_run(place, name)), None)


def ancestors(folder: Path, header: RunHeader) -> Iterator[Path]:
    """Folders of the run that it continues, of the one that that continues, and so on."""
    seen = {folder}
    place = parent_of(folder, header)
    while place is not None and place not in seen:
        seen.add(place)
        yield place
        try:
            place = parent_of(place, read_header(place))
        except (OSError, ValueError):
            return


def _is_run(place: Path, name: str) -> bool:
    try:
        return files.is_folder(place.parent, name) and read_header(place).run_id == name
    except (OSError, ValueError):
        return False
