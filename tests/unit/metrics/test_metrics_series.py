"""Reading metrics: columns as they grow, torn records, attempts, ranks, tables."""

from __future__ import annotations

import math
import os
import random
import struct
import time
from pathlib import Path

import pytest

from quarterdeck.context import Context
from quarterdeck.errors import UsageError
from quarterdeck.metrics import reader
from quarterdeck.metrics.format import Layout, definition
from quarterdeck.metrics.reader import MetricFile, last_values
from quarterdeck.metrics.series import Metrics, last_of_run
from quarterdeck.metrics.writer import Writer
from quarterdeck.store.layout import METRICS

READ_S = 20.0


def _writer(folder: Path, rank: int = 0, attempt: int = 0) -> Writer:
    return Writer(Context(rank=rank, attempt=attempt, run_dir=folder), lambda _: None)


def _put(writer: Writer, step: int, **values: float) -> None:
    writer.put(tuple(values), time.time_ns(), step, list(values.values()))


def _record(layout: Layout, step: int, *values: float) -> bytes:
    now = time.time_ns()
    return layout.pack(layout.id, now, step, *values, ~now)


def _steps(path: Path) -> list[int]:
    file = MetricFile(path)
    file.refresh()
    return sorted(step for columns in file.columns for step in columns.steps)


