"""`qd.save_checkpoint`: who writes, what is refused, what stays, and that training may go on meanwhile."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch

from quarterdeck.checkpointing import rank_rendezvous, save, saver, staging
from quarterdeck.checkpointing.checkpoint import Checkpoints
from quarterdeck.checkpointing.errors import CheckpointError
from quarterdeck.checkpointing.local import LocalPlace
from quarterdeck.checkpointing.save import flush, load_checkpoint, save_checkpoint
from quarterdeck.context import Context, working_for
from quarterdeck.errors import UsageError
from support.ranks import forked_ranks

DEADLINE_S = 30


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Context]:
    """A run of one rank."""
    with working_for(Context(run_id="r", run_dir=tmp_path / "runs" / "r")) as context:
        yield context
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            saver.saver.release()
            saver.saver._error = None


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8))
        self.head = torch.nn.Linear(8, 2)


def trained(steps: int = 2) -> tuple[Net, torch.optim.Optimizer]:
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        model.head(model.body(torch.randn(5, 4))).sum().backward()
        optimizer.step()
    return model, optimizer


def listed(context: Context) -> Checkpoints:
    return Checkpoints(context.run_dir / "checkpoints")


def steps(context: Context) -> list[int]:
    return [checkpoint.step for checkpoint in listed(context)]


def equal(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


# ---- what is kept


def test_a_checkpoint_says_what_it_is_without_a_tensor_being_read(here: Context) -> None:
    model, optimizer = trained()
    save_checkpoint(
        model, optimizer, step=1200, epoch=3, metrics={"loss": torch.tensor(0.25), "bad": float("nan")},
        hyperparameters={"lr": 0.1, "betas": (0.9, 0.99)}, wait=True,
    )  # fmt: skip
    (checkpoint,) = listed(here)
    for name in os.listdir(checkpoint.path):
        if name.endswith((".pt", ".safetensors")):  # what a reader of tensors would need
            size = os.stat(f"{checkpoint.path}/{name}").st_size
            Path(checkpoint.path, name).write_bytes(b"")
            os.truncate(f"{checkpoint.path}/{name}", size)
    checkpoint = listed(here)[0]
    assert checkpoint.valid
    assert (checkpoint.step, checkpoint.epoch, checkpoint.metrics["loss"]) == (1200, 3, 0.25)
    assert checkpoint.metrics["bad"] != checkpoint.metrics["bad"]
    assert checkpoint.hyperparameters == {"lr": 0.1, "betas": (0.9, 0.99)}
    assert checkpoint.path.endswith("/checkpoints/step-00001200")
    known = {info.name: info for info in checkpoint.tensors}
    assert (known["body.0.weight"].shape, known["body.0.weight"].dtype) == ((8, 4), "float32")
    assert known["body.0.weight"].size_bytes == 128
    assert {info.part for info in checkpoint.tensors} == {"model", "optimizer"}
    summary = checkpoint.manifest.model
    assert (summary.class_name, summary.layers) == ("Net", 3)
    assert summary.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert checkpoint.manifest.versions["torch"].startswith(torch.__version__.partition("+")[0])
    assert abs(checkpoint.created_unix_ns / 1e9 - time.time()) < DEADLINE_S


def test_the_weights_are_a_safetensors_file_as_the_library_reads_it(here: Context) -> None:
    from safetensors.torch import load_file

    tensors = {
        "a": torch.randn(3, 5, dtype=torch.bfloat16), "b": torch.tensor(7), "c": torch.empty(0, 3),
        "d": torch.randn(4, 6).T, "e": torch.tensor([True, False]), "f": torch.randn(2, dtype=torch.float64),
        "g": torch.randn(7)[2:5], "h": torch.randn(3).to(torch.float8_e4m3fn),
        "i": torch.randn(2, dtype=torch.complex64),
    }  # fmt: skip
    path = save_checkpoint(tensors, step=0, wait=True)
    found = load_file(f"{path}/model.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert found[name].tolist() == tensor.tolist()


def test_tied_weights_are_stored_once_and_stay_tied_names(here: Context) -> None:
    from safetensors.torch import load_model

    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(50, 8)
            self.out = torch.nn.Linear(8, 50, bias=False)
            self.out.weight = self.embed.weight

    model, other, third = Tied(), Tied(), Tied()
    path = save_checkpoint(model, step=1, wait=True)
    assert os.stat(f"{path}/model.safetensors").st_size < 50 * 8 * 4 + 500
    assert {info.name: info.alias_of for info in listed(here)[0].tensors} == {
        "embed.weight": "", "out.weight": "embed.weight",
    }  # fmt: skip
    load_checkpoint(into=other)
    assert torch.equal(other.out.weight, model.embed.weight)
    load_model(third, f"{path}/model.safetensors")
    assert torch.equal(third.out.weight, model.embed.weight)


def test_wrappers_leave_no_trace_in_names(here: Context) -> None:
    class Part(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = torch.nn.Linear(2, 2)  # a name of the user's own, to be kept

    model = torch.nn.Sequential(Part(), torch.compile(torch.nn.Linear(2, 2)))
    save_checkpoint(torch.compile(torch.nn.DataParallel(model)), step=1, wait=True)
    names = {info.name for info in listed(here)[0].tensors}
    assert names == {"0.module.weight", "0.module.bias", "1.weight", "1.bias"}
    assert listed(here)[0].manifest.model.class_name == "Sequential"
    plain = torch.nn.Sequential(Part(), torch.nn.Linear(2, 2))
    load_checkpoint(into=plain)
    assert torch.equal(plain[1].weight, model[1].weight)


def test_the_optimizers_file_loads_with_weights_only(here: Context) -> None:
    model, optimizer = trained()
    path = save_checkpoint(model, optimizer, step=1, wait=True)
    state = torch.load(f"{path}/optimizer.pt", weights_only=True)
    assert state["param_groups"] == optimizer.state_dict()["param_groups"]
    assert torch.equal(state["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])


# ---- what is refused


class Kind(Enum):
    A = 1


@pytest.mark.parametrize(
    ("extra", "place", "hint"),
    [
        ({"cfg": [1, {"f": lambda: 1}]}, "extra['cfg'][1]['f'] is function", "make it anew"),
        ({"kind": Kind.A}, "extra['kind'] is", "hyperparameters="),
        ({Kind.A: 1}, "the key", "hyperparameters="),
        ((1, Path("x")), "extra[1] is pathlib.PosixPath", "hyperparameters="),
        ({"x": __import__("numpy").float64(1)}, "extra['x'] is numpy.float64", ".item()"),
        (torch.empty(3, device="meta"), "extra is a tensor on the meta device", "to_empty"),
    ],
)
def test_what_could_not_be_loaded_is_refused_by_name(
    here: Context, extra: Any, place: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        save_checkpoint(torch.nn.Linear(1, 1), step=1, extra=extra)
    assert place in str(caught.value)
    assert hint in str(caught.value)
    assert steps(here) == []


def test_plain_values_of_every_kind_come_back(here: Context) -> None:
    from collections import Counter, OrderedDict

    extra = {
        "a": [None, True, 3, 0.5, 2j, "é", b"\0", bytearray(b"x")], "t": (1, (2,)), "s": {1, 2}, 7: "seven",
        "o": OrderedDict(x=torch.ones(2)), "c": Counter("aab"), "d": torch.bfloat16, "z": torch.Size([2, 3]),
        "dev": torch.device("cpu"), "p": torch.nn.Parameter(torch.zeros(1)), "i": float("-inf"),
    }  # fmt: skip
    save_checkpoint(torch.nn.Linear(1, 1), step=1, extra=extra, wait=True)
    loaded = load_checkpoint()
    assert loaded is not None
    assert loaded.extra.keys() == extra.keys()
    assert str(loaded.extra) == str(extra).replace("Parameter containing:\n", "").replace(
        ", requires_grad=True", ""
    )


def test_what_holds_itself_and_wrong_calls_are_refused(here: Context) -> None:
    model = torch.nn.Linear(1, 1)
    endless: list[Any] = []
    endless.append(endless)
    wrong: list[Callable[[], Any]] = [
        lambda: save_checkpoint(model, step=1, extra=endless),
        lambda: save_checkpoint(model, step=-1),
        lambda: save_checkpoint(model, step=1.5),  # type: ignore[arg-type]
        lambda: save_checkpoint([model], step=1),
        lambda: save_checkpoint(model, step=1, metrics={"loss": "low"}),
        lambda: save_checkpoint(model, step=1, keep_last=0),
        lambda: save_checkpoint(model, step=1, keep_best="most:loss"),
        lambda: save_checkpoint(torch.nn.Linear(1, 1, device="meta"), step=1),
        lambda: save_checkpoint({"x": torch.randn(2).to_sparse()}, step=1),
        lambda: save_checkpoint(model, step=1, sampler=object()),
        lambda: save_checkpoint(model, step=1, directory="nosuchscheme://bucket"),
    ]
    for call in wrong:
        with pytest.raises(UsageError):
            call()
    assert steps(here) == []


# ---- which stay


def test_keep_last_keep_best_and_pins(here: Context) -> None:
    model = torch.nn.Linear(1, 1)
    losses = [5.0, 1.0, 3.0, float("nan"), 4.0, 6.0]
    for step, loss in enumerate(losses):
        save_checkpoint(model, step=step, metrics={"loss": loss}, keep_last=2, keep_best="loss", wait=True)
        if step == 0:
            listed(here)[0].pin()
    assert steps(here) == [0, 1, 4, 5]
    best = listed(here).best("loss")
    assert best is not None
    assert best.step == 1
    worst = listed(here).best("max:loss")
    assert worst is not None
    assert worst.step == 5
    listed(here).at(0).unpin()
    save_checkpoint(model, step=6, metrics={"loss": 9.0}, keep_best="loss", wait=True)
    assert steps(here) == [1, 6]


def test_nothing_is_pruned_before_the_new_one_is_there(
    here: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = torch.nn.Linear(1, 1)
    save_checkpoint(model, step=1, keep_last=1, wait=True)
    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(CheckpointError):
        save_checkpoint(model, step=2, keep_last=1, wait=True)
    assert steps(here) == [1]


def test_pruning_leaves_copies_that_somebody_made(here: Context) -> None:
    model = torch.nn.Linear(1, 1)
    save_checkpoint(model, step=1, wait=True)
    folder = here.run_dir / "checkpoints"
    shutil.copytree(folder / "step-00000001", folder / "the-good-one")
    shutil.copytree(folder / "step-00000001", folder / "step-00000099")
    for step in (2, 3):
        save_checkpoint(model, step=step, keep_last=1, wait=True)
    assert sorted(entry.name for entry in folder.iterdir()) == [
        "step-00000003", "step-00000099", "the-good-one"
    ]  # fmt: skip


def test_what_another_rank_has_pruned_meanwhile_is_no_error(
    here: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = torch.nn.Linear(1, 1)
    for step in (1, 2):
        save_checkpoint(model, step=step, wait=True)
    remove = LocalPlace.remove

    def too_late(place: LocalPlace, name: str) -> None:
        remove(place, name)
        remove(place, name)

    monkeypatch.setattr(LocalPlace, "remove", too_late)
    save_checkpoint(model, step=3, keep_last=1, wait=True)
    assert steps(here) == [3]


def test_a_draft_on_a_file_system_without_locks_is_left_alone_for_a_day(
    here: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    folder = here.run_dir / "checkpoints"
    for name, age_s in (("a", 3_600), ("b", 100_000)):
        draft = folder / f".step-00000001.{name}.qd-tmp"
        draft.mkdir(parents=True)
        os.utime(draft, (time.time() - age_s,) * 2)
    save_checkpoint(torch.nn.Linear(1, 1), step=2, wait=True)
    assert sorted(os.listdir(folder)) == [".step-00000001.a.qd-tmp", "step-00000002"]


def test_a_step_saved_anew_takes_the_place_of_the_old_and_stays_pinned(here: Context) -> None:
    for value in (1.0, 2.0):
        save_checkpoint({"x": torch.tensor(value)}, step=5, wait=True)
        assert len(listed(here)) == 1
        listed(here)[0].pin()
    loaded = load_checkpoint(5)
    assert loaded is not None
    assert loaded.model is not None
    assert loaded.model["x"] == 2.0
    assert listed(here)[0].pinned
    left = set(os.listdir(here.run_dir / "checkpoints"))
    assert left == {"step-00000005"}


# ---- behind the training loop


def test_training_goes_on_while_a_snapshot_is_written(here: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit what it was at the call, whatever the loop does to it before and while it is written."""
    model, optimizer = trained()
    extra = {"list": [1, 2], "tensor": torch.ones(3)}
    may_write = threading.Event()
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: (may_write.wait(DEADLINE_S), real(fd, data))[1])
    for step in range(3):  # the memory of the first is used again by the others
        may_write.clear()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        moments = optimizer.state_dict()["state"][0]["exp_avg"].clone()
        save_checkpoint(model, optimizer, step=step, extra=extra)
        with torch.no_grad():
            for tensor in [*model.state_dict().values(), optimizer.state_dict()["state"][0]["exp_avg"]]:
                tensor.add_(1)
        extra["list"].append(3)
        extra["tensor"].zero_()
        may_write.set()
        flush()
        loaded = load_checkpoint(step)
        assert loaded is not None
        assert loaded.model is not None
        assert equal(loaded.model, before)
        assert loaded.extra["list"] == [1, 2] + [3] * step
        state = torch.load(f"{loaded.path}/optimizer.pt", weights_only=True)
        assert torch.equal(state["state"][0]["exp_avg"], moments)
        extra["tensor"].fill_(1)


