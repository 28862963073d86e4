"""A distributed function that goes wrong, or is stopped: it ends, it is named, and the next cell works."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from support.notebook import Notebook

PREPARE = """
import os, signal, sys, threading, time
import quarterdeck as qd
two = qd.Elastic(nproc_per_node=2)

class Flaky(qd.RecoverableError):
    pass

def my_rank():
    return int(os.environ["RANK"])

@qd.distributed(two)
def works(x):
    import torch, torch.distributed as dist
    ones = torch.ones(1)
    dist.all_reduce(ones)
    return int(ones) + x

@qd.distributed(two)
def one_fails():
    if my_rank() == 1:
        raise ValueError("only here")
    return "fine"

@qd.distributed(two)
def sleeps():
    print("begun")
    time.sleep(60)

def raised_by(call):
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")
"""


@pytest.fixture(scope="module", autouse=True)
def prepared(notebook: Notebook) -> None:
    notebook.deadline_s = 30
    notebook.ok(PREPARE)


@pytest.fixture(autouse=True)
def the_next_cell_works(notebook: Notebook) -> Iterator[None]:
    """After each test of this module: a function, and a cell of the session."""
    yield
    assert notebook.ok("works(40)").text == "42"
    assert notebook.ok("%%distributed\nworld_size").lines() == ["[0\u20131] 2"]


# ---- exceptions


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_exceptions_keep_their_types_recoverable_ones_too(notebook: Notebook, start_method: str) -> None:
    notebook.ok(f"""
@qd.distributed(qd.Elastic(nproc_per_node=2, start_method="{start_method}"))
def fail():
    if my_rank() == 1:
        time.sleep(60)
    raise Flaky("no answer", 503)

flaky = raised_by(fail)
assert type(flaky) is Flaky and isinstance(flaky, qd.RecoverableError)
assert flaky.args == ("no answer", 503) and flaky.rank == 0
""")


def test_plain_exceptions_keep_theirs_and_are_not_recoverable(notebook: Notebook) -> None:
    notebook.ok("""
@qd.distributed(two)
def look_up():
    return {}["missing"]

plain = raised_by(look_up)
assert type(plain) is KeyError and plain.args == ("missing",)
assert isinstance(plain.__cause__, qd.RunFailed) and plain.__cause__.run_id == plain.run_id
""")


def test_the_exception_tells_which_rank_raised_it_and_when(notebook: Notebook) -> None:
    notebook.ok("""
@qd.distributed(two)
def late():
    if my_rank() == 1:
        time.sleep(0.1)
        raise Flaky("now")
    time.sleep(60)

began = time.time()
error = raised_by(late)
assert error.rank == 1
assert began + 0.1 <= error.timestamp <= time.time()
assert error.timestamp == qd.runs()[error.run_id].outcomes[1].time_unix_ns / 1e9
""")


def test_the_traceback_shows_the_notebook_s_lines_and_none_of_ours(notebook: Notebook) -> None:
    number = 1 + int(notebook.ok("print(len(In) - 1)").text)
    notebook.ok("def divide(x):\n    return x / 0")
    notebook.ok("@qd.distributed(two)\ndef halve(x):\n    # on both ranks\n    return divide(x)")
    ran = notebook.fails("halve(3)")
    assert ran.ename == "ZeroDivisionError"
    assert f"Cell In[{number + 1}], line 4, in halve(x)" in ran.traceback
    assert f"Cell In[{number}], line 2, in divide(x)" in ran.traceback
    assert "return x / 0" in ran.traceback
    assert "ranks 0\u20131 raised ZeroDivisionError" in ran.traceback
    assert "quarterdeck/" not in ran.traceback


def test_an_exception_group_is_a_traceback_like_any_other_and_not_output(notebook: Notebook) -> None:
    notebook.ok("""
@qd.distributed(two)
def several():
    raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])

error = raised_by(several)
assert type(error) is ExceptionGroup and [type(one) for one in error.exceptions] == [ValueError, KeyError]
run = qd.runs()[0]
assert run.logs(0) == ""
shown = "\\n".join(run.outcomes[0].traceback)
assert "ValueError: one" in shown and "KeyError: 'two'" in shown and "quarterdeck/" not in shown, shown
""")


def test_an_error_that_is_its_own_cause_is_an_error_like_any_other(notebook: Notebook) -> None:
    notebook.ok("""
