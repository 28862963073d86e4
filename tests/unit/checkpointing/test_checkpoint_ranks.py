"""Several ranks, one checkpoint: the mean of their metrics, the same answer for all, and no state that is
lost because another rank was faster. Ranks are forked processes.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from quarterdeck.checkpointing import attempt, ended, offering, save, saver
from quarterdeck.checkpointing.checkpoint import Checkpoint, Checkpoints
from quarterdeck.checkpointing.manifest import MANIFEST
from quarterdeck.checkpointing.save import finish, flush, load_checkpoint, save_checkpoint
from quarterdeck.context import Context, working_for
from quarterdeck.errors import UsageError
from quarterdeck.views.checkpoints.detail import facts
from support.ranks import forked_ranks
from support.waiting import until

DEADLINE_S = 30
STATE = {"x": torch.ones(2)}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Context]:
    """A run, and nobody in it."""
    context = Context(run_id="r", run_dir=tmp_path / "runs" / "r")
    yield context
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saver.saver.release()
        saver.saver._error = None
        finish()


def one_by_one(context: Context, count: int, work: Callable[[int], Any]) -> None:
    """The ranks in this process, each when the one before has ended."""
    for rank in range(count):
        with working_for(dataclasses.replace(context, rank=rank, world_size=count)):
            work(rank)
            finish()


def listed(context: Context) -> list[Checkpoint]:
    return list(Checkpoints(context.run_dir / "checkpoints"))


def steps(context: Context) -> list[int]:
    return [checkpoint.step for checkpoint in listed(context)]


def loaded_x(which: Any = "latest", **more: Any) -> float:
    loaded = load_checkpoint(which, **more)
    assert loaded is not None
    assert loaded.model is not None
    return float(loaded.model["x"][0])


# ---- metrics


@pytest.mark.parametrize("late", [0, 1])
def test_a_metric_is_the_mean_over_the_ranks_whoever_comes_first(here: Context, late: int) -> None:
    """Also of the rank that comes when all is on the disk."""

    def work(rank: int) -> None:
        for step in range(3):
            if rank == late:
                until(lambda at=step: at in steps(here))
            save_checkpoint(STATE, step=step, metrics={"m": float(rank), "same": 0.1})

    assert forked_ranks(here, 2, work) == ["None"] * 2
    assert [checkpoint.metrics for checkpoint in listed(here)] == [{"m": 0.5, "same": 0.1}] * 3
    assert [checkpoint.manifest.rank for checkpoint in listed(here)] == [1 - late] * 3
    assert "m=0.5, same" in repr(listed(here)[0])  # of all of them: nothing more to say


def test_where_not_all_gave_a_metric_it_says_so(here: Context) -> None:
    def work(rank: int) -> None:
        metrics = [{"loss": 1.0, "val": 5.0}, {"loss": 2.0}, None, {}][rank]
        save_checkpoint(STATE, step=1, metrics=metrics, wait=True)

    forked_ranks(here, 4, work)
    (checkpoint,) = listed(here)
    assert checkpoint.metrics == {"loss": 1.5, "val": 5.0}
    assert checkpoint.shares == {"loss": "mean of 2 of 4 ranks", "val": "of 1 of 4 ranks"}
    assert "loss=1.5 (mean of 2 of 4 ranks)" in repr(checkpoint)
    assert dict(facts(checkpoint))["metrics"] == "loss: mean of 2 of 4 ranks, val: of 1 of 4 ranks"


def test_one_rank_that_has_nan_makes_it_nan(here: Context) -> None:
    forked_ranks(
        here, 2, lambda rank: save_checkpoint(STATE, step=1, metrics={"m": [1.0, float("nan")][rank]})
    )
    (checkpoint,) = listed(here)
    assert checkpoint.metrics["m"] != checkpoint.metrics["m"]


def test_a_rank_that_offers_a_step_twice_counts_once_with_its_last_word(here: Context) -> None:
    def work(rank: int) -> None:
        save_checkpoint(STATE, step=1, metrics={"m": 1.0, "first": 7.0})
        save_checkpoint(STATE, step=1, metrics={"m": 3.0}, wait=True)

    forked_ranks(here, 2, work)
    assert listed(here)[0].metrics == {"m": 3.0, "first": 7.0}


def test_a_later_attempt_has_its_own_metrics(here: Context) -> None:
    for attempt_number in (0, 1):
        again = dataclasses.replace(here, attempt=attempt_number)
        forked_ranks(
            again, 2, lambda rank, at=attempt_number: save_checkpoint(STATE, step=1, metrics={"m": at + rank})
        )
    assert listed(here)[0].metrics == {"m": 1.5}


def test_the_metrics_of_late_ranks_go_where_the_folder_goes(here: Context, tmp_path: Path) -> None:
    one_by_one(here, 3, lambda rank: save_checkpoint(STATE, step=1, metrics={"m": float(rank)}, wait=True))
    (checkpoint,) = listed(here)
    assert checkpoint.metrics == {"m": 1.0}
    shutil.copytree(checkpoint.path, tmp_path / "elsewhere" / "mine")
    (copy,) = Checkpoints(tmp_path / "elsewhere")
    assert copy.metrics == {"m": 1.0}
    torch.save({}, tmp_path / "x")
    exported = torch.load(copy.export(tmp_path / "one.pt"), weights_only=True)
    assert exported["metrics"] == {"m": 1.0}


def test_what_came_late_and_cannot_be_read_costs_no_checkpoint(here: Context) -> None:
    one_by_one(here, 2, lambda rank: save_checkpoint(STATE, step=1, metrics={"m": float(rank)}, wait=True))
    for text in ("", "{", '{"created_unix_ns": 1, "rank_metrics": {"0": {"m": 9.0}}}'):
        Path(listed(here)[0].path, "metrics.json").write_text(text)
        (checkpoint,) = listed(here)
        assert checkpoint.valid
        assert checkpoint.metrics == {"m": 0.0}


def test_late_metrics_reach_a_bucket(here: Context, bucket: str) -> None:
    def work(rank: int) -> None:
        save_checkpoint(STATE, step=1, metrics={"m": float(rank)}, directory=f"{bucket}/late", wait=True)

    one_by_one(here, 2, work)
    (checkpoint,) = Checkpoints(f"{bucket}/late")
    assert checkpoint.metrics == {"m": 0.5}
    with working_for(dataclasses.replace(here, attempt=1)):  # another one in its place
        save_checkpoint(STATE, step=1, metrics={"m": 4.0}, directory=f"{bucket}/late", wait=True)
    (checkpoint,) = Checkpoints(f"{bucket}/late")
    assert checkpoint.metrics == {"m": 4.0}


def test_one_rank_alone_leaves_nothing_beside_its_checkpoints(here: Context) -> None:
    with working_for(here):
        save_checkpoint(STATE, step=1, metrics={"m": 1.0}, wait=True)
        load_checkpoint("best:m")
    assert os.listdir(here.run_dir / "checkpoints") == ["step-00000001"]
    (checkpoint,) = listed(here)
    assert checkpoint.manifest.rank_metrics == {}
    assert "metrics.json" not in os.listdir(checkpoint.path)


# ---- which stay


@pytest.mark.parametrize("late", [0, 1])
def test_the_best_by_the_mean_stays_though_a_rank_lags_behind_by_all_steps(here: Context, late: int) -> None:
    losses = [[1.0, 9.0], [2.0, 2.0], [9.0, 1.0], [3.0, 3.0]]

    def work(rank: int) -> None:
        if rank == late:
            until(lambda: len(steps(here)) == 4)
        for step in range(4):
            save_checkpoint(STATE, step=step, metrics={"m": losses[step][rank]}, keep_best="m")

    forked_ranks(here, 2, work)
    assert [(one.step, one.metrics["m"]) for one in listed(here)] == [(1, 2.0), (3, 3.0)]


def test_a_rank_that_calls_for_the_first_time_while_it_is_asked_has_passed_nothing(
    here: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what was said of the steps is forgotten, and the late rank writes them anew."""
    one = attempt.Attempt(here.run_dir / "saves", here.run_dir / "answers", rank=0, world_size=2)
    one.enter(step=3, met=0)
    read = attempt.Attempt._position
    looks: list[int] = []

    def comes_after_the_first_look(self: attempt.Attempt, rank: int) -> attempt.Position | None:
        looks.append(rank)
        if rank == 0 or looks.count(1) == 1:
            return read(self, rank)
        return attempt.Position(step=0, met=0, began_unix_ns=time.time_ns())

    monkeypatch.setattr(attempt.Attempt, "_position", comes_after_the_first_look)
    assert one.is_open(1)
    one.end()


