"""The order of the text in a run's logs: merged and timed, also for a reader that comes late."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

from quarterdeck.protocol.worker import Output
from quarterdeck.store.format import RunHeader
from quarterdeck.store.output import OutputReader, Piece
from quarterdeck.store.writer import RunWriter
from support.full_disk import files_up_to


def recorder(home: Path) -> RunWriter:
    return RunWriter(home, RunHeader(name="x"))


def out(rank: int, text: str, kind: str = "stdout") -> Output:
    return Output(rank=rank, kind=kind, text=text)  # type: ignore[arg-type]


def texts(pieces: list[Piece]) -> list[tuple[int, str, str]]:
    return [(piece.rank, piece.stream, piece.text) for piece in pieces]


def test_text_of_all_ranks_comes_in_the_order_in_which_it_was_written(tmp_path: Path) -> None:
    before = time.time_ns()
    run = recorder(tmp_path)
    reader = OutputReader(run.folder)
    assert reader.read() == []
    run.write(out(1, "one\n"))
    run.write(out(0, "half"))
    run.write(out(1, "oops\n", "stderr"))
    run.write(Output(rank=0, kind="result", data={"text/plain": "42"}))
    pieces = reader.read()
    assert texts(pieces) == [
        (1, "stdout", "one\n"), (0, "stdout", "half"), (1, "stderr", "oops\n"), (0, "result", "42\n"),
    ]  # fmt: skip
    times = [piece.time_ns for piece in pieces]
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= time.time_ns()
    run.write(out(1, "more\n"))
    assert texts(reader.read()) == [(1, "stdout", "more\n")]
    assert reader.read() == []
    assert reader.read(over=True) == []
    run.close()


def test_a_character_cut_by_two_writes_is_whole_for_the_reader(tmp_path: Path) -> None:
    log, index = tmp_path / "rank-0.log", tmp_path / "output.bin"
    log.write_bytes("ä€".encode())
    index.write_bytes(b"".join(struct.pack("<qIHBB", 5, 1, 0, 0, 0) for _ in range(5)))
    assert "".join(piece.text for piece in OutputReader(tmp_path).read()) == "ä€"


def test_an_older_run_without_an_index_gives_each_log_in_one_piece(tmp_path: Path) -> None:
    (tmp_path / "rank-1.log").write_text("b\n")
    (tmp_path / "rank-0.log").write_text("a\n")
    reader = OutputReader(tmp_path)
    assert reader.read() == []
    assert reader.read(over=True) == [Piece(0, "stdout", 0, "a\n"), Piece(1, "stdout", 0, "b\n")]
    assert reader.read(over=True) == []


def test_a_record_in_the_making_is_waited_for_and_a_short_log_ends_nothing(tmp_path: Path) -> None:
    log, index = tmp_path / "rank-0.log", tmp_path / "output.bin"
    log.write_bytes(b"abc")
    record = struct.pack("<qIHBB", 5, 3, 0, 0, 0)
    index.write_bytes(record[:10])
    reader = OutputReader(tmp_path)
    assert reader.read() == []
    index.write_bytes(record + struct.pack("<qIHBB", 6, 100, 0, 1, 0))
    assert reader.read() == [Piece(0, "stdout", 5, "abc")]
    with log.open("ab") as file:
        file.write(b"def")
    with index.open("ab") as file:
        file.write(struct.pack("<qIHBB", 7, 3, 0, 0, 0))
    assert reader.read() == [Piece(0, "stdout", 7, "def")]


def test_a_missing_log_and_garbage_in_the_index_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "rank-0.log").write_bytes(b"ok")
    records = [(1, 4, 7, 0, 0), (2, 9, 0, 9, 0), (3, 9, 0, 0, 255), (4, 2, 0, 0, 0)]
    (tmp_path / "output.bin").write_bytes(b"".join(struct.pack("<qIHBB", *record) for record in records))
    assert OutputReader(tmp_path).read() == [Piece(0, "stdout", 4, "ok")]


def test_of_a_huge_log_only_the_end_is_read(tmp_path: Path) -> None:
    run = recorder(tmp_path)
    for number in range(5_000):
        run.write(out(number % 2, f"line {number:06}\n"))
    reader = OutputReader(run.folder, tail_bytes=1_000)
    pieces = reader.read()
    read_bytes = sum(len(piece.text) for piece in pieces)
    assert 1_000 <= read_bytes < 40_000
    assert reader.skipped_bytes == 5_000 * 12 - read_bytes
    numbers = [int(piece.text.split()[1]) for piece in pieces]
    assert numbers == list(range(numbers[0], 5_000))
    run.write(out(0, "more\n"))
    assert texts(reader.read()) == [(0, "stdout", "more\n")]
    run.close()


def test_the_index_says_nothing_wrong_after_the_disk_was_full(tmp_path: Path) -> None:
    """For a while writes fail in the middle, of the log and of the index; what comes later is right again."""
    run = recorder(tmp_path)
    run.write(out(0, "first\n"))
    with files_up_to(20):
        for _ in range(3):
            run.write(out(0, "0123456789\n"))
            run.write(out(1, "x\n"))
    assert "incomplete" in run.notice
    run.write(out(0, "later\n"))
    run.write(out(1, "last\n", "stderr"))
    run.close()
    assert os.path.getsize(run.folder / "output.bin") % 16 == 0
    pieces = OutputReader(run.folder).read()
    by_rank = {rank: "".join(p.text for p in pieces if p.rank == rank) for rank in (0, 1)}
    assert by_rank == {rank: (run.folder / f"rank-{rank}.log").read_text() for rank in (0, 1)}
    assert texts(pieces)[-1][:2] == (1, "stderr")
    assert pieces[-1].text.endswith("last\n")


def test_a_folder_without_anything_has_no_text(tmp_path: Path) -> None:
    assert OutputReader(tmp_path / "nowhere").read(over=True) == []
