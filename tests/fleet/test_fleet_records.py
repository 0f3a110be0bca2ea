"""What the consumer makes of a message, whatever is in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fleet_records import BoxState, Delivery, Name, Record, SetAside, read, read_subject
from fleet_store import Ack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runtime.sync.outbox.consumer_acks import parse_ack
from tests.fleet.fleet_rig import EPOCH, NOW, message, payload, state

SUBJECT = "edge.north.line-2.box-7.rec"


def test_a_record_is_read_with_its_name_and_its_place() -> None:
    found = message(seq=4711, data={"score": 0.93, "verdict": "reject"})
    assert isinstance(found, Record)
    assert found.name == Name("box-7", EPOCH, 4711)
    assert (found.place.site, found.place.line) == ("north", "line-2")
    assert (found.verdict, found.score, found.part_row) == ("reject", 0.93, 4711)


def test_a_dot_in_a_name_survives_the_way_through_nats() -> None:
    place, leaf = read_subject("edge.north.line//2.box//7//a.rec")
    assert (place.line, place.box, leaf) == ("line.2", "box.7.a", "rec")
    assert place.topic("ack") == "edge/north/line.2/box.7.a/ack"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"box": "box-8"}, "another box"),
        ({"epoch": "not hex"}, "epoch"),
        ({"epoch": 5}, "epoch"),
        ({"seq": 0}, "seq"),
        ({"seq": True}, "seq"),
        ({"seq": 2**70}, "seq"),
    ],
)
def test_a_record_without_a_good_name_is_set_aside_without_one(wrong: dict[str, Any], reason: str) -> None:
    found = read(Delivery(SUBJECT, json.dumps(json.loads(payload()) | wrong).encode(), NOW))
    assert isinstance(found, SetAside)
    assert reason in found.reason
    assert found.name is None


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"schema": "edge-runtime/record/9"}, "schema"),
        ({"time": "yesterday"}, "time"),
        ({"monotonic_ns": 1.5}, "monotonic_ns"),
        ({"run": 2**63}, "run"),
        ({"model": "\ud800"}, "half a character"),
        ({"journal": "a\x00b"}, "NUL"),
        ({"data": {"score": "high"}}, "score"),
        ({"data": [1]}, "data"),
    ],
)
def test_a_record_that_makes_no_sense_keeps_its_name(wrong: dict[str, Any], reason: str) -> None:
    found = read(Delivery(SUBJECT, json.dumps(json.loads(payload()) | wrong).encode(), NOW))
    assert isinstance(found, SetAside)
    assert reason in found.reason
    assert found.name == Name("box-7", EPOCH, 1)


@pytest.mark.parametrize("bad", [b"", b"\xff", b"[]", b"{", b"[" * 100_000, b'{"box": NaN}', b"1" * 5000])
def test_what_is_no_object_is_set_aside(bad: bytes) -> None:
    assert isinstance(read(Delivery(SUBJECT, bad, NOW)), SetAside)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.text() | st.just("edge.a.b.c.rec"),
    st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(list(json.loads(payload()))), inner),
    ).map(lambda value: json.dumps(value).encode()),
)
def test_no_message_whatever_raises(subject: str, body: bytes) -> None:
    assert isinstance(read(Delivery(subject, body, NOW)), Record | BoxState | SetAside)


def test_a_drop_record_gives_up_only_what_came_before_it() -> None:
    found = message(seq=10, kind="drop", data={"seqs": [[2, 4], [9, 7], [8, 10], ["a", 1], [0, 1], 5]})
    assert isinstance(found, Record)
    assert found.dropped == [(2, 4)]


def test_a_state_is_read_and_a_foreign_one_set_aside() -> None:
    assert isinstance(state("box-7", "offline", why="link lost"), BoxState)
    assert isinstance(state("box-7", "asleep"), SetAside)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sets(st.integers(1, 400)))
def test_an_ack_says_to_the_box_exactly_what_is_safe(safe: set[int]) -> None:
    from edge_runtime.recording.pruned import ranges

    found = Ack(read_subject(SUBJECT)[0], EPOCH, ranges(sorted(safe))).payload()
    spans = parse_ack(found, EPOCH, 400)
    assert {seq for first, last in spans for seq in range(first, last + 1)} == safe


def test_an_ack_with_too_many_ranges_says_the_oldest() -> None:
    spans = [(n, n) for n in range(1, 5001, 2)]
    assert len(parse_ack(Ack(read_subject(SUBJECT)[0], EPOCH, spans).payload(), EPOCH, 5000)) == 1001
