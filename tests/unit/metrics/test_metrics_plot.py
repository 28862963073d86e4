"""The figure of a run."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from quarterdeck.context import Context
from quarterdeck.errors import UsageError
from quarterdeck.metrics.plot import plot
from quarterdeck.metrics.series import Metrics
from quarterdeck.metrics.thinning import envelope, smoothed, thinned
from quarterdeck.metrics.writer import Writer

PLOT_S = 50.0


def _run(folder: Path, ranks: int, steps: int = 50, **functions: Any) -> Metrics:
    """Metrics of that run; each of `functions` gives the value of a rank and step."""
    for rank in range(ranks):
        writer = Writer(Context(rank=rank, run_dir=folder), lambda _: None)
        for step in range(steps):
            values = [float(function(rank, step)) for function in functions.values()]
            writer.put(tuple(functions), 1_000_000_000 * step, step, values)
    return Metrics.read(folder, ranks)


def _decay(rank: int, step: int) -> float:
    return math.exp(-step / 20) + 0.05 * rank


def _drawn(figure: Figure) -> dict[str, Any]:
    figure.savefig("/dev/null", format="png")
    return {axes.get_title("left"): axes for axes in figure.axes}


def test_a_chart_per_metric(tmp_path: Path) -> None:
    figure = plot(
        _run(tmp_path, 2, **{"loss": _decay, "val/acc": _decay, "val/loss": _decay}), title="lr 0.1"
    )
    charts = _drawn(figure)
    assert list(charts) == ["loss", "val/acc", "val/loss"]
    colours = [line.get_color() for line in charts["loss"].lines]
    assert colours == ["#004c9e", "#c24a00", "#202124"]
    assert charts["loss"].lines[-1].get_linewidth() == pytest.approx(2 * 72 / 100)
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["rank 0", "rank 1", "mean"]
    assert legend.get_title().get_text() == "lr 0.1"
    assert round(float(figure.get_size_inches()[0]) * 100) == 684


def test_names(tmp_path: Path) -> None:
    metrics = _run(tmp_path, 1, **{"loss": _decay, "val/acc": _decay, "val/loss": _decay})
    assert list(_drawn(plot(metrics, "loss"))) == ["loss"]
    assert list(_drawn(plot(metrics, ["val/", "loss"]))) == ["val/acc", "val/loss", "loss"]
    with pytest.raises(UsageError, match="Did you mean 'loss'"):
        plot(metrics, "lost")
    with pytest.raises(UsageError, match="neither"):
        plot(metrics, x="epoch")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="smoothing"):
        plot(metrics, smoothing=1)


def test_many_metrics_and_none(tmp_path: Path) -> None:
    many = plot(_run(tmp_path, 1, 2, **{f"m{number:02}": _decay for number in range(15)}))
    assert len(many.axes) == 12
    assert "and 3 more" in many.get_supxlabel()
    assert "No metrics yet" in plot(Metrics.read(tmp_path / "none")).get_supxlabel()


def test_one_rank_needs_no_legend_and_no_mean(tmp_path: Path) -> None:
    figure = plot(_run(tmp_path, 1, loss=_decay), title="one")
    assert len(_drawn(figure)["loss"].lines) == 1
    assert not figure.legends
    assert figure.get_suptitle() == "one"


def test_many_ranks_are_a_band(tmp_path: Path) -> None:
    figure = plot(_run(tmp_path, 9, loss=_decay))
    axes = _drawn(figure)["loss"]
    assert len(axes.lines) == 1
    assert len(axes.collections) == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "mean",
        "least to greatest of 9 ranks",
    ]


def test_ranks_from_four_on_are_dashed(tmp_path: Path) -> None:
    lines = _drawn(plot(_run(tmp_path, 6, loss=_decay)))["loss"].lines
    assert [line.is_dashed() for line in lines] == [False] * 4 + [True] * 2 + [False]


def test_what_is_not_finite_is_marked(tmp_path: Path) -> None:
    def loss(rank: int, step: int) -> float:
        if rank == 1 and step >= 30:
            return math.nan
        return math.inf if (rank, step) == (0, 10) else 1.0

    axes = _drawn(plot(_run(tmp_path, 2, loss=loss)))["loss"]
    assert axes.get_title("right") == "nan since step 30 on rank 1"
    marks = [line for line in axes.lines if line.get_marker() in "^v"]
    assert [(mark.get_marker(), mark.get_color() and mark.get_markeredgecolor()) for mark in marks] == [
        ("v", "#004c9e"),
        ("^", "#c24a00"),
    ]
    assert all(mark.get_markerfacecolor() == "white" for mark in marks)
    assert np.isnan(axes.lines[1].get_ydata()[30:]).all()
    assert np.isnan(axes.lines[0].get_ydata()[10])


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0, 1e300, 1e-300])
@pytest.mark.parametrize("ranks", [1, 2, 9])
@pytest.mark.parametrize("steps", [1, 2, 3000])
@pytest.mark.filterwarnings("error")
def test_whatever_is_logged_is_drawn(tmp_path: Path, value: float, ranks: int, steps: int) -> None:
    metrics = _run(tmp_path, ranks, steps, loss=lambda rank, step: value)
    for options in ({}, {"log_scale": True}, {"x": "time", "smoothing": 0.9}):
        _drawn(plot(metrics, **options))  # type: ignore[arg-type]


def test_by_time_and_smoothed(tmp_path: Path) -> None:
    metrics = _run(tmp_path, 2, 400, loss=_decay)
    axes = _drawn(plot(metrics, x="time", smoothing=0.9, log_scale=True))["loss"]
    assert axes.get_xlabel() == "minutes"
    assert axes.get_yscale() == "log"
    assert axes.lines[1].get_xdata()[-1] == pytest.approx(399 / 60)
    assert axes.lines[0].get_alpha() < 0.3
    assert len(axes.lines) == 6


def test_smoothing_has_no_bias_and_passes_over_nan() -> None:
    found = smoothed(np.array([2.0, 2.0, np.nan, 2.0, np.inf, 4.0]), 0.5)
    assert found[:2].tolist() == [2.0, 2.0]
    assert np.isnan(found[2])
    assert (found[3], found[4]) == (2.0, np.inf)
    assert 2.0 < found[5] < 4.0


def test_thinning_keeps_every_peak() -> None:
    x = np.arange(100_000.0)
    y = np.sin(x / 1000)
    y[12_345], y[77_777] = 9.0, -9.0
    y[50_000:60_000] = np.nan
    y[3] = np.nan
    thin_x, thin_y = thinned(x, y, 100)
    assert len(thin_x) == len(thin_y) <= 200
    assert (np.diff(thin_x) >= 0).all()
    assert {(12_345.0, 9.0), (77_777.0, -9.0)} <= set(zip(thin_x.tolist(), thin_y.tolist(), strict=True))
    assert np.isnan(thin_y[(thin_x >= 51_000) & (thin_x < 59_000)]).all()
    assert not np.isnan(thin_y[:2]).any()
    band = envelope(x, y, y + 1, 100)
    assert np.nanmax(band[2]) == 10.0
    assert np.nanmin(band[1]) == -9.0


def test_a_million_points(tmp_path: Path) -> None:
    metrics = _run(tmp_path, 1, 1_000_000, loss=lambda rank, step: step % 1000)
    began_s = time.perf_counter()
    axes = _drawn(plot(metrics))["loss"]
    assert time.perf_counter() - began_s < PLOT_S
    assert len(axes.lines[0].get_xdata()) < 5000


def test_it_shows_itself_and_leaves_pyplot_alone(tmp_path: Path) -> None:
    _run(tmp_path, 2, loss=_decay)
    code = (
        "import sys; from pathlib import Path; from quarterdeck.metrics.series import Metrics;"
        "from quarterdeck.metrics.plot import plot; figure = plot(Metrics.read(Path('.')));"
        "data, meta = figure._repr_mimebundle_();"
        "assert data['image/png'][:4] == bytes([137]) + b'PNG';"
        "assert meta['image/png']['width'] == 684; assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = _run(tmp_path, 1, loss=_decay)
    monkeypatch.delitem(sys.modules, "quarterdeck.metrics.figure", raising=False)
    monkeypatch.delattr("quarterdeck.metrics.figure", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    with pytest.raises(UsageError, match="needs matplotlib"):
        plot(metrics)
