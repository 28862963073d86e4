"""tqdm and TensorBoard in worker code: seen as progress and curves, without a change to the code."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.metrics.progress import Bar, read_progress
from support.notebook import Notebook


@pytest.fixture(autouse=True, scope="module")
def prepared(notebook: Notebook) -> None:
    notebook.ok("import quarterdeck as qd")
    notebook.ok(
        "%%distributed\nimport os, sys, time, quarterdeck as qd\n"
        "from quarterdeck.metrics.progress import read_progress\n"
        "def bars(): return read_progress(qd.current().run_dir, 0).get(rank, [])"
    )


def last_run(notebook: Notebook) -> Path:
    return max((notebook.folder / ".quarterdeck" / "runs").glob("*"))


def bars_of(notebook: Notebook, code: str) -> tuple[list[Bar], str]:
    """Rank 1's after a cell, and what the cell printed. A name puts every cell on record."""
    text = notebook.ok(f"%%distributed --name hooks\n{code}").text
    return read_progress(last_run(notebook), 0).get(1, []), text


def short(bars: list[Bar]) -> list[tuple[str, int, int | None, bool]]:
    return [(bar.desc, bar.n, bar.total, bar.done) for bar in bars]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("from tqdm import tqdm\nfor i in tqdm(range(7), desc='plain'): pass", ("plain", 7, 7, True)),
        ("from tqdm import trange\nfor i in trange(5): pass", ("", 5, 5, True)),
        ("from tqdm.auto import tqdm\nfor i in tqdm(iter('ab')): pass", ("", 2, None, True)),
        ("from tqdm.notebook import tqdm\nfor i in tqdm(range(3), display=True): pass", ("", 3, 3, True)),
        ("from tqdm.notebook import trange\nfor i in trange(1, 4): pass", ("", 3, 3, True)),
        ("import tqdm\nfor i in tqdm.tqdm(range(4), 'first'): pass", ("first", 4, 4, True)),
        ("from tqdm import tqdm\nfor i in tqdm(range(4), file=sys.stderr): pass", ("", 4, 4, True)),
        ("from tqdm import tqdm\nfor i in tqdm([1], 'p', 1, True, sys.stdout): pass", ("p", 1, 1, True)),
        ("from tqdm import tqdm\nfor i in tqdm(range(9), leave=False): pass", ("", 9, 9, True)),
        (
            (
                "from tqdm import tqdm\nbar = tqdm(total=10)\nbar.set_description('by hand')\n"
                "for i in range(3): bar.update(2)\nbar.close()"
            ),
            ("by hand", 6, 10, True),
        ),
        ("from tqdm import tqdm\nwith tqdm(total=2.5, desc='x') as b: b.update(2.5)", ("x", 2, 2, True)),
        (
            (
                "from tqdm import tqdm\nbar = tqdm(total=3)\nbar.update(3)\nbar.reset(total=5)\n"
                "bar.update(1)\nbar.close()"
            ),
            ("", 1, 5, True),
        ),
        (
            "from tqdm import tqdm\nfor i in tqdm(range(8), 'broken'):\n    if i == 3: break",
            ("broken", 3, 8, True),
        ),
    ],
)
def test_a_bar_of_tqdm_is_progress_and_prints_nothing(
    notebook: Notebook, code: str, expected: tuple[Any, ...]
) -> None:
    bars, text = bars_of(notebook, code)
    assert short(bars) == [expected]
    assert "%|" not in text
    assert "it/s" not in text


def test_bars_in_bars(notebook: Notebook) -> None:
    bars, _ = bars_of(
        notebook,
        "from tqdm import tqdm, trange\n"
        "for epoch in trange(2, desc='epoch'):\n"
        "    for batch in tqdm(range(3), desc=f'batch of {epoch}'):\n"
        "        found = [(bar.desc, bar.done) for bar in bars()]\n"
        "        assert found == [('epoch', False), (f'batch of {epoch}', False)], found",
    )
    assert short(bars) == [("epoch", 2, 2, True), ("batch of 1", 3, 3, True)]


