"""What the ranks print reaches the notebook: live, in order, with its rank, bounded, and complete on disk."""

from __future__ import annotations

import json
from pathlib import Path

from support.kernel import descendants
from support.notebook import Notebook, Ran

BOTH = "[0\u20131]"
LINES = 200_000
MAX_SHOWN_BYTES = 1_200_000
MAX_GROWTH_KB = 50_000


def _of_rank(ran: Ran, rank: int) -> list[str]:
    """The lines of one rank in the order of the page, those it shares with the other one included."""
    marks = (f"[{rank}] ", f"{BOTH} ")
    return [line.partition("] ")[2] for line in ran.lines() if line.startswith(marks)]


def _shown_bytes(ran: Ran) -> int:
    """What the cell's outputs take in the notebook's file."""
    return len(json.dumps([output.get("data", output.get("text")) for output in ran.outputs]))


def _log(notebook: Notebook, name: str, rank: int) -> Path:
    (folder,) = (notebook.folder / ".quarterdeck" / "runs").glob(f"*-{name}")
    return folder / f"rank-{rank}.log"


def _memory_kb(pid: int, field: str) -> int:
    """VmRSS, or VmHWM, the peak since `_forget_peak`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    return 0


def _forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


# ---- order and origin


def test_equal_lines_are_shown_once_for_all_ranks(notebook: Notebook) -> None:
    assert notebook.ok("%%distributed\nprint('same on both')").lines() == [f"{BOTH} same on both"]


def test_each_rank_s_prints_and_displays_stay_in_program_order(notebook: Notebook) -> None:
    ran = notebook.ok(
        "%%distributed\nimport sys\nfor step in range(20):\n"
        "    print('print', step, rank)\n    display(f'display {step} {rank}')\n"
        "    print('error', step, rank, file=sys.stderr)"
    )
    for rank in (0, 1):
        assert _of_rank(ran, rank) == [
            f"{what} {step} {rank}{quote}"
            for step in range(20)
            for what, quote in (("print", ""), ("'display", "'"), ("error", ""))
        ]


def test_a_display_of_another_type_stands_between_the_lines_around_it(notebook: Notebook) -> None:
    ran = notebook.ok(
        "%%distributed\nfrom IPython.display import HTML\n"
        "print('above')\ndisplay(HTML('<i>middle</i>'))\nprint('below')"
    )
    page = ran.html
    assert page.index("above") < page.index("<i>middle</i>") < page.index("below")


def test_output_below_python_arrives_with_its_rank_before_the_cell_ends(notebook: Notebook) -> None:
    ran = notebook.ok(
        "%%distributed\nimport ctypes, os, subprocess\n"
        "_ = os.write(1, b'from os.write on %d\\n' % rank)\n"
        "subprocess.run(['echo', f'from a child of {rank}'])\n"
        "_ = ctypes.CDLL(None).printf(b'from C on %d\\n', rank)"
    )
    for rank in (0, 1):
        assert {f"from os.write on {rank}", f"from a child of {rank}", f"from C on {rank}"} <= set(
            _of_rank(ran, rank)
        )


def test_all_that_a_subprocess_prints_arrives(notebook: Notebook) -> None:
    notebook.ok("%%distributed --name counted\nimport subprocess\n_ = subprocess.run(['seq', '1', '50000'])")
    for rank in (0, 1):
        assert _log(notebook, "counted", rank).read_text().split() == [str(i) for i in range(1, 50_001)]


def test_dataloader_workers_print_with_the_rank_they_belong_to(notebook: Notebook) -> None:
    ran = notebook.ok(
        "%%distributed\nfrom torch.utils.data import DataLoader, Dataset\n"
        "class Talking(Dataset):\n    def __len__(self):\n        return 6\n"
        "    def __getitem__(self, i):\n        print(f'item {i} for {rank}')\n        return i\n"
        "batches = [b.tolist() for b in DataLoader(Talking(), batch_size=3, num_workers=2)]\nbatches"
    )
    for rank in (0, 1):
        assert {line for line in _of_rank(ran, rank) if "item" in line} == {
            f"item {i} for {rank}" for i in range(6)
        }
    assert "[[0, 1, 2], [3, 4, 5]]" in ran.text


def test_threads_print_too(notebook: Notebook) -> None:
    ran = notebook.ok(
        "%%distributed\nimport threading\nthread = threading.Thread(target=print, args=('from a thread',))\n"
        "thread.start()\nthread.join()"
    )
    assert ran.lines() == [f"{BOTH} from a thread"]


def test_logging_shows_like_in_any_notebook(notebook: Notebook) -> None:
    ran = notebook.ok("%%distributed\nimport logging\nlogging.getLogger('mine').warning('be careful')")
    assert f"{BOTH} be careful" in ran.lines()


# ---- live


def test_output_streams_while_the_cell_runs(notebook: Notebook) -> None:
    cell = notebook.start(
        "%%distributed\nimport os, time\nprint('running')\n_ = os.write(1, b'below\\n')\n"
        "while not os.path.exists('go-on'):\n    time.sleep(0.01)\nprint('over')"
    )
    notebook.until("running")
    notebook.until("below")
    assert "over" not in notebook.screen.ran.text
    (notebook.folder / "go-on").touch()
    assert f"{BOTH} over" in notebook.finish(cell).lines()


def test_a_line_without_an_end_shows_at_once(notebook: Notebook) -> None:
    cell = notebook.start(
        "%%distributed\nimport os, time\nprint('loading ...', end='')\n"
        "while not os.path.exists('loaded'):\n    time.sleep(0.01)\nprint(' done')"
    )
    notebook.until("loading ...")
    (notebook.folder / "loaded").touch()
    assert notebook.finish(cell).lines() == [f"{BOTH} loading ... done"]


def test_standard_error_looks_different_from_standard_output(notebook: Notebook) -> None:
    html = notebook.ok("%%distributed\nimport sys\nprint('plain')\nprint('trouble', file=sys.stderr)").html
    assert "<pre class=qe>\ntrouble" in html
    assert "<pre>\nplain" in html


def test_text_is_never_taken_for_html(notebook: Notebook) -> None:
    html = notebook.ok("%%distributed\nprint('<script>alert(1)</script>')").html
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_a_progress_bar_leaves_one_line(notebook: Notebook) -> None:
    ran = notebook.ok(
        "%%distributed\nimport sys, time\nfor i in range(1, 21):\n"
        "    sys.stderr.write(f'\\r{i * 5:3d}%|{\"#\" * i:20}| {i}/20')\n    sys.stderr.flush()\n"
        "    time.sleep(0.01)\n_ = sys.stderr.write('\\n')"
    )
    assert ran.lines() == [f"{BOTH} 100%|{'#' * 20}| 20/20"]


def test_clear_output_of_one_rank_leaves_the_other_rank_s_lines(notebook: Notebook) -> None:
    ran = notebook.ok(
        "%%distributed\nfrom IPython.display import clear_output\nprint('first', rank)\n"
        "if rank == 0:\n    clear_output()\n    print('second', rank)"
    )
    assert sorted(ran.lines()) == ["[0] second 0", "[1] first 1"]


# ---- much of it


def test_200_000_lines_stay_small_in_the_notebook_and_complete_on_disk(notebook: Notebook) -> None:
    notebook.ok("%%distributed\nfor i in range(2_000):\n    print('warm up', i)")
    kernel, *others = [notebook.pid, *descendants(notebook.pid)]
    before = {pid: _memory_kb(pid, "VmRSS") for pid in (kernel, *others)}
    for pid in before:
        _forget_peak(pid)
    ran = notebook.ok(
        f"%%distributed --name flood\nfor i in range({LINES}):\n    print(f'line {{i}} of rank {{rank}}')"
    )
    growth = {pid: _memory_kb(pid, "VmHWM") - size for pid, size in before.items()}
    assert _shown_bytes(ran) < MAX_SHOWN_BYTES
    for rank in (0, 1):
        whole = _log(notebook, "flood", rank).read_text().splitlines()
        assert len(whole) == LINES
        assert whole[-1] == f"line {LINES - 1} of rank {rank}"
    assert f"line {LINES - 1} of rank" in ran.text
    assert str(_log(notebook, "flood", 0).parent) in ran.text
    assert max(growth.values()) < MAX_GROWTH_KB


def test_the_notebook_answers_during_a_flood(notebook: Notebook) -> None:
    cell = notebook.start(
        "%%distributed\nimport itertools, os\nfor n in itertools.count():\n    print('flood', n)\n"
        "    if os.path.exists('enough'):\n        break"
    )
    notebook.until("flood")
    notebook.until("Output cut")
    (notebook.folder / "enough").touch()
    ran = notebook.finish(cell, 60)
    assert ran.status == "ok"
    assert _shown_bytes(ran) < MAX_SHOWN_BYTES


def test_a_line_of_10_mb_is_cut_in_the_notebook_only(notebook: Notebook) -> None:
    ran = notebook.ok("%%distributed --name long-line\nprint('x' * 10_000_000)\nprint('the next line')")
    assert _shown_bytes(ran) < MAX_SHOWN_BYTES
    assert "line cut at" in ran.text
    assert _of_rank(ran, 0)[-1] == _of_rank(ran, 1)[-1] == "the next line"
    assert _log(notebook, "long-line", 0).stat().st_size == 10_000_001 + len("the next line\n")


def test_binary_output_does_no_harm(notebook: Notebook) -> None:
    ran = notebook.ok(
        "%%distributed\nimport os, sys\n_ = os.write(1, bytes(range(256)) * 40)\n"
        "_ = sys.stdout.buffer.write(b'\\xff\\xfe\\x00')\nprint()\nprint('still fine')"
    )
    assert f"{BOTH} still fine" in ran.lines()
    assert notebook.ok("%%distributed\n1").lines() == [f"{BOTH} 1"]


def test_a_character_split_between_two_writes_arrives_whole(notebook: Notebook) -> None:
    ran = notebook.ok(
        "%%distributed\nimport os, time\nfor byte in 'schön\\n'.encode():\n"
        "    _ = os.write(1, bytes([byte]))\n    time.sleep(0.005)"
    )
    assert ran.lines() == [f"{BOTH} schön"]


def test_a_cell_that_shows_nothing_leaves_nothing_unless_it_is_named(notebook: Notebook) -> None:
    runs = notebook.folder / ".quarterdeck" / "runs"
    before = set(runs.iterdir())
    notebook.ok("%%distributed\nquiet = 1")
    assert set(runs.iterdir()) == before
    notebook.ok("%%distributed --name silent\nquiet = 1")
    [folder] = runs.glob("*-silent")
    assert not list(folder.glob("*.log"))


def test_the_log_folder_stays_out_of_version_control(notebook: Notebook) -> None:
    notebook.ok("%%distributed\nprint('logged')")
    assert (notebook.folder / ".quarterdeck" / ".gitignore").read_text() == "*\n"
