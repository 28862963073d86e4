"""What travels for a cell: a worker is played by a dict of names and owners."""

from __future__ import annotations

import gc
import linecache
import sys
import types
import weakref
from typing import Any

import pytest
import torch

from quarterdeck.protocol.parts import WorkerNames
from quarterdeck.transfer.names import analyse
from quarterdeck.transfer.transfer_state import Plan, TransferState, sources_of

HIDDEN = {"In", "Out", "_", "exit"}


class Game:
    """A notebook, its ledger, and workers that take what is sent."""

    def __init__(self, ranks: int = 2) -> None:
        self.notebook: dict[str, Any] = {"__name__": "__main__"}
        self.ledger = TransferState()
        self.workers = [WorkerNames(rank, f"life{rank}", {}) for rank in range(ranks)]

    def note(self, code: str) -> None:
        exec(code, self.notebook)

    def plan(self, cell: str, ranks: list[int] | None = None) -> Plan:
        targets = [w for w in self.workers if ranks is None or w.rank in ranks]
        before = dict(self.notebook)
        plan = self.ledger.plan(analyse(cell), self.notebook, targets, HIDDEN)
        assert self.notebook == before
        return plan

    def cell(self, code: str, ranks: list[int] | None = None, binds: tuple[str, ...] = ()) -> Plan:
        plan = self.plan(code, ranks)
        assert plan.refusal is None
        self.deliver(plan, ranks)
        for worker in self.workers:
            if ranks is None or worker.rank in ranks:
                worker.names.update(dict.fromkeys(binds, "worker"))
        self.ledger.bound(binds, plan)
        return plan

    def deliver(self, plan: Plan, ranks: list[int] | None = None) -> None:
        targets = [w for w in self.workers if ranks is None or w.rank in ranks]
        for worker in targets:
            worker.names.update(dict.fromkeys(plan.send, "notebook"))
        self.ledger.sent(plan, targets)

    def push(self, *names: str) -> Plan:
        plan = self.ledger.plan_push(names, self.notebook, self.workers, HIDDEN)
        self.deliver(plan)
        return plan


@pytest.fixture
def game(monkeypatch: pytest.MonkeyPatch) -> Game:
    game = Game()
    module = types.ModuleType("__main__")
    game.notebook = vars(module)
    monkeypatch.setitem(sys.modules, "__main__", module)
    return game


def test_a_name_the_workers_lack_travels_with_all_it_refers_to(game: Game) -> None:
    game.note(
        "import math\nlr = 0.1\nspare = 1\ndef helper(): return lr\ndef train(): return helper(), math.pi"
    )
    assert set(game.cell("train()").send) == {"train", "helper", "lr", "math"}


def test_what_did_not_change_does_not_travel_again(game: Game) -> None:
    game.note("lr = 0.1\nnan = float('nan')\ncfg = [1]\nclass A:\n  x = 1\ndef f(): return lr, cfg, A, nan")
    game.cell("f()")
    assert game.cell("f()").send == {}


def test_objects_bring_the_names_their_class_refers_to(game: Game) -> None:
    game.note("def act(): pass\nclass Net:\n  def forward(self): return act()\nnets = [Net()]")
    assert set(game.cell("nets").send) == {"nets", "Net", "act"}


def test_hidden_injected_and_dunder_names_never_travel(game: Game) -> None:
    game.note("In = []\n_ = 1\nrank = 3\ndevice = 'x'\n__doc__ = 'd'\nx = 1")
    assert set(game.cell("In, _, rank, device, __doc__, x, print, nowhere").send) == {"x"}


def test_names_that_nobody_has_are_left_to_the_name_error(game: Game) -> None:
    plan = game.cell("nowhere + 1")
    assert (plan.send, plan.notices, plan.refusal) == ({}, [], None)


@pytest.mark.parametrize(
    ("before", "after", "travels"),
    [
        ("x = 1", "x = 2", True),
        ("x = 1", "x = 1.0", True),
        ("x = 1", "x = True", True),
        ("x = 0.0", "x = -0.0", True),
        ("x = 'abc'", "x = 'ab' + 'c'", False),
        ("x = float('nan')", "x = float('nan')", False),
        ("x = (1, ('a', None))", "x = (1, ('a', None))", False),
        ("x = (1, 2)", "x = (1, 2.0)", True),
        ("def x(): return 1", "def x(): return 2", True),
        ("class x: pass", "class x: pass", True),
        ("class x:\n  def f(self): return 1", "x.f = lambda self: 2", True),
        ("class x:\n  a = 1", "x.a = 2", True),
        ("class B: pass\nclass x(B): pass", "B.f = 1", True),
        ("def x(): return 1", "x.__code__ = (lambda: 2).__code__", True),
        ("import math as x", "import math as x", False),
        ("import math as x", "import cmath as x", True),
    ],
)
def test_code_and_scalars_travel_again_when_they_changed(
    game: Game, before: str, after: str, travels: bool
) -> None:
    game.note(before)
    game.cell("x")
    game.note(after)
    plan = game.cell("x")
    assert ("x" in plan.send) is travels
    assert plan.notices == []


