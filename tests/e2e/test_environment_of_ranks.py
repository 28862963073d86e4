"""What every rank gets without asking, and what the kernel is left without."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.notebook import Notebook

DRAW = "import random, numpy, torch\nprint(random.random(), numpy.random.rand(), torch.rand(1).item())"


def draws(notebook: Notebook, magic: str = "%%distributed") -> set[str]:
    """One line per rank: the next number of each generator."""
    lines = notebook.ok(f"{magic}\n{DRAW}").lines()
    return {line.split("] ", 1)[1] for line in lines if line.startswith("[")}


# ---- on the workers


def test_random_numbers_differ_between_ranks_and_from_restart_to_restart(notebook: Notebook) -> None:
    first = draws(notebook)
    notebook.ok("%workers restart")
    second = draws(notebook)
    assert len(first) == len(second) == 2
    for generator in range(3):
        assert len({line.split()[generator] for line in first | second}) == 4


def test_a_seed_makes_a_cell_reproducible_and_ranks_still_differ(notebook: Notebook) -> None:
    first = draws(notebook, "%%distributed --seed 7")
    assert draws(notebook, "%%distributed --seed 7") == first
    assert draws(notebook, "%%distributed --seed 8") != first
    notebook.ok("%workers restart")
    assert draws(notebook, "%%distributed --seed 7") == first
    assert len(first) == 2


def test_ranks_share_the_cores(notebook: Notebook) -> None:
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    ran = notebook.ok("%%distributed\nimport torch\nprint(torch.get_num_threads())")
    assert ran.text == f"[0\u20131] {share}"


def test_a_thread_number_set_by_the_user_wins(notebook: Notebook) -> None:
    notebook.ok("import os\nos.environ['OMP_NUM_THREADS'] = '3'\n%workers restart")
    ran = notebook.ok(
        "%%distributed\nimport os, torch\nprint(torch.get_num_threads(), os.environ['OMP_NUM_THREADS'])"
    )
    assert ran.text == "[0\u20131] 3 3"
    notebook.ok("del os.environ['OMP_NUM_THREADS']\n%workers restart")


def test_changes_of_environment_folder_and_path_reach_the_next_group(notebook: Notebook) -> None:
    notebook.ok(
        "import os, sys, pathlib\n"
        "os.environ['MY_TOKEN'] = 'set later'\n"
        "pathlib.Path('below').mkdir()\n"
        "pathlib.Path('below/my_helper.py').write_text('answer = 42')\n"
        "os.chdir('below')\n"
        "sys.path.append(os.getcwd())\n"
        "%workers restart"
    )
    ran = notebook.ok(
        "%%distributed\nimport os, my_helper\n"
        "print(os.environ['MY_TOKEN'], os.path.basename(os.getcwd()), my_helper.answer)"
    )
    assert ran.text == "[0\u20131] set later below 42"
    notebook.ok("os.chdir('..')\nsys.path.pop()\ndel os.environ['MY_TOKEN']\n%workers restart")
    ran = notebook.ok(
        "%%distributed\nimport os\nprint(os.environ.get('MY_TOKEN'), os.path.basename(os.getcwd()))"
    )
    assert ran.text == f"[0\u20131] None {notebook.folder.name}"


# ---- in the kernel

LOOK = """import os, signal, sys
def look():
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return dict(os.environ), handlers, os.getcwd(), list(sys.path)
before = look()"""


@pytest.fixture
def looked_at(new_notebook: Notebook) -> Notebook:
    """A kernel that knows how it was before quarterdeck was loaded."""
    new_notebook.ok(LOOK)
    new_notebook.ok("%load_ext quarterdeck")
    return new_notebook


def test_the_kernel_is_left_as_it_was(looked_at: Notebook) -> None:
    """Environment, signal handlers, folder, path; no torch, no numpy; threads and descriptors stable."""
    looked_at.ok("%%distributed --env A=1\nimport torch\nx = torch.ones(3)\nx")
    looked_at.fails("%%distributed\n1 / 0")
    cell = looked_at.start("%%distributed\nprint('begun')\nimport time\ntime.sleep(100)")
    looked_at.until("begun")
    looked_at.interrupt()
    assert looked_at.finish(cell).status == "error"
    assert looked_at.ok("look() == before").text == "True"
    assert looked_at.ok("sorted({'torch', 'numpy', 'cloudpickle'} & set(sys.modules))").text in (
        "[]",
        "['cloudpickle']",
    )

    counts = threads_and_descriptors(looked_at.pid)
    for _ in range(50):
        looked_at.ok("%%distributed\nprint('a line')\nx.sum()")
    looked_at.fails("%%distributed\n1 / 0")
    now = threads_and_descriptors(looked_at.pid)
    assert now[0] <= counts[0]
    assert now[1] <= counts[1]


def threads_and_descriptors(pid: int) -> tuple[int, int]:
    return len(os.listdir(f"/proc/{pid}/task")), len(os.listdir(f"/proc/{pid}/fd"))


def test_no_process_holds_more_descriptors_after_many_cells_and_faults(notebook: Notebook) -> None:
    notebook.ok("numbers = list(range(10))")
    one_raises = "%%distributed\nif rank: 1 / 0\nimport torch.distributed as dist\ndist.barrier()"

    def a_few_cells(rounds: int) -> list[tuple[int, int]]:
        for _ in range(rounds):
            notebook.ok("%%distributed\nprint(numbers)")
            notebook.fails(one_raises)
        notebook.ok("%%distributed\nprint(numbers)")
        return [threads_and_descriptors(pid) for pid in sorted(notebook.everything())]

    before, after = a_few_cells(3), a_few_cells(5)
    assert all(now <= then for now, then in zip(after, before, strict=True)), (before, after)


# ---- on the machine


def listening(pid: int) -> set[str]:
    """Local addresses of the process's listening TCP sockets, as /proc/net writes them (hexadecimal)."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            link = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        inodes.add(link.removeprefix("socket:[").removesuffix("]"))
    rows = []
    for table in ("tcp", "tcp6"):
        rows += [line.split() for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}


def test_nothing_listens_beyond_this_machine(notebook: Notebook) -> None:
    notebook.ok("%%distributed\nimport torch, torch.distributed as dist\ndist.all_reduce(torch.ones(1))")
    addresses = {a for pid in notebook.everything() - {notebook.pid} for a in listening(pid)}
    assert addresses, "the store and gloo listen somewhere"
    assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F"}
