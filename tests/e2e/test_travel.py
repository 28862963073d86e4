"""What a cell sees: the notebook's names travel, the workers' own stay theirs, surprises are announced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.notebook import Notebook, Ran


@pytest.fixture(autouse=True)
def fresh_names(notebook: Notebook) -> None:
    """Neither side remembers the names of another test."""
    notebook.ok("%workers restart\n%reset_selective -f ^[a-z]\\w*$\nimport torch")


def both(ran: Ran) -> str:
    """The one line that both ranks printed."""
    assert ran.lines(), ran
    assert ran.lines()[0].startswith("[0\u20131] "), ran.text
    return ran.lines()[0].removeprefix("[0\u20131] ")


# ---- what travels


def test_a_function_travels_with_what_it_uses(notebook: Notebook) -> None:
    notebook.ok("import math\noffset = 1\ndef area(r):\n    return math.pi * r * r + offset")
    assert both(notebook.ok("%%distributed\nprint(area(0))")) == "1.0"


def test_a_function_sees_the_workers_namespace(notebook: Notebook) -> None:
    notebook.ok("def who():\n    return f'I am one of {world_size}'")
    assert both(notebook.ok("%%distributed\nprint(who())")) == "I am one of 2"


def test_a_class_travels(notebook: Notebook) -> None:
    notebook.ok("class Greeter:\n    def hello(self):\n        return 'hello'")
    assert both(notebook.ok("%%distributed\nprint(Greeter().hello())")) == "hello"


def test_a_closure_travels(notebook: Notebook) -> None:
    notebook.ok("def adder(n):\n    def add(x):\n        return x + n\n    return add\nadd_two = adder(2)")
    assert both(notebook.ok("%%distributed\nprint(add_two(40))")) == "42"


def test_a_lambda_travels(notebook: Notebook) -> None:
    notebook.ok("double = lambda x: 2 * x")
    assert both(notebook.ok("%%distributed\nprint(double(21))")) == "42"


def test_a_module_alias_travels(notebook: Notebook) -> None:
    notebook.ok("import torch.nn.functional as F")
    assert both(notebook.ok("%%distributed\nprint(F.__name__)")) == "torch.nn.functional"


# ---- what travels again


def test_a_redefined_function_is_used_by_the_next_cell(notebook: Notebook) -> None:
    notebook.ok("def answer():\n    return 41")
    notebook.ok("%%distributed\nanswer()")
    notebook.ok("def answer():\n    return 42")
    assert both(notebook.ok("%%distributed\nprint(answer())")) == "42"


def test_a_rebound_number_is_used_by_the_next_cell(notebook: Notebook) -> None:
    notebook.ok("rate = 0.1")
    assert both(notebook.ok("%%distributed\nprint(rate)")) == "0.1"
    notebook.ok("rate = 0.2")
    assert both(notebook.ok("%%distributed\nprint(rate)")) == "0.2"


def test_a_class_cell_run_again_makes_a_new_class(notebook: Notebook) -> None:
    notebook.ok("class Net(torch.nn.Module):\n    width = 1")
    notebook.ok("%%distributed\nold = Net()")
    notebook.ok("class Net(torch.nn.Module):\n    width = 2")
    assert (
        both(notebook.ok("%%distributed\nprint(Net.width, old.width, isinstance(old, Net))")) == "2 1 False"
    )


# ---- whose it is


def test_names_of_the_workers_survive_a_rebinding_in_the_notebook_with_a_notice(notebook: Notebook) -> None:
    notebook.ok("%%distributed\nstep = 10 + rank")
    notebook.ok("step = 99")
    ran = notebook.ok("%%distributed\nprint(step)")
    assert "[0] 10" in ran.text
    assert "[1] 11" in ran.text
    assert "`step`" in ran.text
    assert "`%push step`" in ran.text


MODEL = "torch.manual_seed(0)\nmodel = torch.nn.Linear(2, 1)"
TRAIN = """%%distributed
x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
if "optimizer" not in globals():
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.01), []
for _ in range(5):
    optimizer.zero_grad()
    loss = (model(x) - 1).square().mean()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(len(losses), "losses, falling:", losses == sorted(losses, reverse=True) and losses[-1] < losses[0])"""


def test_a_model_stays_the_workers_own_after_eval_in_the_notebook(notebook: Notebook) -> None:
    notebook.ok(MODEL)
    assert both(notebook.ok(TRAIN)) == "5 losses, falling: True"
    notebook.ok("model.eval()")
    assert "10 losses, falling: True" in notebook.ok(TRAIN).text


def test_a_model_stays_the_workers_own_after_it_was_pulled(notebook: Notebook) -> None:
    notebook.ok(MODEL)
    notebook.ok(TRAIN)
    notebook.ok("%pull model")
    ran = notebook.ok(TRAIN)
    assert both(ran) == "10 losses, falling: True"
    assert "another object" not in ran.text


def test_a_model_bound_anew_by_its_cell_travels_again_with_a_notice(notebook: Notebook) -> None:
    notebook.ok(MODEL)
    before = both(
        notebook.ok(
            "%%distributed\nwith torch.no_grad(): model.weight.fill_(7)\nprint(model.weight[0, 0].item())"
        )
    )
    assert before == "7.0"
    notebook.ok(MODEL)
    ran = notebook.ok("%%distributed\nprint(model.weight[0, 0].item() == 7)")
    assert "[0\u20131] False" in ran.text
    assert "`model` is another object in the notebook now, and the workers have that one" in ran.text


def test_push_replaces_and_says_what_it_replaced(notebook: Notebook) -> None:
    notebook.ok("%%distributed\ntable = [1, 2, 3]")
    notebook.ok("table = {'a': 1}")
    assert "`table` replaced the workers' own value (list of 3)" in notebook.ok("%push table").text
    assert both(notebook.ok("%%distributed\nprint(table)")) == "{'a': 1}"


def test_a_name_on_rank_0_only_is_refused_before_the_start_with_the_cure(notebook: Notebook) -> None:
    notebook.ok("%%rank 0\nsummary = 1")
    ran = notebook.fails("%%distributed\nprint('started')\nprint(summary)")
    assert "started" not in ran.text
    assert "`summary` exists on rank 0 but not on rank 1" in ran.traceback
    assert "`%%rank 0`" in ran.traceback
    assert "1" in notebook.ok("%%rank 0\nsummary").text


def test_a_name_looked_up_dynamically_is_explained(notebook: Notebook) -> None:
    notebook.ok("hidden_from_analysis = 1")
    ran = notebook.fails("%%distributed\nglobals()['hidden_from_' + 'analysis']")
    assert "NameError" in ran.traceback
    assert "`hidden_from_analysis` exists in the notebook: `%push hidden_from_analysis`" in ran.traceback


# ---- values


def test_one_gibibyte_is_held_once_for_all_ranks(notebook: Notebook) -> None:
    notebook.ok("big = torch.ones(2**28)")
    assert both(notebook.ok("%%distributed\nprint(big.sum().item() == 2**28)")) == "True"
    sizes = [memory_of(pid) for pid in notebook.worker_pids()]
    assert sum(size["Pss"] for size in sizes) < 1.35 * 2**30
    for size in sizes:
        assert size["Private_Dirty"] + size["Private_Clean"] < 100 * 2**20


def memory_of(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}


def test_conjugate_and_negative_views_keep_their_values(notebook: Notebook) -> None:
    notebook.ok(
        "z = torch.tensor([1 + 2j, 3 - 4j]).conj()\n"
        "imaginary = z.imag\n"
        "assert z.is_conj() and imaginary.is_neg()"
    )
    assert (
        both(notebook.ok("%%distributed\nprint(z.tolist(), imaginary.tolist())"))
        == "[(1-2j), (3+4j)] [-2.0, 4.0]"
    )


def test_what_cannot_be_pickled_is_named_with_the_path_to_it(notebook: Notebook) -> None:
    notebook.ok(
        "import threading\n"
        "class Loader:\n    def __init__(self): self.lock = threading.Lock()\n"
        "loader = Loader()\n"
        "def train():\n    return loader"
    )
    ran = notebook.fails("%%distributed\ntrain()")
    assert "`loader.lock`" in ran.traceback
    assert "lock" in ran.traceback
    notebook.ok("%%distributed\nrank")


# ---- the notebook's namespace


def test_the_notebook_is_never_written_to(notebook: Notebook) -> None:
    notebook.ok(
        "import json\nitems = [1]\nweights = torch.ones(3)\ndef use(): return items, weights\n"
        "def look():\n"
        "    own = {k: id(v) for k, v in get_ipython().user_ns.items() if not k.startswith('_')}\n"
        "    return {k: v for k, v in own.items() if k not in ('In', 'Out', 'before')}\n"
        "before = look()"
    )
    notebook.ok("%%distributed\nmade = use()\nitems.append(2)\nweights.add_(1)\nuse()")
    notebook.fails("%%distributed\nmade_too = 1 / 0")
    notebook.ok("%push items")
    ran = notebook.ok(
        "after = look(); after.pop('after', None)\n"
        "print(json.dumps([before, after, items, weights.tolist()]))"
    )
    before, after, items, weights = json.loads(ran.text)
    assert after == before
    assert (items, weights) == ([1], [1.0, 1.0, 1.0])
