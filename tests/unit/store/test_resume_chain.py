"""Runs that continue others: which one, where it is, and the curves of all of them as one."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from quarterdeck.context import Context
from quarterdeck.errors import UsageError
from quarterdeck.kernel.resume import Wanted, has_checkpoint, parent_of
from quarterdeck.metrics.series import Metrics
from quarterdeck.metrics.writer import Writer
from quarterdeck.protocol.parts import KernelContext, Parent
from quarterdeck.store import resume_chain
from quarterdeck.store.format import RunHeader, StateEvent
from quarterdeck.store.writer import RunWriter


def _record(home: Path, name: str, parent: Path | None = None, **known: str) -> Path:
    header = RunHeader(name=name, title="cell [1]", notebook="a.ipynb", **known)
    if parent is not None:
        header.parent, header.parent_folder = parent.name, str(parent)
    recorder = RunWriter(home, header)
    recorder.open()
    recorder.event(StateEvent(time.time_ns(), "succeeded"))
    recorder.close()
    return recorder.folder


def _save(run: Path, attempt: int = 0) -> Path:
    """In Flyte's form."""
    folder = run / "checkpoints" / f"attempt-{attempt}" / "rank-0"
    folder.mkdir(parents=True)
    (folder / "state").write_bytes(b"1")
    return folder


def _log(run: Path, steps: range, value: float, rank: int = 0, attempt: int = 0, name: str = "loss") -> None:
    writer = Writer(Context(rank=rank, attempt=attempt, run_dir=run), lambda _: None)
    for step in steps:
        writer.put((name,), time.time_ns(), step, [value])


# ---- curves


def _curve(metrics: Metrics, name: str = "loss", rank: int = 0) -> list[tuple[int, float]]:
    points = metrics[name].points(rank)
    return list(zip(points.steps, points.values, strict=True))


