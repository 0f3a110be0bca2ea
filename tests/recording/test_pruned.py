"""What retention takes is written down by number, so that a sync that was away for long says what it never read."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.recording.pruned import TABLE, count_pruned, note_pruned
from edge_runtime.recording.wall_clock import WallClock
from edge_runtime.sync.outbox.file import Outbox
from edge_runtime.sync.records import slices as slices_module
from edge_runtime.sync.records.feeder import Feeder
from edge_runtime.sync.records.format import RecordFormat
from edge_runtime.sync.records.journal import JournalTail
from tests.recording.clock_world import DAY, HOUR, World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(tmp_path, monkeypatch)
    yield world
    world.close()


class Reader:
    """A sync without a link, that reads when it is told to."""

    def __init__(self, world: World) -> None:
        wall = WallClock(world.clock, world.utc_ns)
        self.outbox = Outbox(world.folder / "outbox.db", RecordFormat("box-7"), wall)
        self.outbox.open()
        self._feeder = Feeder(self.outbox, JournalTail(world.state / "journal.db", world.clock), wall)

    def read(self) -> None:
        while (batch := self._feeder.look(may_catch_up=True)) is not None:
            with self.outbox.transaction():
                self._feeder.commit(batch)
            self._feeder.committed(batch)

    def data(self, kind: str) -> list[dict[str, Any]]:
        records = [json.loads(record.payload) for record in self.outbox.backlog(0, 2**62, 10**6)]
        return [record["data"] for record in records if record["kind"] == kind]

    def dropped(self, what: str) -> int:
        return sum(
            drop["count"] for drop in self.data("drop") if (drop["what"], drop["why"]) == (what, "journal_retention")
        )


@pytest.mark.parametrize("jump_from", [10, 10_000], ids=["read later", "read as it comes"])
@pytest.mark.parametrize("seed", range(4))
def test_rows_taken_unread_are_counted_whatever_is_held_back_before_and_between_them(
    world: World, monkeypatch: pytest.MonkeyPatch, seed: int, jump_from: int
) -> None:
    monkeypatch.setattr(slices_module, "JUMP_FROM", jump_from)
    monkeypatch.setattr(slices_module, "SLICE", 7)
    dice, reader = random.Random(seed), Reader(world)
    world.wall_off_ns = 3 * DAY  # these are held back by their dates, and were read
    world.live(12 * HOUR, step_ns=HOUR)
    reader.read()
    (newest_read,) = world._rows("SELECT max(id) FROM part")[0]
    for _ in range(6):
        world.wall_off_ns = dice.choice((0, 2, 3)) * DAY
        world.live(8 * HOUR, step_ns=HOUR)
    world.wall_off_ns = 0
    world.live(5 * DAY, step_ns=2 * HOUR)
    left = {number for (number,) in world._rows("SELECT id FROM part")}
    (newest,) = world._rows("SELECT seq FROM sqlite_sequence WHERE name = 'part'")[0]
    unread = set(range(newest_read + 1, newest + 1))
    assert unread - left and min(left) <= newest_read, "holes behind rows that are still there"
    reader.read()
    assert reader.dropped("part") == len(unread - left)
    reader.read()
    assert reader.dropped("part") == len(unread - left)
    reader.outbox.close()


@given(st.lists(st.sets(st.integers(1, 60), max_size=20), max_size=12), st.integers(1, 60), st.integers(1, 60))
def test_each_number_that_was_taken_counts_once(passes: list[set[int]], first: int, last: int) -> None:
    with sqlite3.connect(":memory:") as db:
        assert count_pruned(db, "part", first, last) == 0, "a journal of a release before"
        db.execute(TABLE)
        gone: set[int] = set()
        for rows in passes:
            note_pruned(db, "part", sorted(rows - gone))
            note_pruned(db, "event", sorted(rows - gone))
            gone |= rows
        assert count_pruned(db, "part", first, last) == len([number for number in gone if first <= number <= last])
        spans = db.execute("SELECT first, last FROM pruned WHERE name = 'part' ORDER BY first").fetchall()
        assert all(one[1] + 1 < other[0] for one, other in pairwise(spans)), "as few as can be"
    db.close()
