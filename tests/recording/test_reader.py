"""Reading the journal: what can be asked, and what is said when there is nothing to read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.core.clock import MS, SECOND
from edge_runtime.core.errors import StorageError
from edge_runtime.core.messages import Event, PartKey, Verdict
from edge_runtime.recording import reader as reader_module
from edge_runtime.recording.inbox import Lost
from edge_runtime.recording.reader import JournalReader, PartFilter, iso_utc
from edge_runtime.recording.records import Decided, RecordWriter, RunInfo
from edge_runtime.recording.schema import open_for_writing
from edge_runtime.recording.wall_clock import WallClock

UTC_NS = 1_800_000_000 * SECOND


@pytest.fixture
def path(tmp_path: Path, make_part: Callable[..., Any]) -> Path:
    """Ten parts: every third rejected, the last one on its way; then a second run with one part."""
    path = tmp_path / "journal.db"
    connection = open_for_writing(path)
    writer = RecordWriter(connection, WallClock(lambda: SECOND, lambda: UTC_NS))
    writer.begin(RunInfo({"n": 1}, "c1", "scratch@1", "d1", {}), SECOND)
    for number in range(1, 11):
        part = make_part(number, Verdict.REJECT if number % 3 == 0 else Verdict.ACCEPT)
        writer.write_group([part.trigger], {})
        if number < 10:
            writer.write_group([Decided(part.decision, {"invoke": 1.0}, part.prediction.regions), part.report], {})
    writer.write_group([Event("link.lost", SECOND, {"why": "x"})], {("trigger", "backlog_full"): Lost(3, 5, 9)})
    connection.close()
    return path


def test_parts_are_found_by_what_was_decided(path: Path) -> None:
    with JournalReader(path) as reader:
        assert [row.id for row in reader.newest(3)] == [8, 9, 10]
        assert [row.id for row in reader.newest(99, PartFilter(verdicts=["reject"]))] == [3, 6, 9]
        assert [row.id for row in reader.newest(2, PartFilter(outcomes=["passed", "fired"]))] == [8, 9]
        assert [row.id for row in reader.parts(PartFilter(causes=["deadline"]))] == []
        assert [row.id for row in reader.parts(PartFilter(since_utc_ns=UTC_NS + 950 * MS))] == [10]
        assert [row.id for row in reader.parts(PartFilter(run=2))] == []


def test_whoever_works_through_all_parts_keeps_no_read_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "PAGE", 3)
    writer = open_for_writing(path)
    seen = []
    with JournalReader(path) as reader:
        for row in reader.parts():
            seen.append(row.id)
            writer.execute("INSERT INTO event(run, kind, at_ns, at_utc_ns, time_quality, detail)"
                           " VALUES (1, 'x', 1, 1, 'synced', '{}')")  # fmt: skip
            blocked, _, _ = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            assert not blocked
    writer.close()
    assert seen == list(range(1, 11))


def test_one_part_is_joined_with_its_model_and_settings(path: Path, make_part: Callable[..., Any]) -> None:
    with JournalReader(path) as reader:
        row = reader.part(3)
        assert row is not None and row == reader.part_by_key(make_part(3).key)
        assert reader.part(99) is None and reader.part_by_key(PartKey(1, 1)) is None
    assert (row.part, row.model, row.model_digest, row.config_digest) == ("7f3a-3", "scratch@1", "d1", "c1")
    document = row.as_dict()
    assert document["time"] == iso_utc(UTC_NS + 300 * MS) == "2027-01-15T08:00:00.300Z"
    assert document["regions"][0]["label"] == "scratch" and document["trigger_to_verdict_ms"] == 9.0


def test_counts_add_up(path: Path) -> None:
    with JournalReader(path) as reader:
        counts = reader.counts()
        assert counts["parts"] == 10 and counts["undecided"] == 1
        assert counts["verdicts"] == {"accept": 6, "reject": 3, "unsure": 0}
        assert counts["outcomes"] == {"passed": 6, "fired": 3, "defaulted": 0, "unknown": 1}
        assert reader.counts(PartFilter(verdicts=["reject"]))["parts"] == 3
        assert reader.latency()["trigger_to_verdict"] == {"p50": 9.0, "p95": 9.0, "p99": 9.0, "max": 9.0}
        assert reader.latency(PartFilter(run=2))["trigger_to_verdict"] == {}


def test_runs_events_and_losses_are_told(path: Path) -> None:
    with JournalReader(path) as reader:
        run = reader.run()
        assert run is not None and run == reader.run(1) and run["config"] == {"n": 1} and reader.run(7) is None
        assert [(event["kind"], event["detail"]) for event in reader.events()] == [("link.lost", {"why": "x"})]
        assert reader.events(run=7) == []
        assert [(loss["what"], loss["count"]) for loss in reader.losses()] == [("trigger", 3)]
        assert reader.problems() == [] and reader.label_of(PartKey(1, 1)) is None


def test_a_reader_cannot_write(path: Path) -> None:
    with JournalReader(path) as reader, pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._db.execute("DELETE FROM part")


def test_a_closed_journal_in_a_folder_of_somebody_else_can_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when WAL's shared memory cannot be made: the first way fails, the second needs no other file."""
    real = sqlite3.connect

    class Refusing(sqlite3.Connection):
        def execute(self, *_: object) -> sqlite3.Cursor:  # type: ignore[override]
            raise sqlite3.OperationalError("unable to open database file")

    def connect(database: str, **options: Any) -> sqlite3.Connection:
        return real(database, **options, factory=sqlite3.Connection if "immutable=1" in database else Refusing)

    monkeypatch.setattr(sqlite3, "connect", connect)
    with JournalReader(path) as reader:
        assert reader.counts()["parts"] == 10


def test_a_missing_journal_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="edge-runtime run"):
        JournalReader(tmp_path / "journal.db")


@pytest.mark.parametrize("content", [b"no database at all" * 100, b""], ids=["garbage", "empty"])
def test_a_file_that_is_no_journal_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"journal\.db"):
        JournalReader(path)
