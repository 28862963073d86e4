"""Whether a checkpoint is whole: what its manifest says, against the files that are there. In any process."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from quarterdeck import files
from quarterdeck.checkpointing.errors import DamagedCheckpoint
from quarterdeck.checkpointing.manifest import MANIFEST, Manifest, unseal
from quarterdeck.checkpointing.storage import Contents

_READ_BYTES = 16 << 20


def read_manifest(contents: Contents) -> Manifest:
    """Raises DamagedCheckpoint if it is not whole, or a file is not there as it says."""
    manifest = unseal(read_part(contents, MANIFEST), Manifest, MANIFEST)
    prefix = f"{manifest.data}/" if manifest.data else ""
    for name, file in manifest.files.items():
        size = contents.size(prefix + name)
        if size is None:
            raise DamagedCheckpoint(f"its file {name} is missing, or is not a regular file")
        if size != file.size_bytes:
            raise DamagedCheckpoint(f"its file {name} has {size:,} bytes instead of {file.size_bytes:,}")
    return manifest


def check_files(folder: Path, manifest: Manifest, path: str, up_to_bytes: int | None = None) -> None:
    """Compare checksums, of all files or of those that are not larger. Raises DamagedCheckpoint."""
    for name, file in manifest.files.items():
        if up_to_bytes is not None and file.size_bytes > up_to_bytes:
            continue
        try:
            if _crc32(folder / manifest.data / name) != file.crc32:
                raise DamagedCheckpoint(
                    f"{path}/{name} was altered: its checksum does not fit. Nothing was loaded."
                )
        except OSError as error:
            raise DamagedCheckpoint(f"{path}/{name} cannot be read: {error.strerror}") from None


def _crc32(path: Path) -> int:
    found = 0
    descriptor = files.open_file(path.parent, path.name)
    try:
        while data := os.read(descriptor, _READ_BYTES):
            found = zlib.crc32(data, found)
    finally:
        os.close(descriptor)
    return found


def read_part(contents: Contents, name: str) -> bytes:
    try:
        return contents.read(name)
    except FileNotFoundError:
        raise DamagedCheckpoint(f"it has no {name}: it is not a checkpoint, or was never completed") from None
    except (OSError, ValueError) as error:
        raise DamagedCheckpoint(f"its {name} cannot be read: {_reason(error)}") from None


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)
