"""Progress, spans, vitals and the slow rank of real runs, as the view reads them from the run's folder."""

import signal
import time
from pathlib import Path

import pytest

from quarterdeck.metrics.history import History
from quarterdeck.metrics.progress import read_progress
from quarterdeck.metrics.step_timing import Paces
from quarterdeck.store.spans import Span, read_spans
from quarterdeck.store.vitals import read_vitals
from support.notebook import Notebook
from support.waiting import until


@pytest.fixture(autouse=True, scope="module")
def prepared(notebook: Notebook) -> None:
    notebook.ok("import os, sys, time, quarterdeck as qd")
    notebook.ok("%%distributed\nimport os, time, quarterdeck as qd")


def runs(notebook: Notebook) -> list[Path]:
    return sorted((notebook.folder / ".quarterdeck" / "runs").glob("*"))


def folder(notebook: Notebook, name: str) -> Path:
    """The folder of the run of that name, when it is there."""
    place = notebook.folder / ".quarterdeck" / "runs"
    return until(lambda: next(iter(place.glob(f"*-{name}")), None))


def names(spans: list[Span]) -> list[str]:
    return [span.name for span in spans]


def test_progress_of_each_rank_is_seen_while_the_cell_runs(notebook: Notebook) -> None:
    cell = notebook.start(
        "%%distributed --name bars\n"
        "for epoch in qd.progress(range(2), 'epoch'):\n"
        "    for batch in qd.progress(range(20), f'train {epoch}', total=20):\n"
        "        time.sleep(0.05 + 0.05 * rank)"
    )
    place = folder(notebook, "bars")

    def seen() -> bool:
        bars = read_progress(place, 0)
        inner = [found[1] for found in bars.values() if len(found) > 1]
        return len(inner) == 2 and inner[0].n > inner[1].n > 1

    until(seen)
    ran = notebook.finish(cell)
    assert ran.status == "ok"
    for bars in read_progress(place, 0).values():
        assert [(b.desc, b.n, b.total, b.done) for b in bars] == [
            ("epoch", 2, 2, True),
            ("train 1", 20, 20, True),
        ]
    assert "%|" not in ran.text


def test_a_loop_alone_puts_a_cell_on_record(notebook: Notebook) -> None:
    before = len(runs(notebook))
    notebook.ok("%%distributed\nfor i in qd.progress(range(3), 'alone'): pass")
    assert len(runs(notebook)) == before + 1
    assert read_progress(runs(notebook)[-1], 0)[1][0].desc == "alone"


def test_a_cell_that_keeps_nothing_leaves_nothing(notebook: Notebook) -> None:
    before = runs(notebook)
    notebook.ok("%%distributed\nquiet = 1")
    notebook.ok("%%distributed\ntime.sleep(1.5)")
    assert runs(notebook) == before


def test_a_kill_leaves_the_bar_where_it_was(notebook: Notebook) -> None:
    notebook.fails(
        "%%distributed --name shot\n"
        "for i in qd.progress(range(10), 'killed'):\n"
        "    time.sleep(0.12)\n"
        f"    if rank == 1 and i == 4: os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
        "import torch.distributed as dist\ndist.barrier()"
    )
    bars = read_progress(folder(notebook, "shot"), 0)
    assert (bars[1][0].n, bars[1][0].done) == (4, False)
    assert bars[0][0].done
    notebook.ok("%%distributed\nimport os, time, quarterdeck as qd")


def test_loops_of_data_loader_workers_are_their_own(notebook: Notebook) -> None:
    notebook.ok(
        "%%distributed --name loader\nimport torch\n"
        "class Slow(torch.utils.data.Dataset):\n"
        "    def __len__(self): return 8\n"
        "    def __getitem__(self, i):\n"
        "        with qd.span('item'):\n"
        "            return sum(qd.progress(range(100), 'child'))\n"
        "for batch in qd.progress(torch.utils.data.DataLoader(Slow(), num_workers=2), 'parent'): pass"
    )
    place = folder(notebook, "loader")
    assert {bar.desc for bars in read_progress(place, 0).values() for bar in bars} == {"parent"}
    assert names(read_spans(place, 0)[0]).count("item") == 8


def test_a_loop_in_the_notebook_itself_prints_nothing(notebook: Notebook) -> None:
    assert notebook.ok("for i in qd.progress(range(5), 'here'): pass").text == ""
    place = notebook.folder / ".quarterdeck" / "local"
    assert read_progress(place, 0)[0][0].desc == "here"


