"""A save that is killed, or that the disk has no room for, at any instant: what was there before loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LIMIT_S = 240

CRASHES = """
import json, os, random, shutil, signal, sys, time, warnings
from pathlib import Path

import torch

from quarterdeck.context import Context, working_for
from quarterdeck.checkpointing.save import Checkpoints, load_checkpoint, save_checkpoint

warnings.simplefilter("ignore")
torch.set_num_threads(1)
REAL = {name: getattr(os, name) for name in ("write", "fsync", "rename", "open", "mkdir", "rmdir", "unlink")}


def state(value):
    model = torch.nn.Linear(200, 50)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    return model


def save(step, value, keep_last=None):
    extra = torch.full((9,), value)
    save_checkpoint(state(value), step=step, extra=extra, keep_last=keep_last, wait=True)


def in_child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def killed_at(point, work):
    # Counts every change of the file system; at the given one half of it is done, then the process is gone.
    count = 0

    def counted(name):
        def call(*args, **keywords):
            nonlocal count
            count += name != "open" or bool(args[1] & os.O_CREAT)
            if count == point:
                if name == "write":
                    REAL["write"](args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return REAL[name](*args, **keywords)

        return call

    for name in REAL:
        setattr(os, name, counted(name))
    work()


def loaded():
    # What is there, each checked to be one state and not a mixture: by step.
    found = {}
    for checkpoint in Checkpoints(Path("run") / "checkpoints").valid:
        model = state(-1.0)
        at = load_checkpoint(checkpoint, into=model, verify=True)
        values = {float(at.extra.unique()), *model.weight.unique().tolist(), *model.bias.unique().tolist()}
        assert len(values) == 1, values
        found[checkpoint.step] = values.pop()
    latest = load_checkpoint()
    assert (latest.step if latest else None) == max(found, default=None)
    return found


def points(prepare, work, allowed):
    # Every point of it; ends with the first that is past its end.
    shutil.rmtree("run", ignore_errors=True)
    prepare()
    if os.path.exists("run"):
        os.rename("run", "before")
    for point in range(1, 500):
        shutil.rmtree("run", ignore_errors=True)
        if os.path.exists("before"):
            shutil.copytree("before", "run")
        pid = in_child(lambda: killed_at(point, work))
        status = os.waitpid(pid, 0)[1]
        found = loaded()
        assert found in allowed, (point, found)
        assert found == allowed[-1] or os.WIFSIGNALED(status), (point, found)
        if point % 5 == 0:
            save(9, 9.0)
            assert loaded()[9] == 9.0, point  # and the next save works
        if not os.WIFSIGNALED(status):
            return point
    raise AssertionError("it never ended")


def instants(count):
    shutil.rmtree("run", ignore_errors=True)
    save(0, 0.0)
    began = time.monotonic()
    save(1, 1.0)
    span = max(0.06, 4 * (time.monotonic() - began))  # some saves are over by then, on a slow machine too
    kept, dice, step = 1, random.Random(7), 2
    for _ in range(count):
        def loop(first=step):
            for at in range(first, first + 1000):
                save(at, float(at), keep_last=3)

        pid = in_child(loop)
        time.sleep(dice.uniform(0.0, span))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        found = loaded()
        assert all(value == float(at) for at, value in found.items()), found
        latest = max(found)
        assert latest >= kept, (latest, kept)
        kept, step = latest, latest + 1
    return kept


with working_for(Context(run_dir=Path("run").absolute())):
    print(json.dumps(eval(sys.argv[1])))
"""


def crashes(folder: Path, expression: str, script: str = CRASHES) -> int:
    ran = subprocess.run(
        [sys.executable, "-c", script, expression],
        cwd=folder,
        timeout=LIMIT_S,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return int(json.loads(ran.stdout))


def test_killed_at_every_change_of_a_first_save(tmp_path: Path) -> None:
    count = crashes(tmp_path, "points(lambda: None, lambda: save(1, 1.0), [{}, {1: 1.0}])")
    assert count > 20


def test_killed_at_every_change_of_a_save_after_others(tmp_path: Path) -> None:
    before = "lambda: (save(1, 1.0), save(2, 2.0))"
    now = "lambda: save(3, 3.0, keep_last=2)"
    allowed = "[{1: 1.0, 2: 2.0}, {1: 1.0, 2: 2.0, 3: 3.0}, {2: 2.0, 3: 3.0}]"
    assert crashes(tmp_path, f"points({before}, {now}, {allowed})") > 20


def test_killed_at_every_change_of_a_step_saved_anew(tmp_path: Path) -> None:
    """The old one or the new one: never none, never a mixture of both."""
    before, now = "lambda: (save(1, 1.0), save(2, 2.0))", "lambda: save(2, 3.0)"
    assert crashes(tmp_path, f"points({before}, {now}, [{{1: 1.0, 2: 2.0}}, {{1: 1.0, 2: 3.0}}])") > 20


def test_killed_at_fifty_random_instants(tmp_path: Path) -> None:
    assert crashes(tmp_path, "instants(50)") > 1


FULL = """
import json, os, resource, signal, sys
from pathlib import Path

import torch

from quarterdeck.checkpointing.errors import CheckpointError
from quarterdeck.context import Context, working_for
from quarterdeck.checkpointing.save import Checkpoints, load_checkpoint, save_checkpoint

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def fails(size):
    try:
        weights, extra = {"x": torch.ones(size // 4)}, torch.ones(size // 4)
        save_checkpoint(weights, step=2, extra=extra, keep_last=1, wait=True)
    except CheckpointError as error:
        assert "step 2" in str(error) and sys.argv[2] in str(error), error
        return True
    return False


def limited():
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    return fails(200_000)


with working_for(Context(run_dir=Path(sys.argv[1], "run").absolute())):
    save_checkpoint({"x": torch.tensor(1.0)}, step=1, wait=True)
    failed = limited() if sys.argv[2] == "File too large" else fails(4_000_000)
    left = os.listdir(Path(sys.argv[1], "run", "checkpoints"))
    found = load_checkpoint()
    save_checkpoint({"x": torch.tensor(3.0)}, step=3, wait=True)
    print(json.dumps([failed, left, found.step, float(found.model["x"]), load_checkpoint().step]))
"""


def full(folder: Path, message: str) -> object:
    command = [sys.executable, "-c", FULL, str(folder), message]
    ran = subprocess.run(command, timeout=LIMIT_S, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    assert full(tmp_path, "File too large") == [True, ["step-00000001"], 1, 1.0, 3]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount")
    yield place
    subprocess.run(["umount", place], check=True)
    assert not os.path.ismount(place)


def test_a_full_disk(small_disk: Path) -> None:
    assert full(small_disk, "No space left on device") == [True, ["step-00000001"], 1, 1.0, 3]
