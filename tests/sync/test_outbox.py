"""The outbox file: numbers that are never given twice, damage that is noticed, drops that are counted."""

from __future__ import annotations

import fcntl
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.core.clock import SECOND, ManualClock
from edge_runtime.core.errors import StorageError
from edge_runtime.recording.pruned import ranges
from edge_runtime.recording.wall_clock import WallClock
from edge_runtime.sync.outbox.file import Outbox
from edge_runtime.sync.outbox.lanes import BACKLOG_ROWS, LIVE_FOR_NS, Lanes
from edge_runtime.sync.outbox.mark import Mark, mark_file, read_mark
from edge_runtime.sync.outbox.queue import Waiting
from edge_runtime.sync.outbox.quota import Quota
from edge_runtime.sync.outbox.schema import MIGRATIONS, DamagedRecord
from edge_runtime.sync.records.format import LATER, LIVE, Draft, Kind, RecordFormat, own_event, own_record

WALL = WallClock(ManualClock(), lambda: 1_800_000_000 * SECOND)


def opened(path: Path) -> Outbox:
    outbox = Outbox(path, RecordFormat("box-7"), WALL)
    outbox.open()
    return outbox


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    made = opened(tmp_path / "outbox.db")
    yield made
    made.close()


def add(outbox: Outbox, count: int, kind: Kind = Kind.EVENT, lane: int = LIVE, size: int = 10) -> None:
    with outbox.transaction():
        outbox.add(Draft(kind, 1, 1, "synced", {"event": "x", "detail": "y" * size}, lane=lane) for _ in range(count))


def test_numbers_go_on_where_they_were_even_when_all_was_delivered(tmp_path: Path) -> None:
    outbox = opened(tmp_path / "outbox.db")
    add(outbox, 4)
    with outbox.transaction():
        outbox.settle(range(1, 6))
    epoch = outbox.epoch
    assert outbox.waiting == 0
    outbox.close()
    again = opened(tmp_path / "outbox.db")
    assert (again.epoch, again.last_seq) == (epoch, 5)
    add(again, 1)
    assert [json.loads(record.payload)["seq"] for record in again.backlog(0, 2**62, 10)] == [6]
    again.close()


def test_adding_always_waits_for_the_disk_and_deleting_sometimes(outbox: Outbox) -> None:
    def level() -> int:
        return int(outbox.db.execute("PRAGMA synchronous").fetchone()[0])

    add(outbox, 20)
    seen = []
    for seq in range(1, 9):
        with outbox.deletion():
            outbox.settle([seq])
            seen.append(level())
        assert level() == 2, "FULL again"
    assert seen == [1, 1, 1, 2, 1, 1, 1, 2] and outbox.waiting == 13
    with pytest.raises(ZeroDivisionError), outbox.deletion():
        raise ZeroDivisionError
    assert level() == 2


def test_what_a_failed_transaction_numbered_is_numbered_again(outbox: Outbox) -> None:
    with pytest.raises(ZeroDivisionError), outbox.transaction():
        outbox.add([own_event("x", {}, WALL)])
        raise ZeroDivisionError
    assert (outbox.last_seq, outbox.waiting, outbox.added) == (1, 1, 1)
    add(outbox, 1)
    assert outbox.last_seq == 2


