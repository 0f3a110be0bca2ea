"""Records in a real PostgreSQL: once, in any order, from any number of writers; bad ones beside them."""

from __future__ import annotations

import asyncio
import json

from fleet_records import Delivery, read
from fleet_store import connect, recent_acks, store

from tests.fleet.fleet_rig import EPOCH, NOW, ago, ask, message, payload, state, write


def test_a_batch_that_comes_twice_is_stored_once(dsn: str) -> None:
    batch = [message(seq=n) for n in (1, 2, 3, 5)]
    first, second = asyncio.run(write(dsn, batch, [*batch, message(seq=4, again=True)]))
    assert (first.counts["records"], second.counts["records"], second.counts["repeated"]) == (4, 1, 4)
    assert json.loads(first.acks[0].payload()) == {"epoch": EPOCH, "seq": 3, "ranges": [[5, 5]]}
    assert json.loads(second.acks[0].payload()) == {"epoch": EPOCH, "seq": 5, "ranges": []}
    assert ask(dsn, "SELECT count(*), max(seq) FROM record") == [(5, 5)]


def test_a_record_twice_in_one_batch_is_stored_once_and_who_repeated_it_is_known(dsn: str) -> None:
    (stored,) = asyncio.run(write(dsn, [message(), message(), message(again=True)]))
    assert (stored.counts["records"], stored.counts["repeated"], stored.counts["redelivered"]) == (1, 1, 1)
    assert ask(dsn, "SELECT repeated, redelivered FROM epoch") == [(1, 1)]


def test_parallel_writers_of_overlapping_batches_agree(dsn: str) -> None:
    async def all_at_once() -> None:
        batches = [
            [message(f"box-{box}", seq) for seq in range(k, k + 60) for box in range(8)] for k in range(1, 90, 10)
        ]
        await asyncio.gather(*(write(dsn, batch, batch[::-1]) for batch in batches))

    asyncio.run(all_at_once())
    assert ask(dsn, "SELECT count(*) FROM record") == [(8 * 140,)]
    assert set(ask(dsn, "SELECT received::text FROM epoch")) == {("{[1,141)}",)}


def test_a_message_the_database_refuses_is_set_aside_and_blocks_nobody(dsn: str) -> None:
    bad = message(seq=3, data={"label": "a\x00b"})
    (stored,) = asyncio.run(write(dsn, [message(seq=1), message(seq=2), bad, message(seq=4)]))
    assert (stored.counts["records"], stored.counts["set_aside"]) == (3, 1)
    assert max(json.loads(ack.payload())["seq"] for ack in stored.acks) == 4, "the box may delete what was set aside"
    ((seq, reason),) = ask(dsn, "SELECT seq, reason FROM set_aside")
    assert seq == 3
    assert "refuses" in reason


def test_the_same_bad_message_again_only_counts(dsn: str) -> None:
    bad = read(Delivery("edge.north.line-2.box-7.rec", b"{", NOW))
    asyncio.run(write(dsn, [bad], [bad, bad]))
    assert ask(dsn, "SELECT times, payload FROM set_aside") == [(3, b"{")]


def test_a_name_that_stands_for_something_else_is_set_aside(dsn: str) -> None:
    asyncio.run(write(dsn, [message(seq=1)], [message(seq=1, data={"score": 0.99})]))
    assert ask(dsn, "SELECT score FROM record") == [(0.3,)]
    ((reason,),) = ask(dsn, "SELECT reason FROM set_aside")
    assert "another record has this name" in reason


def test_numbers_that_a_box_gave_up_are_acknowledged_and_no_hole(dsn: str) -> None:
    drop = message(seq=5, kind="drop", data={"seqs": [[2, 3]]})
    (stored,) = asyncio.run(write(dsn, [message(seq=1), message(seq=7), drop]))
    assert json.loads(stored.acks[0].payload()) == {"epoch": EPOCH, "seq": 3, "ranges": [[5, 5], [7, 7]]}
    assert ask(dsn, "SELECT first, last, missing FROM hole ORDER BY first") == [(4, 4, 1), (6, 6, 1)]


def test_the_epoch_that_was_heard_last_is_acknowledged_last(dsn: str) -> None:
    batch = [
        message(epoch="aa", heard_at=ago(1)),
        message(epoch="0f", heard_at=ago(0)),
        message(epoch="bb", heard_at=ago(9)),
    ]
    (stored,) = asyncio.run(write(dsn, batch))
    assert [ack.epoch for ack in stored.acks] == ["bb", "aa", "0f"]


def test_a_new_consumer_says_again_what_an_old_one_may_not_have_said(dsn: str) -> None:
    async def ask_recent() -> list[str]:
        connection = await connect(dsn)
        await store(connection, [])
        acks = await recent_acks(connection)
        await connection.close()
        return [ack.place.topic("ack") for ack in acks]

    asyncio.run(write(dsn, [message("box-7"), message("old", heard_at=ago(7200))]))
    assert asyncio.run(ask_recent()) == ["edge/north/line-2/box-7/ack"]


def test_an_older_state_does_not_replace_a_newer_one(dsn: str) -> None:
    asyncio.run(write(dsn, [state("box-7", "online", ago(1))], [state("box-7", "offline", ago(5))]))
    assert ask(dsn, "SELECT state FROM box") == [("online",)]


def test_what_is_stored_is_what_was_sent(dsn: str) -> None:
    asyncio.run(write(dsn, [message(seq=9, data={"reason": "scratch 0.93 ≥ 0.80"})]))
    sent = json.loads(payload(seq=9, data={"reason": "scratch 0.93 ≥ 0.80"}))
    assert ask(dsn, "SELECT data, kind, run, journal FROM record") == [(sent["data"], "decision", 1, sent["journal"])]