@qd.distributed(two)
def rings():
    boom = ValueError("boom")
    raise boom from boom

error = raised_by(rings)
assert type(error) is ValueError and error.args == ("boom",)
""")


def test_every_rank_s_outcome_is_there_after_a_failure(notebook: Notebook) -> None:
    notebook.ok("""
began = time.time_ns()
run = one_fails.submit()
assert type(raised_by(run.result)) is ValueError and run.status == "failed"
assert type(raised_by(lambda: run.results)) is ValueError
assert [(one.rank, one.state, one.ename, one.evalue) for one in run.outcomes] == [
    (0, "ok", "", ""), (1, "error", "ValueError", "only here")]
assert all(began < one.time_unix_ns < time.time_ns() for one in run.outcomes)
assert any(one.time_unix_ns % 1_000_000 for one in run.outcomes)
assert "raised ValueError: only here" in run.reason
""")


def test_a_failed_run_can_be_raised_again_and_from_the_store(notebook: Notebook) -> None:
    notebook.ok("""
run = one_fails.submit()
first, second = raised_by(run.result), raised_by(run.result)
assert type(first) is type(second) is ValueError and first.rank == second.rank == 1
run_id = run.run_id
del run, first, second
assert type(raised_by(qd.runs()[run_id].result)) is ValueError
""")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        pytest.param(
            "held = type('Held', (Exception,), {})('holds a lock')\nheld.lock = threading.Lock()\nraise held",
            "holds a lock",
            id="that cannot be pickled",
        ),
        pytest.param(
            "class Picky(Exception):\n    def __init__(self, a, b):\n        super().__init__('both')\n"
            "raise Picky(1, 2)",
            "both",
            id="that cannot be rebuilt",
        ),
    ],
)
def test_an_exception_that_cannot_come_back_is_told_by_run_failed(
    notebook: Notebook, code: str, says: str
) -> None:
    body = "".join(f"    {line}\n" for line in code.splitlines())
    notebook.ok(f"@qd.distributed(two)\ndef fail():\n{body}")
    ran = notebook.fails("fail()")
    assert ran.ename == "RunFailed"
    assert says in ran.traceback
    assert "raise" in ran.traceback
    assert notebook.ok("type(raised_by(fail)), qd.runs()[0].status").text.endswith("RunFailed, 'failed')")


def test_a_failure_in_one_rank_frees_the_others_from_a_collective(notebook: Notebook) -> None:
    notebook.ok("""
@qd.distributed(two)
def lone():
    import torch, torch.distributed as dist
    if my_rank() == 1:
        raise ValueError("before the barrier")
    dist.barrier()

assert type(raised_by(lone)) is ValueError
assert qd.runs()[0].outcomes[0].state == "released"
""")


# ---- X10: how a process may end


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("code", "state", "signal", "exitcode", "says"),
    [
        pytest.param("os.kill(os.getpid(), signal.SIGKILL)", "killed", 9, 0, "SIGKILL", id="SIGKILL"),
        pytest.param("os._exit(5)", "killed", 0, 5, "exit code 5", id="os._exit(5)"),
        pytest.param("os._exit(0)", "killed", 0, 0, "exit code 0", id="os._exit(0)"),
        pytest.param("sys.exit(3)", "error", 0, 3, "SystemExit: 3", id="sys.exit(3)"),
        pytest.param("sys.exit('no data')", "error", 0, 1, "SystemExit: no data", id="sys.exit(text)"),
    ],
)
def test_the_end_of_a_process_is_named_and_told_apart(
    notebook: Notebook, rank: int, code: str, state: str, signal: int, exitcode: int, says: str
) -> None:
    notebook.ok(f"""
@qd.distributed(two)
def end():
    if my_rank() == {rank}:
        {code}
    time.sleep(60)
""")
    ran = notebook.fails("run = end.submit()\nrun.result()")
    assert ran.ename == "RunFailed"
    assert f"rank {rank} " in ran.traceback
    assert says in ran.traceback
    notebook.ok(f"""
