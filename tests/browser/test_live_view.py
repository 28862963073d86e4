"""What a person sees in JupyterLab and Notebook 7 while a run goes on, and afterwards."""

from __future__ import annotations

import html
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from support.browser import BrowserNotebook
from support.waiting import until

Open = Callable[..., BrowserNotebook]

LOAD = "%load_ext quarterdeck\nimport time, quarterdeck as qd"
WARM = "%workers start -n 2"
TRAIN = """%%distributed --name {name}
for step in qd.progress(range({steps}), desc="epoch 3"):
    time.sleep({pause})
    qd.log(step=step, **{{"train/loss": 2 / (1 + step / 50) + rank / 10, "val/accuracy": 1 - 1 / (2 + step)}})
    if step % 20 == 0:
        print(f"rank {{rank}} at step {{step}}")
"""
HOSTILE = """%%distributed --name hostile
qd.log(loss=1.0, step=0)
if rank == 0:
    qd.Deck("<img src=x onerror=window.owned=1>").append('''
        <script>
        document.body.dataset.ran = "yes";
        try { parent.document.body.dataset.owned = "yes"; }
        catch (error) { document.body.dataset.parent = error.name; }
        try { top.window.owned = 1; } catch (error) {}
        fetch("/api/status").then(() => { document.body.dataset.net = "open"; },
                                  () => { document.body.dataset.net = "closed"; });
        </script><p id="said">hello from a deck</p>''')
else:
    qd.Deck("second").append("<p>" + "another rank " * 3 + "</p>")
"""


def train(name: str = "digits", steps: int = 300, pause: float = 0.02) -> str:
    return TRAIN.format(name=name, steps=steps, pause=pause)


def state(view: Locator) -> Locator:
    return view.locator(".qd-pill")


def charts(view: Locator) -> Locator:
    return view.locator("figure.qd-chart")


def last_step(view: Locator) -> int:
    """The last step of rank 0 in the table of ranks; -1 while there is none."""
    texts = view.locator("tbody tr").first.locator("td").all_inner_texts()
    step = texts[1].replace(",", "") if len(texts) > 1 else ""
    return int(step) if step else -1


def read_at(chart: Locator, key: str, times: int) -> str:
    """What the chart says where so many keys lead; the first one leads to the last point."""
    chart.focus()
    for _ in range(times):
        chart.press(key)
    return chart.locator("figcaption .qd-sr").inner_text()


@pytest.mark.parametrize("app", ["lab", pytest.param("notebook", marks=pytest.mark.slow)])
def test_curves_grow_while_the_cell_runs(opened: Open, app: str) -> None:
    notebook = opened([LOAD, WARM, train(steps=400)], app=app)
    notebook.run(0)
    notebook.run(1)
    notebook.start(2)
    view = notebook.view(2)
    expect(charts(view)).to_have_count(2)
    expect(state(view)).to_have_text("Running")
    step = -1
    for _ in range(3):
        expect(view.locator(".qd-title")).to_have_text("digits")
        until(lambda before=step: last_step(view) > before)
        step = last_step(view)
    assert notebook.busy(), "the cell was over before it could be watched"
    notebook.finish()
    expect(state(view)).to_have_text("Succeeded")
    expect(charts(view).first).to_contain_text("train/loss")
    assert last_step(view) == 399
    assert not notebook.problems or app == "notebook", notebook.problems


@pytest.mark.parametrize("app", ["lab", pytest.param("notebook", marks=pytest.mark.slow)])
def test_the_stop_button_stops_a_running_cell_at_once(opened: Open, app: str) -> None:
    notebook = opened([LOAD, WARM, train(steps=10_000), "40 + 2"], app=app)
    notebook.run(0)
    notebook.run(1)
    notebook.start(2)
    stop = notebook.view(2).get_by_role("button", name="Stop")
    stop.wait_for()
    until(lambda: last_step(notebook.view(2)) > 0)
    began = time.monotonic()
    stop.click()
    notebook.finish()
    took = time.monotonic() - began
    expect(state(notebook.view(2))).to_have_text("Stopped")
    expect(notebook.output(2)).to_contain_text("stopped by you")
    expect(notebook.run(3)).to_contain_text("42")
    assert took < 3, f"it took {took:.2f} s"  # 0.2 s where nothing else runs; the promise is 1 s


