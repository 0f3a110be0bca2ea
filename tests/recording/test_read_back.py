"""Reading back: damage that leaves no trace in sizes and times is found beside the running journal."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.recording import read_back
from edge_runtime.recording.high_water import HighWater, read_high_water
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.read_back import ReadBack, examine
from edge_runtime.recording.reader import JournalReader
from edge_runtime.recording.records import RunInfo

FLUSH_S = 10.0
PARTS = 400
PAGE = 4096


@pytest.fixture
def written(tmp_path: Path, make_part: Callable[..., Any]) -> Path:
    path = tmp_path / "journal.db"
    journal = Journal(path, RunInfo(model="m@1"))
    journal.start()
    for number in range(1, PARTS + 1):
        part = make_part(number)
        journal.triggered(part.trigger)
        journal.decided(part.decision, None, part.prediction)
    assert journal.flush(FLUSH_S)
    journal.stop()
    return path


def damage_page(path: Path, page: int) -> None:
    """Without a trace in size or time, as a worn flash cell does it."""
    stat = path.stat()
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(b"\xa5" * PAGE)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def pages_of(path: Path) -> list[int]:
    """Pages that hold rows of parts; the first of all is the file's head."""
    with sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'part'").fetchone()
        (count,) = db.execute("PRAGMA page_count").fetchone()
    db.close()
    return [root, count - 1]


def test_a_good_journal_has_nothing_to_say(written: Path) -> None:
    mark = read_high_water(written)
    assert mark and examine(written, mark, whole_limit_s=5.0) == ""
    assert examine(written.with_name("nothing.db"), mark) == ""


def test_rows_that_were_written_and_are_not_there_are_named(written: Path) -> None:
    mark = read_high_water(written)
    assert mark
    further = HighWater(mark.journal, mark.last, mark.first, mark.given | {"part": PARTS + 7})
    assert "'part': 7" in examine(written, further)
    assert "another journal" in examine(written, HighWater("ffffffffffff", mark.last, mark.first, mark.given))


def test_every_page_of_parts_is_read_sooner_or_later(written: Path) -> None:
    for page in pages_of(written):
        content = written.read_bytes()
        damage_page(written, page)
        found = [examine(written, None, from_row) for from_row in range(0, PARTS, read_back.STRETCH_ROWS)]
        assert any(found), page
        assert examine(written, None, whole_limit_s=5.0)
        written.write_bytes(content)


def test_damage_without_a_trace_is_found_while_it_runs(
    written: Path, make_part: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_back, "SYNC_S", 0.05)
    monkeypatch.setattr(read_back, "EXAMINE_S", 0.1)
    found = threading.Event()
    real = ReadBack._examine

    def told(self: ReadBack, limit_s: float) -> None:
        real(self, limit_s)
        if self._journal == written and journal._file._guard._damage:
            found.set()

    monkeypatch.setattr(ReadBack, "_examine", told)
    journal = Journal(written, RunInfo(model="m@1"))
    journal.start()
    try:
        journal.triggered(make_part(500).trigger)
        assert journal.flush(FLUSH_S)
        damage_page(written, pages_of(written)[0])
        assert found.wait(FLUSH_S)
        journal.triggered(make_part(501).trigger)
        assert journal.flush(FLUSH_S)
        assert journal.health().detail
    finally:
        journal.stop()
    with JournalReader(written) as reader:
        kinds = {event["kind"] for event in reader.events()}
        there = {row.part_id for row in reader.parts()}
        counted = sum(loss["count"] for loss in reader.losses() if loss["what"] == "part")
        assert reader.problems() == []
    assert kinds & {"journal.rescued", "journal.set_aside"}
    assert counted >= len({*range(1, PARTS + 1), 500, 501} - there)
