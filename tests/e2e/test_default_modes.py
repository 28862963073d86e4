"""Modes of torch that a cell leaves on, or that the notebook is in: values travel, metrics are kept,
checkpoints come and go, and the group is repaired after a fault, as ever.
"""

from __future__ import annotations

import pytest

from support.notebook import Notebook

SET_UP = """%%distributed
import torch, quarterdeck as qd
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 1))
optimizer = torch.optim.Adam(model.parameters())
def train():
    optimizer.zero_grad()
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
train()
"""

MODES = {
    "default device": ("torch.set_default_device('meta')", "torch.set_default_device(None)"),
    "dtype": ("torch.set_default_dtype(torch.bfloat16)", "torch.set_default_dtype(torch.float32)"),
    "inference": (
        "mode = torch.inference_mode(); mode.__enter__()",
        "mode.__exit__(None, None, None)",
    ),
    "grad off": ("torch.set_grad_enabled(False)", "torch.set_grad_enabled(True)"),
}

USE = """%%distributed --seed 3 --name used{number}
assert made.tolist() == [0, 1, 2] and made.device.type == "cpu", made
assert fresh{number}.requires_grad and not fresh{number}.is_inference()
qd.log(loss=made.sum().float(), step=1)
qd.Deck("tensors").append(made)
qd.Deck("model").append(model)
path = qd.save_checkpoint(model, optimizer, step=1, extra={{"x": made}}, rng=True)
back = qd.load_checkpoint(1, into=(model, optimizer), rng=True)
assert back.extra["x"].tolist() == [0, 1, 2]
back.extra["x"]"""


@pytest.fixture(scope="module", autouse=True)
def prepared(notebook: Notebook) -> None:
    notebook.ok("import torch, quarterdeck as qd\nmade = torch.arange(3)")
    notebook.ok(SET_UP)


@pytest.mark.parametrize("name", MODES)
def test_a_mode_that_a_cell_leaves_on_changes_nothing_of_ours(notebook: Notebook, name: str) -> None:
    on, off = MODES[name]
    number = list(MODES).index(name)
    notebook.ok(f"fresh{number} = torch.ones(3, requires_grad=True)")
    notebook.ok(f"%%distributed\nimport torch\n{on}")
    try:
        assert "tensor([0, 1, 2])" in notebook.ok(USE.format(number=number)).text
        failed = notebook.run("%%distributed\nif rank == 1: raise ValueError('on purpose')")
        assert "on purpose" in failed.traceback
        again = notebook.ok("%%distributed\nimport torch.distributed as dist\ndist.get_world_size()")
        assert "2" in again.text
    finally:
        notebook.ok(f"%%distributed\n{off}")
    notebook.ok("%pull back as arrived")
    notebook.ok("assert arrived.extra['x'].tolist() == [0, 1, 2]")
    notebook.ok("%%distributed\ntrain(); train()\nqd.save_checkpoint(model, optimizer, step=2, wait=True)")
    notebook.ok(f"""
run = next(run for run in qd.runs() if run.name == "used{number}")
assert list(run.metrics["loss"].values(0)) == [3.0], run.metrics
assert {{"tensors", "model"}} <= set(run.decks[0])""")


@pytest.mark.parametrize("name", MODES)
def test_values_of_functions_travel_under_a_mode_of_the_notebook(notebook: Notebook, name: str) -> None:
    on, off = MODES[name]
    notebook.ok("""
@qd.distributed(qd.Elastic(nproc_per_node=2))
def doubled(x, sparse):
    return x * 2, sparse, torch.nn.Parameter(torch.ones(2)), torch.empty(0)
args = torch.arange(3.0), torch.eye(2).to_sparse()""")
    notebook.ok(on)
    try:
        notebook.ok("found = doubled(*args)")
    finally:
        notebook.ok(off)
    notebook.ok("""
two, sparse, parameter, empty = found[0] if isinstance(found, list) else found
assert two.tolist() == [0, 2, 4] and sparse.to_dense().tolist() == [[1, 0], [0, 1]]
assert two.dtype == torch.float32 and empty.device.type == "cpu"
(parameter * 2).sum().backward()
assert not any(it.is_inference() for it in (two, sparse, parameter, empty))""")