def test_phases_and_spans_of_a_function(notebook: Notebook) -> None:
    notebook.ok(
        "@qd.distributed(qd.Elastic(nproc_per_node=2))\n"
        "def phased():\n"
        "    for step in range(5):\n"
        "        time.sleep(0.3)\n"
        "        qd.log(step=step, x=1.0)\n"
        "    with qd.span('eval'):\n"
        "        time.sleep(0.1)\n"
        "phased()"
    )
    for spans in read_spans(runs(notebook)[-1], 0).values():
        assert sorted(names(spans)) == ["eval", "first step", "rendezvous", "start-up"]
        by_name = {span.name: span for span in spans}
        start, joined = by_name["start-up"], by_name["rendezvous"]
        assert start.end_unix_ns is not None
        assert 0 < start.end_unix_ns - start.start_unix_ns < 30e9
        assert start.start_unix_ns <= joined.start_unix_ns
        assert (start.depth, joined.depth) == (0, 1)
        first = by_name["first step"]
        assert first.end_unix_ns is not None
        assert start.end_unix_ns <= first.start_unix_ns
        assert 0.6e9 <= first.end_unix_ns - first.start_unix_ns < 1.5e9


def test_a_function_that_shows_nothing_has_the_phases_of_its_start(notebook: Notebook) -> None:
    notebook.ok("@qd.distributed(qd.Elastic(nproc_per_node=2))\ndef silent(): pass\nsilent()")
    spans = read_spans(runs(notebook)[-1], 0)
    assert {rank: names(found) for rank, found in spans.items()} == {
        rank: ["start-up", "rendezvous"] for rank in (0, 1)
    }


def test_phases_belong_to_the_first_cell_alone(notebook: Notebook) -> None:
    notebook.ok("%workers restart")
    notebook.ok("%%distributed --name first\nimport quarterdeck as qd, time; qd.log(x=1.0)")
    notebook.ok("%%distributed --name second\nqd.log(x=1.0)")
    assert names(read_spans(folder(notebook, "first"), 0)[0]) == ["start-up", "rendezvous"]
    assert read_spans(folder(notebook, "second"), 0) == {}


def test_a_span_that_is_interrupted_has_an_end(notebook: Notebook) -> None:
    cell = notebook.start("%%distributed --name stopped\nwith qd.span('long'): time.sleep(60)")
    place = folder(notebook, "stopped")
    until(lambda: len(spans := read_spans(place, 0)) == 2 and all(spans.values()))  # the file is there first
    assert read_spans(place, 0)[0][-1].end_unix_ns is None
    notebook.interrupt()
    notebook.finish(cell)
    assert read_spans(place, 0)[0][-1].end_unix_ns is not None


def test_vitals_of_both_ranks_while_they_run(notebook: Notebook) -> None:
    cell = notebook.start(
        "%%distributed --name busy\n"
        "end = time.monotonic() + 30\n"
        "while time.monotonic() < end and not os.path.exists('enough'): sum(range(1000))"
    )
    place = folder(notebook, "busy")
    until(lambda: len(v := read_vitals(place)) == 2 and all((o.cpu_percent or 0) > 10 for o in v.values()))
    (notebook.folder / "enough").touch()
    notebook.finish(cell)
    found = read_vitals(place)
    assert all(one.memory_bytes and one.memory_bytes > 50 << 20 for one in found.values())
    last = {rank: one.time_unix_ns for rank, one in found.items()}
    time.sleep(1.5)
    assert {rank: one.time_unix_ns for rank, one in read_vitals(place).items()} == last


DDP = """%%distributed -n 3 --session three --name uneven
import os, time, torch, quarterdeck as qd
from torch.nn.parallel import DistributedDataParallel as DDP
torch.set_num_threads(1)
layers = [torch.nn.Linear(16, 16) for _ in range(4)]
model = DDP(torch.nn.Sequential(*layers), bucket_cap_mb=0.001)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
step = 0
while not os.path.exists("done") and step < 3000:
    time.sleep(0.04)
    if rank == 1 and os.path.exists("slow"): time.sleep(0.03)
    optimizer.zero_grad()
    model(torch.randn(4, 16)).sum().backward()
    optimizer.step()
    step += 1
    if rank == 0: qd.log(step, loss=1.0)
"""


def test_a_rank_that_is_slow_is_marked_for_as_long_as_it_is(notebook: Notebook) -> None:
    """Only rank 0 logs; rank 1 does 30 ms more in steps of 40 ms and a little."""
    slow = notebook.folder / "slow"
    slow.touch()
    cell = notebook.start(DDP)
    paces = Paces(History(folder(notebook, "uneven")))
    try:
        found = until(lambda: (p := paces.refresh(0)) and [r for r in p if p[r].slowest] == [1] and p)
        waits = {rank: pace.wait_ms or 0.0 for rank, pace in found.items()}
        assert waits[1] + 15 < min(waits[0], waits[2]), found
        slow.unlink()
        then = paces.refresh(0)[0].step or 0

        def even() -> bool:
            found = paces.refresh(0)
            known = all(pace.wait_ms is not None for pace in found.values())
            past = (found[0].step or 0) > then + 60
            return past and known and not any(pace.slowest for pace in found.values())

        until(even)
    finally:
        (notebook.folder / "done").touch()
        notebook.finish(cell)
        notebook.ok("%workers stop --session three")
