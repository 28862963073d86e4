"""`qd.log` in cells and functions: kept, shown as curves under the cell, found again."""

import base64
import os
import signal
import struct

import pytest

from support.notebook import Notebook

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True, scope="module")
def prepared(notebook: Notebook) -> None:
    notebook.ok("import os, sys, time, math, quarterdeck as qd")
    notebook.ok(
        "@qd.distributed(qd.Elastic(nproc_per_node=2))\n"
        "def decay(steps):\n"
        "    for step in range(steps):\n"
        "        qd.log(loss=math.exp(-step / 10) + qd.current().rank, step=step)\n"
    )


def pictures(notebook: Notebook, code: str) -> list[bytes]:
    outputs = notebook.ok(code).outputs
    return [base64.b64decode(o["data"]["image/png"]) for o in outputs if "image/png" in o.get("data", {})]


def test_the_curves_of_a_function_are_under_the_cell_that_calls_it(notebook: Notebook) -> None:
    [picture] = pictures(notebook, "decay(30)")
    assert picture.startswith(PNG)
    width, height = struct.unpack(">II", picture[16:24])
    assert width > 1000
    assert height > 300


def test_a_session_s_cell_is_on_record_as_soon_as_it_logs(notebook: Notebook) -> None:
    before = int(notebook.ok("len(qd.runs())").text)
    [picture] = pictures(notebook, "%%distributed\nfor i in range(20): qd.log(i, x=float(rank))")
    assert picture.startswith(PNG)
    assert notebook.ok("len(qd.runs())").text == str(before + 1)
    assert notebook.ok("qd.runs()[0].metrics['x'].mean()[1][-1]").text == "0.5"


def test_every_rank_s_values_are_there(notebook: Notebook) -> None:
    notebook.ok("run = decay.submit(5); run.wait()")
    assert notebook.ok("run.metrics.ranks, run.metrics.names").text == "([0, 1], ['loss'])"
    assert notebook.ok("list(run.metrics['loss'].steps(1))").text == "[0, 1, 2, 3, 4]"
    assert notebook.ok("round(run.metrics['loss'].values(1)[0], 3)").text == "2.0"
    assert notebook.ok("len(run.metrics.to_pandas())").text == "10"


def test_the_table_of_runs_has_the_last_values(notebook: Notebook) -> None:
    notebook.ok("decay(3)")
    assert "loss 1.319" in notebook.ok("qd.runs(limit=1)").text


def test_plot_is_a_figure_of_one_s_own(notebook: Notebook) -> None:
    ran = notebook.ok("decay(5); figure = qd.runs()[0].plot(title='decay'); figure")
    assert "image/png" in ran.mimes()
    assert notebook.ok("type(figure).__mro__[1].__name__, 'matplotlib.pyplot' in sys.modules").text in (
        "('Figure', False)",
        "('Figure', True)",
    )


def test_what_was_logged_before_a_kill_is_kept(notebook: Notebook) -> None:
    ran = notebook.fails(
        "%%distributed --name killed\nfor i in range(1000):\n    qd.log(i, y=i)\n"
        f"if rank == 1: os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
        "import torch.distributed as dist\ndist.barrier()"
    )
    assert "rank 1 was killed" in ran.traceback
    assert (
        notebook.ok("[len(qd.runs()['killed'].metrics['y'].steps(r)) for r in (0, 1)]").text == "[1000, 1000]"
    )
    notebook.ok("%%distributed\nimport os, math, quarterdeck as qd")


def test_data_loader_workers_may_log(notebook: Notebook) -> None:
    notebook.ok(
        "%%distributed --name loader\nimport torch\n"
        "class Counting(torch.utils.data.Dataset):\n"
        "    def __len__(self): return 8\n"
        "    def __getitem__(self, i):\n"
        "        qd.log(i, read=1.0)\n"
        "        return i\n"
        "for batch in torch.utils.data.DataLoader(Counting(), num_workers=2): pass\n"
        "qd.log(100, done=1.0)"
    )
    assert notebook.ok("sorted(qd.runs()['loader'].metrics['read'].steps(0))").text == str(list(range(8)))


def test_a_wrong_value_names_its_metric(notebook: Notebook) -> None:
    ran = notebook.fails("%%distributed\nqd.log(loss='low')")
    assert "TypeError" in ran.traceback
    assert "loss" in ran.traceback


def test_a_cell_in_the_background_shows_curves_while_it_runs(notebook: Notebook) -> None:
    cell = notebook.start(
        "%%distributed --background --as slow\nfor i in range(60):\n    qd.log(i, z=i); time.sleep(0.1)"
    )
    notebook.finish(cell)
    notebook.until("curves: z")
    assert notebook.ok("slow.status").text == "'running'"
    notebook.ok("slow.stop(); slow.wait()")


def test_logging_in_the_notebook_itself_needs_no_worker(notebook: Notebook) -> None:
    notebook.ok("qd.log(here=1.0)")
    assert list((notebook.folder / ".quarterdeck" / "local").glob("metrics-*"))
    assert (notebook.folder / ".quarterdeck" / ".gitignore").read_text() == "*\n"


def test_attempts_are_one_curve(notebook: Notebook) -> None:
    notebook.ok(
        "@qd.distributed(qd.Elastic(nproc_per_node=1, max_restarts=1))\n"
        "def twice():\n"
        "    again = qd.current().attempt\n"
        "    for step in range(3 * again, 3 * again + 4):\n"
        "        qd.log(step, w=10 * again + step)\n"
        "    if not again: raise qd.RecoverableError('once')\n"
        "twice()"
    )
    assert (
        notebook.ok("list(qd.runs()[0].metrics['w'].values(0))").text
        == "[0.0, 1.0, 2.0, 13.0, 14.0, 15.0, 16.0]"
    )


def test_metrics_outlive_the_kernel(new_notebook: Notebook) -> None:
    new_notebook.ok("%load_ext quarterdeck\nimport quarterdeck as qd")
    new_notebook.ok("%%distributed -n 2 --name kept\nqd.log(0, v=rank)")
    os.sync()
    new_notebook.restart()
    assert new_notebook.ok("import quarterdeck as qd; qd.runs()['kept'].metrics['v'].last(1)").text == "1.0"
