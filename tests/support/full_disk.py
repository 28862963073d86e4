"""A disk that is full, for real."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def files_up_to(limit: int) -> Iterator[int]:
    """Writes beyond this size of a file are cut short, then fail: as on a full disk, but for real. Inside the
    block only: the tests' own report may go to a file, too.
    """
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        yield limit
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
