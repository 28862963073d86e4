"""What a saved notebook keeps of a run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from quarterdeck.context import Context, working_for
from quarterdeck.decks import Deck
from quarterdeck.metrics.series import Metrics
from quarterdeck.store.reader import StoredRun
from quarterdeck.views.cell import run_output
from quarterdeck.views.run import static_html
from quarterdeck.views.sink import Control, PrintSink
from support.run_folder import Run


class Nowhere(PrintSink):
    """A notebook whose outputs nobody sees."""

    live = True


def test_decks_take_no_more_of_a_notebook_than_their_share_whatever_their_pages_hold(tmp_path: Path) -> None:
    graphs = pytest.importorskip("plotly.graph_objects")
    run = Run(tmp_path)
    run.start()
    with working_for(Context(run_id=run.folder.name, run_dir=run.folder)):
        Deck("figure").append(graphs.Figure(graphs.Scatter(y=[1, 2])))
        Deck("<b>small</b>").append("<i>seen</i>")
    run.end()
    html = static_html.of(StoredRun.read(run.folder), Metrics.read(run.folder))["text/html"]
    assert len(html) < 1_000_000
    assert " MB) is too large for a notebook" in html
    assert "&lt;i&gt;seen&lt;/i&gt;" in html
    assert "<b>small</b>" not in html


def test_pictures_of_a_long_run_are_rarer_the_longer_they_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a week's curves do not keep the kernel busy."""
    run = Run(tmp_path)
    run.start()
    display = run_output.RunOutput(Nowhere(), Control())
    display.seen(0.0)

    def slow(*_: object) -> dict[str, str]:
        end = time.thread_time() + 0.4
        while time.thread_time() < end:
            pass
        return {"text/plain": ""}

    monkeypatch.setattr(static_html, "of", slow)
    display.draw(run.folder, 0.0)
    display.draw(run.folder, 2.0)
    assert display._drawn.wait(20)
    display.draw(run.folder, 5.0)
    assert display.due_in(5.0) == pytest.approx(4.0, rel=0.5)
    assert display._drawn.wait(20)
    run.end()
