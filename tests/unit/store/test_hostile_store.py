"""A run folder may be a stranger's. Whatever lies in the place of one of its files: looking at the history
ends soon, shows the runs beside it, and touches nothing outside.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

import quarterdeck as qd
from quarterdeck.checkpointing.save import finish
from quarterdeck.context import Context, working_for
from quarterdeck.decks import writer
from quarterdeck.kernel.run import Run
from quarterdeck.kernel.runs import Runs
from quarterdeck.metrics import log
from quarterdeck.protocol.worker import Outcome, Output
from quarterdeck.store.format import GroupEvent, OutcomeEvent, RunHeader, RunOwner, StateEvent
from quarterdeck.store.reader import NotARun, StoredRun, list_runs
from quarterdeck.store.results import write_result
from quarterdeck.store.writer import RunWriter
from quarterdeck.views.run import static_html

DEADLINE_S = 20
SECRET = "what nobody may see"


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    """What reads a FIFO would never end."""

    def over(*_: Any) -> None:
        raise TimeoutError("it does not end")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(DEADLINE_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two runs that have all that a run can have."""
    home = tmp_path_factory.mktemp("store") / ".quarterdeck"
    for name in ("odd", "good"):
        recorder = RunWriter(home, RunHeader(name=name, title=name))
        recorder.open()
        with working_for(Context(run_id=recorder.run_id, run_dir=recorder.folder, world_size=1)):
            for step in range(3):
                qd.log(loss=1.0, step=step)
            qd.save_checkpoint({"x": torch.ones(2)}, step=1, metrics={"loss": 1.0}, wait=True)
            qd.Deck("mine", "<b>mine</b>")
            for _ in qd.progress(range(3)):
                pass
            with qd.span("phase"):
                pass
            log.flush()
            writer.flush()
            finish()
        recorder.event(GroupEvent(2, 0, 1, "gloo", "cpu", ["cpu"]))
        recorder.event(StateEvent(3, "running"))
        recorder.write(Output(rank=0, kind="stdout", text="a line\n"))
        write_result(recorder.result_path(0, 0), b"x", [], None)
        recorder.event(OutcomeEvent(4, 0, Outcome(rank=0, state="ok"), kept=True))
        recorder.event(StateEvent(5, "succeeded"))
        recorder.close()
    return home


@pytest.fixture
def copy(home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(home, tmp_path / "store", symlinks=True))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_text(SECRET)
    return folder


def odd_of(store: Path) -> Path:
    (found,) = (path for path in (store / "runs").iterdir() if path.name.endswith("odd"))
    return found


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def look(store: Path, names: set[str]) -> None:
    """All that a reader does, with each run."""
    runs = Runs(list_runs([store]))
    assert names <= {run.name for run in runs}
    table = runs._repr_mimebundle_()
    assert SECRET not in str(table)
    for run in runs:
        look_at(run)


def look_at(run: Run) -> None:
    for ask in (
        lambda: static_html.of(run._stored, run.metrics),
        lambda: run.logs(),
        lambda: run.logs(0),
        lambda: run.metrics.to_pandas(),
        lambda: [(rank, name, deck.html) for rank, own in run.decks.items() for name, deck in own.items()],
        lambda: [run.decks.merged(name).html for name in ("mine", "Timeline", "Environment", "Source Code")],
        lambda: [(one.step, one.valid, one.metrics) for one in run.checkpoints],
        lambda: run.outcomes,
        lambda: run.size_bytes,
        lambda: run.result(1),
    ):
        shown: object = None
        with suppress(Exception):  # this run may say that it cannot be read
            shown = ask()  # type: ignore[no-untyped-call]
        assert SECRET not in str(shown)


def fifo(path: Path, _: Path) -> None:
    os.mkfifo(path)


def link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "file")


def loop(path: Path, _: Path) -> None:
    path.symlink_to(path.name)


def device(path: Path, _: Path) -> None:
    path.symlink_to("/dev/zero")


def listening(path: Path, _: Path) -> None:
    here = os.open(path.parent, os.O_RDONLY)
    try:  # a path of a socket is short
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


def folder(path: Path, _: Path) -> None:
    path.mkdir()


def sparse(path: Path, _: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 << 30)


def noise(path: Path, _: Path) -> None:
    path.write_bytes(bytes(range(256)) * 40)


def brackets(path: Path, _: Path) -> None:
    path.write_text("[" * 100_000)


def empty(path: Path, _: Path) -> None:
    path.touch()


ODDITIES = [fifo, link, loop, device, listening, folder, sparse, noise, brackets, empty]


