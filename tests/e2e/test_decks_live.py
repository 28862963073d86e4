"""`qd.Deck` in cells and functions: there while the cell runs, after a kill, in a later kernel."""

import os
import re
import signal
from pathlib import Path

import pytest

from quarterdeck.decks.of_run import RunDecks
from quarterdeck.decks.reader import StoredDecks
from support.notebook import Notebook
from support.waiting import until

DEADLINE_S = 30


@pytest.fixture(autouse=True, scope="module")
def prepared(notebook: Notebook) -> None:
    notebook.ok("import os, sys, time, quarterdeck as qd")
    notebook.ok("two = qd.Elastic(nproc_per_node=2)")


def folder_of(notebook: Notebook, name: str) -> Path:
    runs = notebook.folder / ".quarterdeck" / "runs"
    return until(lambda: sorted(runs.glob(f"*-{name}")), DEADLINE_S)[-1]


def until_kept(folder: Path, rank: int, name: str, html: str) -> None:
    """Until it is in the run's folder, as any other process reads it."""
    until(lambda: (body := StoredDecks(folder).body(name, rank)) and html in body.html, DEADLINE_S)


def test_a_deck_is_there_while_the_cell_runs(notebook: Notebook) -> None:
    cell = notebook.start(
        "%%distributed --name alive\nqd.Deck('report', f'<b>rank {rank}</b>')\n"
        "while not os.path.exists('go'): time.sleep(0.01)\nqd.Deck('report').append('the end')"
    )
    folder = folder_of(notebook, "alive")
    for rank in (0, 1):
        until_kept(folder, rank, "report", f"<b>rank {rank}</b>")
    assert "the end" not in StoredDecks(folder).page("report")
    (notebook.folder / "go").touch()
    assert notebook.finish(cell).status == "ok"

    assert "the end" in StoredDecks(folder).page("report", 1)
    assert notebook.ok("qd.runs()['alive'].decks[1]['report'].html").text == "'<b>rank 1</b>\\nthe end'"


def test_the_last_words_of_a_killed_rank_are_kept(notebook: Notebook) -> None:
    ran = notebook.fails(
        "%%distributed --name killed\ndeck = qd.Deck('words')\n"
        "for i in range(1000): deck.append(f'word {i}')\n"
        f"time.sleep(0.3)\nif rank == 1: os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
        "import torch.distributed as dist\ndist.barrier()"
    )
    assert "rank 1 was killed" in ran.traceback
    decks = RunDecks(folder_of(notebook, "killed"))
    for rank in (0, 1):
        assert decks[rank]["words"].html.endswith("word 999")
    assert notebook.ok("sorted(qd.runs()['killed'].decks)").text == "[0, 1]"
    notebook.ok("%%distributed\nimport os, time, quarterdeck as qd")


def test_what_was_appended_before_an_exception_or_an_interrupt_is_kept(notebook: Notebook) -> None:
    notebook.fails(
        "%%distributed --name raises\nfor i in range(100): qd.Deck('x').append(f'<i>{i}</i>')\n"
        "raise ValueError('no')"
    )
    cell = notebook.start(
        "%%distributed --name stopped\nfor i in range(100): qd.Deck('x').append(f'<i>{i}</i>')\n"
        "print('waiting')\ntime.sleep(60)"
    )
    notebook.until("[0–1] waiting")
    notebook.interrupt()
    assert notebook.finish(cell).status == "error"
    for name in ("raises", "stopped"):
        decks = RunDecks(folder_of(notebook, name))
        assert [decks[rank]["x"].html.count("<i>") for rank in (0, 1)] == [100, 100]


def test_a_cell_that_writes_a_deck_is_on_record(notebook: Notebook) -> None:
    before = int(notebook.ok("len(qd.runs())").text)
    notebook.ok("%%distributed\nqd.Deck('only this').append({'a': rank})")

    assert int(notebook.ok("len(qd.runs())").text) == before + 1
    assert "only this" in notebook.ok("qd.runs()[0].decks").text


def test_tensors_and_modules_are_rendered_where_they_are(notebook: Notebook) -> None:
    notebook.ok(
        "%%distributed --name objects\nimport torch\nqd.Deck('objects').append(torch.rand(100, 7))"
        ".append(torch.nn.Linear(7, 3)).append(torch.rand(3, 32, 32))"
    )
    html = RunDecks(folder_of(notebook, "objects"))[1]["objects"].html
    for said in ("100 × 7", "24 parameters", "data:image/png"):
        assert said in html