def test_a_bar_is_seen_while_it_goes(notebook: Notebook) -> None:
    bars_of(
        notebook,
        "from tqdm import tqdm\n"
        "for i in tqdm(range(8)):\n    time.sleep(0.12)\n    assert bars()[0].n >= i - 1",
    )


def test_write_still_prints(notebook: Notebook) -> None:
    _, text = bars_of(
        notebook, "from tqdm import tqdm\nfor i in tqdm(range(2)): tqdm.write(f'at {i} of {rank}')"
    )
    assert "at 1 of 0" in text
    assert "at 1 of 1" in text


def test_a_disabled_bar_is_none(notebook: Notebook) -> None:
    bars, _ = bars_of(
        notebook, "from tqdm import tqdm\nassert sum(tqdm(range(4), disable=True)) == 6\nbars()"
    )
    assert bars == []


def test_a_bar_for_a_file_of_one_s_own_goes_there_too(notebook: Notebook) -> None:
    bars, text = bars_of(
        notebook,
        "from tqdm import tqdm\n"
        "with open(f'bar-{rank}.txt', 'w') as f:\n    for i in tqdm(range(4), file=f): pass",
    )
    assert short(bars) == [("", 4, 4, True)]
    assert "4/4" in (notebook.folder / "bar-1.txt").read_text()
    assert "4/4" not in text


def test_an_exception_in_a_bar_comes_through(notebook: Notebook) -> None:
    ran = notebook.fails(
        "%%distributed --name failing\nfrom tqdm import tqdm\n"
        "for i in tqdm(range(5), 'fails'):\n    if i == 2: raise ValueError('third')"
    )
    assert "ValueError: third" in ran.traceback
    assert short(read_progress(last_run(notebook), 0)[0]) == [("fails", 2, 5, True)]


def test_a_bar_that_is_kept_goes_on_in_the_next_cell(notebook: Notebook) -> None:
    first, _ = bars_of(
        notebook, "from tqdm import tqdm\nkept = tqdm(total=9, desc='kept', mininterval=0)\nkept.update(4)"
    )
    assert short(first) == [("kept", 4, 9, True)]
    second, _ = bars_of(notebook, "kept.update(1)\nkept.close()")
    assert short(second) == [("kept", 5, 9, True)]


def test_tqdm_in_the_notebook_itself_is_as_it_was(notebook: Notebook) -> None:
    assert "5/5" in notebook.ok("from tqdm import tqdm\nfor i in tqdm(range(5)): pass").text


# ---- TensorBoard


WRITER = (
    "from torch.utils.tensorboard import SummaryWriter\n"
    "writer = SummaryWriter(f'own-{rank}')\n"
    "for step in range(5):\n"
    "    writer.add_scalar('train/loss', 1 / (step + 1), step)\n"
    "    writer.add_scalars('val', {'a': step, 'b': 2 * step}, step)\n"
    "writer.add_scalar('counted', 3.0)\nwriter.add_scalar('counted', 4.0)\n"
    "import torch\nwriter.add_scalar('tensor', torch.tensor(0.5), global_step=7)\n"
    "writer.add_text('words', 'not a number', 0)\nwriter.close()"
)