def test_the_first_record_says_what_was_before(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    first = opened(path)
    assert json.loads(first.backlog(0, 9, 9)[0].payload)["data"] == {
        "previous": None,
        "why": "first",
        "aside": None,
        "carried": 0,
    }
    first.mark()
    first.close()
    for file in tmp_path.glob("outbox.db*"):
        file.unlink()
    second = opened(path)
    said = json.loads(second.backlog(0, 9, 9)[0].payload)
    assert (
        said["data"] == {"previous": first.epoch, "why": "lost", "aside": None, "carried": 0}
        and said["epoch"] != first.epoch
    )
    second.close()


@pytest.mark.parametrize("damage", ["all of it", "all but the first page", "half of it"])
def test_a_damaged_outbox_is_set_aside_and_a_new_epoch_begins(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "outbox.db"
    first = opened(path)
    add(first, 3000, size=100)
    first.mark()
    first.close()
    content = bytearray(path.read_bytes())
    if damage == "half of it":
        del content[len(content) // 2 :]
    else:
        begin = 0 if damage == "all of it" else 4096
        content[begin:] = b"\xa5" * (len(content) - begin)
    path.write_bytes(content)
    second = opened(path)
    try:
        add(second, 10)
        records = second.backlog(0, 2**62, 5000)
    except sqlite3.DatabaseError as err:  # the damage lies where opening does not look
        assert second.set_aside_if_damaged(err)
        second.open()
        records = second.backlog(0, 2**62, 5000)
    said = json.loads(records[0].payload)["data"]
    assert said["previous"] == first.epoch and said["why"] == "damaged" and (tmp_path / said["aside"]).is_file()
    second.close()


def test_a_flipped_bit_in_a_record_is_damage(outbox: Outbox, tmp_path: Path) -> None:
    add(outbox, 3)
    with sqlite3.connect(tmp_path / "outbox.db") as db:
        db.execute("UPDATE record SET payload = replace(payload, 'y', 'z') WHERE seq = 3")
    db.close()
    with pytest.raises(DamagedRecord) as caught:
        outbox.backlog(0, 2**62, 10)
    assert outbox.set_aside_if_damaged(caught.value)


def test_an_outbox_of_a_newer_version_is_kept_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    outbox = opened(path)
    assert outbox.aside[0].startswith("outbox.newer-")
    outbox.close()


def test_a_second_sync_is_refused(outbox: Outbox, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from edge_runtime.sync.outbox.file import Outbox\n"
        "try: Outbox(Path(sys.argv[1]), None, None).lock()\n"
        "except Exception as err: print(type(err).__name__, err)"
    )
    said = subprocess.run([sys.executable, "-c", program, outbox.path], capture_output=True, text=True, check=True)
    assert said.stdout.startswith("StorageError") and "another edge-runtime sync" in said.stdout
    with pytest.raises(StorageError):
        opened(outbox.path)


def test_somebody_who_looks_whether_a_sync_runs_keeps_none_from_starting(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "outbox.db"
    looking = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT)
    fcntl.flock(looking, fcntl.LOCK_SH)
    monkeypatch.setattr("edge_runtime.sync.outbox.lock.time.sleep", lambda _: fcntl.flock(looking, fcntl.LOCK_UN))
    opened(path).close()
    os.close(looking)


def test_a_mark_that_makes_no_sense_is_no_mark(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    for content in (
        "",
        "{",
        "[]",
        '{"epoch": "a"}',
        '{"epoch": "a", "journal": "b", "delivered": {"part": "x"}}',
        "null",
    ):
        mark_file(path).write_text(content)
        assert read_mark(path) is None
    mark_file(path).write_text('{"epoch": "a", "journal": "b", "delivered": {"part": 7}}')
    assert read_mark(path) == Mark("a", "b", {"part": 7})


def test_a_full_outbox_gives_up_pictures_then_metrics_and_never_decisions(tmp_path: Path) -> None:
    outbox = opened(tmp_path / "outbox.db")
    quota = Quota(outbox, 1_000_000, WALL)
    add(outbox, 20, Kind.DECISION, size=3000)
    add(outbox, 300, Kind.METRICS, size=3000)
    with outbox.transaction():
        outbox.db.execute("INSERT INTO upload (file, part, verdict) VALUES ('a.jpg', '0007-1', 'reject')")
        outbox.db.execute("INSERT INTO upload (file, part, verdict, asked) VALUES ('b.jpg', '0007-2', 'reject', 1)")
    taken = {22, 23}
    gone = quota.check(taken)
    kinds = [record.kind for record in outbox.backlog(0, 2**62, 1000)]
    assert kinds.count("decision") == 20 and quota.dropped == {"evidence": 1, "metrics": len(gone)}
    assert not gone & taken and {22, 23} <= {record.seq for record in outbox.backlog(0, 2**62, 1000)}
    drops = [json.loads(r.payload)["data"] for r in outbox.backlog(0, 2**62, 1000) if r.kind == "drop"]
    assert [(drop["what"], drop["count"]) for drop in drops] == [("evidence", 1), ("metrics", len(gone))]
    assert drops[0]["names"] == ["a.jpg"] and sum(b - a + 1 for a, b in drops[1]["seqs"]) == len(gone)
    assert not quota.is_full
    assert outbox.waiting == len(kinds) and outbox.last_seq == len(kinds) + len(gone)
    add(outbox, 500, Kind.DECISION, size=3000)
    assert quota.check(taken) == set() and quota.is_full and quota.refuse_metrics()
    with outbox.transaction():
        outbox.settle(range(1, outbox.last_seq + 1))
    assert quota.check(set()) == set() and not quota.is_full
    outbox.close()


@given(st.sets(st.integers(1, 60)))
def test_ranges_hold_the_same_numbers(numbers: set[int]) -> None:
    found = ranges(sorted(numbers))
    assert {n for first, last in found for n in range(first, last + 1)} == numbers
    assert all(later[0] > earlier[1] + 1 for earlier, later in pairwise(found))


# -- lanes -------------------------------------------------------------------------------------------------------------


class Shelf:
    """The two queries over a list in memory, with SQLite's meaning."""

    def __init__(self) -> None:
        self.rows: dict[int, int] = {}  # seq -> lane
        self.newest = 0
        self.lanes = Lanes(self.live, self.backlog)
        self.lanes.restart(0)

    def add(self, lane: int = LIVE) -> int:
        self.newest += 1
        self.rows[self.newest] = lane
        self.lanes.added(self.newest)
        return self.newest

    def live(self, after: int, limit: int) -> list[Waiting]:
        return self._waiting(sorted(s for s, lane in self.rows.items() if s > after and lane == LIVE)[:limit])

    def backlog(self, after: int, live_from: int, limit: int) -> list[Waiting]:
        found = sorted(s for s, lane in self.rows.items() if s > after and (s < live_from or lane == LATER))
        return self._waiting(found[:limit])

    @staticmethod
    def _waiting(seqs: list[int]) -> list[Waiting]:
        return [Waiting(seq, "event", b"{}") for seq in seqs]

    def take(self, now_ns: int = 0) -> int | None:
        record = self.lanes.next(now_ns)
        return record.seq if record else None


def test_what_happens_now_goes_before_what_waits() -> None:
    shelf = Shelf()
    for _ in range(2 * BACKLOG_ROWS):
        shelf.add()
    shelf.lanes.restart(shelf.newest)
    assert [shelf.take(), shelf.take()] == [1, 2]
    now = shelf.add()
    old = shelf.add(LATER)
    assert [shelf.take(), shelf.take()] == [now, 3]
    assert [shelf.take() for _ in range(2 * BACKLOG_ROWS - 2)] == [*range(4, 2 * BACKLOG_ROWS + 1), old]
    assert shelf.take() is None


def test_a_live_lane_that_cannot_keep_up_becomes_backlog() -> None:
    shelf = Shelf()
    seqs = [shelf.add() for _ in range(10)]
    assert shelf.take(0) == seqs[0]
    assert shelf.take(LIVE_FOR_NS + 1) == seqs[1], "backlog by now, still in order"
    newest = shelf.add()
    assert shelf.take(LIVE_FOR_NS + 2) == newest
    assert [shelf.take(LIVE_FOR_NS + 3) for _ in range(9)] == [*seqs[2:], None]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from([LIVE, LATER])),
        st.tuples(st.just("take"), st.integers(0, 3 * LIVE_FOR_NS)),
        st.tuples(st.sampled_from(["settle", "restart", "again", "lose"]), st.integers(0, 5)),
    ),
    max_size=200,
)


@settings(deadline=None)
@given(STEPS)
def test_each_record_is_handed_out_once_until_the_link_is_renewed_and_none_is_forgotten(steps: list) -> None:
    shelf, out, now = Shelf(), set[int](), 0
    for what, value in steps:
        if what == "add":
            shelf.add(value)
        elif what == "take":
            now += value
            seq = shelf.take(now)
            assert seq not in out
            assert seq is not None or set(shelf.rows) == out
            out |= {seq} if seq else set()
        elif what == "settle":
            for seq in sorted(out)[: value + 1]:
                del shelf.rows[seq]
                out.discard(seq)
                shelf.lanes.settled([seq])
        elif what == "lose":  # the consumer did not confirm these: they go again
            some = sorted(out)[: value + 1]
            out -= set(some)
            shelf.lanes.settled(some)
            shelf.lanes.again()
        elif what == "again":
            shelf.lanes.again()
        else:
            out.clear()
            shelf.lanes.restart(shelf.newest)
        assert shelf.lanes.taken == out
    while (seq := shelf.take(now)) is not None:
        assert seq not in out
        out.add(seq)
    assert out == set(shelf.rows)


def test_metrics_are_counted_when_they_are_refused(outbox: Outbox) -> None:
    quota = Quota(outbox, 1, WALL)
    quota.check(set())
    assert quota.is_full and quota.refuse_metrics() and quota.dropped["metrics"] == 1
    with outbox.transaction():
        outbox.add([own_record(Kind.METRICS, {"box": None}, WALL)])
    assert outbox.waiting == 2


def test_nobody_else_knows_the_tables_of_the_outbox() -> None:
    sync = Path(__file__).parents[2] / "edge_runtime" / "sync"
    tables = set(re.findall(r"CREATE TABLE (\w+)", "".join(MIGRATIONS)))
    query = re.compile(rf"(?:FROM|INTO|UPDATE|REPLACE) (?:{'|'.join(tables)})\b")
    files = {file.relative_to(sync): file.read_text() for file in sync.rglob("*.py")}
    users = {file.parts[0] for file, text in files.items() if query.search(text)}
    assert len(tables) == 9 and users == {"outbox"}
    assert not [file for file, text in files.items() if file.parts[0] != "outbox" and "outbox.db." in text]
