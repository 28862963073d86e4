"""An error elsewhere, or a stop, breaks no import: what was being imported can be used in the next cell."""

from __future__ import annotations

import time

import pytest

from support.notebook import Notebook
from support.waiting import until

_SLOW_S = 3.0
_PACKAGE = {
    "__init__.py": (
        "open(__file__ + '.begun', 'w').close()\nfrom slow_package import part, sleep\n"
        "sleep.sleep({s})\nfrom slow_package import rest\n"
    ),
    "sleep.py": "from time import sleep\n",
    "part.py": "done = True\n",
    "rest.py": "also = True\n",
}


@pytest.fixture
def slow(notebook: Notebook) -> Notebook:
    """An installed package whose import takes some seconds, as far as the workers can tell."""
    folder = notebook.folder / "slow_package"
    folder.mkdir(exist_ok=True)
    (folder / "__init__.py.begun").unlink(missing_ok=True)
    for name, text in _PACKAGE.items():
        (folder / name).write_text(text.format(s=_SLOW_S))
    notebook.ok("%workers restart")
    notebook.ok(
        f"%%distributed\nimport sys\nfrom quarterdeck.worker import imports\n"
        f"imports._INSTALLED += ({str(folder)!r} + '/',)\nsys.path.insert(0, {str(notebook.folder)!r})\n"
        "kept = rank"
    )
    return notebook


_USED = "%%distributed\nimport slow_package\nslow_package.part.done, slow_package.rest.also, kept"


def test_an_error_of_another_rank(slow: Notebook) -> None:
    failed = slow.fails(
        "%%distributed\nif rank == 0:\n    raise ValueError('a typo')\nimport slow_package\nlate = 1"
    )
    assert "rank 0 raised ValueError: a typo" in failed.traceback
    assert "rank 1 is importing slow_package" in failed.text
    assert sorted(slow.ok(_USED).lines()) == ["[0] (True, True, 0)", "[1] (True, True, 1)"]
    assert "late" in slow.fails("%%rank 1\nlate").traceback


def test_an_import_that_a_library_makes_in_a_function(slow: Notebook) -> None:
    code = "def library():\n    import slow_package\n    return slow_package\nlibrary()\nlate = 1"
    slow.fails(f"%%distributed\nif rank == 0:\n    raise ValueError\n{code}")
    assert sorted(slow.ok(_USED).lines()) == ["[0] (True, True, 0)", "[1] (True, True, 1)"]


def test_a_stop_is_over_when_the_import_is(slow: Notebook) -> None:
    began_s = time.monotonic()
    cell = slow.start("%%distributed\nimport slow_package\nimport time\ntime.sleep(60)")
    until((slow.folder / "slow_package" / "__init__.py.begun").exists)
    slow.interrupt()
    stopped = slow.finish(cell)
    assert stopped.ename == "RunInterrupted"
    assert time.monotonic() - began_s < 30
    assert sorted(slow.ok(_USED).lines()) == ["[0] (True, True, 0)", "[1] (True, True, 1)"]


def test_a_second_stop_does_not_wait_and_the_next_cell_says_what_to_do(slow: Notebook) -> None:
    (slow.folder / "slow_package" / "__init__.py").write_text(
        "import time\nopen(__file__ + '.begun', 'w').close()\ntime.sleep(25)\n"
    )
    cell = slow.start("%%distributed\nimport slow_package")
    until((slow.folder / "slow_package" / "__init__.py.begun").exists)
    slow.interrupt()
    slow.until("is importing slow_package")
    slow.interrupt()
    assert slow.finish(cell, deadline_s=15).ename == "RunInterrupted"
    told = slow.ok("%%distributed\nkept").text
    assert "stopped in the middle of `import slow_package`" in told
    assert "%workers restart" in told
    assert "stopped in the middle" not in slow.ok("%%distributed\nkept").text


def test_modules_of_the_users_own_are_stopped_at_once(notebook: Notebook) -> None:
    (notebook.folder / "mine.py").write_text("import time\nprint('in mine')\ntime.sleep(60)\n")
    notebook.ok(f"%%distributed\nimport sys\nsys.path.insert(0, {str(notebook.folder)!r})")
    cell = notebook.start("%%distributed\nimport mine")
    notebook.until("in mine")
    notebook.interrupt()
    assert notebook.finish(cell, deadline_s=20).ename == "RunInterrupted"


def test_a_first_session_survives_an_error_beside_the_first_optimizer(new_notebook: Notebook) -> None:
    """Its workers were forked before torch._dynamo was imported, which the first optimizer does."""
    make = "opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)"
    new_notebook.ok("%load_ext quarterdeck")
    new_notebook.fails(
        f"%%distributed -n 2\nimport torch\nif rank == 0:\n    raise ValueError('a typo')\n{make}"
    )
    new_notebook.ok(f"%%distributed\nimport torch\n{make}\nopt.step()")


def test_early_workers_import_the_rest_while_they_are_idle(new_notebook: Notebook) -> None:
    new_notebook.ok("%load_ext quarterdeck")
    new_notebook.ok("%%distributed -n 2\nkept = rank")
    wanted = "{'torch._dynamo', 'torch.distributed.fsdp'}"
    asked = f"%%distributed\nimport sys\n{wanted} <= sys.modules.keys()"
    deadline_s = time.monotonic() + 60
    while "True" not in new_notebook.ok(asked).text:
        assert time.monotonic() < deadline_s
        time.sleep(1)  # a worker that is asked more often is not idle
    assert sorted(new_notebook.ok("%%distributed\nkept").lines()) == ["[0] 0", "[1] 1"]
