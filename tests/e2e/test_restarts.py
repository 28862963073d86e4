"""Restarts of closed runs: which failures are worth another attempt, and what that finds and tells."""

from __future__ import annotations

import re

import pytest

from support.notebook import Notebook

PREPARE = """
import os, signal, time
import quarterdeck as qd
two = qd.Elastic(nproc_per_node=2, max_restarts=2)

class Flaky(qd.RecoverableError):
    pass

class Mine:
    def __reduce__(self):
        return _boom, ()

def _boom():
    from quarterdeck import RecoverableError
    raise RecoverableError("while it was unpickled")

def attempts():
    return [qd.runs()[0].attempt + 1, qd.runs()[0].status]
"""

DIES = "if qd.current().attempt < 2 and rank == 1: os.kill(os.getpid(), signal.SIGKILL)"
RAISES = "if qd.current().attempt < 2 and rank == 1: raise {error}"
LINE = r"rank 1 {why}: attempt {n} of 3 began 0\.\d\d s later\."


@pytest.fixture(scope="module", autouse=True)
def prepared(notebook: Notebook) -> None:
    notebook.deadline_s = 30
    notebook.ok(PREPARE)


def restarts(text: str) -> list[str]:
    return [line for line in text.splitlines() if "attempt" in line]


# ---- cells


def test_a_cell_whose_rank_is_killed_begins_anew_and_says_so_once(notebook: Notebook) -> None:
    ran = notebook.ok(f"""%%distributed -n 2 --max-restarts 2
{DIES}
time.sleep(0.05)
variables = os.environ["TORCHELASTIC_RESTART_COUNT"], os.environ["TORCHELASTIC_MAX_RESTARTS"]
qd.current().attempt, *variables""")
    assert "[0\u20131] (2, '2', '2')" in ran.lines()
    lines = restarts(ran.text)
    assert len(lines) == 2, ran.text
    for n, line in enumerate(lines, 2):
        assert re.search(LINE.format(why="was killed by SIGKILL.*", n=n), line), line
    assert notebook.ok("attempts()").text == "[3, 'succeeded']"


def test_a_restart_takes_well_under_a_second(notebook: Notebook) -> None:
    ran = notebook.ok(f"%%distributed -n 2 --max-restarts 2\n{DIES}\nif rank == 0: time.sleep(0.5)")
    took_s = [float(line.split(" began ")[1].split()[0]) for line in restarts(ran.text)]
    print("restarts took", took_s)
    assert len(took_s) == 2
    assert max(took_s) < 1


def test_what_a_rank_saved_in_flyte_s_form_is_there_in_the_next_attempt(notebook: Notebook) -> None:
    ran = notebook.ok(f"""%%distributed -n 2 --max-restarts 2
here = qd.current()
seen = here.checkpoint.read()
if here.attempt == 0: here.checkpoint.write(b"rank %d" % rank)
{DIES}
time.sleep(0.05)
seen if here.attempt == 2 else None""")
    assert sorted(line for line in ran.lines() if line.startswith("[")) == ["[0] b'rank 0'", "[1] b'rank 1'"]


def test_set_up_cells_are_run_again_before_every_attempt(notebook: Notebook) -> None:
    notebook.ok("%%distributed --session prepared -n 2 --setup\nimport os\nbase = os.getpid()")
    try:
        ran = notebook.ok(f"%%distributed --session prepared --max-restarts 2\n{DIES}\nbase == os.getpid()")
        assert "[0\u20131] True" in ran.lines()
    finally:
        notebook.ok("qd.Session(name='prepared').stop()")


@pytest.mark.parametrize(
    ("when", "error", "attempts"),
    [
        ("recoverable", "Flaky('again')", "[3, 'succeeded']"),
        ("recoverable", "ValueError('boom')", "[1, 'failed']"),
        ("always", "ValueError('boom')", "[3, 'succeeded']"),
        ("always", "SystemExit(3)", "[3, 'succeeded']"),
        ("always", "SyntaxError('what')", "[1, 'failed']"),
        ("never", "Flaky('again')", "[1, 'failed']"),
    ],
)
def test_restart_says_which_failures_are_worth_it(
    notebook: Notebook, when: str, error: str, attempts: str
) -> None:
    code = f"%%distributed -n 2 --max-restarts 2 --restart {when}\n{RAISES.format(error=error)}"
    ran = notebook.ok(code) if "succeeded" in attempts else notebook.fails(code)
    assert notebook.ok("attempts()").text == attempts
    assert len(restarts(ran.text)) == int(attempts[1]) - 1


def test_what_cannot_be_unpickled_is_not_tried_again(notebook: Notebook) -> None:
    notebook.ok("mine = Mine()")
    ran = notebook.fails("%%distributed -n 1 --max-restarts 2 --restart always\nmine")
    assert "while it was unpickled" in ran.traceback
    assert notebook.ok("attempts()").text == "[1, 'failed']"


