"""The checkpoint browser's half in the kernel: what it lists, tells and does, and what it never does."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from quarterdeck.checkpointing.checkpoint import Checkpoints
from quarterdeck.checkpointing.load import Loaded
from quarterdeck.checkpointing.save import flush, save_checkpoint
from quarterdeck.context import Context, working_for
from quarterdeck.errors import UsageError
from quarterdeck.views.checkpoints import location, trash
from quarterdeck.views.checkpoints.feed import CheckpointsFeed, is_work
from quarterdeck.views.checkpoints.messages import (
    Compare,
    Comparison,
    Delete,
    Detail,
    Done,
    Export,
    Load,
    Pin,
    Row,
    Shelf,
    Statistics,
    Sync,
    ToBrowser,
    ToKernel,
    Trouble,
    Undo,
    WantDetail,
    WantStatistics,
)

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Saves into a folder as a run does; gives where it lies."""

    def one(step: int, scale: float = 1.0, folder: Path | None = None, **more: Any) -> Path:
        torch.manual_seed(step)
        state = {"head.weight": torch.arange(-6.0, 6).view(3, 4) * scale, "head.bias": torch.zeros(3)}
        place = folder or tmp_path / "here"
        with working_for(Context(run_id="r", run_dir=tmp_path / "runs" / "r")):
            return Path(save_checkpoint(state, step=step, directory=place, wait=True, **more))

    yield one
    flush()


@pytest.fixture(autouse=True)
def own_trash(monkeypatch: pytest.MonkeyPatch) -> trash.Trash:
    """Swept with the test."""
    mine = trash.Trash()
    for module in (
        trash,
        sys.modules["quarterdeck.views.checkpoints.actions"],
        sys.modules[CheckpointsFeed.__module__],
    ):
        monkeypatch.setattr(module, "trash", mine)
    yield mine
    mine.sweep(everything=True)


def opened(folder: Path, namespace: dict[str, Any] | None = None) -> tuple[CheckpointsFeed, list[Row]]:
    feed = CheckpointsFeed(location.of_folder(folder), {} if namespace is None else namespace)
    return feed, rows(feed.whole())


def rows(messages: Sequence[ToBrowser]) -> list[Row]:
    [shelf] = [message for message in messages if isinstance(message, Shelf)]
    return [row for group in shelf.groups for row in group.rows]


def ask(feed: CheckpointsFeed, request: ToKernel) -> list[ToBrowser]:
    """As the widget does it, message by message over the wire."""
    sent = msgspec.convert(msgspec.json.decode(msgspec.json.encode(request)), ToKernel)
    return list(feed.work(sent, lambda: True)) if is_work(sent) else feed.answer(sent)


def only(messages: Sequence[ToBrowser], kind: type[Any]) -> Any:
    found = [message for message in messages if isinstance(message, kind)]
    assert len(found) == 1, messages
    return found[0]


def _blank(file: Path) -> None:
    """Nothing of it is right but its size."""
    file.write_bytes(bytes(file.stat().st_size))


def words(messages: Sequence[ToBrowser]) -> str:
    return str(only(messages, Trouble).text)


def test_the_list_tells_what_the_manifests_say(save: Save, tmp_path: Path) -> None:
    save(10, metrics={"loss": 0.5, "accuracy": 0.7, "lr": 0.1}, epoch=1)
    save(20, metrics={"loss": 0.4, "accuracy": 0.6, "lr": 0.1}, epoch=2)
    save(30, metrics={"loss": float("nan")})
    feed, [last, second, first] = opened(tmp_path / "here")
    assert [last.step, second.step, first.step] == [30, 20, 10]
    assert (second.best, first.best, last.best) == (["loss"], ["accuracy"], [])
    assert second.metrics == {"loss": 0.4, "accuracy": 0.6, "lr": 0.1}
    assert last.metrics == {"loss": "nan"}
    assert second.epoch == 2
    assert second.size_bytes > 60
    assert abs(second.created_ms / 1000 - time.time()) < 60
    assert msgspec.json.encode(feed.whole())


