"""JupyterLab and Notebook 7 for tests: one server, a real Chromium, notebooks made for each test. Every wait
has a deadline.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nbformat
from playwright.sync_api import Browser, Locator, Page, sync_playwright

App = Literal["lab", "notebook"]
DEADLINE_MS = 20_000
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_SETTINGS: dict[str, dict[str, Any]] = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
_PANEL = """
    const app = window.jupyterapp;
    const panel = app?.shell?.currentWidget;
"""

_MARKS = "[...document.querySelectorAll('.jp-Notebook .jp-Cell .jp-InputPrompt')].map(one => one.textContent)"


@dataclass
class Server:
    """A Jupyter server over a folder of its own."""

    folder: Path
    port: int
    token: str
    process: subprocess.Popen[bytes]

    def url(self, app: App, notebook: str) -> str:
        path = f"lab/workspaces/{notebook[:8]}/tree/{notebook}" if app == "lab" else f"notebooks/{notebook}"
        return f"http://127.0.0.1:{self.port}/{path}?token={self.token}"

    def api(self, path: str, method: str = "GET") -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/{path}",
            method=method,
            headers={"Authorization": f"token {self.token}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def end_kernels(self) -> None:
        """Sessions outlive pages; the next test begins without any."""
        for one in self.api("sessions"):
            self.api(f"sessions/{one['id']}", "DELETE")

    def kernel_pid(self) -> int:
        """The pid of the only kernel, as its parent knows it."""
        [kernel] = self.api("kernels")
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if b"ipykernel_launcher" in command and kernel["id"].encode() in command:
                    return int(entry.name)
        raise AssertionError("the kernel has no process")


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    """Serving until the end of the block, with JupyterLab's settings in a folder of their own."""
    folder.mkdir(exist_ok=True)
    settings = folder.parent / "settings"
    for name, values in _SETTINGS.items():
        path = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(8)
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}", f"--IdentityProvider.token={token}",
        "--LabApp.expose_app_in_browser=True", "--JupyterNotebookApp.expose_app_in_browser=True",
    ]  # fmt: skip
    log = (folder.parent / "server.log").open("wb")
    env = {
        **os.environ,
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder.parent / "workspaces"),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_PLATFORM_DIRS": "1",
    }
    process = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
    served = Server(folder, port, token, process)
    try:
        _await_server(served)
        yield served
        served.end_kernels()
    finally:
        log.close()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _await_server(served: Server) -> None:
    deadline_s = time.monotonic() + 60
    while True:
        try:
            served.api("status")
        except OSError:
            assert served.process.poll() is None, (served.folder.parent / "server.log").read_text()
            assert time.monotonic() < deadline_s, "the Jupyter server does not answer"
            time.sleep(0.1)
        else:
            return


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield browser
        browser.close()


class BrowserNotebook:
    """A notebook in a page, driven by the application's own commands."""

    def __init__(
        self, served: Server, browser: Browser, cells: list[str], app: App = "lab", **page: Any
    ) -> None:
        self.server, self.app = served, app
        self.name = f"{secrets.token_hex(4)}.ipynb"
        document = nbformat.v4.new_notebook()
        document.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        document.cells = [nbformat.v4.new_code_cell(source) for source in cells]
        nbformat.write(document, served.folder / self.name)
        self.problems: list[str] = []
        page.setdefault("viewport", {"width": 1280, "height": 1600})
        self._context = browser.new_context(**page)
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(DEADLINE_MS)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.open()

    def open(self) -> None:
        """Also again, as after a reload."""
        self.page.goto(self.server.url(self.app, self.name))
        self.page.wait_for_function(f"() => {{ {_PANEL} return panel?.sessionContext?.isReady ?? false; }}")
        self.page.evaluate(
            f"async () => {{ {_PANEL} await panel.sessionContext.ready;"
            " await panel.sessionContext.session.kernel.info; }"
        )
        if self.app == "lab":
            self.page.evaluate("() => window.jupyterapp.shell.collapseLeft()")

    def close(self) -> None:
        self._context.close()
        self.server.end_kernels()

    # ---- cells

    def start(self, cell: int) -> None:
        """Run a cell; does not wait for its end."""
        before = self.prompt(cell)
        self.page.evaluate(
            f"(cell) => {{ {_PANEL} panel.content.activeCellIndex = cell;"
            " void app.commands.execute('notebook:run-cell'); }",
            cell,
        )
        self.page.wait_for_function(f"([cell, before]) => ({_MARKS})[cell] !== before", arg=[cell, before])

    def finish(self) -> None:
        """Wait until no cell is marked as running. (The kernel's own state tells of views' messages, too.)"""
        self.page.wait_for_function(f"() => !({_MARKS}).some(mark => mark.includes('*'))")

    def run(self, cell: int) -> Locator:
        before = self.prompt(cell)
        self.start(cell)
        self.finish()
        assert self.prompt(cell) != before
        return self.output(cell)

    def busy(self) -> bool:
        return bool(self.page.evaluate(f"() => ({_MARKS}).some(mark => mark.includes('*'))"))

    def prompt(self, cell: int) -> str:
        return str(self.page.evaluate(f"(cell) => ({_MARKS})[cell]", cell))

    def output(self, cell: int) -> Locator:
        return self.page.locator(".jp-Notebook .jp-Cell").nth(cell).locator(".jp-OutputArea").first

    def view(self, cell: int, nth: int = 0) -> Locator:
        """The live view under a cell."""
        return self.output(cell).locator(".qd-view").nth(nth)

    def save(self) -> dict[str, Any]:
        """The notebook as it is on disk afterwards."""
        self.page.evaluate(f"async () => {{ {_PANEL} await panel.context.save(); }}")
        return dict(json.loads((self.server.folder / self.name).read_text()))

    def theme(self, name: str) -> None:
        self.page.evaluate(
            "(name) => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})", name
        )
        light = "true" if "Light" in name else "false"
        self.page.wait_for_selector(f"body[data-jp-theme-light='{light}']", state="attached")
