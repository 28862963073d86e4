"""Functions and classes of cells keep their source on the workers, for tracebacks and `inspect`."""

from __future__ import annotations

from support.notebook import Notebook

_DEFINED = """
import torch
from dataclasses import dataclass
def half(x):
    return x / 2  # a comment that only the source has
class Net(torch.nn.Module):
    def forward(self, x):
        return half(x)
@dataclass
class Config:
    lr: float = 0.1  # without a function of its own
"""
_ASKED = """
import inspect
print(*map(inspect.getsource, (half, Net.forward, Net, Config)))
print(torch.jit.script(half)(torch.tensor(4.0)).item())
"""


def _check(text: str) -> None:
    for line in (
        "a comment that only the source has",
        "class Net(torch.nn.Module)",
        "lr: float = 0.1  # without",
    ):
        assert line in text
    assert "2.0" in text


def test_what_ordinary_cells_define(notebook: Notebook) -> None:
    notebook.ok(_DEFINED)
    _check(notebook.ok(f"%%distributed\nhalf, Net, Config\n{_ASKED}").text)


def test_what_worker_cells_define(notebook: Notebook) -> None:
    notebook.ok(
        f"%%distributed{_DEFINED.replace('half', 'halved').replace('Net', 'Own').replace('Config', 'Set')}"
    )
    asked = _ASKED.replace("half", "halved").replace("Net", "Own").replace("Config", "Set")
    _check(notebook.ok(f"%%distributed\n{asked}").text.replace("Own", "Net"))


def test_what_was_pushed_and_what_a_function_takes_along(notebook: Notebook) -> None:
    notebook.ok("def pushed(x):\n    return 1 / x  # the pushed one")
    notebook.ok("%push pushed")
    assert "# the pushed one" in notebook.fails("%%distributed\npushed(0)").traceback
    notebook.ok(
        f"import quarterdeck as qd\n{_DEFINED}\n@qd.distributed(qd.Elastic(nproc_per_node=2))\ndef ask():\n"
        + "".join(f"    {line}\n" for line in _ASKED.strip().split("\n"))
    )
    _check(notebook.ok("ask()").text)


def test_a_class_that_was_defined_anew_shows_its_new_source(notebook: Notebook) -> None:
    for number in (1, 2):
        notebook.ok(f"class Anew:\n    number = {number}")
        assert (
            f"number = {number}"
            in notebook.ok("%%distributed\nimport inspect\nprint(inspect.getsource(Anew))").text
        )


def test_inspect_still_says_what_it_cannot_know(notebook: Notebook) -> None:
    failed = notebook.fails("%%distributed\nimport inspect\ninspect.getsource(type('Made', (), {}))")
    assert "OSError" in failed.traceback