def scalars(folder: Path) -> dict[str, list[list[float]]]:
    """What TensorBoard itself reads there, in a process of its own: it takes its time to import."""
    code = (
        "import json, sys\nfrom tensorboard.backend.event_processing import event_accumulator\n"
        "found = event_accumulator.EventAccumulator(sys.argv[1], size_guidance={'scalars': 0})\n"
        "tags = found.Reload().Tags()['scalars']\n"
        "print(json.dumps({tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in tags}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=90, check=True
    )
    found: dict[str, list[list[float]]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_scalars_for_tensorboard_are_metrics(notebook: Notebook) -> None:
    notebook.ok(f"%%distributed --name board\n{WRITER}")
    notebook.ok("metrics = qd.runs()['board'].metrics")
    assert notebook.ok("sorted(metrics)").text == "['counted', 'tensor', 'train/loss', 'val/a', 'val/b']"
    assert notebook.ok("list(metrics['train/loss'].values(1))[:2]").text == "[1.0, 0.5]"
    assert notebook.ok("list(metrics['val/b'].values(0))").text == "[0.0, 2.0, 4.0, 6.0, 8.0]"
    assert notebook.ok("list(metrics['counted'].steps(0))").text == "[0, 1]"
    assert notebook.ok("list(metrics['tensor'].steps(1))").text == "[7]"
    own = scalars(notebook.folder / "own-1")
    assert own["train/loss"][1] == [1, 0.5]


def test_what_qd_log_does_not_take_is_tensorboard_s_own(notebook: Notebook) -> None:
    notebook.ok(
        "%%distributed --name odd\nimport numpy as np\nfrom torch.utils.tensorboard import SummaryWriter\n"
        "with SummaryWriter('odd') as writer:\n"
        "    writer.add_scalar('fine', 1.0, 1)\n"
        "    writer.add_scalar('float step', 1.0, np.float32(2.5))"
    )
    assert notebook.ok("sorted(qd.runs()['odd'].metrics)").text == "['fine']"


def test_event_files_beside_the_run(notebook: Notebook) -> None:
    notebook.ok(
        "%%distributed --tensorboard events --name evented\n"
        "for step in range(300):\n"
        "    qd.log(step, loss=step / 2, **{'val/acc': rank})\n"
        "    time.sleep(0.005)\n"
        "qd.log(300, loss=float('nan'))"
    )
    name = last_run(notebook).name
    found = scalars(notebook.folder / "events" / name / "rank-1")
    assert sorted(found) == ["loss", "val/acc"]
    assert [step for step, _ in found["loss"]] == list(range(301))
    assert found["loss"][299] == [299, 149.5]
    assert found["val/acc"][7] == [7, 1.0]


def test_event_files_and_a_summary_writer_do_not_feed_each_other(notebook: Notebook) -> None:
    notebook.ok(f"%%distributed --tensorboard events --name both\n{WRITER}")
    found = scalars(notebook.folder / "events" / last_run(notebook).name / "rank-0")
    assert len(found["train/loss"]) == 5


def test_event_files_of_a_function(notebook: Notebook) -> None:
    notebook.ok(
        "@qd.distributed(qd.Elastic(nproc_per_node=2), tensorboard='tb')\n"
        "def logging():\n    for step in range(10): qd.log(step, x=1.0)\nlogging()"
    )
    assert len(scalars(notebook.folder / "tb" / last_run(notebook).name / "rank-0")["x"]) == 10


def test_a_folder_that_cannot_be_written_costs_only_the_event_files(notebook: Notebook) -> None:
    (notebook.folder / "a-file").write_text("")
    ran = notebook.ok("%%distributed --tensorboard a-file --name unwritable\nqd.log(1, x=1.0)")
    assert "--tensorboard: no event files in" in ran.text
    assert notebook.ok("list(qd.runs()['unwritable'].metrics)").text == "['x']"


def test_without_tensorboard_it_is_said_before_the_cell_runs(notebook: Notebook) -> None:
    notebook.ok(
        "import quarterdeck.metrics.tensorboard as module\n"
        "real, module.find_spec = module.find_spec, lambda name: None"
    )
    ran = notebook.fails("%%distributed --tensorboard x\nran_anyway = True")
    assert "tensorboard, which is not installed" in ran.traceback
    assert "pip install tensorboard" in ran.traceback
    assert "installed" in notebook.fails("qd.distributed(tensorboard='x')").traceback
    notebook.ok("module.find_spec = real")
    assert "False" in notebook.ok("%%distributed\nprint('ran_anyway' in globals())").text


def test_an_import_is_neither_slower_nor_different(notebook: Notebook) -> None:
    """`find_spec`, reload and sources of the modules that are changed work as ever."""
    notebook.ok(
        "%%distributed\nimport importlib, importlib.util, inspect\n"
        "assert importlib.util.find_spec('tqdm.std').origin.endswith('std.py')\n"
        "import tqdm.std\n"
        "assert 'class tqdm' in inspect.getsource(tqdm.std)\n"
        "importlib.reload(tqdm.std)\n"
        "assert importlib.util.find_spec('no_such_module') is None"
    )