ended, other = run.outcomes[{rank}], run.outcomes[{1 - rank}]
assert (ended.state, ended.signal, ended.exitcode) == ("{state}", {signal}, {exitcode}), ended
assert other.state in ("released", "interrupted"), other
assert run.status == "failed" and raised_by(run.result).root_cause == {rank}
""")


@pytest.mark.parametrize("rank", [0, 1])
def test_exit_with_code_0_is_a_success_without_a_value(notebook: Notebook, rank: int) -> None:
    notebook.ok(f"""
@qd.distributed(two)
def end():
    if my_rank() == {rank}:
        sys.exit(0)
    return "value"

run = end.submit()
expected = ["value", "value"]
expected[{rank}] = None
assert [result.return_value for result in run.results] == expected and run.result() == expected[0]
assert run.status == "succeeded" and [one.state for one in run.outcomes] == ["ok", "ok"]
assert [result.return_value for result in qd.runs()[run.run_id].results] == expected
""")


# ---- X6: the notebook's own process


def test_signal_handlers_and_environment_are_as_before_whatever_happened(notebook: Notebook) -> None:
    notebook.ok("""
def own_process():
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return handlers, dict(os.environ), os.getcwd(), list(sys.path)

before = own_process()
works(1)
assert own_process() == before
raised_by(one_fails)
assert own_process() == before
""")
    interrupted(notebook, "time.sleep(60)")
    notebook.ok("assert own_process() == before")


# ---- interrupt and stop


def interrupted(notebook: Notebook, code: str) -> None:
    """Call a function that would never end, press the notebook's stop button: a KeyboardInterrupt."""
    notebook.ok(
        "@qd.distributed(two)\ndef endless():\n    import torch, torch.distributed as dist\n"
        f"    print('begun')\n    {code}"
    )
    cell = notebook.start("endless()")
    notebook.until("begun")
    time.sleep(0.1)
    notebook.interrupt()
    ran = notebook.finish(cell)
    assert ran.ename == "RunInterrupted"
    assert "stopped by you" in ran.traceback
    notebook.ok("assert qd.runs()[0].status == 'stopped'")


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("time.sleep(60)", id="sleep"),
        pytest.param("while True: pass", id="pure Python"),
        pytest.param("if my_rank() == 0: dist.barrier()", id="a collective the peer never joins"),
    ],
)
def test_an_interrupt_stops_a_blocking_call(notebook: Notebook, code: str) -> None:
    interrupted(notebook, code)


def test_run_interrupted_is_a_keyboard_interrupt(notebook: Notebook) -> None:
    cell = notebook.start(
        "try:\n    sleeps()\nexcept KeyboardInterrupt as error:\n    print(type(error).__name__)"
    )
    notebook.until("begun")
    notebook.interrupt()
    ran = notebook.finish(cell)
    assert ran.status == "ok"
    assert "RunInterrupted" in ran.text


def test_an_interrupt_while_one_waits_for_a_run_ends_only_the_waiting(notebook: Notebook) -> None:
    notebook.ok("run = sleeps.submit()")
    cell = notebook.start("print('waiting')\nrun.wait()")
    notebook.until("waiting")
    time.sleep(0.2)
    notebook.interrupt()
    assert notebook.finish(cell).ename == "KeyboardInterrupt"
    assert notebook.ok("run.status").text in ("'starting'", "'running'")
    assert notebook.ok("run.stop()\nrun.wait(20), run.status").text == "(True, 'stopped')"


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("time.sleep(60)", id="sleep"),
        pytest.param("while True: pass", id="pure Python"),
        pytest.param("dist.recv(torch.ones(1), src=1 - my_rank())", id="a hung collective"),
    ],
)
def test_stop_ends_a_run_wherever_it_is(notebook: Notebook, code: str) -> None:
    notebook.ok(f"""
@qd.distributed(qd.Elastic(nproc_per_node=2, max_restarts=3))
def endless():
    import torch, torch.distributed as dist
    print("begun")
    {code}

run = endless.submit()
while "begun" not in run.logs(0) or "begun" not in run.logs(1):
    time.sleep(0.01)
run.stop()
assert run.wait(20)
assert run.status == "stopped" and run.attempt == 0
assert isinstance(raised_by(run.result), qd.RunInterrupted)
run.stop()
assert run.status == "stopped"
""")


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_stop_ends_a_run_that_has_only_begun_to_start(notebook: Notebook, start_method: str) -> None:
    notebook.ok(f"""
starting = qd.distributed(qd.Elastic(nproc_per_node=2, start_method="{start_method}"))(sleeps.function)
run = starting.submit()
run.stop()
assert run.wait(20)
assert run.status == "stopped" and run.reason == "stopped by the user"
assert isinstance(raised_by(run.result), qd.RunInterrupted)
assert qd.runs()[run.run_id].status == "stopped"
""")