def test_a_function_has_its_automatic_decks(notebook: Notebook) -> None:
    notebook.ok(
        "@qd.distributed(two, name='automatic')\n"
        "def train(lr, steps=3):\n"
        "    qd.Deck('mine', 'my own')\n"
        "    return {'loss': lr * steps}\n"
        "train(0.25)"
    )
    stored = StoredDecks(folder_of(notebook, "automatic"))

    assert [head.name for head in stored.heads()] == [
        "Timeline", "mine", "Source Code", "Environment", "Input", "Output",
    ]  # fmt: skip
    assert "<code>0.25</code>" in stored.page("Input", 1)
    assert "<code>0.75</code>" in stored.page("Output", 1)
    assert "def" in stored.page("Source Code")
    assert "torch" in stored.page("Environment")
    assert "packages" in stored.page("Environment")
    assert "start-up" in stored.page("Timeline")
    assert notebook.ok("[d.name for d in qd.runs()[0].results[1].decks]").text == "['mine']"


def test_deck_fields_chooses_them(notebook: Notebook) -> None:
    notebook.ok(
        "@qd.distributed(two, name='none', deck_fields=())\ndef none(x): return x\nnone(1)\n"
        "@qd.distributed(two, name='some', deck_fields=['Dependencies', 'Output'])\n"
        "def some(x): return x\nsome(1)"
    )
    assert StoredDecks(folder_of(notebook, "none")).heads() == []
    heads = StoredDecks(folder_of(notebook, "some")).heads()
    assert [head.name for head in heads] == ["Environment", "Output"]
    ran = notebook.fails("qd.distributed(two, deck_fields=['Inputs'])")
    assert "there are Timeline, Source Code" in ran.traceback


def test_a_function_s_error_is_the_user_s_with_all_decks_on(notebook: Notebook) -> None:
    ran = notebook.fails("@qd.distributed(two)\ndef fails(x): raise LookupError(x)\nfails(3)")

    assert "LookupError" in ran.traceback
    assert "arguments.py" not in ran.traceback
    assert "Input" in notebook.ok("qd.runs()[0].decks[0]").text


def test_data_loader_workers_cannot_harm_a_deck(notebook: Notebook) -> None:
    notebook.ok(
        "%%distributed --name loader\nimport torch\nqd.Deck('x', 'before')\n"
        "class Writing(torch.utils.data.Dataset):\n"
        "    def __len__(self): return 8\n"
        "    def __getitem__(self, i):\n"
        "        qd.Deck('x').append('child')\n"
        "        return i\n"
        "for batch in torch.utils.data.DataLoader(Writing(), num_workers=2): pass\n"
        "qd.Deck('x').append('after')"
    )
    assert RunDecks(folder_of(notebook, "loader"))[0]["x"].html == "before\nafter"


def test_a_deck_in_the_notebook_itself_is_shown_in_a_frame(notebook: Notebook) -> None:
    ran = notebook.ok("deck = qd.Deck('here', '<script>alert(1)</script>'); deck")

    around = re.sub(r"(?s)srcdoc=(['\"])(.*?)\1", "", ran.html)
    assert 'sandbox="allow-scripts"' in around
    assert "alert" not in around
    assert notebook.ok("'torch' in sys.modules").text == "False"
    notebook.ok("deck.append(3); deck.save('here.html')")
    assert "Content-Security-Policy" in (notebook.folder / "here.html").read_text()


def test_decks_outlive_the_kernel(new_notebook: Notebook) -> None:
    new_notebook.ok("%load_ext quarterdeck\nimport quarterdeck as qd")
    new_notebook.ok("%%distributed -n 2 --name kept\nqd.Deck('x', f'rank {rank}')")
    os.sync()
    new_notebook.restart()
    assert (
        new_notebook.ok("import quarterdeck as qd; qd.runs()['kept'].decks[1]['x'].html").text == "'rank 1'"
    )
    page = new_notebook.ok("qd.runs()['kept'].decks.merged('x')").html
    assert "rank 0" in page
    assert "rank 1" in page


def test_a_deck_in_a_variable_belongs_to_the_cell_that_adds_to_it(notebook: Notebook) -> None:
    notebook.ok("%%distributed --name makes\nheld = qd.Deck('held'); full = qd.Deck('full', 'first')")
    ran = notebook.ok(
        "%%distributed --name adds\nheld.append('now'); full.append('second')\n"
        "print([deck.name for deck in qd.current().decks])"
    )
    assert "['held', 'full']" in ran.text

    both = "[{n: d.html for n, d in qd.runs()[name].decks[1].items()} for name in ('makes', 'adds')]"
    assert notebook.ok(both).text == "[{'full': 'first'}, {'held': 'now', 'full': 'first\\nsecond'}]"
    assert not [folder for folder in folder_of(notebook, "makes").parent.iterdir()
                if not (folder / "run.json").exists()]  # fmt: skip