def test_a_function_used_inside_another_is_kept_in_step(game: Game) -> None:
    game.note("def helper(): return 1\ndef train(): return helper()")
    game.cell("train()")
    game.note("def helper(): return 2")
    assert set(game.cell("train()").send) == {"helper"}


def test_a_scalar_that_only_a_workers_function_reads_is_kept_in_step(game: Game) -> None:
    game.note("lr = 0.1")
    game.cell("def train(): return lr", binds=("train",))
    game.note("lr = 0.2")
    assert set(game.cell("train()").send) == {"lr"}


@pytest.mark.parametrize("make", ["torch.nn.Linear(2, 2)", "[1, 2]", "torch.ones(3)", "{'a': 1}"])
def test_a_rebound_object_travels_again_with_a_notice(game: Game, make: str) -> None:
    game.notebook["torch"] = torch
    game.note(f"model = {make}")
    assert game.cell("model").notices == []
    game.note(f"model = {make}")
    plan = game.cell("model")
    assert "model" in plan.send
    assert plan.notices == ["`model` is another object in the notebook now, and the workers have that one"]
    assert game.cell("model").send == {}


@pytest.mark.parametrize(
    ("make", "change"),
    [
        ("torch.nn.Dropout()", "model.eval()"),
        ("torch.nn.Linear(2, 2)", "torch.nn.init.zeros_(model.weight)"),
        ("torch.ones(3)", "model.add_(1)"),
        ("[1]", "model.append(2)"),
    ],
)
def test_an_object_changed_in_place_stays_the_workers_own_with_one_notice(
    game: Game, make: str, change: str
) -> None:
    game.notebook["torch"] = torch
    game.note(f"model = {make}")
    game.cell("model")
    game.note(change)
    plan = game.cell("model")
    assert plan.send == {}
    told = "`model` changed in the notebook after it travelled; the workers keep their own"
    assert plan.notices == [f"{told} (`%push model` replaces it)"]
    assert game.cell("model").notices == []


def test_worker_owned_names_are_never_overwritten_and_a_rebinding_is_told_once(game: Game) -> None:
    game.note("x = 1")
    game.cell("x += 1", binds=("x",))
    assert game.cell("x").notices == []
    game.note("x = 5")
    plan = game.cell("x")
    assert plan.send == {}
    assert plan.notices == [
        "`x`: the workers' own value is used, not the notebook's newer one (`%push x` sends it)"
    ]
    assert game.cell("x").notices == []


def test_a_name_the_notebook_binds_after_the_workers_did_is_told(game: Game) -> None:
    game.cell("x = 1", binds=("x",))
    assert game.cell("x").notices == []
    game.note("x = 2")
    assert len(game.cell("x").notices) == 1


def test_push_sends_a_worker_owned_name_and_the_notebook_owns_it_then(game: Game) -> None:
    game.note("x = 1")
    game.cell("x += 1", binds=("x",))
    assert game.push("x").send == {"x": 1}
    game.note("x = 7")
    assert game.cell("x").send == {"x": 7}


def test_push_brings_what_a_function_refers_to(game: Game) -> None:
    game.note("lr = 1\ndef f(): return lr")
    assert set(game.push("f").send) == {"f", "lr"}


def test_a_pulled_name_is_in_step(game: Game) -> None:
    game.cell("model = make()", binds=("model",))
    game.notebook["model"] = pulled = torch.nn.Linear(2, 2)
    game.ledger.pulled("model", pulled)
    plan = game.cell("model")
    assert (plan.send, plan.notices) == ({}, [])


def test_a_name_on_some_ranks_only_is_refused_with_cures(game: Game) -> None:
    game.cell("best = 1", ranks=[0], binds=("best",))
    refusal = game.plan("print(best)").refusal
    assert refusal is not None
    assert refusal.startswith("`best` exists on rank 0 but not on rank 1.")
    assert "`%%rank 0`" in refusal
    assert "`if rank == 0:`" in refusal
    assert "%push" not in refusal
    game.note("best = []")
    assert "`%push best`" in (game.plan("print(best)").refusal or "")


def test_a_refused_cell_sends_nothing(game: Game) -> None:
    game.note("x = 1")
    game.cell("best = 1", ranks=[0], binds=("best",))
    plan = game.plan("best + x")
    assert plan.refusal
    assert plan.send == {}


def test_a_guarded_name_may_be_on_some_ranks_only(game: Game) -> None:
    game.cell("best = 1", ranks=[0], binds=("best",))
    assert game.plan("if rank == 0: print(best)").refusal is None
    game.note("best = []")
    assert game.plan("if rank == 0: print(best)").send == {}


def test_the_ranks_of_the_cell_count_and_not_the_others(game: Game) -> None:
    game.cell("best = 1", ranks=[0], binds=("best",))
    assert game.plan("best", ranks=[0]).refusal is None


def test_code_and_scalars_on_some_ranks_travel_to_all(game: Game) -> None:
    game.note("lr = 1\nlog = []")
    game.cell("lr, log", ranks=[0])
    assert set(game.cell("lr").send) == {"lr"}
    assert "`log` exists on rank 0" in (game.plan("log").refusal or "")


