"""The widget's half in the kernel: what it sends to its page, and when it stops doing so."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.views.run import widget
from quarterdeck.views.run.widget import RunView
from quarterdeck.views.sink import Control
from support.run_folder import Run
from support.waiting import until

Sent = list[tuple[dict[str, Any], Any]]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """What reached the page, packed as a kernel packs it."""
    found: Sent = []

    def send(_: RunView, content: dict[str, Any], buffers: Any = None) -> None:
        json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogateescape")
        found.append((content, buffers))

    monkeypatch.setattr(RunView, "send", send)
    return found


@pytest.fixture(autouse=True)
def no_thread_is_left(tmp_path: Path) -> Any:
    yield
    until(lambda: all(thread.name != "quarterdeck-view" for thread in threading.enumerate()))


def say(view: RunView, **message: Any) -> None:
    view._handle_custom_msg(message, [])


def say_from_a_subshell(view: RunView, **message: Any) -> None:
    thread = threading.Thread(target=say, args=(view,), kwargs=message)
    thread.start()
    thread.join(10)


def kinds(sent: Sent) -> list[str]:
    return [content["kind"] for content, _ in sent]


def over(view: RunView) -> bool:
    return view._link._feed is None


def test_a_run_that_is_over_is_still_zoomed_into_and_compared(tmp_path: Path, sent: Sent) -> None:
    earlier = Run(tmp_path, "earlier", created_unix_ns=time.time_ns() - 10**12)
    earlier.start()
    earlier.log(range(10))
    earlier.end()
    run = Run(tmp_path, "now")
    run.start()
    run.log(range(5_000))
    run.end()
    view = RunView(run.folder, Control())
    until(lambda: over(view))
    sent.clear()
    say(view, kind="zoom", name="loss", first_step=10, last_step=20)
    say(view, kind="wantruns")
    (zoom, buffers), (offered, _) = sent
    assert [series["count"] for series in zoom["series"]] == [11]
    assert len(buffers[0]) == 11 * 6 * 8
    assert [other["name"] for other in offered["runs"]] == ["earlier"]


def test_a_name_that_no_message_can_carry_does_not_end_the_view(tmp_path: Path, sent: Sent) -> None:
    run = Run(tmp_path)
    run.start()
    run.log(range(3), name="bad\ud800")
    view = RunView(run.folder, Control())
    say(view, kind="sync")
    run.log(range(3, 6), name="good")
    until(lambda: any("good" in content.get("names", ()) for content, _ in sent))
    assert ["bad?"] in [content.get("names") for content, _ in sent]
    run.end()


def test_a_page_that_is_not_heard_during_a_cell_is_not_taken_for_gone(
    tmp_path: Path, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(widget, "NOBODY_S", 0.2)
    run = Run(tmp_path)
    run.start()
    run.log(range(3))
    view = RunView(run.folder, Control())
    say(view, kind="sync")  # in the thread that runs cells
    time.sleep(0.5)
    sent.clear()
    run.log(range(3, 6))
    until(lambda: "curves" in kinds(sent))
    run.end()


def test_nothing_is_sent_where_nobody_looks_and_all_when_somebody_does(
    tmp_path: Path, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(widget, "NOBODY_S", 0.2)
    run = Run(tmp_path)
    run.start()
    run.log(range(3))
    view = RunView(run.folder, Control())
    say_from_a_subshell(view, kind="sync")
    until(lambda: view._link._paused)
    sent.clear()
    run.log(range(3, 6))
    time.sleep(0.5)
    assert sent == []
    say_from_a_subshell(view, kind="alive")
    curves = next(content for content, _ in sent if content["kind"] == "curves")
    assert curves["whole"]
    assert curves["series"][0]["count"] == 6
    run.end()