def test_listing_a_thousand_takes_no_time_and_reads_no_tensor(save: Save, tmp_path: Path) -> None:
    """The goal is 0.2 s; where other tests run at the same time, only a core's own time says anything."""
    first = save(0, metrics={"loss": 1.0})
    for step in range(1, 1000):
        there = tmp_path / "here" / f"step-{step:08d}"
        there.mkdir()
        for name in os.listdir(first):
            os.link(first / name, there / name)
    _blank(first / "model.safetensors")
    took = []
    for _ in range(3):
        start = time.process_time()
        _, found = opened(tmp_path / "here")
        took.append(time.process_time() - start)
    assert len(found) == 1000
    assert all(row.problem == "" for row in found)
    assert min(took) < 4, took


def test_damaged_folders_are_listed_with_their_reason(save: Save, tmp_path: Path) -> None:
    good, cut, broken = save(1), save(2), save(3)
    os.truncate(cut / "model.safetensors", 10)
    (broken / "manifest.json").write_text("{}")
    (tmp_path / "here" / "notes").mkdir()
    feed, found = opened(tmp_path / "here")
    problems = {row.name: row.problem for row in found}
    assert problems[good.name] == ""
    assert "has 10 bytes" in problems[cut.name]
    assert "manifest.json" in problems[broken.name]
    assert "never completed" in problems["notes"]
    id = next(row.id for row in found if row.name == cut.name)
    assert "has 10 bytes" in only(ask(feed, WantDetail(id)), Detail).problem
    assert "has 10 bytes" in words(ask(feed, Load(id, "ckpt")))


def test_a_new_checkpoint_comes_as_news_and_nothing_else_does(save: Save, tmp_path: Path) -> None:
    save(1)
    feed, _ = opened(tmp_path / "here")
    assert feed.news() == []
    save(2)
    assert [row.step for row in rows(feed.news())] == [2, 1]
    assert feed.news() == []


def test_all_runs_of_a_store_newest_first(save: Save, tmp_path: Path) -> None:
    save(1, folder=tmp_path / "runs" / "a" / "checkpoints")
    time.sleep(0.01)
    save(1, folder=tmp_path / "runs" / "b" / "checkpoints")
    (tmp_path / "runs" / "c").mkdir()
    feed = CheckpointsFeed(location.of_store([tmp_path]), {})
    shelf = only(feed.whole(), Shelf)
    assert [Path(group.path).parent.name for group in shelf.groups] == ["b", "a"]
    save(5, folder=tmp_path / "runs" / "c" / "checkpoints")
    news = only(feed.news(), Shelf)
    assert not news.whole
    assert [row.step for group in news.groups for row in group.rows] == [5]


def test_a_detail_comes_from_metadata_alone(save: Save, tmp_path: Path) -> None:
    path = save(
        7, hyperparameters={"lr": 0.1, "optimizer": {"name": "adam", "on": True, "text": "1"}}, epoch=3
    )
    _blank(path / "model.safetensors")
    feed, [row] = opened(tmp_path / "here")
    detail = only(ask(feed, WantDetail(row.id)), Detail)
    values = {fact.name: fact.value for fact in detail.hyperparameters}
    assert values == {"lr": "0.1", "optimizer.name": "adam", "optimizer.on": "True", "optimizer.text": "'1'"}
    assert [(tensor.name, tensor.shape, tensor.size_bytes) for tensor in detail.tensors] == [
        ("head.bias", [3], 12),
        ("head.weight", [3, 4], 48),
    ]
    facts = {fact.name: fact.value for fact in detail.facts}
    assert facts["epoch"] == "3"
    assert facts["folder"] == str(path)
    assert detail.resume.startswith("%%distributed --resume ")
    assert str(path.name) in detail.resume


def test_statistics_are_those_of_the_values(save: Save, tmp_path: Path) -> None:
    save(1)
    feed, [row] = opened(tmp_path / "here")
    found = only(ask(feed, WantStatistics(row.id, "head.weight")), Statistics)
    assert (found.least, found.greatest, found.zeros, found.nans, found.infs) == (-6, 5, 1, 0, 0)
    assert found.mean == pytest.approx(-0.5)
    assert found.std == pytest.approx(torch.arange(-6.0, 6).std(correction=0).item())
    assert sum(found.counts) == found.values == found.looked_at == 12
    assert "no tensor 'other'" in words(ask(feed, WantStatistics(row.id, "other")))


