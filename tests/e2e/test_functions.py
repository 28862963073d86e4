"""Distributed functions in a real kernel: called and submitted, with all that is around them.

A1, B4, X7 and so on are numbers of the acceptance list: what Flyte's elastic task promises, and should.
"""

from __future__ import annotations

from pathlib import Path

import cloudpickle
import pytest

import quarterdeck as qd
from support.notebook import Notebook

PREPARE = """
import os, threading, time
import quarterdeck as qd
import torch, torch.distributed as dist
two = qd.Elastic(nproc_per_node=2)

@qd.distributed(two)
def ranks():
    return dist.get_rank(), dist.get_world_size()

@qd.distributed(two)
def double(x):
    return 2 * x

@qd.distributed(two)
def slow():
    time.sleep(0.3)
    print("worked")
    return "done"
"""


@pytest.fixture(scope="module", autouse=True)
def prepared(notebook: Notebook) -> None:
    notebook.deadline_s = 30
    notebook.ok(PREPARE)


# ---- a call


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_rank_0_s_objects_come_back_alive_and_of_the_notebook_s_own_class(
    notebook: Notebook, start_method: str
) -> None:
    notebook.ok(f"""
from dataclasses import dataclass

@dataclass
class Config:
    name: str

@qd.distributed(qd.Elastic(nproc_per_node=2, start_method="{start_method}"))
def train(config: Config):
    dist.init_process_group("gloo")
    rank, world_size = dist.get_rank(), dist.get_world_size()
    value = torch.tensor([5]) + 2 * rank + world_size
    dist.all_reduce(value)
    model = torch.nn.Linear(1000, 1 + rank)
    return f"result from local rank {{os.environ['LOCAL_RANK']}}", Config(config.name + "!"), model, value

before = Config("name")
text, config, model, value = train(before)
assert text == "result from local rank 0"
assert type(config) is Config and config == Config("name!") and before == Config("name")
assert (model.in_features, model.out_features) == (1000, 1)
assert model(torch.ones(1000)).shape == (1,)
assert value.item() == 16
""")


def test_what_the_ranks_write_shows_under_the_call_and_its_value_is_the_cell_s(notebook: Notebook) -> None:
    notebook.ok("@qd.distributed(two)\ndef talk():\n    print('here is', dist.get_rank())\n    return 5")
    ran = notebook.ok("talk()")
    assert sorted(ran.lines()) == ["5", "[0] here is 0", "[1] here is 1"]


def test_without_a_config_there_are_two_ranks_on_a_machine_without_gpus(notebook: Notebook) -> None:
    code = "@qd.distributed()\ndef size():\n    return dist.get_world_size()\n\nsize()"
    assert notebook.ok(code).text == "2"


def test_pytorch_runs_a_master_and_its_workers(notebook: Notebook) -> None:
    ran = notebook.ok(
        "@qd.distributed(qd.PyTorch(worker=qd.Worker(replicas=3)))\n"
        "def size():\n    return dist.get_world_size()\n\nsize()"
    )
    assert ran.text == "4"


def test_workers_are_counted_once_and_a_value_error_says_so_in_the_cell_that_wrote_it(
    notebook: Notebook,
) -> None:
    for wrong in ("qd.PyTorch()", "qd.PyTorch(worker=qd.Worker(replicas=1), num_workers=1)"):
        notebook.ok(f"try:\n    {wrong}\nexcept ValueError as error:\n    assert 'workers' in str(error)")
        assert "worker=Worker(replicas=3)" in notebook.fails(wrong).traceback


@pytest.mark.parametrize("nnodes", ["1", "'1'", "'1:1'"])
def test_one_node_may_be_written_in_all_of_torchrun_s_ways(notebook: Notebook, nnodes: str) -> None:
    code = f"qd.distributed(qd.Elastic(nnodes={nnodes}, nproc_per_node=2))(ranks.function)()"
    assert notebook.ok(code).text == "(0, 2)"