def test_a_second_interrupt_ends_a_rank_that_ignores_the_first(notebook: Notebook) -> None:
    notebook.ok("""
@qd.distributed(two)
def stubborn():
    print("begun")
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass

run = stubborn.submit()
while "begun" not in run.logs(0) or "begun" not in run.logs(1):
    time.sleep(0.01)
for _ in range(5):
    run.stop()
    if run.wait(0.5):
        break
assert run.status == "stopped"
""")


# ---- time limits


def test_a_time_out_ends_the_run(notebook: Notebook) -> None:
    notebook.ok("run = qd.distributed(two, timeout_s=0.5)(sleeps.function).submit()")
    ran = notebook.fails("run.result()")
    assert ran.ename == "RunTimedOut"
    assert "0.5 s" in ran.traceback
    notebook.ok("assert run.status == 'failed' and 'time-out' in run.reason")


def test_the_run_policy_s_deadline_is_a_time_out_over_all_attempts(notebook: Notebook) -> None:
    notebook.ok("""
policy = qd.RunPolicy(active_deadline_seconds=1)

@qd.distributed(qd.Elastic(nproc_per_node=2, run_policy=policy, max_restarts=1000))
def again_and_again():
    time.sleep(0.1)
    raise Flaky

run = again_and_again.submit()
assert isinstance(raised_by(run.result), qd.RunTimedOut)
assert run.status == "failed" and 0 < run.attempt < 12
""")


def test_a_collective_s_time_out_frees_a_lone_rank(notebook: Notebook) -> None:
    notebook.ok("""
@qd.distributed(two, collective_timeout_s=0.3)
def alone():
    import torch, torch.distributed as dist
    if my_rank() == 0:
        dist.barrier()

error = raised_by(alone)
assert isinstance(error, RuntimeError) and "Timed out" in str(error), repr(error)
shown = "\\n".join(qd.runs()[0].outcomes[0].traceback)
assert "dist.barrier()" in shown and "quarterdeck/worker/function" not in shown, shown
""")


# ---- restarts


@pytest.mark.parametrize(
    "failure",
    ["raise Flaky('again')", "os.kill(os.getpid(), signal.SIGKILL)"],
    ids=["recoverable", "SIGKILL"],
)
def test_a_restart_begins_anew_and_finds_what_was_saved_before(notebook: Notebook, failure: str) -> None:
    notebook.ok(f"""
@qd.distributed(qd.Elastic(nproc_per_node=2, max_restarts=2))
def resuming():
    here = qd.current()
    seen = here.checkpoint.read()
    here.checkpoint.write(b"rank %d attempt %d" % (here.rank, here.attempt))
    if here.attempt < 2:
        if my_rank() == 1:
            {failure}
        time.sleep(60)
    return seen, here.attempt, os.environ["TORCHELASTIC_RESTART_COUNT"]

run = resuming.submit()
assert run.result() == (b"rank 0 attempt 1", 2, "2"), run.result()
assert run.results[1].return_value == (b"rank 1 attempt 1", 2, "2")
assert run.status == "succeeded" and run.attempt == 2 and [one.state for one in run.outcomes] == ["ok", "ok"]
""")


def test_a_plain_exception_is_not_tried_again(notebook: Notebook) -> None:
    notebook.ok("""
run = qd.distributed(qd.Elastic(nproc_per_node=2, max_restarts=2))(one_fails.function).submit()
assert type(raised_by(run.result)) is ValueError and run.attempt == 0
""")


def test_when_no_attempt_is_left_the_last_failure_is_raised(notebook: Notebook) -> None:
    ran = notebook.ok("""
@qd.distributed(qd.Elastic(nproc_per_node=2, max_restarts=1))
def never():
    raise Flaky(f"attempt {qd.current().attempt}")

run = never.submit()
error = raised_by(run.result)
assert type(error) is Flaky and str(error) == "attempt 1" and run.attempt == 1 and run.status == "failed"
""")
    assert re.search("attempt 2 of 2 began", ran.text + ran.html)
