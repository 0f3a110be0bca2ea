"""From the journal into the outbox: each statement once, through crashes, retention, pauses and replaced files."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.core.clock import MS, SECOND, ManualClock
from edge_runtime.core.errors import StorageError
from edge_runtime.core.messages import Event, Label, OperatorRequest, Outcome, PartKey, Verdict
from edge_runtime.recording.going_back import journal_identity
from edge_runtime.recording.schema import open_for_writing
from edge_runtime.recording.wall_clock import WallClock
from edge_runtime.sync.outbox.file import Outbox
from edge_runtime.sync.records import parts as parts_module
from edge_runtime.sync.records import slices as slices_module
from edge_runtime.sync.records.feeder import FORMER_NS, Feeder
from edge_runtime.sync.records.format import RecordFormat
from edge_runtime.sync.records.journal import JournalTail

REQUEST = OperatorRequest("typed", 5, None, None, "oil", 1.0, None, ("D02",), 0, "D02", "answered", "", "")
from tests.sync.sync_rig import Line


class Sync:
    """Outbox and feeder without a link, turned by hand."""

    def __init__(self, state: Path, clock: ManualClock, pictures_of: tuple[str, ...] = ()) -> None:
        self.clock = clock
        self.wall = WallClock(clock, lambda: 1_800_000_000 * SECOND + clock())
        self.outbox = Outbox(state / "outbox.db", RecordFormat("box-7"), self.wall)
        self.outbox.open()
        self.tail = JournalTail(state / "journal.db", clock)
        self.feeder = Feeder(self.outbox, self.tail, self.wall, pictures_of)

    def feed(self, *, may_catch_up: bool = True, turns: int = 200) -> None:
        self.clock.advance_ms(600)
        for _ in range(turns):
            batch = self.feeder.look(may_catch_up=may_catch_up)
            if batch is None:
                return
            with self.outbox.transaction():
                self.feeder.commit(batch)
            self.feeder.committed(batch)

    def said(self, *kinds: str) -> list[dict[str, Any]]:
        records = [json.loads(record.payload) for record in self.outbox.backlog(0, 2**62, 10**6)]
        return [record for record in records if not kinds or record["kind"] in kinds]

    def told(self, *kinds: str) -> list[tuple[str, int]]:
        return [(r["kind"], r["data"]["part_id"]) for r in self.said(*(kinds or ("decision", "outcome")))]

    def uploads(self) -> list[str]:
        return [file for (file,) in self.outbox.db.execute("SELECT file FROM upload ORDER BY id")]

    def close(self) -> None:
        self.tail.close()
        self.outbox.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def line(state: Path, clock: ManualClock) -> Iterator[Line]:
    made = Line(state, clock)
    yield made
    made.stop()


@pytest.fixture
def make_sync(state: Path, clock: ManualClock) -> Iterator[Callable[..., Sync]]:
    made: list[Sync] = []

    def make(*pictures_of: str) -> Sync:
        if made:
            made[-1].close()
        made.append(Sync(state, clock, pictures_of))
        return made[-1]

    yield make
    for sync in made[-1:]:
        sync.close()


def flushed(line: Line) -> None:
    assert line.journal.flush(10)


def test_decision_and_outcome_are_told_when_they_come_and_once(line: Line, make_sync: Callable[..., Sync]) -> None:
    sync = make_sync()
    line.trigger(1)
    flushed(line)
    sync.feed()
    assert sync.told() == []
    line.decide(1)
    flushed(line)
    sync.feed()
    sync.feed()
    assert sync.told() == [("decision", 1)]
    line.end(1)
    flushed(line)
    sync.feed()
    sync.feed()
    assert sync.told() == [("decision", 1), ("outcome", 1)]


def test_another_process_goes_on_where_the_first_was_killed(line: Line, make_sync: Callable[..., Sync]) -> None:
    line.parts(3, ended=False)
    first = make_sync()
    first.feed()
    line.end(2)
    line.parts(1)
    second = make_sync()
    second.feed()
    assert sorted(second.told("decision")) == [("decision", n) for n in (1, 2, 3, 4)]
    assert sorted(second.told("outcome")) == [("outcome", 2), ("outcome", 4)]


def test_what_a_failed_commit_did_not_take_is_read_again(line: Line, make_sync: Callable[..., Sync]) -> None:
    sync = make_sync()
    sync.feed()
    line.parts(2)
    sync.clock.advance_ms(600)
    batch = sync.feeder.look(may_catch_up=True)
    assert batch
    with pytest.raises(sqlite3.OperationalError), sync.outbox.transaction():
        sync.feeder.commit(batch)
        raise sqlite3.OperationalError("database or disk is full")
    sync.feed()
    assert sorted(sync.told()) == [(kind, n) for kind in ("decision", "outcome") for n in (1, 2)]


def test_a_verdict_that_a_restart_had_to_guess_is_told_and_then_mended(
    state: Path, clock: ManualClock, make_sync: Callable[..., Sync]
) -> None:
    line = Line(state, clock)
    line.trigger(1)
    flushed(line)
    sync = make_sync()
    sync.feed()
    line.stop()
    with sqlite3.connect(state / "journal.db") as db:  # as a crash leaves it
        db.execute("UPDATE part SET verdict = NULL, cause = NULL, recovered = 0")
        db.execute("UPDATE run SET ended = 'open', stopped_utc_ns = NULL")
    db.close()
    again = Line(state, clock)
    flushed(again)
    sync.feed()
    again.journal.ended(feeder_report(1, Outcome.PASSED))
    flushed(again)
    sync.feed()
    decisions = [record["data"] for record in sync.said("decision")]
    assert [(d["verdict"], d["recovered"], d["revision"]) for d in decisions][-2:] == [
        ("unsure", True, 0),
        ("accept", True, 1),
    ]
    assert [record["data"]["phase"] for record in sync.said("run")] == ["started", "crashed", "started"]
    assert sync.told("outcome") == [("outcome", 1)]
    again.stop()


def feeder_report(number: int, outcome: Outcome) -> Any:
    from edge_runtime.core.messages import GateReport

    return GateReport(PartKey(7, number), outcome, number, SECOND)


def test_a_part_that_nobody_reports_ends_as_unknown(
    line: Line, make_sync: Callable[..., Sync], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "OPEN_PARTS", 20)
    sync = make_sync()
    line.parts(1, ended=False)
    line.parts(15)
    sync.feed()
    assert ("outcome", 1) not in sync.told()
    line.parts(10)
    sync.feed()
    unknown = [record["data"] for record in sync.said("outcome") if record["data"]["part_id"] == 1]
    assert [data["outcome"] for data in unknown] == ["unknown"]
    sync.feed()
    assert len(sync.told("outcome")) == 26


def test_a_long_pause_does_not_keep_new_parts_waiting(
    line: Line, make_sync: Callable[..., Sync], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices_module, "JUMP_FROM", 100)
    monkeypatch.setattr(slices_module, "SLICE", 40)
    sync = make_sync()
    line.parts(300)
    sync.feed(may_catch_up=False)
    assert {n for _, n in sync.told()} == set(range(261, 301))
    live = [json.loads(record.payload)["data"].get("part_id") for record in sync.outbox.live(0, 10**6)]
    assert set(live) - {None} == set(range(261, 301))
    assert sync.feeder.rows_behind == 260
    line.parts(5)
    sync.feed(turns=3)
    assert {n for _, n in sync.told()} >= set(range(261, 306))
    again = make_sync()
    again.feed()
    assert sorted(again.told()) == [(kind, n) for kind in ("decision", "outcome") for n in range(1, 306)]
    assert again.feeder.rows_behind == 0


def test_rows_that_retention_deleted_unread_are_counted(
    line: Line, make_sync: Callable[..., Sync], state: Path
) -> None:
    sync = make_sync()
    line.parts(5)
    sync.feed()
    line.parts(20)
    with sqlite3.connect(state / "journal.db") as db:
        db.execute("DELETE FROM part WHERE id <= 12")
    db.close()
    sync.feed()
    (drop,) = [record["data"] for record in sync.said("drop")]
    assert (drop["what"], drop["why"], drop["count"]) == ("part", "journal_retention", 7)
    assert {n for _, n in sync.told()} == {*range(1, 6), *range(13, 26)}


def test_a_new_journal_is_read_from_its_beginning(
    state: Path, clock: ManualClock, make_sync: Callable[..., Sync]
) -> None:
    line = Line(state, clock)
    line.parts(3, ended=False)
    sync = make_sync()
    sync.feed()
    line.stop()
    for file in state.glob("journal.db*"):
        file.unlink()
    clock.advance_ms(1000)
    line = Line(state, clock)
    line.parts(2)
    sync.feed()
    assert len(sync.told("decision")) == 3, "the one that was deleted is still open, and may get rows for a moment"
    clock.advance_ms(FORMER_NS / MS)
    sync.feed()
    line.stop()
    assert sync.told("decision") == [("decision", n) for n in (1, 2, 3, 1, 2)]
    events = [record["data"]["event"] for record in sync.said("event")]
    assert "sync.journal_replaced" in events
    assert len({record["journal"] for record in sync.said("decision")}) == 2


def test_a_new_outbox_reads_the_journal_from_the_mark(line: Line, make_sync: Callable[..., Sync], state: Path) -> None:
    first = make_sync()
    line.parts(10)
    line.parts(1, ended=False)
    first.feed()
    delivered = [r["seq"] for r in first.said() if r["data"].get("part_id", 0) <= 6]
    with first.outbox.transaction():
        first.outbox.settle(delivered)
    first.outbox.mark()
    first.close()
    (state / "outbox.db").write_bytes(b"no database at all" * 1000)
    second = make_sync()
    line.end(11)
    flushed(line)
    second.feed()
    assert {n for _, n in second.told()} == set(range(7, 12)), "all that was not delivered, and nothing twice"
    assert second.said("epoch")[0]["data"]["previous"] == first.outbox.epoch
    assert {n for _, n in second.told("outcome")} == set(range(7, 12))


def test_pictures_of_bad_parts_are_queued_also_when_they_come_late(line: Line, make_sync: Callable[..., Sync]) -> None:
    sync = make_sync("reject", "unsure")
    line.parts(2)
    line.parts(1, Verdict.ACCEPT)
    line.journal.kept(PartKey(7, 1), "evidence/a.jpg")
    line.journal.kept(PartKey(7, 3), "evidence/good.jpg")
    flushed(line)
    sync.feed()
    assert sync.uploads() == ["evidence/a.jpg"]
    sync.clock.advance_ms(3000)
    line.journal.kept(PartKey(7, 2), "evidence/b.jpg")
    flushed(line)
    sync.feed()
    sync.feed()
    assert sync.uploads() == ["evidence/a.jpg", "evidence/b.jpg"]
    sync.clock.advance_ms(11_000)
    sync.feed()
    assert sync.feeder.report()["open_parts"] == 0


def test_events_and_losses_are_told_too(state: Path, clock: ManualClock, make_sync: Callable[..., Sync]) -> None:
    line = Line(state, clock)
    line.journal.happened(Event("link.lost", 5, {"port": "x"}))
    flushed(line)
    with sqlite3.connect(state / "journal.db") as db:
        db.execute(
            "INSERT INTO loss (run, what, why, count, first_utc_ns, last_utc_ns)"
            " VALUES (1, 'event', 'backlog_full', 9, 1, 2)"
        )
    db.close()
    sync = make_sync()
    sync.feed()
    line.stop()
    assert [record["data"]["event"] for record in sync.said("event")] == ["link.lost"]
    assert sync.said("loss")[0]["data"]["count"] == 9


def labels(sync: Sync) -> list[tuple[int, str | None]]:
    return [(record["data"]["number"], record["data"]["label"]) for record in sync.said("label")]


def test_labels_and_requests_are_told_once_behind_the_parts_that_they_are_about(
    line: Line, make_sync: Callable[..., Sync]
) -> None:
    line.parts(2)
    line.say(1, Label.REJECT, "anna")
    line.journal.requested(REQUEST)
    flushed(line)
    make_sync().feed()
    line.say(1, Label.ACCEPT, "ben")
    again = make_sync()
    again.feed()
    again.feed()
    assert labels(again) == [(1, "reject"), (2, "accept")] and len(again.said("request")) == 1
    kinds = [record["kind"] for record in again.said("decision", "label")]
    assert kinds == ["decision", "decision", "label", "label"]


def test_an_outbox_of_before_tells_the_labels_that_were_given_before_the_update(
    line: Line, make_sync: Callable[..., Sync]
) -> None:
    line.parts(3)
    sync = make_sync()
    sync.feed()
    with sync.outbox.transaction():  # as one that a release without labels wrote
        sync.outbox.db.execute("DELETE FROM position WHERE name IN ('label', 'request')")
    line.say(2, Label.REJECT, "anna")
    again = make_sync()
    again.feed()
    assert labels(again) == [(1, "reject")] and len(again.told("decision")) == 3


def test_labels_that_retention_took_unread_are_counted(line: Line, make_sync: Callable[..., Sync], state: Path) -> None:
    line.parts(1)
    line.say(1, Label.REJECT, "anna")
    sync = make_sync()
    sync.feed()
    for _ in range(4):
        line.say(1, Label.ACCEPT, "anna")
    with sqlite3.connect(state / "journal.db") as db:
        db.execute("DELETE FROM label WHERE id <= 3")
    db.close()
    sync.feed()
    (drop,) = [record["data"] for record in sync.said("drop")]
    assert (drop["what"], drop["why"], drop["count"]) == ("label", "journal_retention", 2)
    assert [number for number, _ in labels(sync)] == [1, 4, 5]


def test_a_journal_of_an_earlier_release_is_read_before_it_is_brought_up_and_goes_on_after(
    state: Path, clock: ManualClock, make_sync: Callable[..., Sync]
) -> None:
    with closing(sqlite3.connect(state / "journal.db")) as db:
        db.executescript((Path(__file__).parents[1] / "recording" / "journal_2.sql").read_text())
    sync = make_sync()
    sync.feed()
    assert len(sync.told("decision")) == 5 and len(sync.said("request")) == 2 and labels(sync) == []
    line = Line(state, clock)
    line.parts(1)
    line.say(1, Label.REJECT, "anna")
    sync.feed()
    line.stop()
    assert labels(sync) == [(1, "reject"), (2, "accept"), (3, "reject")]
    assert len(sync.told("decision")) == 6 and len(sync.said("request")) == 2
    assert sync.said("drop") == [] and len({record["journal"] for record in sync.said("decision")}) == 1


def test_a_journal_of_an_earlier_release_that_was_set_aside_is_read_as_far_as_it_goes(
    state: Path, clock: ManualClock, make_sync: Callable[..., Sync]
) -> None:
    with closing(sqlite3.connect(state / "journal.damaged-20260301T081530Z.db")) as db:
        db.executescript((Path(__file__).parents[1] / "recording" / "journal_2.sql").read_text())
        name = journal_identity(db)
    line = Line(state, clock)
    line.parts(2)
    line.say(1, Label.REJECT, "anna")
    sync = make_sync()
    with sync.outbox.transaction():
        sync.outbox.db.execute("UPDATE meta SET journal = ?", (name,))
    sync.feed()
    line.stop()
    assert [n for _, n in sync.told("decision")] == [1, 2, 3, 4, 5, 1, 2]
    assert len(sync.said("request")) == 2 and labels(sync) == [(1, "reject")] and sync.said("drop") == []


def test_a_box_without_a_journal_says_so_and_waits(
    state: Path, make_sync: Callable[..., Sync], clock: ManualClock
) -> None:
    sync = make_sync()
    with pytest.raises(StorageError, match="nothing was recorded"):
        sync.feed()
    open_for_writing(state / "journal.db").close()
    with pytest.raises(StorageError, match="no run"):
        sync.feed()
    line = Line(state, clock)
    line.parts(1)
    sync.feed()
    assert sync.told() == [("decision", 1), ("outcome", 1)]
    line.stop()
    line = Line(state, clock)
    line.made = 1
    line.parts(1)
    sync.feed()
    line.stop()
    assert sync.told("decision") == [("decision", 1), ("decision", 2)], "a writer that came after us is seen"


def test_a_journal_of_another_version_is_refused(state: Path, line: Line, make_sync: Callable[..., Sync]) -> None:
    flushed(line)
    with sqlite3.connect(state / "journal.db") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StorageError, match="same version"):
        make_sync().feed()
