"""What goes into a distributed function and what comes out of it: any function, any value, nothing lost."""

from __future__ import annotations

import textwrap

import pytest

from support.notebook import Notebook

PREPARE = """
import functools, os, sys, time
import quarterdeck as qd
import numpy, torch, torch.distributed as dist
two = qd.Elastic(nproc_per_node=2)

def per_rank(function, *args, **kwargs):
    return [result.return_value for result in function.submit(*args, **kwargs).results]
"""


@pytest.fixture(scope="module", autouse=True)
def prepared(notebook: Notebook) -> None:
    notebook.deadline_s = 30
    notebook.ok(PREPARE)


# ---- X7: any function


@pytest.mark.parametrize(
    ("code", "value"),
    [
        pytest.param("qd.distributed(two)(lambda x: x + dist.get_rank())(5)", 5, id="a lambda"),
        pytest.param(
            """
            def outer(a):
                b = [a]
                @qd.distributed(two)
                def inner(x):
                    b.append(x)
                    return b
                return inner(2), b
            outer(1)
            """,
            ([1, 2], [1]),
            id="a nested function with its closure, which stays as it was",
        ),
        pytest.param(
            """
            @qd.distributed(two)
            def factorial(n):
                return n * factorial(n - 1) if n else 1
            factorial(5)
            """,
            120,
            id="recursion through its own name",
        ),
        pytest.param(
            """
            offset, table = 10, {"a": 1}
            def shift(x):
                return x + offset + table["a"]
            class Shifter:
                def apply(self, x):
                    return shift(x)
            @qd.distributed(two)
            def shifted(x):
                return Shifter().apply(x)
            shifted(1)
            """,
            12,
            id="notebook globals, functions and classes",
        ),
        pytest.param(
            """
            class Model:
                def __init__(self, weight):
                    self.weight = weight
                @qd.distributed(two)
                def scale(self, x, *, by=1):
                    return self.weight * x * by
                def plain(self, x):
                    return self.weight + x
            Model(3).scale(2, by=2), qd.distributed(two)(Model(3).plain)(4)
            """,
            (12, 7),
            id="a method, decorated or bound",
        ),
        pytest.param("qd.distributed(two)(functools.partial(pow, 2))(5)", 32, id="a partial of a builtin"),
        pytest.param("qd.distributed(two)(divmod)(7, 2)", (3, 1), id="a function in C"),
        pytest.param("qd.distributed(two)(max)(3, 9)", 9, id="a function that does not tell its parameters"),
        pytest.param(
            """
            @qd.distributed(two)
            def every(a, /, b, *rest, c=3, **more):
                return a, b, rest, c, more
            every(1, 2), every(1, 2, 4, c=5, d=6), every(1, b=2, a=7)
            """,
            ((1, 2, (), 3, {}), (1, 2, (4,), 5, {"d": 6}), (1, 2, (), 3, {"a": 7})),
            id="all kinds of parameters",
        ),
        pytest.param(
            """
            @qd.distributed(two)
            def words(**more):
                return more
            words(function=1, kwargs=2, self=3, fn=4)
            """,
            {"function": 1, "kwargs": 2, "self": 3, "fn": 4},
            id="keywords that others might take for their own",
        ),
        pytest.param(
            """
            def traced(function):
                @functools.wraps(function)
                def wrapper(*args):
                    return ["traced", function(*args)]
                return wrapper
            @qd.distributed(two)
            @traced
            def one_more(x):
                return x + 1
            one_more(1)
            """,
            ["traced", 2],
            id="under another decorator",
        ),
    ],
)
def test_any_function_can_be_distributed(notebook: Notebook, code: str, value: object) -> None:
    assert notebook.ok(textwrap.dedent(code).strip()).text == repr(value)


def test_a_function_of_a_module_on_disk_is_imported_by_the_ranks(notebook: Notebook) -> None:
    (notebook.folder / "own_module.py").write_text(
        "import quarterdeck as qd\nLIMIT = 5\n\n"
        "def plain(x):\n    return min(x, LIMIT), __name__\n\n"
        "@qd.distributed(qd.Elastic(nproc_per_node=2))\ndef decorated(x):\n    return plain(x)\n"
    )
    code = "import own_module\nown_module.decorated(9), qd.distributed(two)(own_module.plain)(3)"
    assert notebook.ok(code).text == "((5, 'own_module'), (3, 'own_module'))"


def test_a_redefined_global_is_used_as_it_is_at_the_call(notebook: Notebook) -> None:
    notebook.ok("level = 1\n@qd.distributed(two)\ndef get_level():\n    return level")
    assert notebook.ok("get_level()").text == "1"
    assert notebook.ok("level = 2\nget_level()").text == "2"


# ---- X1: classes of the notebook


def test_what_comes_back_is_of_the_notebook_s_own_classes(notebook: Notebook) -> None:
    notebook.ok("""
import enum
from dataclasses import dataclass, field
from typing import NamedTuple

class Color(enum.Enum):
    RED = 1

class Point(NamedTuple):
    x: int

@dataclass
class Config:
    color: Color
    points: list[Point] = field(default_factory=list)

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
    def forward(self, x):
        return self.layer(x)

@qd.distributed(two)
def change(config, net):
    config.points.append(Point(len(config.points)))
    net.layer.bias.data.fill_(7)
    return config, net

config, net = Config(Color.RED), Net()
new_config, new_net = change(config, net)
assert type(new_config) is Config and new_config.color is Color.RED
assert type(new_config.points[0]) is Point and new_config.points == [Point(0)] and config.points == []
assert type(new_net) is Net and new_net.layer.bias.item() == 7 != net.layer.bias.item()
assert torch.equal(new_net.layer.weight, net.layer.weight)
""")