def test_more_nodes_are_refused_where_they_are_written(notebook: Notebook) -> None:
    assert "one node" in notebook.fails("qd.Elastic(nnodes='1:2')").traceback


def test_the_rendezvous_dict_is_as_it_was_after_a_run(notebook: Notebook) -> None:
    notebook.ok("""
given = {"join_timeout": 10}
config = qd.Elastic(nproc_per_node=2, rdzv_configs=given)
assert qd.distributed(config)(ranks.function)() == (0, 2)
assert given == {"join_timeout": 10} == config.rdzv_configs
""")


# ---- arguments that cannot be


@pytest.mark.parametrize("call", ["double()", "double(1, 2)", "double(y=1)", "double.submit()"])
def test_wrong_arguments_are_a_type_error_before_anything_starts(notebook: Notebook, call: str) -> None:
    notebook.ok("before = len(qd.runs())")
    ran = notebook.fails(call)
    assert ran.ename == "ArgumentError"
    assert "quarterdeck/" not in ran.traceback
    assert "double()" in ran.traceback
    assert notebook.ok("len(qd.runs()) - before").text == "0"


@pytest.mark.parametrize(
    ("code", "named"),
    [
        pytest.param("double({'data': [lock]})", "x['data'][0]", id="an argument"),
        pytest.param("locked()", "held", id="a closure"),
        pytest.param("using()", "lock", id="a global"),
    ],
)
def test_what_cannot_be_pickled_is_named_before_anything_starts(
    notebook: Notebook, code: str, named: str
) -> None:
    notebook.ok("""
lock = threading.Lock()

def make(held):
    @qd.distributed(two)
    def locked():
        return held.locked()
    return locked

@qd.distributed(two)
def using():
    return lock.locked()

locked = make(lock)
before = len(qd.runs())
""")
    ran = notebook.fails(code)
    assert ran.ename == "UsageError"
    assert f"`{named}`" in ran.traceback
    assert notebook.ok("len(qd.runs()) - before, double(4)").text == "(0, 8)"


def test_a_decorator_without_a_call_or_with_something_else_is_told_how(notebook: Notebook) -> None:
    for wrong in ("@qd.distributed", "@qd.distributed(2)", "@qd.distributed(two, timeout_s=0)"):
        ran = notebook.fails(f"{wrong}\ndef f():\n    pass")
        assert ran.ename == "ConfigError"
        assert "Write" in ran.traceback


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("async def f():\n    pass", "asyncio.run"),
        ("def f():\n    yield 1", "Return a list"),
    ],
)
def test_what_would_only_run_after_the_call_is_refused(notebook: Notebook, code: str, says: str) -> None:
    ran = notebook.fails(f"@qd.distributed(two)\n{code}")
    assert ran.ename == "ConfigError"
    assert says in ran.traceback


# ---- what is there without asking


def test_a_rank_knows_its_run_and_writes_its_checkpoint(notebook: Notebook) -> None:
    notebook.ok("""
@qd.distributed(two)
def look():
    here = qd.current()
    here.checkpoint.write(b"state of rank %d" % here.rank)
    os.makedirs(here.raw_output_prefix)
    torchrun = os.environ["TORCHELASTIC_RUN_ID"]
    return here.run_id, torchrun, here.name, here.rank, here.world_size, here.attempt, here.run_dir

run = look.submit()
assert run.result() == (run.run_id, run.run_id, "look()", 0, 2, 0, run.folder)
assert run.results[1].return_value[3] == 1
assert sorted(f.read_bytes() for f in (run.folder / "checkpoints").rglob("*") if f.is_file()) == [
    b"state of rank 0", b"state of rank 1"]
assert sorted(f.name for f in (run.folder / "raw").iterdir()) == ["rank-0", "rank-1"]
""")


def test_the_decks_of_every_rank_come_back(notebook: Notebook) -> None:
    notebook.ok("""
@qd.distributed(two)
def report():
    qd.Deck("test-deck", f"Hello from rank {dist.get_rank()}")
    qd.current().default_deck.append("Hello from default deck")

run = report.submit()
for rank, result in enumerate(run.results):
    assert {deck.name: deck.html for deck in result.decks} == {
        "test-deck": f"Hello from rank {rank}", "default": "Hello from default deck"}
assert qd.current().decks == []
""")


