"""The checkpoints of a scope as messages for their live views. Made by `widget`, in the kernel; used from
any thread.

    feed = CheckpointsFeed(scope, namespace)
    feed.whole()                # answers Sync
    feed.news()                 # once a second while somebody looks: what changed
    feed.answer(request)        # what takes no time
    feed.work(request, go_on)   # what reads or writes tensors, in a thread

A message can only name what is listed; what cannot be done gives a Trouble.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from threading import RLock

from quarterdeck.checkpointing.checkpoint import Checkpoint
from quarterdeck.checkpointing.storage import is_url
from quarterdeck.errors import QuarterdeckError
from quarterdeck.views.checkpoints import actions
from quarterdeck.views.checkpoints.detail import detail
from quarterdeck.views.checkpoints.folder import CheckpointFolder
from quarterdeck.views.checkpoints.index import CheckpointIndex
from quarterdeck.views.checkpoints.location import Location
from quarterdeck.views.checkpoints.messages import (
    Compare,
    Delete,
    Deleted,
    Done,
    Export,
    Load,
    Pin,
    Shelf,
    Sync,
    ToBrowser,
    ToKernel,
    Trouble,
    Undo,
    WantDetail,
    WantStatistics,
)
from quarterdeck.views.checkpoints.statistics import statistics
from quarterdeck.views.checkpoints.tensor_diff import compare
from quarterdeck.views.checkpoints.trash import trash

_LOOK_INTO_S = 0.1
"""The part of each second in which pickles are looked into for what would run something."""
GoOn = Callable[[], bool]


class CheckpointsFeed:
    """One browser. Nothing on disk makes it raise."""

    def __init__(self, scope: Location, namespace: actions.Namespace) -> None:
        """`namespace`: where `Load` puts a variable."""
        self._catalog = CheckpointIndex(scope)
        self._namespace = namespace
        self._lock = RLock()
        self._shown: dict[str, bool] = {}
        """Groups that the views have."""
        self._deleted: list[Deleted] = []
        self._told = ""
        """What stands in the way of reading, as the views know it."""

    def whole(self) -> list[ToBrowser]:
        """All there is, for a view that knows nothing."""
        with self._lock:
            self._told = ""
            _, _, troubles = self._refresh(always=True)
            albums = self._catalog.albums
            self._shown = {album.id: True for album in albums}
            return [self._message(albums, [], whole=True), *troubles]

    def news(self) -> list[ToBrowser]:
        """[] if nothing changed."""
        with self._lock:
            changed, gone, troubles = self._refresh()
            flagged = self._catalog.look_into_some(_LOOK_INTO_S)
            changed += [album for album in flagged if album not in changed]
            before, self._deleted = self._deleted, self._undoable()
            if not changed and not gone and before == self._deleted:
                return troubles
            gone += [album.id for album in changed if not album.checkpoints]
            some = [album for album in changed if album.checkpoints]
            told = [id for id in gone if self._shown.pop(id, False)]
            self._shown |= {album.id: True for album in some}
            return [self._message(some, told), *troubles]

    def answer(self, request: ToKernel) -> list[ToBrowser]:
        """What to tell the browser at once; [] for what `is_work`."""
        about, id = _named(request)
        try:
            match request:
                case Sync():
                    return self.whole()
                case WantDetail():
                    album, checkpoint = self._get(id)
                    return [detail(id, checkpoint, album.run)]
                case Pin():
                    return self._did(about, id, actions.pin(self._get(id)[1], request.pinned))
                case Delete():
                    return self._did(about, id, actions.delete(self._get(id)[1], request.confirmed))
                case Undo():
                    if all(one.id != id for one in self._undoable()):
                        raise LookupError("It was swept away already and cannot come back.")
                    return self._did(about, id, actions.undo(id))
        except Exception as error:
            return [_trouble(about, id, error), *self.news()]
        return []

    def work(self, request: ToKernel, go_on: GoOn) -> Iterator[ToBrowser]:
        """Ends early when `go_on` says that nobody wants it any more."""
        about, id = _named(request)
        try:
            yield from self._work(request, about, id, go_on)
        except Exception as error:
            yield _trouble(about, id, error)

    def _work(self, request: ToKernel, about: str, id: str, go_on: GoOn) -> Iterator[ToBrowser]:
        album, checkpoint = self._get(id)
        match request:
            case WantStatistics():
                found = statistics(id, checkpoint, request.tensor, go_on)
                if found is not None:
                    yield found
            case Compare():
                yield from compare(id, checkpoint, request.right, self._get(request.right)[1], go_on)
            case Load():
                yield Done(about, id, actions.load(checkpoint, request.name, self._namespace))
            case Export():
                group = self._catalog.group(album).name
                yield Done(about, id, actions.export(checkpoint, request.form, group))

    # ---- inside

    def _refresh(self, always: bool = False) -> tuple[list[CheckpointFolder], list[str], list[ToBrowser]]:
        """A store that cannot be reached is told once; what was read of it stays."""
        try:
            return *self._catalog.refresh(always), []
        except Exception as error:
            trouble = _trouble("sync", "", error)
            before, self._told = self._told, trouble.text
            return [], [], [] if before == trouble.text else [trouble]

    def _get(self, id: str) -> tuple[CheckpointFolder, Checkpoint]:
        with self._lock:
            return self._catalog.get(id)

    def _did(self, about: str, id: str, text: str) -> list[ToBrowser]:
        with self._lock:
            for album in self._catalog.all:
                album.expire()
            return [Done(about, id, text), *self.news()]

    def _undoable(self) -> list[Deleted]:
        return trash.of({album.place.path for album in self._catalog.all})

    def _message(self, albums: list[CheckpointFolder], gone: list[str], whole: bool = False) -> Shelf:
        self._deleted = self._undoable()
        return Shelf(
            where=self._catalog.where,
            now_ms=time.time() * 1000,
            whole=whole,
            groups=[self._catalog.group(album) for album in albums],
            gone=gone,
            deleted=self._deleted,
        )

    def sweep(self) -> None:
        """What killed kernels have left in the folders of runs. Takes as long as removing takes."""
        with self._lock:
            paths = [album.place.path for album in self._catalog.all if album.place.run_folder is not None]
        for path in paths:
            if not is_url(path):
                trash.sweep_left(path)


def is_work(request: ToKernel) -> bool:
    """It reads or writes tensors: see `CheckpointsFeed.work`."""
    return isinstance(request, WantStatistics | Compare | Load | Export)


def _named(request: ToKernel) -> tuple[str, str]:
    """What it is about, and of which checkpoint."""
    id = request.left if isinstance(request, Compare) else getattr(request, "id", "")
    return type(request).__name__.lower(), id


def _trouble(about: str, id: str, error: Exception) -> Trouble:
    """In words."""
    if isinstance(error, QuarterdeckError):
        text = str(error)
    elif isinstance(error, LookupError):
        text = str(error.args[0]) if error.args else "What you asked for is no longer there."
    elif isinstance(error, OSError):
        text = f"{error.filename or 'A file'}: {error.strerror or error}."
    else:
        text = f"{type(error).__name__}: {error}"
    return Trouble(about, id, text)