@pytest.mark.parametrize(
    "values",
    [
        torch.tensor([]),
        torch.tensor(3.0),
        torch.tensor([float("nan"), float("inf"), 1.0, 2.0]),
        torch.full((4,), float("nan")),
        torch.ones(5, dtype=torch.bfloat16),
        torch.tensor([1 + 2j, 0j]),
        torch.tensor([True, False]),
        torch.tensor([1e308, -1e308], dtype=torch.float64),
        torch.arange(5),
    ],
    ids=str,
)
def test_statistics_of_odd_tensors(values: torch.Tensor, tmp_path: Path) -> None:
    save_checkpoint({"odd": values}, step=1, directory=tmp_path / "here", wait=True)
    feed, [row] = opened(tmp_path / "here")
    messages = ask(feed, WantStatistics(row.id, "odd"))
    found = only(messages, Statistics)
    assert found.values == values.numel()
    assert sum(found.counts) + found.nans + found.infs == values.numel()
    assert b"null" in msgspec.json.encode(found) or found.mean is not None


def test_large_tensors_are_looked_into_in_pieces(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quarterdeck.views.checkpoints import chunks, statistics

    values = torch.arange(10_000.0).view(100, 100)
    save_checkpoint({"big": values}, step=1, directory=tmp_path / "here", wait=True)
    feed, [row] = opened(tmp_path / "here")
    monkeypatch.setattr(chunks, "_SLAB_VALUES", 300)
    whole = only(ask(feed, WantStatistics(row.id, "big")), Statistics)
    assert (whole.looked_at, whole.mean) == (10_000, pytest.approx(4999.5))
    monkeypatch.setattr(statistics, "MOST_VALUES", 1_000)
    part = only(ask(feed, WantStatistics(row.id, "big")), Statistics)
    assert 300 <= part.looked_at <= 1_200
    assert part.mean == pytest.approx(4999.5, rel=0.2), "it looks at all of the tensor, here and there"


def test_work_that_nobody_wants_any_more_ends(save: Save, tmp_path: Path) -> None:
    save(1)
    save(2, 2.0)
    feed, [two, one] = opened(tmp_path / "here")
    assert list(feed.work(WantStatistics(one.id, "head.weight"), lambda: False)) == []
    [begun] = feed.work(Compare(one.id, two.id), lambda: False)
    assert isinstance(begun, Comparison)
    assert begun.done == 0


def test_a_comparison_tells_values_and_how_far_tensors_moved(save: Save, tmp_path: Path) -> None:
    save(1, hyperparameters={"lr": 0.1, "seed": 1}, metrics={"loss": 2.0})
    save(2, 1.5, hyperparameters={"lr": 0.2, "seed": 1, "amp": "bf16"}, metrics={"loss": 1.0})
    feed, [two, one] = opened(tmp_path / "here")
    last = ask(feed, Compare(one.id, two.id))[-1]
    assert isinstance(last, Comparison)
    pairs = {pair.name: (pair.left, pair.right) for pair in last.pairs}
    assert pairs["lr"] == ("0.1", "0.2")
    assert pairs["seed"] == ("1", "1")
    assert pairs["amp"] == (None, "'bf16'")
    assert pairs["metrics: loss"] == ("2", "1")
    assert {change.name: change.change for change in last.changes} == {
        "head.bias": 0.0,
        "head.weight": pytest.approx(0.5),
    }
    assert (last.done, last.total) == (2, 2)


def test_a_comparison_of_different_models(tmp_path: Path) -> None:
    there = tmp_path / "here"
    left = {"a": torch.ones(2), "b": torch.ones(3), "zero": torch.zeros(2), "n": torch.tensor([float("nan")])}
    right = {
        "a": torch.ones(2).half(),
        "b": torch.ones(4),
        "zero": torch.ones(2),
        "n": torch.ones(1),
        "c": torch.ones(1),
    }
    save_checkpoint(left, step=1, directory=there, wait=True)
    save_checkpoint(right, step=2, directory=there, wait=True)
    feed, [two, one] = opened(there)
    last = ask(feed, Compare(one.id, two.id))[-1]
    assert isinstance(last, Comparison)
    changes = {change.name: (change.change, change.note) for change in last.changes}
    assert changes["a"] == (0.0, "is float16 on the right")
    assert changes["b"] == (None, "has another shape: (4,)")
    assert changes["zero"][0] == "inf"
    assert changes["n"][0] == "nan"
    assert last.only_right == ["c"]
    assert msgspec.json.encode(last)


def test_loading_makes_a_variable_and_never_takes_a_name_that_is_used(save: Save, tmp_path: Path) -> None:
    save(1)
    model = object()
    namespace: dict[str, Any] = {"model": model}
    feed, [row] = opened(tmp_path / "here", namespace)
    assert "`ckpt` holds step 1" in only(ask(feed, Load(row.id, "ckpt")), Done).text
    assert isinstance(namespace["ckpt"], Loaded)
    assert torch.equal(namespace["ckpt"].model["head.bias"], torch.zeros(3))
    assert isinstance(only(ask(feed, Load(row.id, "ckpt")), Done), Done), (
        "what was loaded may be loaded again"
    )
    assert "already (object)" in words(ask(feed, Load(row.id, "model")))
    for name in ("", "1x", "a b", "class", "print", "__name__", "x;import os", "a.b"):
        assert words(ask(feed, Load(row.id, name)))
    assert namespace.keys() == {"model", "ckpt"}
    assert namespace["model"] is model


def test_exports_lie_beside_the_notebook_and_replace_nothing(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(1200)
    monkeypatch.chdir(tmp_path)
    feed, [row] = opened(tmp_path / "here")
    for form, name in (
        ("safetensors", "here-step-1-200.safetensors"),
        ("safetensors", "here-step-1-200-2.safetensors"),
        ("pt", "here-step-1-200.pt"),
    ):
        done = only(ask(feed, Export(row.id, form)), Done)  # type: ignore[arg-type]
        assert name in done.text
        assert (tmp_path / name).stat().st_size > 60
    assert torch.load(tmp_path / "here-step-1-200.pt", weights_only=True)["step"] == 1200


def test_a_pinned_one_is_deleted_only_if_that_is_confirmed(save: Save, tmp_path: Path) -> None:
    path = save(1)
    feed, [row] = opened(tmp_path / "here")
    assert rows(ask(feed, Pin(row.id, True)))[0].pinned
    assert Checkpoints(tmp_path / "here")[0].pinned
    assert "pinned" in words(ask(feed, Delete(row.id, False)))
    assert path.is_dir()
    only(ask(feed, Delete(row.id, True)), Done)
    assert not path.exists()


def test_a_deleted_one_comes_back_until_it_is_swept(
    save: Save, tmp_path: Path, own_trash: trash.Trash
) -> None:
    path = save(1)
    save(2)
    before = sorted(os.listdir(path))
    feed, [_, row] = opened(tmp_path / "here")
    messages = ask(feed, Delete(row.id, False))
    assert [row.step for row in rows(messages)] == [2]
    [deleted] = only(messages, Shelf).deleted
    assert deleted.words == "step 1"
    assert Checkpoints(tmp_path / "here").latest.step == 2  # type: ignore[union-attr]
    assert len(Checkpoints(tmp_path / "here")) == 1
    messages = ask(feed, Undo(deleted.id))
    assert [row.step for row in rows(messages)] == [2, 1]
    assert sorted(os.listdir(path)) == before
    assert only(messages, Shelf).deleted == []
    assert (
        os.listdir(tmp_path / "here") == ["step-00000002", "step-00000001"]
        or not (tmp_path / "here" / ".trash").exists()
    )

    deleted = only(ask(feed, Delete(row.id, False)), Shelf).deleted[0]
    own_trash.sweep(everything=True)
    assert "swept" in words(ask(feed, Undo(deleted.id)))
    assert not (tmp_path / "here" / ".trash").exists()
    assert sorted(entry for entry in os.listdir(tmp_path / "here") if entry[0] != ".") == ["step-00000002"]


def test_undo_replaces_nothing_that_was_saved_meanwhile(save: Save, tmp_path: Path) -> None:
    path = save(1)
    feed, [row] = opened(tmp_path / "here")
    [deleted] = only(ask(feed, Delete(row.id, False)), Shelf).deleted
    save(1, 9.0)
    assert "another checkpoint was saved as step-00000001" in words(ask(feed, Undo(deleted.id)))
    kept = Checkpoints(tmp_path / "here")[0]
    kept.verify()
    assert kept.path == str(path)


def test_a_folder_that_is_no_checkpoint_is_never_deleted(save: Save, tmp_path: Path) -> None:
    save(1)
    (tmp_path / "here" / "thesis").mkdir()
    feed, found = opened(tmp_path / "here")
    id = next(row.id for row in found if row.name == "thesis")
    assert "is not a checkpoint" in words(ask(feed, Delete(id, True))[:1])
    assert (tmp_path / "here" / "thesis").is_dir()


def test_what_a_killed_kernel_left_goes_after_a_while(save: Save, tmp_path: Path) -> None:
    path = save(1)
    left = tmp_path / "here" / ".trash" / "step-00000009.0123456789ab"
    left.parent.mkdir()
    os.rename(path, left)
    (left.parent / "mine").mkdir()
    trash.Trash(kept_s=60).sweep_left(str(tmp_path / "here"))
    assert left.exists()
    trash.Trash(kept_s=-1).sweep_left(str(tmp_path / "here"))
    assert not left.exists()
    assert (left.parent / "mine").exists(), "that was nobody's checkpoint"


def test_a_trash_that_is_a_link_leads_nowhere(save: Save, tmp_path: Path) -> None:
    """A stranger's folder may have one."""
    path = save(1)
    precious = tmp_path / "home" / "thesis.0123456789ab"
    precious.mkdir(parents=True)
    (tmp_path / "here" / ".trash").symlink_to(tmp_path / "home")
    trash.Trash(kept_s=-1).sweep_left(str(tmp_path / "here"))
    assert precious.exists()
    feed, [row] = opened(tmp_path / "here")
    assert "is a link" in words(ask(feed, Delete(row.id, False)))
    assert path.is_dir()


def test_messages_reach_only_what_is_listed(save: Save, tmp_path: Path) -> None:
    outside = save(1, folder=tmp_path / "outside")
    save(1)
    feed, [row] = opened(tmp_path / "here")
    names = [
        str(outside),
        "../outside/step-00000001",
        f"{row.id}/../../outside/step-00000001",
        "g0/..",
        "",
        "g1/step",
    ]
    for id in names:
        for request in (
            WantDetail(id), WantStatistics(id, "head.weight"), Compare(id, row.id), Compare(row.id, id),
            Load(id, "x"), Export(id, "pt"), Pin(id, True), Delete(id, True), Undo(id),
        ):  # fmt: skip
            assert words(ask(feed, request)[-1:] if is_work(request) else ask(feed, request)[:1])
    assert sorted(os.listdir(tmp_path / "outside")) == ["step-00000001"]
    assert "pinned" not in os.listdir(outside)


def test_what_is_deleted_in_another_view_cannot_be_undone_here(save: Save, tmp_path: Path) -> None:
    save(1)
    save(1, folder=tmp_path / "other")
    feed, [row] = opened(tmp_path / "here")
    other, _ = opened(tmp_path / "other")
    [deleted] = only(ask(feed, Delete(row.id, False)), Shelf).deleted
    assert words(ask(other, Undo(deleted.id)))
    assert only(other.whole(), Shelf).deleted == []


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def test_code_in_a_checkpoint_is_named_and_never_run(save: Save, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = save(1, extra={"plain": [1, torch.ones(2)]})
    _replace(path, "extra.pt", {"evil": Hostile(marker)})
    feed, [row] = opened(tmp_path / "here")
    assert row.problem == ""
    [row] = rows(feed.news())
    assert row.needs == [f"{os.mkdir.__module__}.mkdir"]
    for request in (WantDetail(row.id), WantStatistics(row.id, "head.weight"), Export(row.id, "pt")):
        ask(feed, request)
    assert "mkdir" in words(ask(feed, Load(row.id, "ckpt")))
    assert not marker.exists()


def test_code_in_the_index_of_a_sharded_one_is_named(save: Save, tmp_path: Path) -> None:
    from quarterdeck.checkpointing.pickles import needs

    marker = tmp_path / "ran"
    (tmp_path / ".metadata").write_bytes(pickle.dumps(Hostile(marker)))
    assert needs(tmp_path / ".metadata") == [f"{os.mkdir.__module__}.mkdir"]
    assert not marker.exists()


def _replace(checkpoint: Path, name: str, value: object) -> None:
    """As somebody would who also knows how the manifest is sealed."""
    import zlib

    from quarterdeck.checkpointing.manifest import File, Manifest, seal, unseal

    torch.save(value, checkpoint / name)
    data = (checkpoint / name).read_bytes()
    manifest = unseal((checkpoint / "manifest.json").read_bytes(), Manifest, "manifest.json")
    files = {**manifest.files, name: File(len(data), zlib.crc32(data))}
    (checkpoint / "manifest.json").write_bytes(seal(msgspec.structs.replace(manifest, files=files)))


def test_ordinary_states_need_no_trust(save: Save, tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    save_checkpoint(
        model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1), step=1, rng=True, wait=True,
        extra={"half": torch.ones(2).bfloat16(), "set": {1, 2}}, directory=tmp_path / "here",
    )  # fmt: skip
    feed, _ = opened(tmp_path / "here")
    assert feed.news() == []
    assert rows(feed.whole())[0].needs == []


def test_a_folder_that_vanishes_empties_the_list(save: Save, tmp_path: Path) -> None:
    save(1)
    feed, _ = opened(tmp_path / "here")
    os.rename(tmp_path / "here", tmp_path / "away")
    shelf = only(feed.news(), Shelf)
    assert (shelf.groups, shelf.gone) == ([], ["g0"])
    os.rename(tmp_path / "away", tmp_path / "here")
    assert [row.step for row in rows(feed.news())] == [1]


def test_one_checkpoint_is_a_place_of_its_own(save: Save, tmp_path: Path) -> None:
    save(1)
    _, found = opened(save(2))
    assert [row.step for row in found] == [2]


def test_what_is_no_folder_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "model.pt").touch()
    with pytest.raises(UsageError, match="is a file"):
        location.of_folder(tmp_path / "model.pt")
    with pytest.raises(UsageError, match="is not there"):
        location.of_folder(tmp_path / "nothing")
    with pytest.raises(UsageError, match="no run and no folder 'nothing'"):
        location.named("nothing", [tmp_path])


def test_the_trash_is_swept_when_the_process_ends(save: Save, tmp_path: Path) -> None:
    """And not when a fork of it does."""
    save(1)
    code = (
        "import os, sys\n"
        "from quarterdeck.views.checkpoints.trash import trash\n"
        "from quarterdeck.checkpointing.checkpoint import Checkpoints\n"
        "trash.throw(Checkpoints(sys.argv[1])[0])\n"
        "pid = os.fork()\n"
        "if pid == 0: sys.exit()\n"
        "os.waitpid(pid, 0)\n"
        "print(len(os.listdir(sys.argv[1] + '/.trash')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "here")], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
    assert os.listdir(tmp_path / "here") == []


def test_a_store_that_cannot_be_reached_is_told_once(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(1)
    feed, _ = opened(tmp_path / "here")

    def fail(self: object) -> list[str]:
        raise OSError(5, "Input/output error", "s3://bucket")

    monkeypatch.setattr("quarterdeck.checkpointing.local.LocalPlace.names", fail)
    save(2)
    assert words(feed.news()) == "s3://bucket: Input/output error."
    assert feed.news() == []
    assert [row.step for row in rows(feed.whole())] == [1]


def test_sync_answers_with_all(save: Save, tmp_path: Path) -> None:
    save(1)
    feed, _ = opened(tmp_path / "here")
    assert only(ask(feed, Sync()), Shelf).whole
