"""What records do to rows, and what a crash between any two of them leaves behind."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.core.clock import MS, SECOND, ManualClock
from edge_runtime.core.messages import Cause, Decision, Event, GateReport, Outcome, PartKey, Trigger, Verdict
from edge_runtime.recording.database import migrate
from edge_runtime.recording.records import RESENT_WITHIN_NS, Decided, Kept, RecordWriter, RunInfo
from edge_runtime.recording.schema import MIGRATIONS
from edge_runtime.recording.wall_clock import WallClock

UTC_NS = 1_800_000_000 * SECOND
INFO = RunInfo({"a": 1}, "config-digest", "scratch@1", "model-digest", {"python": "3"})


class Book:
    """One database that lives through crashes of who writes it."""

    def __init__(self) -> None:
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        migrate(self.db, MIGRATIONS)
        self.clock = ManualClock()
        self.utc_ns = UTC_NS
        self.restart()

    def restart(self) -> None:
        """As after SIGKILL: a new writer on what was committed."""
        self.writer = RecordWriter(self.db, WallClock(self.clock, lambda: self.utc_ns))
        self.writer.begin(INFO, self.clock())

    def write(self, *records: Any) -> None:
        self.writer.write_group(records, {})

    def rows(self) -> list[dict[str, Any]]:
        cursor = self.db.execute("SELECT * FROM ledger ORDER BY id")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]


@pytest.fixture
def book() -> Iterator[Book]:
    book = Book()
    yield book
    book.db.close()


def test_a_part_becomes_one_row_with_all_that_was_said_of_it(book: Book, make_part: Callable[..., Any]) -> None:
    part = make_part(1, Verdict.REJECT, score=0.93)
    decided = Decided(part.decision, part.prediction.timings_ms, part.prediction.regions)
    book.write(part.trigger, decided, part.report, Kept(part.key, "evidence/x.jpg"))
    (row,) = book.rows()
    assert (row["verdict"], row["cause"], row["score"], row["outcome"]) == ("reject", "model", 0.93, "fired")
    assert (row["encoder"], row["evidence"], row["recovered"]) == (200, "evidence/x.jpg", 0)
    assert (row["model"], row["model_digest"], row["config_digest"]) == ("scratch@1", "model-digest", "config-digest")
    assert row["trigger_to_verdict_ms"] == pytest.approx(9.0) and row["capture_to_verdict_ms"] == pytest.approx(4.0)
    assert row["trigger_utc_ns"] - UTC_NS == part.trigger.at_ns - SECOND


def test_records_written_twice_change_nothing(book: Book, make_part: Callable[..., Any]) -> None:
    part = make_part(1)
    records = (part.trigger, Decided(part.decision, {}, ()), part.report)
    book.write(*records)
    before = book.rows()
    book.write(*records)
    assert book.rows() == before


def test_the_first_verdict_stands(book: Book, make_part: Callable[..., Any]) -> None:
    book.write(make_part(1).trigger, Decided(make_part(1, Verdict.REJECT).decision, {}, ()))
    book.write(Decided(make_part(1, Verdict.ACCEPT).decision, {}, ()))
    assert [row["verdict"] for row in book.rows()] == ["reject"]


def test_a_decision_whose_trigger_was_lost_still_makes_a_row(book: Book, make_part: Callable[..., Any]) -> None:
    book.write(Decided(make_part(1).decision, {}, ()))
    assert [(row["verdict"], row["encoder"]) for row in book.rows()] == [("accept", None)]


def test_a_report_about_an_unknown_part_is_an_orphan_and_no_row(book: Book, make_part: Callable[..., Any]) -> None:
    book.write(make_part(1).report)
    assert book.rows() == [] and book.writer.orphans == 1


def test_parts_without_a_decision_are_unsure_after_a_crash(book: Book, make_part: Callable[..., Any]) -> None:
    book.write(make_part(1).trigger, make_part(2).trigger, Decided(make_part(1).decision, {}, ()))
    book.restart()
    first, second = book.rows()
    assert first["verdict"] == "accept"
    assert (second["verdict"], second["cause"], second["outcome"]) == ("unsure", "link_fault", "unknown")
    assert second["recovered"] == 1 and book.writer.recovered == 1
    assert [kind for (kind,) in book.db.execute("SELECT kind FROM event")] == ["journal.recovered"]
    assert [ended for (ended,) in book.db.execute("SELECT ended FROM run ORDER BY id")] == ["crashed", "open"]


def test_a_trigger_resent_after_a_crash_is_no_second_part(book: Book, make_part: Callable[..., Any]) -> None:
    part = make_part(1)
    book.write(part.trigger)
    book.restart()
    book.write(part.trigger, Decided(make_part(1, Verdict.REJECT).decision, {}, ()), part.report)
    (row,) = book.rows()
    assert (row["verdict"], row["recovered"], row["outcome"]) == ("reject", 0, "passed")


def test_a_late_report_after_a_crash_finds_its_part(book: Book, make_part: Callable[..., Any]) -> None:
    part = make_part(1, Verdict.REJECT)
    book.write(part.trigger, Decided(part.decision, {}, ()))
    book.restart()
    book.write(part.report)
    assert [(row["verdict"], row["outcome"]) for row in book.rows()] == [("reject", "fired")]


def test_passed_proves_an_accept_that_the_crash_swallowed(book: Book, make_part: Callable[..., Any]) -> None:
    part = make_part(1)
    book.write(part.trigger)
    book.restart()
    book.write(part.report)
    (row,) = book.rows()
    assert (row["verdict"], row["cause"], row["outcome"]) == ("accept", "link_fault", "passed")


def test_the_same_numbers_long_after_the_start_are_another_part(book: Book, make_part: Callable[..., Any]) -> None:
    book.write(make_part(1).trigger)
    book.restart()
    later = Trigger(PartKey(*make_part(1).key), 200, book.clock() + RESENT_WITHIN_NS + MS)
    book.write(later)
    assert [row["run"] for row in book.rows()] == [1, 2]


def test_a_run_that_ended_well_leaves_nothing_to_resend(book: Book, make_part: Callable[..., Any]) -> None:
    book.write(make_part(1).trigger)
    book.writer.end()
    book.restart()
    book.write(make_part(1).trigger)
    assert [row["verdict"] for row in book.rows()] == ["unsure", None]


def test_one_malformed_record_costs_only_itself_and_is_counted(book: Book, make_part: Callable[..., Any]) -> None:
    bad = Trigger(PartKey(1, 2**70), 0, SECOND)
    book.write(make_part(1).trigger, bad, Event("odd", SECOND, {"what": {1, 2}}), make_part(2).trigger)
    assert [row["part_id"] for row in book.rows()] == [1, 2]
    assert book.db.execute("SELECT what, why, count FROM loss").fetchall() == [("trigger", "malformed", 1)]


def test_every_older_version_is_brought_to_the_present_one() -> None:
    for version in range(len(MIGRATIONS) + 1):
        with sqlite3.connect(":memory:", isolation_level=None) as db:
            for script in MIGRATIONS[:version]:
                db.executescript(script)
            db.execute(f"PRAGMA user_version = {version}")
            migrate(db, MIGRATIONS)
            assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        db.close()


STEPS = st.lists(st.tuples(st.sampled_from(["trigger", "decide", "end", "crash"]), st.integers(1, 6)), max_size=60)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(STEPS)
def test_whatever_happens_triggers_equal_decisions_equal_rows(steps: list[tuple[str, int]]) -> None:
    """A controller resends what was not acknowledged; the box dies at any point. Each part is one decided row."""
    book = Book()
    triggered: set[int] = set()
    for step, number in steps:
        key, at_ns = PartKey(9, number), SECOND
        if step == "trigger":
            book.write(Trigger(key, number * 10, at_ns))
            triggered.add(number)
        elif step == "decide" and number in triggered:
            decision = Decision(key, Verdict.REJECT, Cause.MODEL, "x", 0.5, at_ns, None, at_ns, "m@1")
            book.write(Decided(decision, {}, ()))
        elif step == "end" and number in triggered:
            book.write(GateReport(key, Outcome.FIRED, 1, at_ns))
        elif step == "crash":
            for resent in triggered & {row["part_id"] for row in book.rows() if row["outcome"] != "unknown"}:
                triggered.discard(resent)  # acknowledged and done: the controller does not send it again
            book.restart()
    book.restart()
    rows = book.rows()
    assert all(row["verdict"] for row in rows)
    assert triggered <= {row["part_id"] for row in rows}
    waiting = [row["part_id"] for row in rows if row["outcome"] == "unknown"]
    assert len(waiting) == len(set(waiting))
    book.db.close()