def test_the_copys_memory_is_used_again(here: Context) -> None:
    model, optimizer = trained()
    places = []
    for step in range(3):
        save_checkpoint(model, optimizer, step=step, wait=True)
        places.append(sorted(memory.data_ptr() for memory in saver.saver._staging._kept.values()))
    assert places[0] == places[1] == places[2]
    save_checkpoint(torch.nn.Linear(2, 2), step=9, wait=True)
    assert len(saver.saver._staging._kept) == 1  # and given back when there is nothing to put into it


def test_a_signal_handler_may_save_in_the_middle_of_a_save(
    here: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, asked = staging.Staging.end, []

    def interrupted(memory: staging.Staging) -> None:
        if not asked:
            asked.append(True)
            signal.raise_signal(signal.SIGUSR1)
        end(memory)

    monkeypatch.setattr(staging.Staging, "end", interrupted)
    others = {"x": torch.full((4,), 2.0)}
    before = signal.signal(signal.SIGUSR1, lambda *_: save_checkpoint(others, step=2) and None)
    try:
        save_checkpoint({"x": torch.full((4,), 1.0)}, step=1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    flush()
    for step in (1, 2):
        loaded = load_checkpoint(step)
        assert loaded is not None
        assert loaded.model is not None
        assert loaded.model["x"].tolist() == [float(step)] * 4
    assert not saver.saver._is_saving


def test_a_save_returns_before_it_is_written_and_the_next_waits(
    here: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = threading.Event()
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (may_end.wait(DEADLINE_S), real(fd))[1])
    model = torch.nn.Linear(1, 1)
    save_checkpoint(model, step=1)
    assert steps(here) == []
    second = threading.Thread(target=lambda: save_checkpoint(model, step=2))
    second.start()
    second.join(0.3)
    assert second.is_alive()  # it piles up no copies
    may_end.set()
    second.join(DEADLINE_S)
    flush()
    assert steps(here) == [1, 2]


def test_an_error_of_the_writing_comes_with_the_next_save_or_flush(
    here: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = torch.nn.Linear(1, 1)
    save_checkpoint(model, step=1, wait=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _full)
        save_checkpoint(model, step=2)
        with pytest.raises(CheckpointError, match=r"step 2 .*No space left on device"):
            save_checkpoint(model, step=3)
        save_checkpoint(model, step=4)
        with pytest.raises(CheckpointError, match="step 4"):
            flush()
    flush()
    save_checkpoint(model, step=5, wait=True)
    assert steps(here) == [1, 5]
    assert set(os.listdir(here.run_dir / "checkpoints")) == {"step-00000001", "step-00000005"}


def test_a_process_that_ends_waits_for_its_writer(tmp_path: Path) -> None:
    code = """
import os, time, torch
from pathlib import Path
from quarterdeck.context import Context, working_for
from quarterdeck.checkpointing.save import save_checkpoint
real = os.fsync
os.fsync = lambda fd: (time.sleep(0.1), real(fd))
with working_for(Context(run_dir=Path("run"))):
    save_checkpoint(torch.nn.Linear(1, 1), step=1)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, timeout=60, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert [checkpoint.valid for checkpoint in Checkpoints(tmp_path / "run" / "checkpoints")] == [True]


def test_an_error_that_no_call_can_raise_any_more_is_printed(tmp_path: Path) -> None:
    code = """
import os, torch
from quarterdeck.checkpointing.save import save_checkpoint
def full(fd): raise OSError(28, "No space left on device")
os.fsync = full
save_checkpoint(torch.nn.Linear(1, 1), step=1, directory="here")
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, timeout=60, capture_output=True, text=True
    )
    assert "could not save the checkpoint of step 1" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_forked_child_saves_for_itself(here: Context) -> None:
    save_checkpoint({"x": torch.tensor(1.0)}, step=1)
    pid = os.fork()
    if pid == 0:
        try:
            save_checkpoint({"x": torch.tensor(2.0)}, step=2, wait=True)
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    flush()
    assert status == 0
    assert steps(here) == [1, 2]


# ---- ranks


def test_of_replicas_the_first_one_writes_and_duplicates_are_dropped(here: Context) -> None:
    def work(rank: int) -> str:
        return "".join(
            save_checkpoint({"x": torch.tensor(float(rank))}, step=step)[-1] for step in (1, 2, 2, 3)
        )

    assert forked_ranks(here, 4, work) == ["1223"] * 4
    assert steps(here) == [1, 2, 3]
    for checkpoint in listed(here):
        loaded = load_checkpoint(checkpoint.step)
        assert loaded is not None
        assert loaded.model is not None
        assert loaded.model["x"] == checkpoint.manifest.rank
        assert checkpoint.manifest.world_size == 4


def test_rank_0_alone_may_save(here: Context) -> None:
    texts = forked_ranks(
        here, 2, lambda rank: rank or save_checkpoint({"x": torch.ones(1)}, step=1, wait=True)[-1]
    )
    assert texts == ["1", "1"]
    assert steps(here) == [1]


def test_a_later_attempt_saves_its_steps_anew(here: Context) -> None:
    for attempt in (0, 1):
        again = dataclasses.replace(here, attempt=attempt)
        forked_ranks(again, 2, lambda _, at=attempt: save_checkpoint({"x": torch.tensor(float(at))}, step=1))
    loaded = load_checkpoint(1)
    assert loaded is not None
    assert loaded.model is not None
    assert loaded.model["x"] == 1.0


def test_a_loader_of_a_killed_rank_does_not_keep_its_draft_locked(here: Context) -> None:
    place = LocalPlace(here.run_dir / "checkpoints")
    read, write = os.pipe()
    rank = os.fork()
    if rank == 0:
        place.draft("step-00000001", "")
        if os.fork():
            os._exit(0)
        os.close(write)
        os.read(read, 1)  # to the end of the test
        os._exit(0)
    os.close(read)
    os.waitpid(rank, 0)
    assert any((here.run_dir / "checkpoints").iterdir())
    assert not place.in_the_making()
    os.close(write)


_SPAWNED = """
import os, sys
import torch, torch.distributed as dist, torch.multiprocessing as mp

def train(rank, value, folder):
    os.environ.update(RANK=str(rank), WORLD_SIZE="2")
    dist.init_process_group("gloo", init_method=f"file://{folder}/{value}", rank=rank, world_size=2)
    from quarterdeck.checkpointing.save import save_checkpoint
    save_checkpoint({"x": torch.full((2,), value)}, step=5, directory=folder, wait=True)
    dist.barrier()

if __name__ == "__main__":
    torch.set_num_threads(1)
    for value in (1.0, 2.0):
        mp.spawn(train, (value, sys.argv[1]), nprocs=2)
"""


def test_a_script_that_trains_twice_saves_twice(tmp_path: Path) -> None:
    """Also where its pid is that of an earlier one, as in every new container."""
    script = tmp_path / "train.py"
    script.write_text(_SPAWNED)
    subprocess.run([sys.executable, script, tmp_path], cwd=tmp_path, check=True, timeout=4 * DEADLINE_S)
    loaded = load_checkpoint("latest", directory=tmp_path)
    assert loaded is not None
    assert loaded.model is not None
    assert loaded.model["x"].tolist() == [2.0, 2.0]


def test_a_place_that_cannot_be_written_to_is_named(here: Context) -> None:
    here.run_dir.mkdir(parents=True)
    (here.run_dir / "checkpoints").write_bytes(b"")
    work = lambda _: save_checkpoint({"x": torch.ones(1)}, step=1)  # noqa: E731
    for text in forked_ranks(here, 2, work):
        assert text.startswith("CheckpointError: rank ")
        assert "could not save the checkpoint of step 1" in text


def test_a_step_that_failed_may_be_offered_again(here: Context) -> None:
    def work(rank: int) -> str:
        real, os.fsync = os.fsync, _full
        try:
            save_checkpoint({"x": torch.ones(1)}, step=1, wait=True)
        except CheckpointError:
            os.fsync = real
            return save_checkpoint({"x": torch.ones(1)}, step=1, wait=True)[-1]
        return "no error"

    mine = dataclasses.replace(here, world_size=2)
    assert forked_ranks(mine, 1, work) == ["1"]
    assert steps(here) == [1]


def test_each_ranks_generators_and_sampler(here: Context) -> None:
    class Sampler(torch.utils.data.Sampler[int]):
        def __init__(self, at: int) -> None:
            self.at = at

        def state_dict(self) -> dict[str, int]:
            return {"at": self.at}

        def load_state_dict(self, state: dict[str, int]) -> None:
            self.at = state["at"]

    def draws() -> str:
        import random

        import numpy as np

        return f"{random.random()} {np.random.rand()} {torch.rand(1).item()} {random.gauss(0, 1)}"

    def saves(rank: int) -> str:
        import numpy as np

        torch.manual_seed(rank)
        np.random.seed(rank)
        save_checkpoint({"x": torch.ones(1)}, step=1, rng=True, sampler=Sampler(10 + rank))
        return draws()

    def loads(rank: int) -> str:
        sampler = Sampler(0)
        load_checkpoint(into=sampler, rng=True)
        assert sampler.at == 10 + rank
        return draws()

    drawn = forked_ranks(here, 2, saves)
    assert len(set(drawn)) == 2
    assert forked_ranks(here, 2, loads) == drawn


def test_what_ranks_tell_each_other_does_not_pile_up(here: Context) -> None:
    def saves(rank: int) -> str:
        return "".join(
            save_checkpoint({"x": torch.ones(1)}, step=step, rng=True)[-1] for step in (1, 2, 2, 3)
        )

    assert forked_ranks(here, 2, saves) == ["1223"] * 2
    assert steps(here) == [1, 2, 3]
    assert len(os.listdir(here.run_dir / "checkpoints" / ".saves")) == 1


def test_a_distributed_sampler_goes_on_with_its_epoch(here: Context) -> None:
    data = torch.utils.data.TensorDataset(torch.arange(10))
    samplers = [
        torch.utils.data.DistributedSampler(data, num_replicas=1, rank=0, seed=seed) for seed in (3, 0)
    ]
    samplers[0].set_epoch(4)
    save_checkpoint({"x": torch.ones(1)}, step=1, sampler=samplers[0])
    load_checkpoint(into=samplers[1])
    assert list(samplers[1]) == list(samplers[0])


def test_a_rank_that_does_not_join_is_named_and_nobody_hangs(
    here: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_rendezvous, "JOIN_LIMIT_S", 1.0)
    save_checkpoint({"x": torch.ones(1)}, step=1, wait=True)

    def work(rank: int) -> str:
        if rank == 2:
            time.sleep(2.0)
        return save_checkpoint({"x": torch.ones(1)}, step=2, rng=True)

    began_s = time.monotonic()
    texts = forked_ranks(here, 3, work)
    assert time.monotonic() - began_s < DEADLINE_S
    for text in texts[:2]:
        assert "CheckpointError: " in text
        assert "rank 2 has not joined the save of step 2 within" in text
        assert "every rank has to call save_checkpoint" in text
    assert "gave up on step 2" in texts[2]
    assert steps(here) == [1]


def test_stages_of_a_pipeline_do_not_pass_for_one_checkpoint(
    here: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(rank: int) -> str:
        stage = [0, 1] if rank < 2 else [2, 3]
        monkeypatch.setattr(save, "_ranks_needed", lambda *_: stage)
        return save_checkpoint({f"stage{rank // 2}": torch.ones(2)}, step=1, rng=True, wait=True)[-1]

    texts = forked_ranks(here, 4, work)
    failed = [text for text in texts if "A checkpoint holds one state" in text]
    assert len(failed) >= 2, texts
    assert all(text == "1" for text in texts if text not in failed), texts


def test_a_rank_that_dies_while_it_writes_is_named(here: Context) -> None:
    def work(rank: int) -> str:
        real = os.write
        if rank == 1:
            os.write = lambda fd, data: os._exit(1) if len(data) > 100 else real(fd, data)
        return save_checkpoint({"x": torch.ones(1)}, step=2, rng=True)

    texts = forked_ranks(here, 3, work)
    assert "rank 1 ended while it was writing its part of step 2" in texts[0]
    assert "gave up on step 2" in texts[2] or "ended while it was writing" in texts[2]
    assert steps(here) == []


# ---- object stores


def test_s3(here: Context, bucket: str) -> None:
    model, optimizer = trained()
    for step in (1, 2, 3):
        path = save_checkpoint(
            model, optimizer, step=step, metrics={"loss": 4.0 - step}, directory=f"{bucket}/run", keep_last=2
        )
    assert path == f"{bucket}/run/step-00000003"
    flush()
    found = Checkpoints(f"{bucket}/run")
    assert [(checkpoint.step, checkpoint.valid) for checkpoint in found] == [(2, True), (3, True)]
    assert len(found[0].tensors) > 5
    other, stepper = Net(), torch.optim.AdamW(Net().parameters())
    stepper = torch.optim.AdamW(other.parameters())
    loaded = load_checkpoint("best:loss", into=(other, stepper), directory=f"{bucket}/run")
    assert loaded is not None
    assert loaded.step == 3
    assert equal(other.state_dict(), model.state_dict())
    by_path = load_checkpoint(path)
    assert by_path is not None
    assert by_path.step == 3
    found[0].pin()
    assert Checkpoints(f"{bucket}/run")[0].pinned
    found[0].verify()


def test_keys_of_a_bucket_that_lead_elsewhere_are_not_followed(
    here: Context, bucket: str, tmp_path: Path
) -> None:
    import s3fs

    path = save_checkpoint({"x": torch.ones(2)}, step=1, directory=f"{bucket}/odd", wait=True)
    name = path.removeprefix("s3://")
    fs: Any = s3fs.S3FileSystem()
    for key in (f"{name}/../../../../..{tmp_path}/one", f"{name}/{tmp_path}/two", f"{name}/data/../../three"):
        fs.call_s3("put_object", Bucket=key.partition("/")[0], Key=key.partition("/")[2], Body=b"x")
    fs.invalidate_cache()
    loaded = load_checkpoint("latest", directory=f"{bucket}/odd")
    assert loaded is not None
    assert os.listdir(tmp_path) == []


def test_an_upload_that_breaks_off_leaves_the_one_before(
    here: Context, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs.core
    from fsspec.core import url_to_fs

    place = f"{bucket}/broken"
    save_checkpoint({"x": torch.tensor(1.0)}, step=1, directory=place, wait=True)
    uploads = 0

    def counted(real: Any) -> Any:
        def upload(*args: Any, **keywords: Any) -> Any:
            nonlocal uploads
            uploads += 1
            if uploads == fails_at:
                raise PermissionError("the key was taken away")
            return real(*args, **keywords)

        return upload

    monkeypatch.setattr(s3fs.core.S3File, "commit", counted(s3fs.core.S3File.commit))
    system = url_to_fs(place)[0]
    monkeypatch.setattr(system, "pipe_file", counted(system.pipe_file))
    for fails_at in (1, 2, 3):  # noqa: B007 - `upload` reads it
        uploads = 0
        with pytest.raises(CheckpointError, match="the key was taken away"):
            save_checkpoint({"x": torch.tensor(2.0)}, step=1, directory=place, wait=True)
        found = load_checkpoint(directory=place)
        assert found is not None
        assert found.model is not None
        assert found.model["x"] == 1.0
    fails_at = -1
    save_checkpoint({"x": torch.tensor(3.0)}, step=1, directory=place, wait=True)
    found = load_checkpoint(directory=place)
    assert found is not None
    assert found.model is not None
    assert found.model["x"] == 3.0


def _full(_: int) -> None:
    raise OSError(28, "No space left on device")
