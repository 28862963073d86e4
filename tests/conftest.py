"""Real kernels for tests, with deadlines, and a check that nothing is left behind."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.kernel import descendants
from support.notebook import Notebook, quarterdeck_processes

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from support.browser import BrowserNotebook, Server

DEADLINE_S = 120
_MARK = "QUARTERDECK_TEST_SESSION"


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """One kernel with quarterdeck loaded and two workers running, shared by a module's tests."""
    with fresh_notebook(tmp_path_factory.mktemp("notebook")) as started:
        started.ok("%load_ext quarterdeck")
        started.ok("%workers start -n 2")
        started.wait_until_warm()
        yield started


@pytest.fixture
def new_notebook(tmp_path: Path) -> Iterator[Notebook]:
    """A kernel of the test's own, nothing loaded."""
    with fresh_notebook(tmp_path) as started:
        yield started


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Jupyter server for the tests of a module."""
    from support.browser import server

    with server(tmp_path_factory.mktemp("jupyter") / "root") as served:
        yield served


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of an S3 server of our own."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    names = {
        "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in names.items():
            patch.setenv(name, value)
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()  # clients of another module's server
        bucket = f"bucket-{uuid.uuid4().hex}"  # all servers of this process share what they hold
        s3fs.S3FileSystem(endpoint_url=names["AWS_ENDPOINT_URL"]).mkdir(bucket)
        yield f"s3://{bucket}"
    server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Not longer than a module: left open it would keep an event loop running beside other tests' kernels."""
    from support.browser import chromium

    with chromium() as started:
        yield started


@pytest.fixture
def opened(jupyter: Server, browser: Browser) -> Iterator[Callable[..., BrowserNotebook]]:
    """Opens notebooks in the browser, and closes them: `opened(["cell 0", "cell 1"], app="notebook")`."""
    from support.browser import BrowserNotebook

    notebooks: list[BrowserNotebook] = []

    def open_one(cells: list[str], **options: Any) -> BrowserNotebook:
        notebooks.append(BrowserNotebook(jupyter, browser, cells, **options))
        return notebooks[-1]

    yield open_one
    for notebook in notebooks:
        notebook.close()


class fresh_notebook:
    """A kernel; at the end nothing of it may be left: no process, no file in /dev/shm."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Notebook:
        self._shm = set(os.listdir("/dev/shm"))
        self._notebook = Notebook(self._folder)
        return self._notebook

    def __exit__(self, *_: object) -> None:
        pids = self._notebook.everything()
        self._notebook.shutdown()
        left = _wait_for_end(pids)
        assert not left, f"processes left behind: {left}"
        assert not _left_in_shm(self._shm), "files left in /dev/shm"


def _left_in_shm(before: set[str]) -> set[str]:
    """New files, other than those of processes that live: other tests run on this machine, too."""
    new = set(os.listdir("/dev/shm")) - before
    new = {name for name in new if not os.path.exists(re.sub(r"\D*(\d+).*", r"/proc/\1", name))}
    return {name for name in new if not _is_mapped(name)} & set(os.listdir("/dev/shm"))


def _is_mapped(name: str) -> bool:
    """By a process that lives."""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            if f"/dev/shm/{name}" in maps.read_text():
                return True
        except OSError:
            continue
    return False


def _wait_for_end(pids: set[int]) -> dict[int, str]:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        left = {pid: words for pid in pids if (words := _command(pid))}
        if not left:
            return {}
        time.sleep(0.02)
    return left


def _command(pid: int) -> str:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return "" if state == "Z" else Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[:120]
    except OSError:
        return ""


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    os.environ[_MARK] = str(os.getpid())
    yield
    ours = {pid for pid in quarterdeck_processes() if _is_ours(pid)}
    left = _wait_for_end(ours | descendants(os.getpid()))
    assert not left, f"processes left behind by the tests: {left}"


def _is_ours(pid: int) -> bool:
    """Others may run their tests at the same time."""
    try:
        return f"{_MARK}={os.getpid()}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
