"""The journal goes back, is damaged, set aside or deleted: what is there is delivered, and the rest is counted."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.core.clock import MS, ManualClock
from edge_runtime.core.errors import StorageError
from edge_runtime.sync.records.feeder import FORMER_NS
from edge_runtime.sync.records.former import as_far_as_readable, undelivered
from edge_runtime.sync.records.places import last_common, thinned, went_back
from tests.sync.sync_rig import Line
from tests.sync.test_feeder import Sync

JOURNAL = ("journal.db", "journal.db-wal", "journal.db-shm")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def sync(state: Path, clock: ManualClock) -> Iterator[Sync]:
    made = Sync(state, clock)
    yield made
    made.close()


class Lives:
    """A line that is started again and again; its parts count on."""

    def __init__(self, state: Path, clock: ManualClock) -> None:
        self.state, self.clock, self.made = state, clock, 0
        self.line: Line | None = None

    def start(self) -> None:
        self.clock.advance_ms(5000)
        self.line = Line(self.state, self.clock)
        self.line.made = self.made

    def parts(self, count: int) -> set[int]:
        assert self.line
        self.clock.advance_ms(10)
        numbers = self.line.parts(count)
        self.made = self.line.made
        return set(numbers)

    def kept(self) -> dict[str, bytes]:
        return {name: (self.state / name).read_bytes() for name in JOURNAL[:2] if (self.state / name).exists()}

    def stop(self, files: dict[str, bytes] | None = None) -> None:
        """files: what lies there afterwards, as after a kill or a restored backup."""
        assert self.line
        self.line.stop()
        if files is not None:
            for name in JOURNAL:
                (self.state / name).unlink(missing_ok=True)
            for name, content in files.items():
                (self.state / name).write_bytes(content)


@pytest.fixture
def lives(state: Path, clock: ManualClock) -> Iterator[Lives]:
    made = Lives(state, clock)
    made.start()
    yield made
    made.stop()


def told(sync: Sync) -> set[int]:
    return {record["data"]["part_id"] for record in sync.said("decision")}


def dropped(sync: Sync) -> int:
    return sum(record["data"]["count"] for record in sync.said("drop") if record["data"]["what"] == "part")


def events(sync: Sync) -> list[str]:
    return [record["data"]["event"] for record in sync.said("event") if record["data"]["by"] == "sync"]


@pytest.mark.parametrize("in_place", [True, False], ids=["the same file", "another file"])
@pytest.mark.parametrize(("lost", "new"), [(30, 37), (30, 10), (3, 1), (1, 300)])
def test_after_a_journal_went_back_every_new_part_is_delivered(
    lives: Lives, sync: Sync, in_place: bool, lost: int, new: int
) -> None:
    before = lives.parts(40)
    sync.feed()
    backup = lives.kept()
    before |= lives.parts(lost)
    sync.feed()
    lives.stop(None if in_place else backup)
    if in_place:
        sync.tail.close()  # SQLite shares the open log of one file within a process; `run` is another process
        for name in JOURNAL[1:]:
            (lives.state / name).unlink(missing_ok=True)
        for name, content in backup.items():
            (lives.state / name).write_bytes(content)
    lives.start()
    now = lives.parts(new)
    for _ in range(3):
        sync.feed()
        lives.clock.advance_ms(FORMER_NS / MS)
    assert told(sync) == before | now
    assert "sync.journal_went_back" in events(sync) or "sync.journal_replaced" in events(sync)
    names = {
        (r["journal"], r["data"]["row"], r["data"]["revision"]): r["data"]["part_id"] for r in sync.said("decision")
    }
    said = [(r["journal"], r["data"]["row"], r["data"]["part_id"]) for r in sync.said("decision")]
    assert all(names[journal, row, 0] == part for journal, row, part in said), "one row, one part"


def test_going_back_is_seen_by_a_sync_that_was_away(lives: Lives, clock: ManualClock, state: Path) -> None:
    sync = Sync(state, clock)
    before = lives.parts(40)
    backup = lives.kept()
    before |= lives.parts(10)
    sync.feed()
    sync.close()
    lives.stop(backup)
    lives.start()
    now = lives.parts(25)
    sync = Sync(state, clock)
    sync.feed()
    assert told(sync) == before | now and any(event.startswith("sync.journal_") for event in events(sync))
    sync.close()


def test_an_outbox_that_goes_on_from_the_mark_does_not_read_all_again_when_the_journal_goes_back(
    lives: Lives, clock: ManualClock, state: Path
) -> None:
    """Its places come without prints, as those of the release before do."""
    first = Sync(state, clock)
    lives.parts(400)
    kept = lives.kept()
    lives.parts(10)
    first.feed()
    with first.outbox.transaction():
        first.outbox.settle_span(1, first.outbox.last_seq)
    first.outbox.mark()
    first.close()
    for name in ("outbox.db", "outbox.db-wal", "outbox.db-shm"):
        (state / name).unlink(missing_ok=True)
    second = Sync(state, clock)
    second.feed()
    assert not told(second)
    lives.stop(kept)
    lives.start()
    new = lives.parts(5)
    for _ in range(3):
        second.feed()
        clock.advance_ms(FORMER_NS / MS)
    assert new <= told(second) and len(told(second)) <= len(new) + 20
    assert len(second.said("run")) <= 4
    second.close()


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_flipped_in_the_journals_log_new_parts_are_delivered(lives: Lives, sync: Sync, seed: int) -> None:
    rng = random.Random(seed)
    lives.parts(rng.randrange(10, 200))
    sync.feed()
    read = lives.parts(rng.randrange(0, 60))
    not_read = rng.random() < 0.3
    if not not_read:
        sync.feed()
    files = lives.kept()
    log = bytearray(files[JOURNAL[1]])
    for _ in range(64):
        log[rng.randrange(len(log))] ^= 1 << rng.randrange(8)
    lives.stop(files | {JOURNAL[1]: bytes(log)})
    lives.start()
    now = lives.parts(37)
    for _ in range(3):
        sync.feed()
        lives.clock.advance_ms(FORMER_NS / MS)
    assert now <= told(sync)
    assert read <= told(sync) or not_read, "what was read before stays told"


@pytest.mark.parametrize("is_away", [False, True], ids=["sync runs", "sync was away"])
@pytest.mark.parametrize(("damage", "more"), [("none", 400), ("a page", 400), ("the end", 400), ("a page", 2700)])
def test_what_a_journal_that_is_set_aside_still_holds_is_delivered_and_the_rest_counted(
    lives: Lives, state: Path, clock: ManualClock, damage: str, more: int, is_away: bool
) -> None:
    sync = Sync(state, clock)
    before = lives.parts(300)
    sync.feed()
    if is_away:
        sync.close()
    before |= lives.parts(more)
    lives.stop()
    content = bytearray((state / "journal.db").read_bytes())
    if damage == "none":
        (state / "journal.db").rename(state / "journal.damaged-20260101T000000Z.db")  # as `run` does: it is still whole
    else:
        at = len(content) // 2 // 4096 * 4096 if damage == "a page" else len(content) - 3 * 4096
        content[at : at + 4096] = bytes(4096)
        (state / "journal.damaged-20260101T000000Z.db").write_bytes(content)
        (state / "journal.db").unlink()
    for name in JOURNAL[1:]:
        (state / name).unlink(missing_ok=True)
    lives.start()
    now = lives.parts(20)
    if is_away:
        sync = Sync(state, clock)
    for _ in range(4):
        sync.feed()
        clock.advance_ms(FORMER_NS / MS)
    missing = before - told(sync)
    assert now <= told(sync) and len(missing) <= dropped(sync)
    if damage == "none":
        assert not missing and not dropped(sync)
    assert "sync.journal_replaced" in events(sync)
    sync.close()


def test_parts_that_run_wrote_into_a_deleted_journal_are_delivered(lives: Lives, sync: Sync, state: Path) -> None:
    numbers = lives.parts(20)
    sync.feed()
    away = state.with_name("away")
    away.mkdir()
    for name in JOURNAL:
        if (state / name).exists():
            shutil.move(state / name, away / name)  # still open, under no name that anybody here knows
    numbers |= lives.parts(1)
    assert lives.line
    lives.line.parts(1, ended=False)
    lives.made = lives.line.made
    numbers.add(lives.made)
    sync.feed()
    lives.stop()
    lives.start()
    numbers |= lives.parts(5)
    for _ in range(3):
        sync.feed()
        lives.clock.advance_ms(FORMER_NS / MS)
    assert told(sync) == numbers
    outcomes = {record["data"]["part_id"]: record["data"]["outcome"] for record in sync.said("outcome")}
    is_replaced = "sync.journal_replaced" in events(sync)  # else its writer put the same rows into a new file
    assert set(outcomes) == numbers - {22} | ({22} if is_replaced else set()) and outcomes.get(22) in ("unknown", None)


# -- the rules ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 10**7), min_size=1, max_size=400, unique=True))
def test_prints_grow_sparse_with_age_and_the_newest_stays(rows: list[int]) -> None:
    seen = [(row, str(row)) for row in sorted(rows)]
    kept: list[tuple[int, str]] = []
    for one in seen:
        kept = thinned([*kept, one])
    assert kept[-1] == seen[-1] and len(kept) <= 8 * 26
    assert set(kept) <= set(seen)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 1000), st.integers(1, 600))
def test_the_place_to_go_back_to_is_not_much_too_early(newest: int, step: int) -> None:
    kept: list[tuple[int, str]] = []
    for row in range(step, newest * step, step):
        kept = thinned([*kept, (row, "x")])
    end = kept[-1][0] if kept else 0
    for lost in (1, 10, 100, 1000, 10_000):
        if lost < end:
            found = {row: "x" for row, _ in kept if row <= end - lost}
            assert end - last_common(kept, found) <= 2 * lost + 2 * step


def test_a_row_that_retention_took_proves_nothing() -> None:
    assert not went_back(5, 5, [(5, "a")], {})
    assert went_back(5, 4, [(5, "a")], {})
    assert went_back(5, 9, [(5, "a")], {5: "b"})
    assert not went_back(5, 9, [(5, "a")], {5: "a"})


@given(st.integers(1, 400), st.sets(st.integers(1, 400), max_size=12))
def test_around_damage_every_other_row_is_read(last: int, bad: set[int]) -> None:
    def read(first: int, upto: int) -> list[dict[str, int]]:
        if bad & set(range(first, upto + 1)):
            raise StorageError("damaged")
        return [{"id": row} for row in range(first, upto + 1)]

    rows, unreadable = as_far_as_readable(read, 1, last)
    there = bad & set(range(1, last + 1))
    assert [row["id"] for row in rows] == sorted(set(range(1, last + 1)) - there) and unreadable == len(there)


def test_rows_that_were_never_read_are_counted_by_what_anybody_knows() -> None:
    told = {"last": {"part": 50, "event": 7, "run": "x"}}
    assert undelivered(told, {}, {"part": 40, "event": 7, "run": 1}, 5) == {"part": 15}
    assert undelivered(None, {"part": 44}, {"part": 40}, 0) == {"part": 4}
    assert undelivered(None, {}, {"part": 40}, 0) == {}
