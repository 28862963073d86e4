"""Makes the images in docs/images anew: `python tests/browser/make_images.py [NAME ...]`. Real runs in a real
JupyterLab; by hand, after changes to what the view looks like.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Locator

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from support.browser import BrowserNotebook, Server, chromium, server

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
LIMIT_BYTES = 120_000
SCALE = 1.5
WIDTH = 1160
COLOURS = 256
"""Text stays sharp with few colours, and the files small."""
TO_TOP = "element => element.scrollIntoView({block: 'center'})"
LOAD = """%load_ext quarterdeck
import time
import quarterdeck as qd
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP

digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).flatten(1) / 16
labels = torch.tensor(digits.target)


def accuracy(net):
    with torch.no_grad():
        return (net(images).argmax(1) == labels).float().mean().item()"""
WARM = "%workers start -n 4"
TRAIN = """%%distributed --seed {seed} --name {name}
steps, batch = {steps}, 24
model = DDP(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)))
optimizer = torch.optim.SGD(model.parameters(), lr={lr}, momentum=0.9)
order = torch.randperm(len(labels))
for step in qd.progress(range(steps), desc="step"):
    rows = order[torch.arange(step * batch, (step + 1) * batch) % len(order)]
    time.sleep({pause} + ({lag} if rank == 2 else 0))  # as if rank 2 read from a slower disk
    loss = F.cross_entropy(model(images[rows]), labels[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    qd.log(step, train={{"loss": loss}})
    if step % 10 == 0:
        with qd.span("eval"):
            qd.log(step, val={{"accuracy": accuracy(model)}})
    if step % 50 == 0:
        print(f"step {{step}}: loss {{loss.item():.3f}}")
"""
BROKEN = """%%distributed --seed 1 --name digits
def train_step(x, y):
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


model = DDP(nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
order = torch.randperm(len(labels))
for step in qd.progress(range(200), desc="step"):
    rows = order[(step * 24) % 1700 :][:24]
    x = images[rows][:21] if rank == 1 and step == 134 else images[rows]
    qd.log(step, train={"loss": train_step(x, labels[rows])})
"""
DECK = """%%rank 0
import matplotlib.pyplot as plt
confusion = torch.zeros(10, 10)
with torch.no_grad():
    for truth, read in zip(labels, model.module(images).argmax(1)):
        confusion[truth, read] += 1
figure, axes = plt.subplots(figsize=(3.2, 3.2))
axes.imshow(confusion, cmap="Blues")
axes.set(xlabel="read as", ylabel="is", xticks=range(10), yticks=range(10))
plt.close(figure)
wrong = int(len(labels) - confusion.trace())
qd.Deck("confusion").append(figure).append({"images": len(labels), "wrong": wrong})
network = qd.Deck("network").append(model.module)"""


def train(
    name: str, seed: int = 1, steps: int = 300, pause: float = 0.03, lag: float = 0.0, lr: float = 0.05
) -> str:
    return TRAIN.format(name=name, seed=seed, steps=steps, pause=pause, lag=lag, lr=lr)


class Camera:
    """Opens notebooks, and keeps pictures of their views in IMAGES."""

    def __init__(self, served: Server, browser: Browser) -> None:
        self.served, self.browser = served, browser

    def open(self, *cells: str) -> BrowserNotebook:
        notebook = BrowserNotebook(
            self.served, self.browser, [LOAD, WARM, *cells],
            viewport={"width": WIDTH + 136, "height": 1900}, device_scale_factor=SCALE,
        )  # fmt: skip
        notebook.page.set_default_timeout(90_000)
        notebook.run(0)
        notebook.run(1)
        return notebook

    def take(self, what: Locator, name: str) -> None:
        from PIL import Image

        what.evaluate(TO_TOP)
        image = Image.open(io.BytesIO(what.screenshot(animations="allow"))).convert("RGB")
        path = IMAGES / f"{name}.png"
        with_few_colours(image).save(path, optimize=True)
        print(f"{path.name}: {image.width} x {image.height}, {path.stat().st_size / 1000:.0f} kB")
        assert path.stat().st_size <= LIMIT_BYTES, f"{path} is too large"


def with_few_colours(image: Any) -> Any:
    """Its most frequent colours as they are; others become the nearest of these."""
    import numpy as np
    from PIL import Image

    pixels = np.asarray(image).astype(np.int32) @ [1 << 16, 1 << 8, 1]
    found, places, counts = np.unique(pixels, return_inverse=True, return_counts=True)
    colours = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1)
    kept = colours[np.argsort(counts)[-COLOURS:]]
    nearest = [((kept - colour) ** 2).sum(axis=1).argmin() for colour in colours]
    few = Image.fromarray(np.array(nearest, np.uint8)[places].reshape(image.height, image.width), "P")
    few.putpalette(kept.astype(np.uint8).tobytes())
    return few


def running(camera: Camera) -> None:
    """Light with the values at a step, and dark; a run before it warms the curves' history up."""
    notebook = camera.open(train("digits-mlp", steps=2_000, lag=0.03))
    notebook.start(2)
    view = notebook.view(2)
    view.locator(".qd-rt-warn").wait_for(timeout=60_000)
    notebook.page.wait_for_timeout(6_000)
    view.evaluate(TO_TOP)
    chart = view.locator("figure.qd-chart").first
    chart.hover(position={"x": 0.4 * (chart.bounding_box() or {"width": 500})["width"], "y": 100})
    notebook.page.wait_for_timeout(300)
    camera.take(view, "running-light")
    notebook.page.mouse.move(4, 4)
    notebook.theme("JupyterLab Dark")
    notebook.page.wait_for_timeout(1_000)
    camera.take(view, "running-dark")
    assert notebook.busy(), "the run was over before it was seen"
    view.get_by_role("button", name="Stop").click()
    notebook.finish()
    notebook.theme("JupyterLab Light")
    notebook.close()


def failed(camera: Camera) -> None:
    notebook = camera.open(BROKEN)
    notebook.run(2)
    view = notebook.view(2)
    view.locator(".qd-ft-one").first.wait_for()
    notebook.page.wait_for_timeout(1_500)
    camera.take(view, "failed")
    notebook.close()


def compared(camera: Camera) -> None:
    """Two runs, the first beside the second; then the decks of the second."""
    notebook = camera.open(
        train("lr-0.05", steps=150, pause=0.002), train("lr-0.2", steps=150, pause=0.002, lr=0.2), DECK
    )
    for cell in (2, 3, 4):
        notebook.run(cell)
    view = notebook.view(3)
    view.get_by_role("button", name="Compare").click()
    view.get_by_role("checkbox").first.check()
    notebook.page.keyboard.press("Escape")
    notebook.page.wait_for_timeout(1_500)
    camera.take(view, "compare")
    view.get_by_role("button", name="Decks").click()
    view.locator("[data-deck=Timeline]").click()
    notebook.page.wait_for_timeout(1_500)
    camera.take(view, "timeline")
    view = notebook.view(4)
    view.locator("[data-deck=confusion]").wait_for()
    notebook.page.wait_for_timeout(2_500)
    camera.take(view, "decks")
    page = camera.browser.new_page(viewport={"width": WIDTH, "height": 1200}, device_scale_factor=SCALE)
    page.set_content(as_page(notebook), wait_until="load")
    page.wait_for_timeout(1_000)
    camera.take(page.locator(".jp-Cell").nth(3).locator(".jp-Cell-outputWrapper"), "saved")
    page.close()
    notebook.close()


def as_page(notebook: BrowserNotebook) -> str:
    """What nbconvert makes of the notebook as it was saved."""
    from nbconvert import HTMLExporter

    notebook.save()
    html, _ = HTMLExporter().from_filename(str(notebook.server.folder / notebook.name))
    return str(html)


PICTURES: dict[str, Callable[[Camera], None]] = {"running": running, "failed": failed, "compared": compared}


def main(names: list[str]) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        server(Path(folder) / "root") as served,
        chromium() as browser,
    ):
        for name in names or PICTURES:
            PICTURES[name](Camera(served, browser))


if __name__ == "__main__":
    main(sys.argv[1:])
