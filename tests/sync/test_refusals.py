"""Records that a broker does not take: set aside, counted and told, while the rest flows; and nothing is where all are
refused, or where the network is to blame."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.core.clock import MS, SECOND, monotonic_ns
from edge_runtime.flow.components import State
from edge_runtime.recording.wall_clock import WallClock
from edge_runtime.sync.delivery import Delivery
from edge_runtime.sync.mqtt.reasons import LOST_WITH_IT, TOO_LARGE_HERE, About, about, in_words, publish_bytes
from edge_runtime.sync.outbox.doubts import BAD_FROM, ENOUGH, Doubts
from edge_runtime.sync.outbox.file import Outbox
from edge_runtime.sync.outbox.schema import OUTBOX
from edge_runtime.sync.outbox.status import spool_status
from edge_runtime.sync.records.format import RecordFormat, own_event
from tests.support.waiting import until
from tests.sync.stub_broker import HANG_UP, SILENT, Rules, StubBroker
from tests.sync.sync_rig import BASE, Broker, Consumer, Line, Proxy, config

START = Callable[..., Delivery]
WALL = WallClock(monotonic_ns)
COUNT = 40
MESSAGE_CODES = (0x95, 0x99)
OTHER_CODES = (0x80, 0x83, 0x87, 0x90, 0xA3, 0xFF)
MOMENTS = (0x89, 0x96, 0x97)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_runtime.sync.outbox.doubts.FIRST_NS", 30 * MS)
    monkeypatch.setattr("edge_runtime.sync.mqtt.read_back.SHOW_WAIT_NS", SECOND // 3)


@pytest.fixture
def stub(closing: ExitStack) -> Callable[[Rules], StubBroker]:
    def make(rules: Rules) -> StubBroker:
        made = StubBroker(rules)
        closing.callback(made.close)
        return made

    return make


@pytest.fixture
def fill(state: Path) -> Callable[..., None]:
    """So many records wait; `pads` gives some of them a size of their own, by their number."""

    def fill(count: int = COUNT, pads: dict[int, int] | None = None) -> None:
        outbox = Outbox(state / OUTBOX, RecordFormat("box-7"), WALL)
        outbox.open()
        first = outbox.last_seq + 1  # after the epoch's own record
        with outbox.transaction():
            outbox.add(
                own_event("x", {"n": seq, "pad": "x" * (pads or {}).get(seq, 20)}, WALL)
                for seq in range(first, count + 1)
            )
        outbox.close()

    return fill


def seq_of(payload: bytes) -> int:
    return int(json.loads(payload)["seq"])


def refusing(bad: set[int], code: int) -> Rules:
    return Rules(answer=lambda topic, p: code if topic.endswith("/rec") and seq_of(p) in bad else 0)


@pytest.mark.parametrize("code", [*MESSAGE_CODES, *OTHER_CODES], ids=hex)
def test_a_record_that_is_refused_by_whatever_code_is_set_aside_and_the_rest_flows(
    stub: Callable[[Rules], StubBroker],
    fill: Callable[..., None],
    start_sync: START,
    line: Line,
    state: Path,
    code: int,
) -> None:
    fill()
    broker = stub(refusing({7}, code))
    sync = start_sync(broker.port, protocol="5")
    until(lambda: broker.seqs() >= set(range(1, COUNT + 1)) - {7})
    if about(code) is About.WAY:  # it takes others between two refusals to know that it is not the way
        for _ in range(6):
            assert sync.post("go.on", {}, wait_s=10)
            until(lambda: sync.outbox.waiting <= 1 or spool_status(state)["aside"]["refused"])
    until(lambda: spool_status(state)["aside"]["refused"] == 1 or sync.post("go.on", {}, wait_s=1) is None)
    aside = spool_status(state)["aside"]
    assert aside["reasons"] == {in_words(code): 1}
    assert broker.tries(7) <= 4 and len(broker.connects) == 1
    assert sync.health().state is State.DEGRADED and "1 records are set aside" in sync.health().detail
    told = until(lambda: [r for r in broker.records() if r["data"].get("event") == "uplink.set_aside"])
    assert told[0]["data"]["detail"] == {"count": 1, "why": in_words(code), "seqs": [[7, 7]]}
    broker.rules = Rules()
    assert sync.retry() == 1
    until(lambda: 7 in broker.seqs())
    until(lambda: "set aside" not in sync.health().detail)
    assert spool_status(state)["aside"]["refused"] == 0


@pytest.mark.parametrize(
    ("protocol", "answer", "bad"),
    [
        ("5", 0x99, {1}),
        ("5", 0x99, {2, 3, 4}),
        ("5", 0x95, {9, 20, COUNT}),
        ("5", HANG_UP, {9, 20}),
        ("5", HANG_UP, {COUNT}),
        ("3.1.1", HANG_UP, {1}),
        ("3.1.1", HANG_UP, {2, 3}),
    ],
    ids=str,
)
def test_wherever_bad_records_stand_the_rest_flows_without_a_storm(
    stub: Callable[[Rules], StubBroker],
    fill: Callable[..., None],
    start_sync: START,
    state: Path,
    protocol: str,
    answer: int,
    bad: set[int],
) -> None:
    fill()
    broker = stub(refusing(bad, answer))
    sync = start_sync(broker.port, protocol=protocol)
    until(lambda: spool_status(state)["aside"]["refused"] == len(bad))
    until(lambda: broker.seqs() >= set(range(1, COUNT + 1)) - bad)
    assert not broker.seqs() & bad
    until(lambda: sync.outbox.waiting == 0)
    assert len(broker.connects) <= (1 if answer > 0 else 2 + 8 * len(bad))
    assert sync.report()["link"]["takeovers"] == 0
    numbers = [seq for (seq,) in Outbox_rows(state)]
    assert numbers == sorted(bad)


def Outbox_rows(state: Path) -> list[tuple[int]]:
    import sqlite3

    with sqlite3.connect(state / OUTBOX) as db:
        found = db.execute("SELECT seq FROM aside ORDER BY seq").fetchall()
    db.close()
    return found


@pytest.mark.parametrize("code", [0x87, 0x99, 0x97, 0x80], ids=hex)
def test_where_all_are_refused_none_is_set_aside_and_few_are_tried(
    stub: Callable[[Rules], StubBroker], fill: Callable[..., None], start_sync: START, state: Path, code: int
) -> None:
    fill(300)
    broker = stub(Rules(answer=lambda topic, p: code if topic.endswith("/rec") else 0))
    sync = start_sync(broker.port, protocol="5")
    until(lambda: "refuses all records" in sync.health().detail)
    until(lambda: broker.tries(1) >= 3)
    assert len(broker.connects) == 1, "a refusal does not end the connection"
    assert spool_status(state)["aside"]["refused"] == 0 and sync.outbox.waiting == 300
    assert len({p for _, topic, p in broker.sent if topic.endswith("/rec")}) < 160
    broker.rules = Rules()
    until(lambda: broker.seqs() >= set(range(1, 301)))
    assert spool_status(state)["aside"]["refused"] == 0


@pytest.mark.parametrize("code", MOMENTS, ids=hex)
def test_a_moment_that_is_not_good_is_waited_out(
    stub: Callable[[Rules], StubBroker], fill: Callable[..., None], start_sync: START, state: Path, code: int
) -> None:
    fill()
    broker = stub(Rules())
    broker.rules = Rules(
        answer=lambda t, p: code if t.endswith("/rec") and b'"seq":7,' in p and broker.tries(7) < 4 else 0
    )
    start_sync(broker.port, protocol="5")
    until(lambda: broker.seqs() >= set(range(1, COUNT + 1)))
    assert broker.tries(7) == 4 and spool_status(state)["aside"]["refused"] == 0


def test_a_link_that_breaks_again_and_again_is_no_word_about_any_record(
    mosquitto: Broker,
    consume: Callable[..., Consumer],
    make_proxy: Callable[[int], Proxy],
    fill: Callable[..., None],
    start_sync: START,
    state: Path,
) -> None:
    fill(600)
    consumer, proxy = consume(mosquitto.port), make_proxy(mosquitto.port)
    dice = random.Random(4)
    proxy.cut_after = 20_000
    sync = start_sync(proxy.port, reconnect_max_s=0.1)
    for cuts in range(2, 9, 3):
        until(lambda: proxy.cuts >= cuts or not sync.outbox.waiting)  # noqa: B023
        proxy.cut_after = dice.randrange(6_000, 40_000)
    proxy.cut_after = None
    until(lambda: {seq for _, seq in list(consumer.records)} >= set(range(1, 601)), 20)
    assert spool_status(state)["aside"]["refused"] == 0


def test_a_broker_that_was_deaf_and_hears_again_loses_no_record_to_suspicion(
    stub: Callable[[Rules], StubBroker], fill: Callable[..., None], start_sync: START, state: Path
) -> None:
    fill()
    broker = stub(Rules(answer=lambda topic, p: SILENT if topic.endswith("/rec") else 0))
    start_sync(broker.port, protocol="3.1.1", ack_timeout_s=0.1, reconnect_max_s=0.2)
    until(lambda: len(broker.connects) >= 9)
    broker.rules = Rules()
    until(lambda: broker.seqs() >= set(range(1, COUNT + 1)))
    assert spool_status(state)["aside"]["refused"] == 0


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", ["message_size_limit 2000", "max_packet_size 2000"])
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_real_broker_with_a_limit_gets_all_that_fit(
    make_broker: Callable[..., Broker],
    consume: Callable[..., Consumer],
    fill: Callable[..., None],
    start_sync: START,
    state: Path,
    protocol: str,
    extra: str,
) -> None:
    """Told by PUBACK, by CONNACK, by hanging up, or not at all: four ways to refuse what is too large."""
    fill(pads={5: 1500, 6: 3000, 20: 2400, 33: 1600})
    broker = make_broker(extra=extra)
    consumer = consume(broker.port)
    sync = start_sync(broker.port, protocol=protocol, reconnect_max_s=1.0)
    until(lambda: {seq for _, seq in list(consumer.records)} >= set(range(1, COUNT + 1)) - {6, 20})
    until(lambda: spool_status(state)["aside"]["refused"] == 2, 60)
    assert sync.report()["link"]["connects"] <= 12
    until(lambda: sync.outbox.waiting == 0)
    assert "2 records are set aside" in sync.health().detail


@pytest.mark.parametrize("above", [-1, 0, 1, 2])
def test_the_largest_packet_that_the_broker_names_is_kept_to_the_byte(
    stub: Callable[[Rules], StubBroker], fill: Callable[..., None], start_sync: START, state: Path, above: int
) -> None:
    fill(pads={30: 1000})
    outbox = Outbox(state / OUTBOX, RecordFormat("box-7"), WALL)
    outbox.open()
    record = outbox.record(30)
    outbox.close()
    assert record
    topic = f"{BASE}/rec"
    body = 2 + len(topic) + 2 + 1 + len(record.payload)  # MQTT 5, 3.3: name, packet id, properties, payload
    whole = 1 + 2 + body  # 128 to 16383 bytes: two bytes say how many
    assert publish_bytes(topic, len(record.payload), qos=1, is_mqtt5=True) == whole
    limit = (whole - above).to_bytes(4, "big")
    broker = stub(Rules(connack=b"\x27" + limit))
    start_sync(broker.port, protocol="5")
    until(lambda: broker.seqs() >= set(range(1, COUNT + 1)) - {30})
    if above > 0:
        until(lambda: spool_status(state)["aside"]["reasons"] == {in_words(TOO_LARGE_HERE): 1})
    until(lambda: (broker.tries(30) > 0) is (above <= 0))


def test_a_stations_own_limit_counts_where_the_broker_names_none(
    mosquitto: Broker, consume: Callable[..., Consumer], fill: Callable[..., None], start_sync: START, state: Path
) -> None:
    fill(pads={9: 4000})
    consumer = consume(mosquitto.port)
    start_sync(mosquitto.port, protocol="3.1.1", max_packet_bytes=1200)
    until(lambda: {seq for _, seq in list(consumer.records)} >= set(range(1, COUNT + 1)) - {9})
    until(lambda: spool_status(state)["aside"]["reasons"] == {in_words(TOO_LARGE_HERE): 1})


# -- pure --------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(
    bad=st.dictionaries(st.integers(1, 60), st.sampled_from([0x80, 0x83, 0x95, 0x99, 0xFF]), max_size=6),
    moments=st.sets(st.integers(1, 60), max_size=4),
    window=st.integers(1, 12),
)
def test_bad_ones_alone_are_set_aside_whatever_their_codes_and_places(
    bad: dict[int, int], moments: set[int], window: int
) -> None:
    """60 records through a window; then the line goes on, and each new record is taken."""
    doubts, now, aside, delivered = Doubts(), 0, set[int](), set[int]()
    waiting, under_way = list(range(1, 61)), list[int]()
    busy = dict.fromkeys(moments - set(bad), 3)
    for turn in range(4000):
        now += 20 * MS
        if turn % 25 == 0:
            waiting.append(100 + turn)
        while len(under_way) < window:
            if doubt := doubts.due(now):
                doubts.tried(doubt, now)
                under_way.append(doubt.seq)
            elif waiting and doubts.may_take_more(now):
                under_way.append(waiting.pop(0))
            else:
                break
        for seq in under_way:
            code = bad.get(seq) or (0x97 if busy.get(seq, 0) > 0 else 0)
            busy[seq] = busy.get(seq, 0) - 1
            if not code:
                doubts.acked(seq, now)
                delivered.add(seq)
            elif doubts.refused(seq, code, now):
                aside.add(seq)
        under_way.clear()
    assert aside == set(bad) and delivered >= set(range(1, 61)) - set(bad) and not len(doubts)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 200), st.sampled_from([0x80, 0x87, 0x95, 0x99, LOST_WITH_IT]), st.integers(ENOUGH, 60))
def test_a_way_that_takes_nothing_condemns_nobody_however_good_it_was_before(acks: int, code: int, count: int) -> None:
    doubts, now = Doubts(), 0
    for seq in range(acks):
        now += MS
        doubts.acked(seq, now)
    bad = list(range(1000, 1000 + count))
    condemned = [seq for seq in bad if doubts.refused(seq, code, now)]
    for _ in range(300):
        now += SECOND
        while doubt := doubts.due(now):
            if doubts.refused(doubt.seq, code, now):
                condemned.append(doubt.seq)
    assert not condemned and doubts.is_way_bad and len(doubts) == count
    assert "refuses all records" in doubts.trouble()
    doubts.acked(bad[0], now)
    assert not doubts.is_way_bad and doubts.due(now), "all have another try at once"
    assert BAD_FROM < ENOUGH


def test_tries_become_seldom() -> None:
    doubts, now, tries = Doubts(), 0, 0
    doubts.refused(1, 0x97, now)
    for _ in range(3600):
        now += SECOND
        if doubts.due(now):
            tries += 1
            assert not doubts.refused(1, 0x97, now)
    assert 55 <= tries <= 75


def test_every_code_has_words_and_none_of_a_moment_is_a_strike() -> None:
    for code in [*range(0x80, 0x100), TOO_LARGE_HERE, LOST_WITH_IT]:
        assert in_words(code)
        doubts = Doubts()
        condemned = False
        for turn in range(20):
            doubts.acked(1000 + turn, turn * 100 * SECOND)
            condemned = condemned or doubts.refused(7, code, turn * 100 * SECOND)
        assert condemned is (about(code) is not About.MOMENT), hex(code)
    assert about(0x97) is About.MOMENT and about(0x99) is About.MESSAGE and about(0x87) is About.WAY


def test_what_lies_aside_cannot_be_given_up_and_nothing_is_said_twice(
    state: Path, closing: ExitStack, fill: Callable[..., None]
) -> None:
    """A disk that refuses comes between the commit of what is new and the room for what was refused."""
    fill(3, pads={3: 1_400_000})
    line = Line(state)
    closing.callback(line.stop)
    line.parts(5)
    sync = Delivery(config(state, 1, quota_mb=5))
    closing.callback(sync.link.close)
    sync.outbox.open()
    closing.callback(sync.outbox.close)
    sync._outbox_renewed()
    sync.outbox.db.execute("CREATE TRIGGER full BEFORE DELETE ON aside BEGIN SELECT RAISE(ABORT, 'no room'); END")
    while sync._sender.lanes.next(0):
        pass
    sync._sender.settlement.condemn(3, 0x99)
    sync.post("go.on", {})
    with pytest.raises(sqlite3.Error, match="no room"):
        sync._feed()
    sync.outbox.db.execute("DROP TRIGGER full")
    for _ in range(3):
        sync._feed()
    found = [json.loads(record.payload) for record in sync.outbox.backlog(0, 2**62, 1000)]
    decided = [record["data"]["part_id"] for record in found if record["kind"] == "decision"]
    assert decided == [1, 2, 3, 4, 5]
    assert [record["data"].get("event") for record in found].count("go.on") == 1
    assert sync.report()["sender"]["set_aside"] == 1