def test_notes_about_a_result_come_with_it_and_are_kept(notebook: Notebook) -> None:
    notebook.ok("""
@qd.distributed(two)
def annotated():
    qd.current().annotate(card=f"# Model of rank {dist.get_rank()}", score=0.5)

run = annotated.submit()
run.wait()
assert [len(outcome.annotations) for outcome in run.outcomes] == [2, 2]
""")
    shown = notebook.ok("run.outcomes[0].annotations['card'], run.outcomes[1].annotations['score']").text
    assert shown == "('\"# Model of rank 0\"', '0.5')"


def test_the_cores_are_shared_out_unless_the_user_chose(notebook: Notebook) -> None:
    notebook.ok("""
@qd.distributed(two)
def threads():
    return os.environ["OMP_NUM_THREADS"], torch.get_num_threads()

share = max(1, len(os.sched_getaffinity(0)) // 2)
assert threads() == (str(share), share), threads()
assert "OMP_NUM_THREADS" not in os.environ
os.environ["OMP_NUM_THREADS"] = "42"
try:
    assert threads() == ("42", 42)
    assert os.environ["OMP_NUM_THREADS"] == "42"
finally:
    del os.environ["OMP_NUM_THREADS"]
""")


def test_a_script_s_argument_parser_sees_no_arguments(notebook: Notebook) -> None:
    ran = notebook.ok("""
import argparse, sys

@qd.distributed(two)
def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3)
    return parser.parse_args().epochs, sys.argv

main()""")
    assert ran.text == "(3, [''])"


def test_the_decorator_s_options_reach_the_ranks(notebook: Notebook) -> None:
    notebook.ok("""
@qd.distributed(two, name="tuned", env={"MODE": "fast"}, seed=7, backend="gloo")
def options():
    return os.environ["MODE"], torch.rand(1).item(), dist.get_backend()

first, second = options.submit(), options.submit()
assert first.results == second.results
assert first.result()[::2] == ("fast", "gloo")
assert first.results[0].return_value != first.results[1].return_value
assert first.name == "tuned" and qd.runs()["tuned"] is second and "MODE" not in os.environ
""")


# ---- beside the session


def test_a_function_neither_sees_nor_changes_the_session_s_variables(notebook: Notebook) -> None:
    notebook.ok("%%distributed\nsecret = 1")
    ran = notebook.ok("""
@qd.distributed(two)
def nosy():
    global secret
    found = "secret" in globals()
    secret = 2
    return found

nosy()""")
    assert ran.text == "False"
    assert notebook.ok("%%distributed\nsecret").lines() == ["[0\u20131] 1"]
    assert notebook.ok("'secret' in globals()").text == "False"


def test_the_session_s_setup_cells_run_first(notebook: Notebook) -> None:
    notebook.ok("%%distributed --session prepared -n 2 --setup\nbase = 40 + rank")
    try:
        notebook.ok("""
@qd.distributed(two, session="prepared")
def based():
    return base

run = based.submit()
assert [result.return_value for result in run.results] == [40, 41]
""")
    finally:
        notebook.ok("qd.Session(name='prepared').stop()")


def test_inside_a_distributed_cell_it_is_just_called_on_each_rank(notebook: Notebook) -> None:
    notebook.ok("before = len(qd.runs())")
    ran = notebook.ok("%%distributed\nnumbers = double(rank + 1), ranks()\nnumbers")
    assert sorted(ran.lines()) == ["[0] (2, (0, 2))", "[1] (4, (1, 2))"]
    assert notebook.ok("{run.kind for run in qd.runs()[: len(qd.runs()) - before]}").text == "{'cell'}"


def test_inside_a_distributed_function_it_is_just_called_too(notebook: Notebook) -> None:
    notebook.ok("@qd.distributed(two)\ndef twice(x):\n    return double(double(x))")
    assert notebook.ok("twice(3)").text == "12"