@pytest.mark.slow
def test_a_reloaded_page_has_every_point(opened: Open) -> None:
    notebook = opened([LOAD, WARM, train(steps=250)])
    notebook.run(0)
    notebook.run(1)
    notebook.start(2)
    notebook.view(2).wait_for()
    until(lambda: last_step(notebook.view(2)) > 5)
    notebook.save()
    notebook.open()
    view = notebook.view(2)
    expect(state(view)).to_have_text("Succeeded", timeout=30_000)
    chart = charts(view).first
    last = read_at(chart, "ArrowRight", 1)
    assert re.search(r"\bstep 249\b", last), last
    first = read_at(chart, "Shift+ArrowLeft", 25)
    assert re.search(r"\bstep 0\b", first), first
    assert "rank 1 2.1" in first, first


@pytest.mark.slow
def test_two_runs_and_their_decks_stand_on_one_page(opened: Open) -> None:
    deck = (
        "%%distributed --name {0}\nqd.log(loss=1.0, step=0)\n"
        'qd.Deck("notes").append("<p>this is {0}</p>")\nqd.Deck("more").append("x")'
    )
    notebook = opened([LOAD, WARM, deck.format("first"), deck.format("second")])
    for cell in range(4):
        notebook.run(cell)
    for cell, name in ((2, "first"), (3, "second")):
        view = notebook.view(cell)
        expect(view.locator(".qd-title")).to_have_text(name)
        view.get_by_role("button", name="Decks").click()
        view.locator("[data-deck=notes]").click()
        expect(view.frame_locator("iframe").frame_locator("iframe").locator("body")).to_contain_text(
            f"this is {name}"
        )


def test_a_hostile_deck_touches_nothing(opened: Open) -> None:
    notebook = opened([LOAD, WARM, HOSTILE])
    for cell in range(3):
        notebook.run(cell)
    view = notebook.view(2)
    view.get_by_role("button", name="Decks").click()
    view.locator(".qd-dk-item").filter(has_text="onerror").click()
    body = view.frame_locator("iframe").frame_locator("iframe").locator("body")
    expect(body).to_contain_text("hello from a deck")
    expect(body).to_have_attribute("data-ran", "yes")
    expect(body).to_have_attribute("data-net", "closed")
    expect(body).to_have_attribute("data-parent", "SecurityError")
    assert notebook.page.evaluate("() => [window.owned, document.body.dataset.owned]") == [None, None]
    sandbox = view.locator("iframe").first.get_attribute("sandbox") or ""
    assert "allow-same-origin" not in sandbox


@pytest.mark.slow
def test_it_follows_the_theme(opened: Open) -> None:
    notebook = opened([LOAD, WARM, train(steps=30)])
    for cell in range(3):
        notebook.run(cell)
    view = notebook.view(2)
    paint = "element => getComputedStyle(element).backgroundColor"
    light = view.evaluate(paint)
    notebook.theme("JupyterLab Dark")
    dark = view.evaluate(paint)
    notebook.theme("JupyterLab Light")
    assert sum(map(int, re.findall(r"\d+", light)[:3])) > 700
    assert sum(map(int, re.findall(r"\d+", dark)[:3])) < 120


@pytest.mark.slow
def test_a_narrow_output_shows_all_that_matters(opened: Open) -> None:
    notebook = opened([LOAD, WARM, train(steps=30)], viewport={"width": 620, "height": 1400})
    for cell in range(3):
        notebook.run(cell)
    view = notebook.view(2)
    expect(charts(view)).to_have_count(2)
    box = view.bounding_box()
    assert box is not None
    assert box["width"] < 520
    assert view.evaluate("element => element.scrollWidth <= element.clientWidth")
    boxes = [chart.bounding_box() for chart in charts(view).all()]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[1]["y"] >= boxes[0]["y"] + boxes[0]["height"], "charts stand below each other"


