"""Whether a checkpoint could be loaded without running anything of it. Used by `index`; nothing is
unpickled.

A saved state is plain values and tensors. A pickle that names anything else is somebody's code: loading it is
refused, and the browser says so before anybody tries.
"""

from __future__ import annotations

from pathlib import Path

from quarterdeck.checkpointing.checkpoint import Checkpoint
from quarterdeck.checkpointing.pickles import needs as needs_of
from quarterdeck.checkpointing.sharded import METADATA
from quarterdeck.checkpointing.storage import is_url


def needs(checkpoint: Checkpoint) -> list[str]:
    """ "module.name" of each, sorted. [] also for what is behind a URL: that would be a download."""
    if not checkpoint.valid or is_url(checkpoint.path):
        return []
    folder = Path(checkpoint.path, checkpoint.manifest.data)
    files = [name for name in checkpoint.manifest.files if name.endswith(".pt") or name == METADATA]
    return sorted({need for name in files for need in needs_of(folder / name)})
