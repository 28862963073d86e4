"""One Jupyter server and one browser for the tests of a module: a browser left open would keep an event loop
running beside the kernels of other tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from browser_harness import BrowserNotebook, Server, chromium, server


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("jupyter") / "root") as served:
        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def opened(jupyter: Server, browser: Browser) -> Iterator[Callable[..., BrowserNotebook]]:
    """Opens notebooks, and closes them: `opened(["cell 0", "cell 1"], app="notebook")`."""
    notebooks: list[BrowserNotebook] = []

    def open_one(cells: list[str], **options: Any) -> BrowserNotebook:
        notebooks.append(BrowserNotebook(jupyter, browser, cells, **options))
        return notebooks[-1]

    yield open_one
    for notebook in notebooks:
        notebook.close()