def test_ranks_that_never_save_are_waited_for_until_all_have_met(
    here: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collective tells that they have been where the others saved."""
    met = 10
    monkeypatch.setattr(save, "_collectives", lambda: met)

    def saved(step: int) -> None:
        save_checkpoint(STATE, step=step, metrics={"m": -float(step)}, keep_best="m", wait=True)

    with working_for(dataclasses.replace(here, world_size=2)):
        for step in range(3):
            saved(step)
        assert steps(here) == [0, 1, 2]
        met = 11
        saved(3)
        assert steps(here) == [2, 3]  # 3 is better, but is not judged yet


def test_ranks_that_never_save_are_not_waited_for_for_ever(
    here: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "NEWCOMERS_S", 0.0)
    with working_for(dataclasses.replace(here, world_size=2)):
        for step in range(4):
            save_checkpoint(STATE, step=step, metrics={"m": float(step)}, keep_best="m", wait=True)
    assert steps(here) == [0, 3]


def test_when_all_have_ended_only_what_is_to_stay_is_left(here: Context) -> None:
    def work(rank: int) -> None:
        for step in range(5):
            if rank == 0:
                save_checkpoint(STATE, step=step, metrics={"m": float(step)}, keep_best="m")

    forked_ranks(here, 2, work)
    folder = here.run_dir / "checkpoints"
    ended.tidy_up(folder)
    assert sorted(os.listdir(folder)) == ["step-00000000", "step-00000004"]


def test_what_ranks_tell_each_other_does_not_pile_up(here: Context) -> None:
    def work(rank: int) -> None:
        for step in range(20):
            save_checkpoint(STATE, step=step, metrics={"m": 1.0}, wait=True)
            load_checkpoint("latest")

    assert forked_ranks(here, 2, work) == ["None"] * 2
    found = [name for _, folders, files in os.walk(here.run_dir) for name in (*folders, *files)]
    assert len([name for name in found if name.startswith(("step-", "offer", "state")) or "." in name]) < 200
    (told,) = (here.run_dir / "checkpoints" / ".saves").iterdir()
    assert len(os.listdir(told)) < 10
    assert len(os.listdir(told / "answers")) < 10


# ---- what was saved is found


def slowly() -> None:
    """This process's disk."""
    real = os.fsync
    os.fsync = lambda descriptor: (time.sleep(0.02), real(descriptor))[1]  # type: ignore[func-returns-value]


@pytest.mark.parametrize("keep_last", [None, 1])
def test_after_wait_the_step_is_there_for_every_rank(here: Context, keep_last: int | None) -> None:
    def work(rank: int) -> tuple[int, int]:
        slowly()
        missed = older = 0
        for step in range(12):
            path = save_checkpoint(STATE, step=step, keep_last=keep_last, wait=True)
            for which in (step, path):
                try:
                    load_checkpoint(which)
                except Exception:
                    missed += 1
            latest = load_checkpoint("latest")
            older += latest is None or latest.step < step
        return missed, older

    assert forked_ranks(here, 3, work) == ["(0, 0)"] * 3


def test_a_load_waits_for_the_rank_that_writes_also_without_wait(here: Context) -> None:
    def work(rank: int) -> float:
        slowly()
        path = save_checkpoint(STATE, step=1)
        return loaded_x(path)

    assert forked_ranks(here, 3, work) == ["1.0"] * 3


def test_who_waits_is_told_that_the_writer_failed(here: Context) -> None:
    def work(rank: int) -> None:
        if rank == 1:
            until((here.run_dir / "checkpoints/.saves/r-0/step-00000001/writer").exists)
        os.fsync = full
        save_checkpoint(STATE, step=1, wait=True)

    def full(_: int) -> None:
        time.sleep(0.5)
        raise OSError(errno.ENOSPC, "No space left on device")

    texts = forked_ranks(here, 2, work)
    assert all("No space left on device" in text for text in texts), texts
    assert texts[1].startswith("CheckpointError: The checkpoint of step 1 was not saved")


def test_who_waits_is_told_that_the_writer_died(here: Context) -> None:
    def work(rank: int) -> None:
        if rank == 1:
            until((here.run_dir / "checkpoints/.saves/r-0/step-00000001/writer").exists)
        os.fsync = lambda _: (time.sleep(0.5), os._exit(1))
        save_checkpoint(STATE, step=1, wait=True)

    texts = forked_ranks(here, 2, work)
    assert texts[0] == ""
    assert "rank 0 ended while it was writing" in texts[1]


@pytest.mark.parametrize("which", ["latest", "best:m"])
def test_ranks_that_ask_between_the_same_two_saves_get_the_same(here: Context, which: str) -> None:
    """However far another one has gone meanwhile; what it was told is not removed before."""

    def save(step: int) -> None:
        save_checkpoint(
            {"x": torch.full((2,), float(step))}, step=step, metrics={"m": -step}, keep_last=1, wait=True
        )

    def work(rank: int) -> list[float]:
        save(1)
        if rank == 1:
            until(lambda: 3 in steps(here))
        found = [loaded_x(which)]
        for step in (2, 3):
            save(step)
        return [*found, loaded_x(which)]

    assert forked_ranks(here, 2, work) == ["[1.0, 3.0]"] * 2
    assert steps(here) == [3]


def test_ranks_that_begin_at_different_moments_begin_with_the_same(here: Context) -> None:
    def work(rank: int) -> bool:
        if rank == 1:
            until(lambda: 1 in steps(here))
        began = load_checkpoint("latest")
        save_checkpoint(STATE, step=1, wait=True)
        return began is None

    assert forked_ranks(here, 2, work) == ["True"] * 2


def test_a_rank_that_does_not_save_finds_the_newest_each_time(here: Context) -> None:
    def work(rank: int) -> list[int | None]:
        found: list[int | None] = []
        for step in (1, 2, 3):
            if rank == 0:
                save_checkpoint(STATE, step=step, wait=True)
            else:
                until(lambda at=step: at in steps(here))
            latest = load_checkpoint("latest")
            found.append(latest and latest.step)
            (here.run_dir / f"asked-{rank}-{step}").touch()
            until((here.run_dir / f"asked-{1 - rank}-{step}").exists)
        return found

    assert forked_ranks(here, 2, work) == ["[1, 2, 3]"] * 2


def test_a_damaged_one_is_passed_over_by_all_ranks(here: Context) -> None:
    with working_for(here):
        for step in (1, 2, 3):
            save_checkpoint({"x": torch.full((2,), float(step))}, step=step, wait=True)
    folder = here.run_dir / "checkpoints"
    (folder / "step-00000003" / MANIFEST).write_text("{")
    weights = folder / "step-00000002" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")

    def work(rank: int) -> tuple[float, int]:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            return loaded_x("latest", verify=True), len(told)

    assert forked_ranks(dataclasses.replace(here, attempt=1), 2, work) == ["(1.0, 2)"] * 2


def test_one_that_somebody_deleted_is_not_answered_any_more(here: Context) -> None:
    with working_for(dataclasses.replace(here, world_size=2)):
        for step in (1, 2):
            save_checkpoint({"x": torch.full((2,), float(step))}, step=step, wait=True)
        assert loaded_x() == 2.0
        shutil.rmtree(here.run_dir / "checkpoints" / "step-00000002")
        assert loaded_x() == 1.0


def test_where_nothing_can_be_written_each_rank_looks_for_itself(here: Context, tmp_path: Path) -> None:
    with working_for(here):
        save_checkpoint(STATE, step=1, directory=tmp_path / "given", wait=True)
    here.run_dir.parent.mkdir(exist_ok=True)
    here.run_dir.write_bytes(b"")
    texts = forked_ranks(here, 2, lambda rank: loaded_x("latest", directory=tmp_path / "given"))
    assert texts == ["1.0"] * 2
    assert os.listdir(tmp_path / "given") == ["step-00000001"]


def test_a_run_that_only_asked_leaves_no_folder(here: Context) -> None:
    assert forked_ranks(here, 2, lambda rank: load_checkpoint("latest")) == ["None"] * 2
    ended.tidy_up(here.run_dir / "checkpoints")
    assert not here.run_dir.exists()


# ---- no rank's weights are dropped


def stage(rank: int) -> dict[str, torch.Tensor]:
    return {f"stage.{rank}.weight": torch.ones(4, 4)}


def told(text: str) -> bool:
    return "saves another state as step 1 than" in text and "a directory= of its own" in text


def test_ranks_that_hold_different_models_are_told_and_nothing_is_saved(here: Context) -> None:
    def work(rank: int) -> None:
        slowly()
        save_checkpoint(stage(rank), step=1, wait=True)

    texts = forked_ranks(here, 2, work)
    assert all(map(told, texts)), texts
    assert "has stage.1.weight (4, 4) float32, rank 0 has not" in texts[0]
    assert steps(here) == []


@pytest.mark.parametrize("late", [0, 1])
def test_also_where_the_first_one_was_complete_before_the_second_came(here: Context, late: int) -> None:
    def work(rank: int) -> None:
        if rank == late:
            until(lambda: steps(here) == [1])
        save_checkpoint(stage(rank), step=1, wait=rank != late)
        until(lambda: steps(here) == [])
        save_checkpoint(stage(rank), step=2, directory=here.run_dir / "other")

    texts = forked_ranks(here, 2, work)
    assert all(map(told, texts)), texts
    assert steps(here) == []
    assert not (here.run_dir / "other").exists()


def test_a_directory_of_its_own_is_what_each_stage_needs(here: Context) -> None:
    def work(rank: int) -> str:
        return save_checkpoint(stage(rank), step=1, directory=here.run_dir / f"stage-{rank}", wait=True)[-1]

    assert forked_ranks(here, 2, work) == ["1"] * 2


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ([{"w": torch.ones(2)}, {"w": torch.ones(3)}], "w (2,) float32, rank 1 has w (3,) float32"),
        ([{"w": torch.ones(2)}, {"w": torch.ones(2).half()}], "float16"),
        ([{"w": torch.ones(2)}, {"w": torch.ones(2), "v": torch.ones(1)}], "rank 1 has v (1,) float32"),
        ([{f"w{at}": torch.ones(1) for at in range(9)}, {}], "and 6 more, rank 1 has not"),
    ],
)
def test_the_difference_is_named(here: Context, states: list[dict[str, Any]], words: str) -> None:
    def work(rank: int) -> None:
        if rank == 0:
            until((here.run_dir / "checkpoints/.saves/r-0/step-00000001/offer-1").exists)
        save_checkpoint(states[rank], step=1)

    texts = forked_ranks(here, 2, work)
    assert words in texts[0], texts
    assert steps(here) == []