@pytest.mark.parametrize("oddity", ODDITIES)
def test_an_odd_file_in_the_place_of_any(
    copy: Path, outside: Path, oddity: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    before = (outside / "file").stat()
    names = files_of(odd_of(copy))
    assert len(names) > 12
    for number, name in enumerate(names):
        store = tmp_path / f"store-{number}"
        shutil.copytree(copy, store, symlinks=True)
        path = odd_of(store) / name
        path.unlink()
        oddity(path, outside)
        signal.alarm(DEADLINE_S)
        look(store, {"good"})
        shutil.rmtree(store)
    assert (outside / "file").read_text() == SECRET
    assert (outside / "file").stat().st_mtime_ns == before.st_mtime_ns


def test_a_folder_of_a_run_that_is_a_link_is_not_entered(copy: Path, outside: Path) -> None:
    for name in ("checkpoints", "decks"):
        shutil.rmtree(odd_of(copy) / name, ignore_errors=True)
        (odd_of(copy) / name).symlink_to(outside)
    (copy / "runs" / "20200101-000000-000-linked").symlink_to(odd_of(copy))
    look(copy, {"good", "odd"})
    assert len(list_runs([copy])) == 2
    assert sorted(os.listdir(outside)) == ["file"]


@pytest.mark.parametrize("number", [10**25, -1, 1 << 63, 1e300, "NaN", "text", None, [], {}, True])
def test_numbers_that_no_run_has(copy: Path, number: object) -> None:
    """Each number of the header and of the events, one after another."""
    for name in ("run.json", "events.jsonl"):
        path = odd_of(copy) / name
        lines = [json.loads(line) for line in path.read_text().splitlines() if line]
        for at, line in enumerate(lines):
            for key in [key for key, value in line.items() if isinstance(value, int)]:
                changed = [{**one, key: number} if i == at else one for i, one in enumerate(lines)]
                path.write_text("\n".join(json.dumps(one) for one in changed) + "\n")
                signal.alarm(DEADLINE_S)
                look(copy, {"good"})
        path.write_text("\n".join(json.dumps(one) for one in lines) + "\n")


@pytest.mark.parametrize("number", [10**25, -1, 1e300, "text", None])
def test_numbers_that_no_checkpoint_has(copy: Path, number: object) -> None:
    (path,) = odd_of(copy).glob("checkpoints/step-*/manifest.json")
    manifest = json.loads(path.read_text())
    for key in manifest:
        path.write_text(json.dumps({**manifest, key: number}))
        signal.alarm(DEADLINE_S)
        look(copy, {"good", "odd"})


def test_a_folder_with_a_hundred_thousand_files(copy: Path) -> None:
    for where in (odd_of(copy), odd_of(copy) / "checkpoints"):
        for number in range(50_000):
            os.close(os.open(where / f"x{number}", os.O_CREAT | os.O_WRONLY))
    look(copy, {"good", "odd"})


def test_names_that_are_no_text(copy: Path) -> None:
    odd = os.fsencode(odd_of(copy))
    for name in (b"\xff\xfe", b"rank-\xff.log", b"metrics-\xff.bin", b"a\nb", b"\x1b[31m", b"x" * 255):
        with open(odd + b"/" + name, "wb") as file:
            file.write(b"x")
        os.mkdir(odd + b"/checkpoints/" + name)
    os.mkdir(os.fsencode(copy / "runs") + b"/\xff")
    shutil.copy(odd_of(copy) / "run.json", os.fsencode(copy / "runs") + b"/\xff/run.json")
    look(copy, {"good", "odd"})


def test_words_that_would_steer_a_terminal_or_a_page(copy: Path) -> None:
    path = odd_of(copy) / "run.json"
    header = json.loads(path.read_text())
    path.write_text(json.dumps({**header, "name": "\x1b[2J\x07<script>x()</script>\u202e" + "y" * 10_000}))
    bundle = Runs(list_runs([copy]))._repr_mimebundle_()
    assert "<script>" not in bundle["text/html"]
    for text in bundle.values():
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "y" * 1000 not in text


def test_a_run_says_which_process_wrote_it_and_nothing_of_that_ones_is_removed(
    copy: Path, outside: Path
) -> None:
    """The socket is one that a run names whose writer is gone."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    os.waitpid(child, 0)
    path = odd_of(copy) / "run.json"
    header = json.loads(path.read_text())
    events = odd_of(copy) / "events.jsonl"
    lines = events.read_text().splitlines(keepends=True)
    for claimed in (outside / "file", outside, Path("/etc/passwd")):
        keeper = {
            "pid": child, "start_ticks": int(fields[19]), "node": RunOwner.here().node,
            "socket": str(claimed),
        }  # fmt: skip
        path.write_text(json.dumps({**header, "keeper": keeper}))
        events.write_text("".join(lines[:2]))
        assert StoredRun.read(odd_of(copy)).state == "lost"
    assert (outside / "file").read_text() == SECRET
    assert Path("/etc/passwd").exists()


def test_a_folder_without_a_readable_header_is_no_run(copy: Path) -> None:
    (odd_of(copy) / "run.json").write_text("[]")
    with pytest.raises(NotARun):
        StoredRun.read(odd_of(copy))
