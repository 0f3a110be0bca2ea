"""A journal that an earlier release wrote opens with all that it holds. The files are dumps of what those wrote."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.core.errors import StorageError
from edge_runtime.core.messages import HumanLabel, Label, PartKey, Where
from edge_runtime.recording.database import migrate
from edge_runtime.recording.going_back import find_shortfall, journal_identity, newest_rows
from edge_runtime.recording.high_water import HighWater
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.reader import JournalReader
from edge_runtime.recording.records import RunInfo
from edge_runtime.recording.say_label import say, take_back
from edge_runtime.recording.schema import MIGRATIONS, open_for_writing

HERE = Path(__file__).parent
BOOT = 0x7F3A


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """Five parts, of which 1 was called a reject, 3 an accept, and 4 was to be scanned again."""
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript((HERE / "journal_2.sql").read_text())
    return path


def rows(path: Path, table: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(f"SELECT * FROM {table} ORDER BY id").fetchall()


def test_parts_events_requests_and_runs_are_carried(earlier: Path) -> None:
    before = {table: rows(earlier, table) for table in ("run", "part", "event", "request", "model")}
    journal = Journal(earlier, RunInfo())
    journal.start()
    assert journal.flush(10) and not journal.quarantined
    journal.stop()
    for table, was in before.items():
        now = rows(earlier, table)[: len(was)]
        assert [row[: len(old)] for row, old in zip(now, was, strict=True)] == was, table  # a later column is empty
    with JournalReader(earlier) as reader:
        assert reader.counts()["parts"] == 5 and reader.losses() == []
        assert [row.model_digest for row in reader.parts()] == ["d1"] * 5


def test_labels_of_before_are_the_first_rows_of_the_history(earlier: Path) -> None:
    journal = Journal(earlier, RunInfo())
    journal.start()
    journal.labelled(HumanLabel(PartKey(BOOT, 1), Label.ACCEPT, 5, "anna", Where.PAGE))
    assert journal.flush(10)
    with JournalReader(earlier) as reader:
        assert [row.label for row in reader.parts()] == ["accept", None, "accept", None, None]
        first, second = reader.history(1)
        assert (first.label, first.by, first.where, first.key) == (Label.REJECT, "operator", Where.VOICE, (BOOT, 1))
        assert "not kept" in first.comment and second.by == "anna"
        rescans = [event for event in reader.events(99) if event["kind"] == "operator.rescan"]
        assert [event["detail"] for event in rescans] == [{"by": "voice", "part": "7f3a-4"}]
    journal.stop()


def test_a_reader_sees_its_parts_and_labels_before_anybody_has_brought_it_up(earlier: Path) -> None:
    before = earlier.read_bytes()
    with JournalReader(earlier) as reader:
        labels = [(row.label, [said.label for said in reader.history(row.id)]) for row in reader.parts()]
        assert (reader.counts()["parts"], len(reader.requests())) == (5, 2)
        assert [row.origin for row in reader.parts()] == [None] * 5
    assert labels == [("reject", ["reject"]), (None, []), ("accept", ["accept"]), ("rescan", []), (None, [])]
    assert earlier.read_bytes() == before


def test_nobody_labels_a_part_of_it_before_it_is_brought_up(earlier: Path, tmp_path: Path) -> None:
    said = HumanLabel(PartKey(BOOT, 1), Label.ACCEPT, 5, "anna", Where.CLI)
    with pytest.raises(StorageError, match="start `edge-runtime run` once"):
        say(earlier, tmp_path / "control.sock", said)
    with pytest.raises(StorageError, match="start `edge-runtime run` once"):
        take_back(earlier, tmp_path / "control.sock", 1, "anna", Where.CLI)


def test_a_version_that_no_reader_knows_is_refused_with_what_to_do(earlier: Path) -> None:
    for version, words in ((1, "start `edge-runtime run` once"), (99, "use the newer edge-runtime")):
        with closing(sqlite3.connect(earlier)) as db:
            db.execute(f"PRAGMA user_version = {version}")
        with pytest.raises(StorageError, match=words):
            JournalReader(earlier)


def test_what_is_missing_from_it_is_counted_before_it_is_brought_up(
    earlier: Path, make_part: Callable[..., Any]
) -> None:
    with closing(sqlite3.connect(earlier)) as db:
        assert newest_rows(db) == {"run": 1, "part": 5, "event": 1, "request": 2}
        mark = HighWater(journal_identity(db), {"part": 9}, {"part": 1}, {"part": 9})
        short = find_shortfall(db, mark)
    assert short and short.missing == {"part": 4}


def test_a_journal_from_before_origins_is_read_as_it_is_and_brought_up(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        migrate(db, MIGRATIONS[:3])
        db.execute(
            "INSERT INTO part (run, boot_id, part_id, trigger_ns, trigger_utc_ns, time_quality)"
            " VALUES (1, 1, 1, 1, 1, 'x')"
        )
        db.execute("INSERT INTO run VALUES (1, 1, 1, 'synced', 'b', NULL, 'clean', '{}', 'c', 'scratch@1', 'd', '{}')")
    with JournalReader(path) as reader:
        assert not reader.is_present and [row.origin for row in reader.parts()] == [None]
    with closing(open_for_writing(path)) as db:
        assert db.execute("SELECT part_id, origin FROM ledger").fetchall() == [(1, None)]


def test_a_journal_from_before_files_were_named_is_read_as_it_is_and_brought_up(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        migrate(db, MIGRATIONS[:4])
        db.execute(
            "INSERT INTO part (run, boot_id, part_id, trigger_ns, trigger_utc_ns, time_quality, origin)"
            " VALUES (1, 1, 1, 1, 1, 'x', 'local')"
        )
        db.execute("INSERT INTO run VALUES (1, 1, 1, 'synced', 'b', NULL, 'clean', '{}', 'c', 'scratch@1', 'd', '{}')")
    with JournalReader(path) as reader:
        assert not reader.is_present and [(row.origin, row.file) for row in reader.parts()] == [("local", None)]
    journal = Journal(path, RunInfo())
    journal.start()
    assert journal.flush(10)
    journal.stop()
    with JournalReader(path) as reader:
        assert reader.is_present and [(row.origin, row.file) for row in reader.parts()] == [("local", None)]