def test_a_set_up_cell_that_fails_is_not_tried_again(notebook: Notebook) -> None:
    notebook.ok("%%distributed --session fragile -n 2 --setup\nassert world_size == 2, 'made for two'")
    try:
        ran = notebook.fails("%%distributed --session fragile -n 1 --max-restarts 2 --restart always\npass")
        assert "made for two" in ran.traceback
        assert notebook.ok("attempts()").text == "[1, 'failed']"
    finally:
        notebook.ok("qd.Session(name='fragile').stop()")


def test_a_stop_and_a_time_out_are_final(notebook: Notebook) -> None:
    cell = "%%distributed -n 2 --max-restarts 2 --restart always"
    assert notebook.fails(f"{cell} --timeout 0.5\nimport time\ntime.sleep(60)").ename == "RunTimedOut"
    assert notebook.ok("attempts()").text == "[1, 'failed']"
    message = notebook.start(f"{cell}\nprint('up', flush=True)\ntime.sleep(60)")
    notebook.until("[0\u20131] up")
    notebook.interrupt()
    assert notebook.finish(message).ename == "RunInterrupted"
    assert notebook.ok("attempts()").text == "[1, 'stopped']"


def test_when_no_attempt_is_left_the_last_failure_is_the_cell_s(notebook: Notebook) -> None:
    ran = notebook.fails(
        "%%distributed -n 2 --max-restarts 1 --restart always\n"
        "if rank: raise ValueError(f'in attempt {qd.current().attempt}')"
    )
    assert "rank 1 raised ValueError: in attempt 1" in ran.traceback
    assert re.search(r"rank 1 raised ValueError: in attempt 0: attempt 2 of 2 began", ran.text)


def test_a_killed_zygote_is_no_reason_to_give_up(notebook: Notebook) -> None:
    ran = notebook.ok(
        "%%distributed -n 2 --max-restarts 2\n"
        "if qd.current().attempt == 0:\n"
        "    if rank == 1: os.kill(os.getppid(), signal.SIGKILL)\n"
        "    time.sleep(60)\n"
        "qd.current().attempt"
    )
    assert "[0\u20131] 1" in ran.lines()


def test_it_is_a_cell_of_its_own_group(notebook: Notebook) -> None:
    notebook.ok("%%distributed\nowned = 'session'")
    ran = notebook.fails("%%distributed -n 1 --max-restarts 0\nowned")
    assert "NameError" in ran.traceback
    notebook.ok("%%distributed -n 3 --max-restarts 1 --background --as run\nworld_size")
    assert notebook.ok("run.wait(20), run.world_size").text == "(True, 3)"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--max-restarts 1 --ranks 0", "leave `--ranks` out"),
        ("--max-restarts 1 --setup", "leave `--max-restarts` out"),
        ("--max-restarts 1 --debug", "leave `--max-restarts` out"),
        ("--max-restarts -1", "write 0 or more"),
        ("--max-restarts many", "write 0 or more"),
        ("--restart always", "add `--max-restarts N`"),
        ("--max-restarts 1 --restart sometimes", "recoverable"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    notebook: Notebook, options: str, says: str
) -> None:
    before = notebook.ok("len(qd.runs())").text
    ran = notebook.fails(f"%%distributed {options}\npass")
    assert ran.ename == "UsageError"
    assert says in ran.traceback
    assert notebook.ok("len(qd.runs())").text == before


# ---- functions


def test_a_function_has_the_same_choice(notebook: Notebook) -> None:
    notebook.ok("""
@qd.distributed(two, restart="always")
def stumbles():
    if qd.current().attempt < 1:
        raise ValueError("boom")
    return qd.current().attempt

assert stumbles() == 1

@qd.distributed(two, restart="never")
def gives_up():
    raise Flaky("at once")

run = gives_up.submit()
assert run.wait(20) and run.attempt == 0 and run.status == "failed"
""")


def test_an_argument_that_cannot_be_unpickled_is_not_tried_again(notebook: Notebook) -> None:
    notebook.ok("""
@qd.distributed(two, restart="always")
def takes(x):
    pass

run = takes.submit(Mine())
assert run.wait(20) and run.attempt == 0 and run.outcomes[0].ename == "RecoverableError", run.outcomes

def outer():
    held = Mine()
    @qd.distributed(two, restart="always")
    def inner():
        return held
    return inner

run = outer().submit()
assert run.wait(20) and run.attempt == 0 and run.outcomes[0].ename == "RecoverableError", run.outcomes
""")


def test_another_word_is_refused_where_it_is_written(notebook: Notebook) -> None:
    ran = notebook.fails("@qd.distributed(two, restart='sometimes')\ndef f():\n    pass")
    assert ran.ename == "ConfigError"
    assert '"always"' in ran.traceback