def test_ranks_that_got_an_older_value_get_the_newer_one(game: Game) -> None:
    game.note("lr = 1")
    game.cell("lr", ranks=[0])
    game.note("lr = 2")
    game.cell("lr", ranks=[1])
    assert game.cell("lr").send == {"lr": 2}
    assert game.cell("lr").send == {}


def test_after_a_restart_everything_travels_again_without_notices(game: Game) -> None:
    game.note("model = [1]\nlr = 1")
    game.cell("model, lr")
    game.workers = [WorkerNames(rank, f"new{rank}", {}) for rank in range(2)]
    game.ledger.meet(game.workers)
    plan = game.cell("model, lr")
    assert set(plan.send) == {"model", "lr"}
    assert plan.notices == []


def test_names_deleted_in_the_notebook_are_forgotten_and_stay_on_the_workers(game: Game) -> None:
    game.note("data = [1]")
    game.cell("data")
    game.note("del data")
    plan = game.cell("data")
    assert (plan.send, plan.refusal) == ({}, None)
    game.note("data = [1]")
    assert "data" in game.cell("data").send


def test_travelled_objects_are_not_kept_alive(game: Game) -> None:
    game.notebook["torch"] = torch
    game.note("model = torch.nn.Linear(2, 2)")
    game.cell("model")
    alive = weakref.ref(game.notebook["model"])
    game.note("del model")
    gc.collect()
    assert alive() is None


def test_a_travelled_model_is_known_until_a_life_ends_or_drops_it(game: Game) -> None:
    game.notebook["model"] = model = torch.nn.Linear(2, 2)
    ledger, lives = game.ledger, ["life0", "life1"]
    plan = game.plan("model")
    travel_id = ledger.remember(model)
    assert ledger.known(model, lives) is None
    game.deliver(plan)
    assert ledger.known(model, lives) == travel_id
    game.workers[1].dropped = [travel_id]
    ledger.meet(game.workers)
    assert ledger.known(model, lives) is None
    assert ledger.known(model, ["life0"]) == travel_id
    ledger.forget("life0")
    assert ledger.known(model, ["life0"]) is None


def test_push_replaces_a_known_model_in_full_but_not_an_optimizers_parameters(game: Game) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    game.notebook.update(model=model, opt=optimizer)
    plan = game.plan("model, opt")
    for obj in (model, model.weight, model.bias, optimizer):
        game.ledger.remember(obj)
    game.deliver(plan)
    lives = ["life0", "life1"]
    game.ledger.plan_push(["opt"], game.notebook, game.workers, HIDDEN)
    assert game.ledger.known(optimizer, lives) is None
    assert game.ledger.known(model.weight, lives) is not None
    game.ledger.plan_push(["model"], game.notebook, game.workers, HIDDEN)
    assert game.ledger.known(model, lives) is None
    assert game.ledger.known(model.weight, lives) is None
    game.plan("model")
    assert game.ledger.known(model, lives) is not None


def test_submodules_that_a_cell_reaches_by_dots_are_imported_once(game: Game) -> None:
    game.note("import xml.etree.ElementTree")
    plan = game.cell("xml.etree.ElementTree.parse")
    assert plan.imports == ["xml.etree", "xml.etree.ElementTree"]
    assert "xml" in plan.send
    assert game.cell("xml.etree.ElementTree").imports == []


def test_sources_of_travelling_functions_are_the_cells_they_came_from() -> None:
    text = "def f():\n    return 1\nclass C:\n    def m(self): return f()\n"
    linecache.cache["<cell-7>"] = (len(text), None, text.splitlines(keepends=True), "<cell-7>")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, "<cell-7>", "exec"), namespace)
    cache = types.SimpleNamespace(_filename_map={"<cell-7>": 7})
    for name in ("f", "C"):
        assert sources_of({name: namespace[name]}, cache, namespace) == {"<cell-7>": (7, text)}
    assert sources_of({"len": len, "n": 1, "w": weakref.ref}, cache, namespace) == {}


def test_what_the_notebook_binds_while_the_cell_runs_is_newer(game: Game) -> None:
    """A cell in the background ends some time later: the reader is told all the same."""
    game.note("theirs = 0")
    plan = game.plan("theirs = rank")
    game.note("theirs = 'mine'; other = 'mine'")
    for worker in game.workers:
        worker.names.update(theirs="worker", other="worker")
    game.ledger.bound(["theirs"], plan)
    [notice] = game.plan("theirs").notices
    assert "the workers' own value is used" in notice
    assert game.plan("theirs").notices == []


def test_a_name_that_the_cell_s_text_does_not_show_counts_from_its_end(game: Game) -> None:
    plan = game.plan("exec('theirs = rank')")
    game.note("theirs = 'mine'")
    for worker in game.workers:
        worker.names.update(theirs="worker")
    game.ledger.bound(["theirs"], plan)
    assert game.plan("theirs").notices == []
    game.note("theirs = 'newer'")
    [_] = game.plan("theirs").notices