def test_the_parent_s_values_end_where_the_run_begins(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    _log(before, range(8), 1.0)
    _log(before, range(0, 8, 4), 1.0, name="val/loss")
    _log(before, range(6, 9), 1.0, name="too late")
    _log(after, range(5, 10), 2.0)
    metrics = Metrics.read(after, parent=before)
    assert _curve(metrics) == [(step, 1.0) for step in range(5)] + [(step, 2.0) for step in range(5, 10)]
    assert _curve(metrics, "val/loss") == [(0, 1.0), (4, 1.0)]
    assert metrics.names == ["loss", "val/loss"]
    assert "too late" not in metrics
    assert metrics.first_step == 5
    table = metrics.to_pandas()
    assert sorted(table[table["run"] == "before"]["step"].unique()) == [0, 1, 2, 3, 4]
    assert len(table) == 5 + 2 + 5


def test_until_it_has_logged_something_all_of_the_parent_s_are_shown(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    _log(before, range(8), 1.0)
    metrics = Metrics.read(after, parent=before)
    assert len(_curve(metrics)) == 8
    assert metrics.first_step is None
    _log(after, range(2, 4), 2.0)
    assert metrics.refresh()
    assert _curve(metrics) == [(0, 1.0), (1, 1.0), (2, 2.0), (3, 2.0)]
    assert not metrics.refresh()
    _log(before, range(1, 2), 3.0, attempt=1)
    assert metrics.refresh(), "the parent may still run"
    assert _curve(metrics)[1] == (1, 3.0)


def test_a_rank_that_is_new_has_only_its_own(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    _log(before, range(4), 1.0)
    for rank in range(2):
        _log(after, range(3, 5), 2.0, rank)
    metrics = Metrics.read(after, parent=before)
    assert metrics.ranks == [0, 1]
    assert [step for step, _ in _curve(metrics, rank=1)] == [3, 4]


def test_a_chain_of_runs_is_one_curve(tmp_path: Path) -> None:
    folders = [tmp_path / str(n) for n in range(4)]
    for n, (folder, start) in enumerate(zip(folders, (0, 6, 3, 5), strict=True)):
        _log(folder, range(start, start + 6), float(n))
    joined: Metrics | None = None
    for folder in folders:
        joined = Metrics.read(folder, parent=joined)
    assert joined is not None
    assert [value for _, value in _curve(joined)] == [0, 0, 0, 2, 2, *[3] * 6]
    assert sorted(joined.to_pandas()["run"].unique()) == ["0", "2", "3"]


def test_without_a_parent_nothing_is_another(tmp_path: Path) -> None:
    _log(tmp_path, range(3), 1.0)
    assert "run" not in Metrics.read(tmp_path).to_pandas().columns


# ---- where the parent is


def test_a_store_may_be_moved(tmp_path: Path) -> None:
    first = _record(tmp_path / "here", "first")
    second = _record(tmp_path / "here", "second", first)
    third = _record(tmp_path / "elsewhere", "third", second)
    assert list(resume_chain.ancestors(third, _header(third))) == [second, first]
    shutil.move(tmp_path / "here", tmp_path / "there")
    moved = tmp_path / "there" / "runs"
    assert resume_chain.parent_of(moved / second.name, _header(moved / second.name)) == moved / first.name
    assert resume_chain.parent_of(third, _header(third)) is None


def test_a_circle_of_parents_ends(tmp_path: Path) -> None:
    first = _record(tmp_path, "first")
    second = _record(tmp_path, "second", first)
    header = _header(first)
    header.parent = second.name
    (first / "run.json").write_bytes(_encode(header))
    assert list(resume_chain.ancestors(second, _header(second))) == [first]


def _header(folder: Path) -> RunHeader:
    from quarterdeck.store.format import decode_header

    return decode_header((folder / "run.json").read_bytes())


def _encode(header: RunHeader) -> bytes:
    from quarterdeck.store.format import encode

    return encode(header)


# ---- which run is meant


def _wanted(folder: Path, name: str = "", source: str = "") -> Wanted:
    environ = {"QUARTERDECK_HOME": str(folder / "store")}
    return Wanted(name, "cell [9]", source, KernelContext(environ, str(folder), [], "a.ipynb"))


def test_latest_is_of_the_same_notebook_and_name_and_has_a_checkpoint(tmp_path: Path) -> None:
    store = tmp_path / "store"
    wanted = _record(store, "walk")
    _save(wanted)
    other = _record(store, "run")
    _save(other)
    _record(store, "walk")
    found = parent_of("latest", _wanted(tmp_path, "walk"))
    assert found == Parent(wanted.name, str(wanted), str(wanted / "checkpoints"))
    context = KernelContext({"QUARTERDECK_HOME": str(store)}, str(tmp_path), [], "b.ipynb")
    with pytest.raises(UsageError, match="no earlier run of walk"):
        parent_of("latest", Wanted("walk", "", "", context))


def test_a_name_beats_a_folder_of_that_name_and_a_path_object_does_not(tmp_path: Path) -> None:
    run = _record(tmp_path / "store", "walk")
    _save(run)
    folder = tmp_path / "walk"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"")
    assert parent_of("walk", _wanted(tmp_path)).run_id == run.name
    assert parent_of(folder, _wanted(tmp_path)) == Parent(resume=str(folder))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_path_inside_of_a_run_belongs_to_it(tmp_path: Path, depth: int) -> None:
    run = _record(tmp_path / "elsewhere", "walk")
    rank = _save(run)
    path = [run / "checkpoints", rank.parent, rank][depth - 1]
    found = parent_of(str(path), _wanted(tmp_path))
    assert found == Parent(run.name, str(run), str(path))


def test_what_is_no_checkpoint_is_none(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints" / "attempt-0" / "rank-0").mkdir(parents=True)
    (run / "checkpoints" / "step-00000001").mkdir()
    assert not has_checkpoint(run / "checkpoints"), "a save that was never complete"
    assert not has_checkpoint(run / "nothing")
    unfinished = run / "checkpoints" / "attempt-0" / ".rank-0.qd-tmp-1"
    unfinished.mkdir()
    (unfinished / "half").write_bytes(b"")
    assert not has_checkpoint(run / "checkpoints")
    os.rename(unfinished, unfinished.with_name("rank-1"))
    assert has_checkpoint(run / "checkpoints")
