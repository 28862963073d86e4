"""`run.checkpoints` and `qd.checkpoints()`: a sequence that shows itself as the browser. For users; in the
kernel.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from quarterdeck.checkpointing.checkpoint import Checkpoints
from quarterdeck.kernel import notebook as notebooks
from quarterdeck.public import public
from quarterdeck.store.paths import home, homes
from quarterdeck.views.checkpoints import location as scopes
from quarterdeck.views.checkpoints import static_html
from quarterdeck.views.checkpoints.index import CheckpointIndex
from quarterdeck.views.checkpoints.location import Location
from quarterdeck.views.sink import Bundle


@public
class ListedCheckpoints(Checkpoints):
    """`Checkpoints` of one run or of several, by step, those of the newest run last; also the invalid ones.
    As of when it was made.

    In a notebook it shows itself as the checkpoint browser, which goes on following the folders.
    """

    def __init__(self, scope: Location) -> None:
        self._scope = scope
        self._catalog = CheckpointIndex(scope)
        self._catalog.refresh()
        self.path = scope.where
        self._all = [one for album in reversed(self._catalog.albums) for one in reversed(album.checkpoints)]

    def show(self) -> None:
        """The live browser, and beside it the table that a saved notebook keeps."""
        sink = notebooks.current().new_sink()
        view = sink.checkpoints_view(self._scope) if sink.live else None
        if view is not None:
            sink.show(view, {}, "")
        sink.show(self._repr_mimebundle_(), {}, "")

    def _ipython_display_(self) -> None:
        if not notebooks.loaded():
            raise NotImplementedError  # IPython shows the table then
        self.show()

    def _repr_mimebundle_(self, **_: Any) -> Bundle:
        groups = [self._catalog.group(album) for album in self._catalog.albums]
        return static_html.of(groups, self.path)

    def __repr__(self) -> str:
        return str(self._repr_mimebundle_()["text/plain"])


@public
def checkpoints(path: str | os.PathLike[str] | None = None) -> ListedCheckpoints:
    """All checkpoints of the runs in this folder's store, or those at a path. Nothing but manifests is read.

    Args:
        path: a folder of checkpoints, one checkpoint, a run's folder, a `.quarterdeck` folder, or an fsspec
            URL ("s3://bucket/run"). None: the store of this folder.

    Returns:
        A sequence with `.latest`, `.best("loss")` and `.at(step)`, each item with `step`, `metrics`, `path`
        and `valid`. As the last value of a cell it shows itself as the checkpoint browser.

    Raises:
        UsageError: there is no such folder.
    """
    if path is None:
        return ListedCheckpoints(scopes.of_store(_homes()))
    return ListedCheckpoints(scopes.of_folder(path))


def named(text: str) -> ListedCheckpoints:
    """`%checkpoints [RUN|PATH]`."""
    places = _homes()
    return ListedCheckpoints(scopes.named(text, places) if text else scopes.of_store(places))


def _homes() -> list[Path]:
    return homes(home(dict(os.environ), os.getcwd()))
