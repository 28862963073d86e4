"""What was appended is read, once and whole, wherever a crash or a full disk has torn the file."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import pytest

from quarterdeck.store import records
from quarterdeck.store.records import (
    LINES,
    Framing,
    RecordReader,
    RecordWriter,
    TooLong,
    checked,
    content_at,
    length_at,
)
from support.full_disk import files_up_to

FRAMINGS = {"lines": LINES, "fixed": Framing(8)}


def record(number: int) -> bytes:
    return b"<%06d>" % number


def reader(path: Path, framing: Framing) -> RecordReader:
    return RecordReader(path.parent, path.name, framing)


@pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS)
def test_a_disk_that_is_full_at_any_byte_costs_only_what_did_not_fit(
    tmp_path: Path, framing: Framing
) -> None:
    for limit_bytes in range(60):
        path = tmp_path / str(limit_bytes)
        writer, kept = RecordWriter(path, framing), []
        with files_up_to(limit_bytes):
            for number in range(9):
                with suppress(OSError):
                    writer.append(record(number))
                    kept.append(record(number))
        for number in range(9, 12):
            writer.append(record(number))
            kept.append(record(number))
        writer.close()
        found = list(reader(path, framing).new())
        assert [one for one in found if one in kept] == kept
        assert len(found) <= len(kept) + 1 + found.count(b"")
        assert writer.size_bytes == path.stat().st_size


@pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS)
def test_a_file_that_grows_byte_by_byte_gives_each_record_once(tmp_path: Path, framing: Framing) -> None:
    path = tmp_path / "x"
    path.touch()
    growing, found = reader(path, framing), []
    for byte in b"".join(record(number) + framing.end for number in range(5)):
        with path.open("ab") as file:
            file.write(bytes([byte]))
        found += list(growing.new())
    assert found == [record(number) for number in range(5)]
    assert list(growing.new(with_rest=True)) == []


@pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS)
def test_a_record_after_which_no_more_is_asked_for_comes_again(tmp_path: Path, framing: Framing) -> None:
    writer = RecordWriter(tmp_path / "x", framing)
    for number in range(3):
        writer.append(record(number))
    writer.close()
    growing = reader(tmp_path / "x", framing)
    seen = []
    for one in growing.new():
        seen.append(one)
        if len(seen) == 2:
            break
    assert [*seen, *growing.new()] == [record(0), record(1), record(1), record(2)]


def test_the_rest_is_given_when_its_writer_is_gone(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"one\ntw")
    growing = reader(tmp_path / "x", LINES)
    assert list(growing.new()) == [b"one"]
    assert list(growing.new(with_rest=True)) == [b"tw"]


def test_a_line_without_measure_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_BLOCK_BYTES", 4)
    monkeypatch.setattr(records, "_LONGEST_BYTES", 64)
    for length in range(200):
        (tmp_path / "x").write_bytes(b"first\n" + b"x" * length + b"\nlast\nrest")
        found = list(reader(tmp_path / "x", LINES).new(with_rest=True))
        assert found[0] == b"first"
        assert found[-2:] == [b"last", b"rest"]
        assert (found[1:-2] == [b"x" * length]) if length < 32 else (found[1:-2] in ([], [b"x" * length]))
        assert length < 128 or len(found) == 3


def test_a_file_that_nobody_here_has_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\n" * 10)
    with pytest.raises(TooLong, match="its x has 10 bytes"):
        list(reader(tmp_path / "x", Framing(0, limit_bytes=9)).new())
    with pytest.raises(TooLong, match="its x has more than 9 lines"):
        list(reader(tmp_path / "x", Framing(0, limit_records=9)).new())


def test_a_checked_record_is_whole_or_it_is_none() -> None:
    random_bytes = random.Random(1)
    for length in (0, 1, 7, 100):
        content = random_bytes.randbytes(length)
        data = b"before" + checked(content) + b"behind"
        assert (content_at(data, 6), length_at(data, 6)) == (content, length)
        assert all(content_at(data[:end], 6) is None for end in range(14 + length))
        for place in range(6, 14 + length):
            damaged = bytearray(data)
            damaged[place] ^= 1 << random_bytes.randrange(8)
            assert content_at(bytes(damaged), 6) is None


def test_the_bytes_of_a_checked_record_are_those_of_older_files() -> None:
    assert checked(b"abc") == b"\x03\0\0\0\xc2\x41\x24\x35abc"