@pytest.mark.slow
def test_everything_can_be_reached_by_keyboard(opened: Open) -> None:
    notebook = opened([LOAD, WARM, train(steps=10_000)])
    notebook.run(0)
    notebook.run(1)
    notebook.start(2)
    view = notebook.view(2)
    expect(charts(view)).to_have_count(2)
    named = view.evaluate(
        "element => [...element.querySelectorAll('button, input, select, [tabindex=\"0\"]')]"
        ".filter(one => one.checkVisibility())"
        ".map(one => one.getAttribute('aria-label') || one.innerText || one.labels?.[0]?.innerText || '')"
    )
    assert named
    assert all(name.strip() for name in named), named
    view.get_by_role("button", name="Output").focus()
    notebook.page.keyboard.press("Enter")
    expect(view.locator(".qd-tabpanel:visible")).to_contain_text("rank 1 at step")
    view.get_by_role("button", name="Stop").focus()
    notebook.page.keyboard.press("Enter")
    notebook.finish()
    expect(state(view)).to_have_text("Stopped")


def test_a_failed_run_shows_its_root_cause(opened: Open) -> None:
    cell = (
        "%%distributed --name broken\n"
        "for step in range(30):\n"
        "    qd.log(loss=1 / (step + 1), step=step)\n"
        "if rank == 1:\n"
        "    raise ValueError('21 images and 24 labels')\n"
        "torch.distributed.barrier()"
    )
    notebook = opened([LOAD + "\nimport torch", WARM, cell])
    for number in range(3):
        notebook.run(number)
    view = notebook.view(2)
    expect(state(view)).to_have_text("Failed")
    expect(view.locator(".qd-tabpanel:visible")).to_contain_text(
        "ValueError on rank 1: 21 images and 24 labels"
    )


@pytest.mark.slow
def test_a_run_that_was_restarted_and_then_killed_is_told_alike_everywhere(opened: Open) -> None:
    """Each failure is one sentence, whole, in the cell, in the view, in the saved notebook and in Python."""
    cell = (
        "%%distributed --name twice --max-restarts 1\n"
        "import os, signal\n"
        "qd.log(loss=1.0, step=0)\n"
        "print('nearly there', flush=True)\n"
        "if rank == 1:\n"
        "    if qd.current().attempt == 0:\n"
        "        raise qd.RecoverableError('the disk was away')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "torch.distributed.barrier()"
    )
    told = "run = qd.runs()['twice']; print(run.reason, [o.evidence for o in run.outcomes if o.rank == 1])"
    notebook = opened([LOAD + "\nimport torch", WARM, cell, told])
    for number in range(4):
        notebook.run(number)
    died = "rank 1 was killed by SIGKILL: most likely by the out-of-memory killer or by `kill -9`"
    earlier = "RecoverableError on rank 1: the disk was away"
    expect(notebook.output(3)).to_contain_text(died)
    expect(notebook.output(3)).to_contain_text("Evidence(label='Its last output', text='nearly there')")
    assert died in notebook.output(2).inner_text()
    panel = notebook.view(2).locator(".qd-tabpanel:visible")
    shown = panel.inner_text()
    assert died[1:] in shown
    assert "Peak memory" in shown
    assert "nearly there" in shown
    assert "Take a smaller batch" in shown
    assert shown.count("Earlier:") == 1
    assert f"Earlier: {earlier}" in shown

    def saved() -> str:
        outputs = notebook.save()["cells"][2]["outputs"]
        return "".join("".join(output.get("data", {}).get("text/html", "")) for output in outputs)

    until(lambda: died in html.unescape(saved()))  # nobody waits for the last one, as the view shows it