@pytest.mark.parametrize("part", ["optimizer", "scheduler", "extra", "slice"])
def test_an_optimizer_or_anything_else_that_only_some_ranks_give_is_not_dropped(
    here: Context, part: str
) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters())  # torch loads much for the first one: before the fork

    def work(rank: int) -> None:
        scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
        mine: dict[str, Any] = {"optimizer": optimizer, "scheduler": scheduler, "extra": 1}
        given = {part: mine[part]} if rank and part != "slice" else {}
        if part == "slice":
            given = {"optimizer": torch.optim.SGD([[*model.parameters()][rank]])}
        save_checkpoint(model, step=1, **given)
        until((here.run_dir / "checkpoints/.saves/r-0/step-00000001/failed").exists)

    texts = forked_ranks(here, 2, work)
    assert all(map(told, texts)), texts
    assert all("optimizer's bias" in text if part == "slice" else part in text for text in texts), texts


def test_of_ranks_that_save_together_nothing_is_written_before_they_are_compared(
    here: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(rank: int) -> None:
        monkeypatch.setattr(os, "fsync", lambda _: (here.run_dir / "written").touch())
        save_checkpoint(stage(rank), step=1, rng=True)

    texts = forked_ranks(here, 2, work)
    assert all("saves another state as step 1 than" in text for text in texts), texts
    assert steps(here) == []
    assert not (here.run_dir / "written").exists()


def test_two_models_that_one_rank_saves_as_one_step_are_told(here: Context) -> None:
    def work(rank: int) -> None:
        if rank == 0:
            save_checkpoint({"generator": torch.ones(1)}, step=1)
            save_checkpoint({"critic": torch.ones(1)}, step=1)

    text = forked_ranks(here, 2, work)[0]
    assert "than it did before: rank 0 has critic (1,) float32, it has not" in text, text


def test_what_was_refused_may_be_saved_when_it_is_mended(here: Context) -> None:
    def work(rank: int) -> str:
        if rank == 0:
            with pytest.raises(UsageError):
                save_checkpoint(STATE, step=1, extra=lambda: 1)
            (here.run_dir / "refused").touch()
        until((here.run_dir / "refused").exists)
        return save_checkpoint(STATE, step=1, wait=True)[-1]

    assert forked_ranks(here, 2, work) == ["1"] * 2


def test_a_child_of_a_rank_that_saves_does_not_wait_for_its_parent(here: Context) -> None:
    def work(rank: int) -> None:
        if rank == 0:
            save_checkpoint(STATE, step=1, wait=True)
            pid = os.fork()
            if pid == 0:
                signal.alarm(DEADLINE_S)
                save_checkpoint(STATE, step=2, wait=True)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0

    assert forked_ranks(here, 2, work) == ["None"] * 2
    assert steps(here) == [1, 2]


def test_replicas_whose_values_differ_are_replicas(here: Context) -> None:
    model = torch.nn.BatchNorm1d(3)
    optimizer = torch.optim.SGD(model.parameters())

    def work(rank: int) -> str:
        model.running_mean += rank
        return save_checkpoint(model, optimizer, step=1, wait=True)[-1]

    assert forked_ranks(here, 3, work) == ["1"] * 3


def test_wrong_models_are_refused_on_all_ranks(here: Context) -> None:
    with pytest.raises(UsageError), working_for(dataclasses.replace(here, world_size=2)):
        save_checkpoint([torch.ones(1)], step=1)
    flush()


def test_a_rank_that_is_interrupted_right_after_its_claim_leaves_the_step_to_others(
    here: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = offering.claim

    def cut(order: offering.Order) -> bool:
        claim(order)
        raise KeyboardInterrupt

    with working_for(dataclasses.replace(here, rank=0, world_size=2)):
        monkeypatch.setattr(offering, "claim", cut)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(STATE, step=1)
        monkeypatch.undo()
    with working_for(dataclasses.replace(here, rank=1, world_size=2)):
        save_checkpoint(STATE, step=1, wait=True)
        assert steps(here) == [1]
        finish()
