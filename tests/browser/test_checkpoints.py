"""What a person sees and does in the checkpoint browser, in JupyterLab and Notebook 7."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, expect

from support.browser import BrowserNotebook, Server

Open = Callable[..., BrowserNotebook]

SAVE = """import os, pathlib, quarterdeck as qd, torch
folder = pathlib.Path.cwd() / os.urandom(4).hex()
def save(step, **more):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
    with torch.no_grad():
        model[1].weight.mul_(1 + step)
    metrics = {"loss": 1 / (1 + step), "accuracy": step / 10}
    return qd.save_checkpoint(
        model, step=step, directory=folder, wait=True, metrics=metrics,
        hyperparameters={"lr": 0.1 * step, "seed": 7}, **more)
for step in range(4):
    save(step)
%load_ext quarterdeck
"""
SHOW = "qd.checkpoints(folder)"
SET_SOURCE = (
    """(code) => window.jupyterapp.shell.currentWidget.content.widgets[2].model.sharedModel.setSource(code)"""
)


Shelf = Callable[..., tuple[BrowserNotebook, Locator]]


@pytest.fixture(scope="module")
def shared(jupyter: Server, browser: Browser) -> Iterator[BrowserNotebook]:
    """One notebook for the tests that need no other: a page and a kernel with torch take their time."""
    notebook = BrowserNotebook(jupyter, browser, [SAVE, SHOW, ""])
    yield notebook
    notebook.close()


@pytest.fixture
def shelf(shared: BrowserNotebook) -> Shelf:
    """Four new checkpoints, a browser below cell 1 that shows them, and a third cell as given."""

    def one(third: str = "") -> tuple[BrowserNotebook, Locator]:
        shared.page.evaluate(SET_SOURCE, third)
        return shared, shown(shared)

    return one


def shown(notebook: BrowserNotebook) -> Locator:
    notebook.run(0)
    notebook.run(1)
    view = notebook.output(1).locator(".qd-shelf")
    expect(view.get_by_role("treeitem", name=re.compile("^Step"))).to_have_count(4)
    return view


def steps(view: Locator) -> list[str]:
    return view.locator(".qd-ck-row .qd-ck-step").all_inner_texts()


def row(view: Locator, step: int) -> Locator:
    return view.get_by_role("treeitem", name=re.compile(f"^Step {step},"))


def in_kernel(notebook: BrowserNotebook, cell: int) -> str:
    return notebook.run(cell).inner_text()


def test_it_lists_what_is_there(shelf: Shelf) -> None:
    notebook, view = shelf()
    assert steps(view) == ["3", "2", "1", "0"]
    expect(row(view, 3)).to_contain_text("best")
    expect(view.locator(".qd-ck-title")).to_contain_text("Step 3")
    expect(view.locator(".qd-ck-grid").last).to_contain_text("seed")
    expect(notebook.output(1).locator(".qd-shelf-static")).not_to_be_visible()
    assert not notebook.problems, notebook.problems


def test_new_ones_appear_by_themselves(shelf: Shelf) -> None:
    notebook, view = shelf("save(12)")
    row(view, 1).click()
    notebook.run(2)
    expect(view.locator(".qd-ck-row .qd-ck-step").first).to_have_text("12", timeout=5000)
    expect(view.locator(".qd-ck-title")).to_contain_text("Step 1")


def test_sorting_and_filtering(shelf: Shelf) -> None:
    _, view = shelf()
    view.get_by_role("button", name="Sort by accuracy").click()
    assert steps(view) == ["3", "2", "1", "0"]
    view.get_by_role("button", name="Sort by accuracy").click()
    assert steps(view) == ["0", "1", "2", "3"]
    view.get_by_label("Filter checkpoints").fill("accuracy > 0.1")
    assert steps(view) == ["2", "3"]
    view.get_by_label("Filter checkpoints").fill("accuracy > 7")
    expect(view).to_contain_text("No checkpoint matches.")
    view.get_by_role("button", name="Clear the filter").click()
    assert len(steps(view)) == 4


def test_the_keyboard_does_it_all(shelf: Shelf) -> None:
    """And the notebook around hears none of it: `j`, `k` and `d` are shortcuts of its own."""
    notebook, view = shelf("1 + 1")
    keys = notebook.page.keyboard
    view.get_by_role("tree", name="Checkpoints").focus()
    title = view.locator(".qd-ck-title")
    keys.press("j")
    expect(title).to_contain_text("Step 2")
    keys.press("ArrowDown")
    expect(title).to_contain_text("Step 1")
    keys.press("k")
    expect(title).to_contain_text("Step 2")
    keys.press("p")
    expect(title).to_contain_text("pinned")
    expect(row(view, 2)).to_contain_text("pinned")
    keys.press("/")
    keys.type("best")
    assert steps(view) == ["3"]
    keys.press("Escape")
    assert len(steps(view)) == 4
    keys.press("Home")
    keys.press("Enter")
    assert len(steps(view)) == 0, "the head folds its group"
    keys.press("Enter")
    keys.press("End")
    keys.press("Delete")
    expect(view).to_contain_text("Deleted step 0.")
    assert steps(view) == ["3", "2", "1"]
    expect(notebook.page.locator(".jp-Notebook .jp-Cell")).to_have_count(3)
    named = view.evaluate(
        "element => [...element.querySelectorAll('button, input, select, [tabindex=\"0\"]')]"
        ".filter(one => one.checkVisibility())"
        ".map(one => one.getAttribute('aria-label') || one.innerText || one.labels?.[0]?.innerText || '')"
    )
    assert all(name.strip() for name in named), named


def test_a_tensor_shows_its_values(shelf: Shelf) -> None:
    _, view = shelf()
    leaf = view.locator("[data-node='1.weight']")
    leaf.click()
    expect(view.locator(".qd-ck-hist")).to_be_visible(timeout=30_000)
    expect(view).to_contain_text("mean")
    assert view.locator(".qd-ck-hist rect").count() > 5
    row(view, 2).click()
    expect(view.locator(".qd-ck-title")).to_contain_text("Step 2")
    expect(view.locator(".qd-ck-hist")).to_be_visible()


def test_two_are_compared(shelf: Shelf) -> None:
    notebook, view = shelf()
    view.get_by_role("tree", name="Checkpoints").focus()
    row(view, 1).click()
    notebook.page.keyboard.press(" ")
    row(view, 3).click()
    notebook.page.keyboard.press(" ")
    view.get_by_role("button", name="Compare").click()
    values = view.get_by_role("table", name="Values")
    expect(values).to_contain_text("lr")
    expect(values).not_to_contain_text("seed")
    changes = view.get_by_role("table", name="Tensors")
    expect(changes.locator("tbody tr").first).to_contain_text("1.weight", timeout=30_000)
    expect(changes.locator("tbody tr").first).to_contain_text("1.000")
    expect(changes).to_contain_text("3 equal")
    view.get_by_label("only differences").uncheck()
    expect(values).to_contain_text("seed")


def test_deleting_can_be_undone(shelf: Shelf) -> None:
    _, view = shelf()
    row(view, 2).click()
    view.get_by_role("button", name="Delete, with undo").click()
    expect(row(view, 2)).to_have_count(0)
    view.get_by_role("button", name="Undo: bring").click()
    expect(row(view, 2)).to_have_count(1)
    expect(view.get_by_role("button", name="Undo: bring")).to_have_count(0)


def test_a_pinned_one_goes_only_when_that_is_confirmed(shelf: Shelf) -> None:
    _, view = shelf()
    view.get_by_role("button", name="Pin", exact=True).click()
    expect(view.get_by_role("button", name="Unpin")).to_be_visible()
    view.get_by_role("button", name="Delete, with undo").click()
    view.get_by_role("button", name="Keep").click()
    assert len(steps(view)) == 4
    view.get_by_role("button", name="Delete, with undo").click()
    view.get_by_role("button", name="Delete", exact=True).click()
    expect(row(view, 3)).to_have_count(0)


def test_loading_makes_a_variable(shelf: Shelf) -> None:
    notebook, view = shelf("print(best.step, best.model['1.weight'].shape)")
    name = view.get_by_label("Name of the variable")
    name.fill("save")
    view.get_by_role("button", name="Load into").click()
    expect(view.get_by_role("alert")).to_contain_text("is a variable of the notebook already (function)")
    name.fill("best")
    view.get_by_role("button", name="Load into").click()
    expect(view.get_by_text("holds step 3")).to_be_visible(timeout=30_000)
    assert "3 torch.Size([2, 8])" in in_kernel(notebook, 2)


def test_resuming_gives_the_code_and_runs_nothing(shelf: Shelf) -> None:
    notebook, view = shelf()
    view.get_by_role("button", name="Resume from here").click()
    code = view.locator(".qd-ck-code pre")
    expect(code).to_contain_text("%%distributed --resume")
    expect(code).to_contain_text("step-00000003")
    assert not notebook.busy()
    assert not (notebook.server.folder / ".quarterdeck" / "runs").exists()


def test_exporting_writes_one_file(shelf: Shelf) -> None:
    notebook, view = shelf()
    view.get_by_role("button", name="Export to one file").click()
    view.get_by_role("button", name="Weights, .safetensors").click()
    expect(view.get_by_text("Exported to")).to_be_visible(timeout=30_000)
    assert [
        path
        for path in Path(notebook.server.folder).glob("*-step-3.safetensors")
        if path.stat().st_size > 100
    ]


def test_damage_is_told_and_harms_nothing_else(shelf: Shelf) -> None:
    code = "(folder / 'step-00000002' / 'model.safetensors').unlink()\nqd.checkpoints(folder)"
    notebook, _ = shelf(code)
    view = notebook.run(2).locator(".qd-shelf")
    expect(row(view, 2)).to_contain_text("incomplete, skipped")
    row(view, 2).click()
    expect(view.locator(".qd-ck-detail")).to_contain_text("its file model.safetensors is missing")
    expect(view.get_by_role("button", name="Load into")).to_have_count(0)


def test_it_follows_theme_and_width(shelf: Shelf) -> None:
    notebook, view = shelf()
    notebook.page.set_viewport_size({"width": 620, "height": 1400})
    expect(view).to_have_class(re.compile("qd-narrow"))
    assert view.evaluate("element => element.scrollWidth <= element.clientWidth")
    boxes = [view.locator(name).bounding_box() for name in (".qd-ck-left", ".qd-ck-detail")]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[1]["y"] >= boxes[0]["y"] + boxes[0]["height"], "the detail stands below the list"
    paint = "element => getComputedStyle(element).backgroundColor"
    light = view.evaluate(paint)
    notebook.theme("JupyterLab Dark")
    dark = view.evaluate(paint)
    notebook.theme("JupyterLab Light")
    notebook.page.set_viewport_size({"width": 1280, "height": 1600})
    assert sum(map(int, re.findall(r"\d+", light)[:3])) > 700
    assert sum(map(int, re.findall(r"\d+", dark)[:3])) < 120


def test_a_thousand_are_a_few_lines_in_the_page(shelf: Shelf) -> None:
    link = (
        "first = folder / 'step-00000000'\n"
        "for step in range(4, 1000):\n"
        "    there = folder / f'step-{step:08d}'\n"
        "    there.mkdir()\n"
        "    for file in first.iterdir(): os.link(file, there / file.name)\n"
        "qd.checkpoints(folder)"
    )
    notebook, _ = shelf(link)
    view = notebook.run(2).locator(".qd-shelf")
    expect(view).to_contain_text("1,000 in 1 run")
    assert view.locator(".qd-ck-line").count() < 60
    began = time.monotonic()
    view.get_by_label("Filter checkpoints").fill("step-00000999")
    expect(view.locator(".qd-ck-row")).to_have_count(1)
    assert time.monotonic() - began < 2


# What follows ends kernels, that of the shared notebook among them.


@pytest.fixture(scope="module")
def folder(shared: BrowserNotebook) -> str:
    """Four checkpoints, for kernels without torch."""
    shown(shared)
    shared.page.evaluate(SET_SOURCE, "print(folder)")
    return shared.run(2).inner_text().strip()


def test_it_works_in_notebook_7(folder: str, opened: Open) -> None:
    notebook = opened(["%load_ext quarterdeck", f"%checkpoints {folder}"], app="notebook")
    notebook.run(0)
    view = notebook.run(1).locator(".qd-shelf")
    row(view, 1).click()
    expect(view.locator(".qd-ck-title")).to_contain_text("Step 1")
    expect(view.locator(".qd-ck-grid").last).to_contain_text("seed")


def test_a_saved_notebook_keeps_the_table(folder: str, opened: Open) -> None:
    notebook = opened(["%load_ext quarterdeck", f"%checkpoints {folder}"])
    notebook.run(0)
    expect(notebook.run(1).locator(".qd-ck-row")).to_have_count(4)
    saved = notebook.save()
    assert "widgets" not in saved["metadata"]
    notebook.server.end_kernels()
    notebook.open()
    output = notebook.output(1)
    expect(output.locator(".qd-shelf-static")).to_be_visible()
    expect(output.locator(".qd-shelf-static")).to_contain_text("best loss, accuracy")
    expect(output.get_by_text("model not found")).not_to_be_visible()