@pytest.mark.slow
def test_an_earlier_run_is_drawn_beside(opened: Open) -> None:
    notebook = opened([LOAD, WARM, train("one", 40, 0.005), train("two", 40, 0.005)])
    for cell in range(4):
        notebook.run(cell)
    view = notebook.view(3)
    view.get_by_role("button", name="Compare").click()
    view.get_by_role("checkbox").first.check()
    expect(view.locator(".qd-legend")).to_contain_text("one")


@pytest.mark.slow
def test_show_draws_a_run_of_the_store_again(opened: Open) -> None:
    notebook = opened([LOAD, WARM, train(steps=40), "qd.runs()[0].show()"])
    for cell in range(4):
        notebook.run(cell)
    view = notebook.view(3)
    expect(charts(view)).to_have_count(2)
    expect(state(view)).to_have_text("Succeeded")
    expect(view.locator(".qd-tabpanel:visible")).to_contain_text("rank 0 at step 20")


@pytest.mark.slow
def test_a_saved_notebook_shows_the_run_without_its_kernel(opened: Open) -> None:
    """The kernel is killed in the middle of the run; the file is opened with another one."""
    notebook = opened([LOAD, WARM, train(steps=10_000)])
    notebook.run(0)
    notebook.run(1)
    notebook.start(2)
    expect(charts(notebook.view(2))).to_have_count(2)

    def kept() -> set[str]:
        return {mime for output in notebook.save()["cells"][2]["outputs"] for mime in output.get("data", {})}

    until(lambda: {"image/png", "text/html"} <= kept())
    assert "widgets" not in notebook.save()["metadata"]
    os.kill(notebook.server.kernel_pid(), signal.SIGKILL)
    notebook.server.end_kernels()
    notebook.open()
    output = notebook.output(2)
    expect(output.locator("img").first).to_be_visible()
    expect(output.locator(".qd-static")).to_contain_text("at step")
    expect(output.get_by_text("Error displaying widget")).to_have_count(0, timeout=3000)
    expect(output.get_by_text("model not found")).not_to_be_visible()


def test_a_notebook_without_a_page_gets_no_widget(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    document = nbformat.v4.new_notebook()
    document.cells = [nbformat.v4.new_code_cell(code) for code in (LOAD, WARM, train(steps=20))]
    NotebookClient(
        document, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = document.cells[2].outputs
    mimes = {mime for output in outputs for mime in output.get("data", {})}
    assert "image/png" in mimes
    assert not any("widget" in mime for mime in mimes)
    assert "widgets" not in document.metadata


def test_the_output_tab_shows_the_lines_of_the_cell_and_those_of_one_rank(opened: Open) -> None:
    cell = (
        "%%distributed --name said\n"
        "qd.log(loss=1.0, step=0)\n"
        "print('both ranks')\n"
        "print(f'only rank {rank}')\n"
        "print('a.b\\rA')\n"
        "print('\\x1b[1;31mred\\x1b[0m alert')\n"
        "if rank == 0:\n"
        "    time.sleep(3)\n"
        "print('late on rank 0')\n"
        "print('unfinished', end='', flush=True)"
    )
    notebook = opened([LOAD, WARM, cell])
    notebook.run(0)
    notebook.run(1)
    above = notebook.run(2)
    view = notebook.view(2)
    view.get_by_role("button", name="Output").click()
    lines = view.locator(".qd-out-x")
    texts = [
        text for one in above.locator(".qd pre").all_inner_texts() for text in one.strip("\n").split("\n")
    ]
    assert set(texts) == {
        "both ranks", "only rank 0", "only rank 1", "A.b", "red alert", "late on rank 0", "unfinished",
    }  # fmt: skip
    expect(lines).to_have_text(texts)
    expect(lines.get_by_text("red", exact=True).first).to_have_css("font-weight", "700")
    view.get_by_label("Output of").get_by_role("button", name="1").click()
    expect(lines.get_by_text("only rank 0")).to_have_count(0)
    assert lines.all_inner_texts() == [
        "both ranks", "only rank 1", "A.b", "red alert", "late on rank 0", "unfinished",
    ]  # fmt: skip
