"""The live view in a real JupyterLab and Chromium: frames, messages and processor time while 8 ranks log, the
time until a million values are on screen, the weight of the bundle. `python -m benchmarks.view` prints the
lines; it needs Debian's chromium and a quiet machine.
"""

from __future__ import annotations

import gzip
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Browser, WebSocket

from benchmarks.table import Line, markdown, spread

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from support.browser import BrowserNotebook, Server, chromium, server  # noqa: E402

RANKS, RATE_HZ, WATCHED_S = 8, 1_000, 8
LOAD = "%load_ext quarterdeck\nimport time, quarterdeck as qd"
STREAM = f"""%%distributed -n {RANKS} --name stream
began, step = time.monotonic(), 0
while time.monotonic() - began < {WATCHED_S + 8}:
    qd.log(step, loss=1 / (1 + step), accuracy=1 - 1 / (2 + step))
    step += 1
    time.sleep(max(0, began + step / {RATE_HZ} - time.monotonic()))
"""
MILLION = f"""%%distributed -n {RANKS} --name million
for step in range({1_000_000 // RANKS}):
    qd.log(step, loss=(step * 7919 % 1000) / 1000)
"""
SHOW = "qd.runs('million')[0].show()"
FRAMES = """seconds => new Promise(done => {
  const gaps = [];
  let last = 0;
  const end = performance.now() + 1000 * seconds;
  const frame = now => {
    if (last) gaps.push(now - last);
    last = now;
    if (now < end) return requestAnimationFrame(frame);
    gaps.sort((a, b) => a - b);
    done([gaps.filter(gap => gap <= 34).length / gaps.length, gaps[Math.floor(.95 * (gaps.length - 1))]]);
  };
  requestAnimationFrame(frame);
})"""
DRAWN = """() => new Promise(done => {
  const began = performance.now();
  const before = new Set(document.querySelectorAll('.qd-view'));
  let attached = 0;
  const look = () => {
    const view = [...document.querySelectorAll('.qd-view')].find(one => !before.has(one));
    if (view && !attached) attached = performance.now();
    if (view && view.querySelector('.qd-plot canvas')) {
      return requestAnimationFrame(() => done([performance.now() - began, performance.now() - attached]));
    }
    requestAnimationFrame(look);
  };
  look();
})"""


def stream(served: Server, browser: Browser) -> list[Line]:
    """8 ranks x 1,000 calls a second, two metrics each."""
    notebook = BrowserNotebook(served, browser, [LOAD, STREAM])
    received: list[float] = []

    def count(socket: WebSocket) -> None:
        socket.on("framereceived", lambda _: received.append(time.monotonic()))

    notebook.page.on("websocket", count)
    notebook.open()
    notebook.run(0)
    notebook.start(1)
    notebook.view(1).locator(".qd-plot canvas").first.wait_for()
    time.sleep(2)
    kernel = psutil.Process(served.kernel_pid())
    before, began_s, began_messages = _cpu_s([kernel]), time.monotonic(), len(received)
    within, p95 = notebook.page.evaluate(FRAMES, WATCHED_S)
    took_s = time.monotonic() - began_s
    messages, cpu = (len(received) - began_messages) / took_s, (_cpu_s([kernel]) - before) / took_s
    notebook.finish()
    notebook.close()
    return [
        Line("frames within 33 ms, 8 ranks x 1,000 `qd.log` a second",
             f"**{100 * within:.0f}** %, p95 {p95:.0f} ms", target=">= 95 %", n=f"{WATCHED_S} s"),
        Line("messages to the browser a second, the same",
             f"**{messages:.0f}**", "logged: 8,000", n=f"{WATCHED_S} s"),
        Line("processor time of the kernel, the same", f"**{100 * cpu:.0f}** % of a core",
             n=f"{WATCHED_S} s"),
    ]  # fmt: skip


def million(served: Server, browser: Browser, repeats: int) -> list[Line]:
    """From running `run.show()` to the first picture, and from the view's element to it."""
    notebook = BrowserNotebook(served, browser, [LOAD, MILLION, *[SHOW] * (repeats + 1)])
    notebook.run(0)
    notebook.run(1)
    whole: list[float] = []
    drawn: list[float] = []
    for cell in range(2, repeats + 3):
        found: Any = notebook.page.evaluate(
            f"async (cell) => {{ const drawn = ({DRAWN})();"
            " const panel = window.jupyterapp.shell.currentWidget; panel.content.activeCellIndex = cell;"
            " void window.jupyterapp.commands.execute('notebook:run-cell'); return await drawn; }",
            cell,
        )
        notebook.finish()
        if cell > 2:  # the first one imports
            whole.append(found[0])
            drawn.append(found[1])
        notebook.output(cell).evaluate("element => element.remove()")
    notebook.close()
    return [
        Line("`run.show()` of 10^6 values, to the first picture", spread(whole, "ms"), n=str(repeats)),
        Line("the same, from the view's element on", spread(drawn, "ms"), target="< 100 ms", n=str(repeats)),
    ]


def weight() -> list[Line]:
    bundle = (ROOT / "src/quarterdeck/views/static/run_view.js").read_bytes()
    packed = len(gzip.compress(bundle, 9)) / 1000
    return [
        Line(
            "the view's bundle, with uPlot and styles",
            f"**{len(bundle) / 1000:.0f}** kB, {packed:.0f} kB gzipped",
        )
    ]


def _cpu_s(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        server(Path(folder) / "root") as served,
        chromium() as browser,
    ):
        began = psutil.getloadavg()[0]
        lines = [*stream(served, browser), *million(served, browser, repeats=5), *weight()]
    print(f"load average {began:.1f} before, {psutil.getloadavg()[0]:.1f} after\n\n{markdown(lines)}")


if __name__ == "__main__":
    main()