# ---- a Run


def test_submit_returns_at_once_and_the_output_comes_to_the_cell_that_submitted(notebook: Notebook) -> None:
    cell = notebook.submit("run = slow.submit()\nassert run.status in ('starting', 'running')")
    assert notebook.ok("run.result(), run.status, run.kind, run.name").text == (
        "('done', 'succeeded', 'function', 'slow()')"
    )
    assert notebook.shown(cell, until="worked").lines() == ["[0\u20131] worked"]
    assert notebook.ok("'worked' in run.logs(1), 'def slow' in run.source").text == "(True, True)"


def test_a_result_that_is_not_there_yet_is_a_time_out_and_the_run_goes_on(notebook: Notebook) -> None:
    notebook.ok("""
run = slow.submit()
try:
    run.result(timeout=0.1)
except TimeoutError as error:
    assert run.run_id in str(error)
else:
    raise AssertionError
assert not run.wait(timeout=0.01)
assert run.result(timeout=30) == "done"
""")


def test_await_leaves_the_event_loop_free(notebook: Notebook) -> None:
    notebook.ok("""
import asyncio

async def count():
    global ticks
    while True:
        ticks += 1
        await asyncio.sleep(0.02)

ticks, ticking = 0, asyncio.create_task(count())
assert await slow.submit() == "done"
assert ticks > 5, ticks
assert await asyncio.gather(double.submit(1), double.submit(2)) == [2, 4]
ticking.cancel()
""")


def test_calls_and_submits_work_from_any_thread_and_several_at_once(notebook: Notebook) -> None:
    notebook.ok("""
from concurrent.futures import ThreadPoolExecutor

with ThreadPoolExecutor(4) as pool:
    called = [pool.submit(double, i) for i in range(4)]
    submitted = [pool.submit(double.submit, i) for i in range(4)]
    assert [future.result(60) for future in called] == [0, 2, 4, 6]
    runs = [future.result(60) for future in submitted]
    assert [run.result(60) for run in runs] == [0, 2, 4, 6]
    assert len({run.run_id for run in runs}) == 4
""")


def test_a_run_can_be_found_again_with_its_values(notebook: Notebook) -> None:
    notebook.ok("""
run_id = double.submit(21).run_id
import gc; gc.collect()
found = qd.runs()[run_id]
assert found.result() == 42 and found.status == "succeeded"
assert [result.return_value for result in found.results] == [42, 42]
assert double(1) == 2 and qd.runs()[0].run_id != run_id and qd.runs()["double()"].result() == 2
""")


# ---- spawn_helper by itself


def test_spawn_helper_does_in_any_process_what_its_documentation_says(tmp_path: Path) -> None:
    folders = [str(tmp_path / name) for name in ("raw", "checkpoints", "earlier")]
    qd.spawn_helper(cloudpickle.dumps(_save), folders[0], folders[2], None, {"data": b"before"})

    result = qd.spawn_helper(cloudpickle.dumps(_report), *folders, {"x": 1})

    assert isinstance(result, qd.ElasticWorkerResult)
    assert result.return_value == (1, folders[0], b"before")
    assert [(deck.name, deck.html) for deck in result.decks] == [("numbers", "<b>1</b>")]
    assert qd.current().decks == []


def test_spawn_helper_lets_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        qd.spawn_helper(cloudpickle.dumps(lambda x: 1 // x), str(tmp_path), None, None, {"x": 0})
    with pytest.raises(TypeError):
        qd.spawn_helper(cloudpickle.dumps(lambda x: x), str(tmp_path), None, None, {"y": 0})


def _save(data: bytes) -> None:
    checkpoint = qd.current().checkpoint
    assert checkpoint is not None
    checkpoint.write(data)


def _report(x: int) -> tuple[int, str, bytes | None]:
    here = qd.current()
    assert here.checkpoint is not None
    qd.Deck("numbers").append(f"<b>{x}</b>")
    return x, here.raw_output_prefix, here.checkpoint.read()