def test_a_function_comes_back_that_sees_the_notebook_s_names(notebook: Notebook) -> None:
    notebook.ok("factor = 3\n@qd.distributed(two)\ndef make():\n    return lambda x: x * factor")
    assert notebook.ok("scale = make()\nfactor = 5\nscale(2)").text == "10"


# ---- X2: what cannot come back


def test_a_value_that_cannot_leave_its_worker_is_named_and_the_rest_arrives(notebook: Notebook) -> None:
    notebook.ok("""
import threading

@qd.distributed(two)
def half_picklable():
    qd.Deck("loss", "<b>0.1</b>")
    return {"lock": threading.Lock()} if dist.get_rank() == 0 else "fine"

run = half_picklable.submit()
value = run.result()
assert run.status == "succeeded"
assert isinstance(value, qd.Unpicklable)
assert value.text.startswith("{'lock': <unlocked _thread.lock")
assert "`result['lock']`" in value.why, value.why
assert run.results[1].return_value == "fine"
assert [[deck.name for deck in result.decks] for result in run.results] == [["loss"], ["loss"]]
assert isinstance(qd.runs()[run.run_id].result(), qd.Unpicklable)
""")
    assert "not picklable" in notebook.ok("half_picklable()").text
    assert notebook.ok("per_rank(qd.distributed(two)(lambda: 1))").text == "[1, 1]"


def test_a_deck_that_cannot_be_pickled_costs_neither_the_run_nor_the_value(notebook: Notebook) -> None:
    notebook.ok("""
@qd.distributed(two)
def strange_deck():
    qd.Deck("strange").helper = threading.Lock()
    return "value"

run = strange_deck.submit()
print(run.result())
""")


def test_a_value_whose_repr_fails_is_a_value_like_any_other(notebook: Notebook) -> None:
    notebook.ok("""
class Shy:
    def __init__(self):
        self.content = 3
    def __repr__(self):
        raise RuntimeError("not now")

@qd.distributed(two)
def shy():
    return Shy()

assert shy().content == 3
""")


def test_a_value_that_fails_while_it_is_rebuilt_says_so(notebook: Notebook) -> None:
    notebook.ok("""
class Fragile:
    def __reduce__(self):
        return rebuild, ()

def rebuild():
    raise RuntimeError("cannot be rebuilt")

@qd.distributed(two)
def fragile():
    return Fragile()
""")
    ran = notebook.fails("fragile()")
    assert "cannot be rebuilt" in ran.traceback
    assert ran.ename == "UsageError"
    assert notebook.ok("per_rank(qd.distributed(two)(lambda: 1))").text == "[1, 1]"


# ---- X11: large values


def test_large_values_come_back_equal_and_writable(notebook: Notebook) -> None:
    notebook.ok("""
@qd.distributed(two)
def large():
    if dist.get_rank():
        return None
    tensor = torch.arange(50_000_000, dtype=torch.float32)
    return tensor, tensor.numpy()[::1000].reshape(-1, 10)

tensor, view = large()
assert tensor.nbytes == 200_000_000
assert torch.equal(tensor, torch.arange(50_000_000, dtype=torch.float32))
assert (view == numpy.arange(50_000_000, dtype="float32")[::1000].reshape(-1, 10)).all()
tensor += 1
view += 1
assert tensor[-1] == 50_000_000 and view[0, 0] == 1
del tensor, view
""")


def test_views_of_one_storage_still_share_it(notebook: Notebook) -> None:
    notebook.ok("""
@qd.distributed(two)
def views():
    base = torch.zeros(1000, 10)
    return base[:, 1], base.T, base

column, transposed, base = views()
base[3, 1] = 5
assert column[3] == 5 and transposed[1, 3] == 5
assert column.stride() == (10,)
""")


def test_a_view_of_a_larger_array_brings_only_itself(notebook: Notebook) -> None:
    notebook.ok("""
@qd.distributed(two)
def corner():
    return numpy.ones((1000, 1000))[:2, :3]

run = corner.submit()
assert run.result().shape == (2, 3) and run.result().sum() == 6
assert run.size_bytes < 1_000_000
""")


def test_large_arguments_arrive_on_every_rank_and_are_each_rank_s_own(notebook: Notebook) -> None:
    notebook.ok("""
data = torch.ones(10_000_000)

@qd.distributed(two)
def consume(x):
    x += dist.get_rank()
    return x[0].item(), x.sum().item()

assert per_rank(consume, data) == [(1.0, 10_000_000.0), (2.0, 20_000_000.0)]
assert data[0] == 1
""")


@pytest.mark.parametrize(
    "value",
    [
        "torch.tensor([1, 2], dtype=torch.int32)",
        "torch.ones(2, 3, dtype=torch.bfloat16).T",
        "torch.zeros(0, 4)",
        "torch.ones(3, requires_grad=True)",
        "torch.nn.Parameter(torch.ones(2000))",
        "torch.ones(1).expand(5)",
        "torch.eye(3).to_sparse()",
        "numpy.array(['a', None], dtype=object)",
        "numpy.zeros((3, 0))",
        "b'x' * 5_000_000",
        "None",
    ],
)
def test_a_value_keeps_its_type_shape_and_content(notebook: Notebook, value: str) -> None:
    notebook.ok(f"""
made = {value}
back = qd.distributed(two)(lambda x: x)(made)
assert type(back) is type(made)
for name in ("dtype", "shape", "requires_grad", "layout"):
    assert getattr(back, name, None) == getattr(made, name, None), name
assert repr(back) == repr(made)
""")
