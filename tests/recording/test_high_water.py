"""The mark beside the journal: torn, damaged, missing, and what readers make of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.recording.high_water import (
    SLOT_BYTES,
    SLOTS,
    HighWater,
    LastWords,
    MarkFile,
    mark_file,
    read_high_water,
)
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.reader import JournalReader
from edge_runtime.recording.records import RunInfo

FLUSH_S = 10.0
WORDS = LastWords(3, 48, {"trigger": 48}, 1, 2)


def mark(number: int) -> HighWater:
    return HighWater("0b51c9d2aa10", {"part": number}, {"part": 1}, {"part": number, "run": 3}, 1_800_000_000 * 10**9)


def test_the_newest_mark_is_read_and_last_words_stay_until_they_are_taken_back(tmp_path: Path) -> None:
    journal = tmp_path / "journal.db"
    file = MarkFile(journal)
    assert file.open() == (None, None)
    file.speak(WORDS)
    for number in range(1, 6):
        file.write(mark(number))
        assert read_high_water(journal) == mark(number)
    assert file.open() == (mark(5), WORDS)
    file.write(mark(6))
    file.speak(None)
    assert file.open() == (mark(6), None)
    file.close()
    assert mark_file(journal).stat().st_size == SLOTS * SLOT_BYTES


@given(at=st.integers(0, 2 * SLOT_BYTES - 1), size=st.integers(1, 64), byte=st.integers(0, 255))
def test_a_torn_or_damaged_mark_is_an_earlier_one_or_none_and_never_another(
    tmp_path_factory: pytest.TempPathFactory, at: int, size: int, byte: int
) -> None:
    journal = tmp_path_factory.mktemp("mark") / "journal.db"
    file = MarkFile(journal)
    file.open()
    file.write(mark(41))
    file.write(mark(42))
    file.close()
    content = bytearray(mark_file(journal).read_bytes())
    content[at : at + size] = bytes([byte]) * len(content[at : at + size])
    mark_file(journal).write_bytes(content)
    assert read_high_water(journal) in (mark(41), mark(42))  # 64 bytes never reach both


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"{}", b"x" * 3072, b"\xff" * 100])
def test_a_file_that_is_no_mark_says_nothing(tmp_path: Path, content: bytes) -> None:
    mark_file(tmp_path / "journal.db").write_bytes(content)
    assert read_high_water(tmp_path / "journal.db") is None
    file = MarkFile(tmp_path / "journal.db")
    assert file.open() == (None, None)
    file.write(mark(1))
    assert read_high_water(tmp_path / "journal.db") == mark(1)
    file.close()


def recorded(path: Path, make_part: Callable[..., Any], first: int, last: int) -> None:
    journal = Journal(path, RunInfo(model="m@1"))
    journal.start()
    for number in range(first, last + 1):
        part = make_part(number)
        journal.triggered(part.trigger)
        journal.decided(part.decision, None, part.prediction)
    assert journal.flush(FLUSH_S)
    journal.stop()


def test_a_reader_says_what_an_older_copy_lacks_until_run_has_counted_it(
    tmp_path: Path, make_part: Callable[..., Any]
) -> None:
    path, older = tmp_path / "journal.db", tmp_path / "older.db"
    recorded(path, make_part, 1, 10)
    shutil.copyfile(path, older)
    recorded(path, make_part, 11, 30)
    with JournalReader(path) as reader:
        assert reader.shortfall() == ""
    shutil.copyfile(older, path)
    with JournalReader(path) as reader:
        said = reader.shortfall()
        assert said.startswith(
            "20 parts that were on the disk are not in the journal (the newest part was 30 and is 10"
        )
    recorded(path, make_part, 31, 32)
    with JournalReader(path) as reader:
        assert reader.shortfall() == ""
        assert {(loss["what"], loss["why"]): loss["count"] for loss in reader.losses()}["part", "went_back"] == 20
        rows = [row.id for row in reader.parts()]
        assert rows[:10] == list(range(1, 11)) and rows[10] > 30
        (event,) = [event for event in reader.events() if event["kind"] == "journal.went_back"]
        assert (event["detail"]["last"]["part"], event["detail"]["found"]["part"]) == (30, 10)
        assert event["detail"]["journal"] != event["detail"]["now"]


def test_the_same_loss_twice_is_counted_twice_and_no_row_number_comes_again(
    tmp_path: Path, make_part: Callable[..., Any]
) -> None:
    path, older = tmp_path / "journal.db", tmp_path / "older.db"
    recorded(path, make_part, 1, 10)
    shutil.copyfile(path, older)
    seen: dict[int, int] = {}
    for turn in range(1, 4):
        recorded(path, make_part, 100 * turn, 100 * turn + 4)
        with JournalReader(path) as reader:
            rows = {row.id: row.part_id for row in reader.parts()}
            names = [event["detail"]["now"] for event in reader.events() if event["kind"] == "journal.went_back"]
        assert all(seen.get(row, part) == part for row, part in rows.items())
        assert len(names) == (turn > 1)
        seen |= rows
        shutil.copyfile(older, path)


def test_retention_clean_ends_and_a_lost_mark_are_no_alarm(tmp_path: Path, make_part: Callable[..., Any]) -> None:
    path = tmp_path / "journal.db"
    recorded(path, make_part, 1, 10)
    mark_file(path).unlink()
    recorded(path, make_part, 11, 20)
    older = mark_file(path).read_bytes()
    recorded(path, make_part, 21, 30)
    mark_file(path).write_bytes(older)  # a mark may be behind, as after a power cut
    recorded(path, make_part, 31, 32)
    with JournalReader(path) as reader:
        assert reader.losses() == [] and reader.events() == [] and reader.shortfall() == ""
        assert [row.id for row in reader.parts()] == list(range(1, 33))
