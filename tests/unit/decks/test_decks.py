"""`qd.Deck`: its content, and its way into the run's folder."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import quarterdeck as qd
from quarterdeck.context import Context, working_for
from quarterdeck.decks import writer
from quarterdeck.decks.file import file_name, folder_of, read_body
from quarterdeck.decks.reader import StoredDecks
from support.waiting import until

DEADLINE_S = 5


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    """The context of rank 1 of a run that has its folder here."""
    with working_for(Context(run_id="run", rank=1, world_size=2, run_dir=tmp_path / "run")) as made:
        yield made


def kept(context: Context, name: str) -> str | None:
    """What another process reads at this moment."""
    body = StoredDecks(context.run_dir).body(name, context.rank)
    return body.html if body is not None else None


# ---- content


def test_the_same_name_is_the_same_deck(context: Context) -> None:
    first = qd.Deck("loss", "<b>1</b>")

    assert qd.Deck("loss") is first
    assert qd.Deck("loss", "<b>2</b>") is first
    assert first.html == "<b>1</b>\n<b>2</b>"
    assert [deck.name for deck in qd.current().decks] == ["loss"]


def test_decks_are_found_by_name_and_by_place(context: Context) -> None:
    deck = qd.Deck("loss")

    assert qd.current().decks["loss"] is deck
    assert qd.current().decks[0] is deck
    with pytest.raises(KeyError, match="loss"):
        qd.current().decks["lost"]


def test_the_verbs_return_the_deck(context: Context) -> None:
    deck = qd.Deck("x").append("a").append("b")

    assert deck.html == "a\nb"
    assert deck.replace("c").html == "c"
    assert deck.clear().html == ""
    assert deck.append("d").html == "d"


def test_a_deck_of_one_s_own_is_in_no_list_and_in_no_folder(context: Context) -> None:
    deck = qd.Deck("mine", "text", auto_add_to_deck=False)

    assert deck.html == "text"
    assert qd.current().decks == []
    assert not context.run_dir.exists()


def test_a_name_that_is_no_text_is_refused(context: Context) -> None:
    with pytest.raises(TypeError, match="name"):
        qd.Deck(3)  # type: ignore[arg-type]


def test_a_pickled_deck_has_its_content_and_follows_no_file(context: Context) -> None:
    deck = qd.Deck("x", "a").append("b")
    deck.note = "kept"  # type: ignore[attr-defined]

    copy = pickle.loads(pickle.dumps(deck))
    copy.append("c")
    writer.flush()

    assert (copy.name, copy.html, copy.note) == ("x", "a\nb\nc", "kept")
    assert qd.current().decks == [deck]
    assert kept(context, "x") == "a\nb"


# ---- on disk


def test_what_was_appended_is_there_at_once(context: Context) -> None:
    qd.Deck("loss", "<b>1</b>")

    assert kept(context, "loss") == "<b>1</b>"


def test_the_last_of_many_changes_arrives_by_itself(context: Context) -> None:
    deck = qd.Deck("loss")
    for number in range(50):
        deck.append(str(number))

    until(lambda: kept(context, "loss") == deck.html)
    until(lambda: not any(t.name == "quarterdeck-decks" for t in threading.enumerate()))


def test_a_deck_is_written_ten_times_a_second_at_most(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[float] = []
    append, replace = writer._append, writer.Writer._write_whole
    monkeypatch.setattr(writer, "_append", lambda *args: (writes.append(time.monotonic()), append(*args)))
    monkeypatch.setattr(
        writer.Writer, "_write_whole", lambda *args: (writes.append(time.monotonic()), replace(*args))
    )
    deck, end = qd.Deck("busy"), time.monotonic() + 0.55
    while time.monotonic() < end:
        deck.append("x")
        time.sleep(0.001)
    writer.flush()

    assert 2 <= len(writes) <= 8


def test_the_end_of_the_work_writes_what_waits(tmp_path: Path) -> None:
    context = Context(run_id="run", run_dir=tmp_path)

    def interrupted() -> None:
        with working_for(context):
            qd.Deck("x", "a").append("b").append("c")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert kept(context, "x") == "a\nb\nc"


def test_replace_is_seen_whole_or_not_at_all(context: Context) -> None:
    deck, seen, over = qd.Deck("x", "0" * 100_000), set(), threading.Event()

    def read() -> None:
        while not over.is_set():
            seen.add(kept(context, "x"))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 6):
        deck.replace(str(number) * 100_000)
        writer.flush()
        time.sleep(0.02)
    over.set()
    reader.join(DEADLINE_S)

    assert seen <= {str(number) * 100_000 for number in range(6)}
    assert kept(context, "x") == "5" * 100_000


def test_a_thousand_appends_cost_what_each_of_them_weighs(context: Context) -> None:
    """Each is written once: the file is no larger than its parts, and no write rewrites it."""
    deck, part = qd.Deck("long"), "x" * 5_000
    began = time.process_time()
    for _ in range(1_000):
        deck.append(part)
    writer.flush()
    cost_s = time.process_time() - began

    [file] = folder_of(context.run_dir, 0, 1).iterdir()
    assert file.stat().st_size < 1_000 * 5_100
    assert len(read_body(file.parent, file.name).parts) == 1_000
    assert cost_s < 10


def test_the_first_write_is_announced_once_and_before(context: Context) -> None:
    there: list[bool] = []
    context.announce = lambda: there.append(kept(context, "x") is not None)

    qd.Deck("x", "a").append("b")
    writer.flush()

    assert there == [False]


def test_publish_writes_also_what_was_put_into_the_list_by_hand(context: Context) -> None:
    qd.current().decks.append(qd.Deck("by hand", "text", auto_add_to_deck=False))

    qd.Deck.publish()

    assert kept(context, "by hand") == "text"


def test_ten_megabytes_and_not_more(context: Context) -> None:
    deck = qd.Deck("big")
    for _ in range(13):
        deck.append("x" * 1_000_000)
    writer.flush()

    assert len(deck.html) < 10_100_000
    page = StoredDecks(context.run_dir).page("big", 1)
    assert "This deck is cut at 10 MB: 3 more parts." in page
    deck.replace("small again")
    writer.flush()
    assert "cut at" not in StoredDecks(context.run_dir).page("big", 1)


def test_a_disk_that_takes_nothing_costs_one_line(
    context: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    context.run_dir.parent.mkdir(exist_ok=True)
    context.run_dir.write_text("a file where the folder should be")

    for name in ("x", "y"):
        qd.Deck(name, "a").append("b")
    writer.flush()

    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("qd.Deck: decks of rank 1 are not kept: ")
    assert qd.Deck("x").html == "a\nb"


def test_a_disk_that_had_no_room_gets_all_of_it_later(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    deck = qd.Deck("x", "a")

    def torn(path: Path, data: bytes, inode: int) -> None:
        with path.open("ab") as file:
            file.write(data[:7])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(writer, "_append", torn)
        deck.append("b")
        writer.flush()
    assert kept(context, "x") == "a"
    deck.append("c")
    writer.flush()

    assert kept(context, "x") == "a\nb\nc"


def test_a_folder_deleted_meanwhile_comes_back(context: Context) -> None:
    deck = qd.Deck("x", "a")
    [file] = folder_of(context.run_dir, 0, 1).iterdir()
    file.unlink()
    deck.append("b")
    writer.flush()

    assert kept(context, "x") == "a\nb"


def test_two_processes_with_one_place_do_not_mix(context: Context) -> None:
    """Two notebooks in one folder, each with a deck of this name."""
    mine = qd.Deck("x", "mine")
    with working_for(Context(run_id="run", rank=1, world_size=2, run_dir=context.run_dir)):
        qd.Deck("x", "theirs")
    assert kept(context, "x") == "theirs"
    mine.append("again")
    writer.flush()

    assert kept(context, "x") == "mine\nagain"


def test_a_forked_child_changes_nothing_of_its_parent_s(context: Context) -> None:
    deck = qd.Deck("x", "parent")
    child = os.fork()
    if child == 0:
        deck.append("child")
        qd.Deck("of the child", "child")
        writer.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    deck.append("parent again")
    writer.flush()

    assert kept(context, "x") == "parent\nparent again"
    assert StoredDecks(context.run_dir).names(1) == ["x"]


def test_threads_may_append_to_one_deck(context: Context) -> None:
    def fill() -> None:
        for _ in range(200):
            qd.Deck("shared").append("x")

    threads = [threading.Thread(target=fill) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    writer.flush()

    assert kept(context, "shared") == "\n".join(["x"] * 1600)
    assert len(qd.current().decks) == 1


def test_replacing_in_one_thread_and_writing_in_another_never_waits_for_ever(context: Context) -> None:
    deck, over = qd.Deck("x"), threading.Event()

    def write() -> None:
        while not over.is_set():
            qd.Deck.publish()

    writer = threading.Thread(target=write)
    writer.start()
    for number in range(300):
        deck.replace(str(number))
    over.set()
    writer.join(DEADLINE_S)

    assert not writer.is_alive()


# ---- the file


def test_names_of_any_kind_have_files_of_their_own(context: Context) -> None:
    names = ["a/b", "a b", "../../up", "Ü" * 300, "", "<img>", "con\0trol", "\udcff"]
    for name in names:
        qd.Deck(name, "x")

    assert sorted(StoredDecks(context.run_dir).names(1)) == sorted(names)
    assert len({file_name(name) for name in names}) == len(names)
    assert not list(context.run_dir.parent.glob("up*"))


def test_a_torn_end_costs_only_the_last_part(context: Context) -> None:
    deck = qd.Deck("x", "a")
    deck.append("b")
    writer.flush()
    [file] = folder_of(context.run_dir, 0, 1).iterdir()
    whole = file.read_bytes()

    for cut in range(len(whole)):
        file.write_bytes(whole[:cut])
        assert kept(context, "x") in (None, "", "a")
        assert StoredDecks(context.run_dir).page("x", 1).endswith("</html>")


def test_garbage_is_no_deck(context: Context) -> None:
    folder = folder_of(context.run_dir, 0, 1)
    folder.mkdir(parents=True)
    for number, content in enumerate([b"", b"qd", b"\xff" * 100, b"{}"]):
        (folder / f"x{number}.deck").write_bytes(content)

    assert StoredDecks(context.run_dir).names(1) == []


def test_a_deck_of_a_run_as_the_last_line_of_a_cell_is_not_put_into_the_notebook(context: Context) -> None:
    assert set(qd.Deck("x", "content")._repr_mimebundle_()) == {"text/plain"}
    assert "text/html" in pickle.loads(pickle.dumps(qd.Deck("x")))._repr_mimebundle_()