def test_a_run_without_metrics(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        metrics = Metrics.read(folder)
        assert (metrics.names, metrics.ranks, metrics.last(), last_of_run(folder)) == ([], [], {}, {})
        assert "No metrics yet" in repr(metrics)
        assert "No metrics yet" in metrics._repr_html_()
        assert list(metrics.to_pandas().columns) == ["rank", "attempt", "step", "time", "name", "value"]
        with pytest.raises(KeyError, match="no metric is called 'loss'"):
            metrics["loss"]


def test_it_reads_on(tmp_path: Path) -> None:
    writer, other = _writer(tmp_path), _writer(tmp_path, rank=1)
    metrics = Metrics.read(tmp_path)
    assert not metrics.refresh()
    for step in range(500):
        _put(writer, step, loss=float(step))
        if step % 100 == 50:
            assert metrics.refresh()
            assert list(metrics["loss"].steps(0)) == list(range(step + 1))
            assert not metrics.refresh()
    _put(other, 0, loss=1.0, acc=2.0)
    before = metrics["loss"]
    metrics.refresh()
    assert (before.ranks, metrics["loss"].ranks, metrics["acc"].ranks) == ([0], [0, 1], [1])
    with pytest.raises(UsageError, match="Rank 0 has logged no 'acc'"):
        metrics["acc"].values(0)
    with pytest.raises(KeyError, match="'loss' is there"):
        metrics["los"]


def test_byte_by_byte(tmp_path: Path) -> None:
    """Whatever part of the file a reader sees, it takes all that is whole, and nothing twice."""
    layouts = [Layout(("a",)), Layout(("a", "b", "\u03bb")), Layout(("c",))]
    whole = b"".join(definition(layout, 0, 0) for layout in layouts)
    ends = []
    for step in range(12):
        layout = layouts[step % 3]
        whole += _record(layout, step, *map(float, range(len(layout.names))))
        ends.append(len(whole))
    path = tmp_path / METRICS.name(0, 0)
    file = MetricFile(path)
    for place in range(len(whole)):
        with path.open("ab") as out:
            out.write(whole[place : place + 1])
        file.refresh()
        assert sum(len(c.steps) for c in file.columns) == sum(end <= place + 1 for end in ends)
    assert file.skipped_bytes == 0


@pytest.mark.parametrize("seed", range(60))
def test_torn_records_cost_only_themselves(tmp_path: Path, seed: int) -> None:
    """Records cut anywhere, also those of names; the others are read, in one go and in pieces."""
    chance = random.Random(seed)
    layouts = [Layout(tuple(f"{place}n{i}" for i in range(place + 1))) for place in range(4)]
    parts, expected, known = [], [], set()
    for step in range(400):
        layout = chance.choice(layouts if chance.random() < 0.2 else layouts[:1])
        if layout.id not in known or chance.random() < 0.01:
            names = definition(layout, 0, 0)
            cut = chance.randrange(1, len(names)) if chance.random() < 0.3 else None
            parts.append(names[:cut])
            known |= {layout.id} if cut is None else set()
        record = _record(layout, step, *(chance.random() for _ in layout.names))
        cut = chance.randrange(1, len(record)) if chance.random() < 0.1 else None
        parts.append(record[:cut])
        if cut is None and layout.id in known:
            expected.append(step)
    data = b"".join([*parts, definition(layouts[0], 0, 0), _record(layouts[0], 1000, 0.5)])
    path = tmp_path / METRICS.name(0, 0)
    path.write_bytes(data)
    assert _steps(path) == [*expected, 1000]
    path.unlink()
    file, place = MetricFile(path), 0
    while place < len(data):
        size = chance.randrange(1, 500)
        with path.open("ab") as out:
            out.write(data[place : place + size])
        place += size
        file.refresh()
    assert sorted(s for c in file.columns for s in c.steps) == [*expected, 1000]
    assert last_values(path)["0n0"].value == 0.5


def test_a_torn_end_is_not_waited_for_when_something_whole_follows(tmp_path: Path) -> None:
    wide, narrow = Layout(tuple("abcdefgh")), Layout(("x",))
    path = tmp_path / METRICS.name(0, 0)
    names = definition(wide, 0, 0) + definition(narrow, 0, 0)
    path.write_bytes(names + _record(wide, 1, *range(8))[:16] + _record(narrow, 2, 1.0))
    assert _steps(path) == [2]


@pytest.mark.parametrize("garbage", [b"\0" * 30_000, b"qd\x01" * 1000, os.urandom(30_000), b"qd\x02" * 9])
def test_garbage(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / METRICS.name(0, 0)
    layout = Layout(("x",))
    path.write_bytes(garbage)
    file = MetricFile(path)
    file.refresh()
    assert last_values(path) == {}
    with path.open("ab") as out:
        out.write(
            definition(layout, 0, 0) + _record(layout, 1, 1.0) + garbage + _record(layout, 2, 2.0) + garbage
        )
    file.refresh()
    assert [list(c.steps) for c in file.columns] == [[1, 2]]
    assert last_values(path)["x"].value == 2.0


def test_a_record_of_more_than_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_CHUNK_BYTES", 100)
    writer = _writer(tmp_path)
    for step in range(3):
        _put(writer, step, **{f"n{i}": float(i) for i in range(200)})
        _put(writer, step, x=1.0)
    assert _steps(writer.path) == [0, 0, 1, 1, 2, 2]


def test_a_value_that_looks_like_a_record_is_a_value(tmp_path: Path) -> None:
    """Also where it is whole, and its layout is one of the file's."""
    inner, outer = Layout(("x",)), Layout(tuple("abcdef"))
    disguised = struct.unpack("<5d", _record(inner, 7, 1.0))
    path = tmp_path / METRICS.name(0, 0)
    names = definition(inner, 0, 0) + definition(outer, 0, 0)
    records = [_record(outer, step, 0.5, *disguised) + _record(inner, step, 2.0) for step in range(3_000)]
    path.write_bytes(names + b"".join(records))
    metrics = Metrics.read(tmp_path)
    assert metrics["x"].values(0).tolist() == [2.0] * 3_000
    assert metrics["a"].values(0).tolist() == [0.5] * 3_000
    assert metrics.skipped_bytes == 0


def test_a_series_stays_as_it_was_got(tmp_path: Path) -> None:
    writer = _writer(tmp_path)
    metrics = Metrics(tmp_path)
    for step in range(100):
        _put(writer, step, loss=float(step))
        assert metrics.refresh()
        if step == 40:
            series, points = metrics["loss"], metrics["loss"].points(0)
    assert series.steps(0).tolist() == points.steps.tolist() == list(range(41))
    assert series.values(0).tolist() == points.values.tolist() == [float(step) for step in range(41)]
    assert series.last() == 40.0
    assert metrics["loss"].last() == 99.0


def test_a_call_with_very_many_names(tmp_path: Path) -> None:
    writer = _writer(tmp_path)
    for step in range(3):
        _put(writer, step, **{f"n{i}": float(i) for i in range(10_000)})
    metrics = Metrics.read(tmp_path)
    assert (len(metrics), metrics.skipped_bytes, metrics["n9999"].last()) == (10_000, 0, 9999.0)


def test_a_file_that_began_anew(tmp_path: Path) -> None:
    writer = _writer(tmp_path)
    for step in range(9):
        _put(writer, step, x=1.0)
    metrics = Metrics.read(tmp_path)
    writer.path.unlink()
    _put(_writer(tmp_path), 3, y=1.0)
    metrics.refresh()
    assert metrics.names == ["y"]


# ---- what it says


def test_the_last_value_of_a_step_wins(tmp_path: Path) -> None:
    first, second = _writer(tmp_path), _writer(tmp_path, attempt=1)
    for step in range(6):
        _put(first, step, loss=1.0)
    _put(first, 2, loss=2.0, acc=0.5)  # another layout
    _put(first, 1, loss=3.0)
    for step in (4, 5, 6):
        _put(second, step, loss=4.0)
    metrics = Metrics.read(tmp_path)
    loss = metrics["loss"]
    assert list(zip(loss.steps(0), loss.values(0), strict=True)) == [
        (0, 1.0), (1, 3.0), (2, 2.0), (3, 1.0), (4, 4.0), (5, 4.0), (6, 4.0),
    ]  # fmt: skip
    assert sorted(loss.times(0)) != list(loss.times(0))
    assert (loss.last(), loss.last(0), metrics["acc"].last()) == (4.0, 4.0, 0.5)
    _put(second, 3, loss=5.0)
    metrics.refresh()
    assert metrics.last() == last_of_run(tmp_path) == {"loss": 5.0, "acc": 0.5}


def test_over_ranks(tmp_path: Path) -> None:
    for rank in range(3):
        writer = _writer(tmp_path, rank)
        for step in range(4):
            bad = math.nan if (rank, step) == (1, 3) else math.inf if (rank, step) == (2, 2) else 0.0
            _put(writer, step, same=rank + step + bad)
        if rank:
            _put(writer, 10 * rank, other=float(rank))
            _put(writer, 30, other=float(rank))
    metrics = Metrics.read(tmp_path, 3)
    steps, means = metrics["same"].mean()
    assert steps == [0, 1, 2, 3]
    assert means[:3] == [1.0, 2.0, math.inf]
    assert math.isnan(means[3])
    assert metrics["same"].min().values[:3] == [0.0, 1.0, 2.0]
    assert metrics["same"].max().values[:3] == [2.0, 3.0, math.inf]
    assert all(math.isnan(one.values[3]) for one in (metrics["same"].min(), metrics["same"].max()))
    assert metrics["other"].mean() == ([10, 20, 30], [1.0, 2.0, 1.5])
    assert (metrics.ranks, metrics["other"].ranks) == ([0, 1, 2], [1, 2])


def test_names_are_grouped(tmp_path: Path) -> None:
    _put(
        _writer(tmp_path),
        0,
        **dict.fromkeys(("val/loss", "loss", "train/loss", "a/b/c", "acc", "val/acc"), 1.0),
    )
    names = ["acc", "loss", "a/b/c", "train/loss", "val/acc", "val/loss"]
    metrics = Metrics.read(tmp_path)
    assert metrics.names == list(metrics) == names
    assert len(metrics) == 6
    assert "acc" in metrics
    assert "val" not in metrics


def test_pandas_has_all_that_was_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rank in range(2):
        for attempt in range(2):
            writer = _writer(tmp_path, rank, attempt)
            for step in (0, 1, 1):
                _put(writer, step, loss=float(step), acc=math.nan)
    table = Metrics.read(tmp_path).to_pandas()
    assert list(table.columns) == ["rank", "attempt", "step", "time", "name", "value"]
    assert len(table) == 2 * 2 * 3 * 2
    assert table["time"].is_monotonic_increasing
    assert str(table["time"].dtype) == "datetime64[ns, UTC]"
    assert table[table.name == "loss"].groupby("rank")["value"].sum().tolist() == [4.0, 4.0]
    assert table[table.name == "acc"]["value"].isna().all()
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(UsageError, match="needs pandas"):
        Metrics.read(tmp_path).to_pandas()


def test_the_table(tmp_path: Path) -> None:
    writer = _writer(tmp_path)
    for step in range(1500):
        _put(writer, step, loss=math.nan if step > 1000 else 1 / (step + 1), **{"<b>": 2e-7})
    metrics = Metrics.read(tmp_path)
    assert repr(metrics).splitlines() == [
        "name  last   min    max  steps",
        "<b>   2e-7  2e-7   2e-7  1,500",
        "loss   nan  1e-3  1.000  1,500",
    ]
    html = metrics._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>" not in html


# ---- large files


@pytest.mark.parametrize("layouts", [1, 2])
def test_a_million_points(tmp_path: Path, layouts: int) -> None:
    kinds = [Layout(("loss", "acc")), Layout(("lr",))][:layouts]
    with (tmp_path / METRICS.name(0, 0)).open("wb") as out:
        out.write(b"".join(definition(layout, 0, 0) for layout in kinds))
        for step in range(1_000_000 // (layouts + 1)):
            out.write(b"".join(_record(layout, step, *(0.5 for _ in layout.names)) for layout in kinds))
    began_s = time.perf_counter()
    loss = Metrics.read(tmp_path)["loss"]
    assert time.perf_counter() - began_s < READ_S
    assert len(loss.steps(0)) == 1_000_000 // (layouts + 1)


def test_last_values_come_from_the_end(tmp_path: Path) -> None:
    """Values of 50 MB: also what was logged rarely, as long as its name came early."""
    path = tmp_path / METRICS.name(0, 0)
    train, val = Layout(("loss",)), Layout(("val/acc",))
    block = b"".join(_record(train, step, 0.5) for step in range(1000))
    with path.open("wb") as out:
        out.write(definition(train, 0, 0) + definition(val, 0, 0) + _record(val, 0, 0.1))
        for number in range(1250):
            out.write(block + (_record(val, number, 0.9) if number == 900 else b""))
        out.write(_record(train, 2, 0.25))
        out.write(_record(train, 3, 0.125)[:30])
    assert path.stat().st_size > 50_000_000
    began_s = time.perf_counter()
    assert last_of_run(tmp_path) == {"loss": 0.25, "val/acc": 0.9}
    assert time.perf_counter() - began_s < 2
