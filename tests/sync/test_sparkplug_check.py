"""The checker: a node that keeps the rules has no failed assertion, and each broken rule is named."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spb_proxy import BROKER, NODE, Event
from spb_tally import assertions
from spb_tally import count as count_results

from edge_runtime.sync.sparkplug.board import Tag
from edge_runtime.sync.sparkplug.node import NodeIdentity, Phase, SparkplugNode
from edge_runtime.sync.sparkplug.payload import DataType, Metric, Payload, Property, decode, encode
from tests.sync.sparkplug_tap import GROUP, NAME, Tap, names, reasons, spb_mqtt, spb_payload

TAGS = [Tag("Temperature", DataType.DOUBLE, "degC"), Tag("State", DataType.STRING)]
DEVICES = {
    "line": [Tag("Parts", DataType.INT64), Tag("Degree", DataType.STRING, is_writable=True)],
    "camera": [Tag("Frames", DataType.INT64)],
}
REBIRTH = encode(Payload([Metric("Node Control/Rebirth", True, DataType.BOOLEAN)], 1))
NCMD, STATE = f"spBv1.0/{GROUP}/NCMD/{NAME}", "spBv1.0/STATE/scada"
UNUSED = {"template", "dataset", "host", "servers", "may", "mqtt50"}  # what this node has no part in


def make_node(host: str | None = None, servers: int = 1) -> SparkplugNode:
    return SparkplugNode(NodeIdentity(GROUP, NAME, host, servers), TAGS, DEVICES, seed=1)


def a_day(tap: Tap) -> Tap:
    """Birth, data, a camera lost and found, a rebirth, a cut, an end."""
    parts = count(1)
    tap.sample({"State": "ok", "Temperature": 20.0}, line={"Parts": 0, "Degree": "full"}, camera={"Frames": 0})
    tap.wait_until(Phase.BORN)
    for n in range(300):  # past 255
        camera = None if 100 <= n < 110 else {"Frames": n}
        tap.sample({"Temperature": 20.0 + n}, line={"Parts": next(parts)}, camera=camera)
        if n == 50:
            tap.wait(1.0)
            tap.hear(NCMD, REBIRTH)
        if n == 200:
            tap.cut()
            tap.sample({"Temperature": -1.0}, line={"Parts": next(parts)})
            tap.wait_until(Phase.BORN)
    tap.stop()
    return tap


def a_walk(tap: Tap) -> Tap:
    """The primary host comes, sends a late message, goes; on the other server it is late, then there."""
    tap.sample({"State": "ok"}, line={"Parts": 0}, camera={"Frames": 0})
    tap.wait_until(Phase.WAITING)
    tap.wait(2.0)
    said(tap, True, 1000)
    tap.sample({"Temperature": 1.0}, line={"Parts": 1})
    said(tap, False, 900)
    tap.wait(1.0)
    tap.sample({"Temperature": 2.0}, line={"Parts": 2})
    said(tap, False, 1001)
    tap.wait_until(Phase.WAITING)
    said(tap, False, 1002)
    tap.wait_until(Phase.WAITING)
    said(tap, True, 999)
    tap.wait(1.0)
    said(tap, True, 1003)
    tap.wait_until(Phase.BORN)
    tap.sample({"Temperature": 3.0}, line={"Parts": 3}, camera={"Frames": 3})
    tap.wait(5.0)
    tap.stop()
    return tap


def said(tap: Tap, online: bool, stamp: int) -> None:
    tap.hear(STATE, f'{{"online": {str(online).lower()}, "timestamp": {stamp}}}'.encode(), retained=True)


def test_the_list_is_the_edge_part_of_the_specification() -> None:
    listed = assertions()
    assert len({assertion.name for assertion in listed}) == len(listed) == 201
    known = {"always", "device", "alias", "property", "quality", "dcmd", "mqtt311"} | UNUSED
    assert {assertion.applies for assertion in listed} == known
    assert all(assertion.text.endswith(".") for assertion in listed)


def test_a_day_of_the_products_node_breaks_no_rule_and_leaves_none_untested() -> None:
    results = a_day(Tap(make_node())).results()
    assert reasons(results) == {}
    assert names(results, "not_tested") == set()
    counts = count_results(results)
    assert counts["passed"] > 140
    for result in results:
        is_unused = result.assertion.applies in UNUSED
        assert (result.result == "not_applicable") == is_unused or result.assertion.applies == "may", result


def test_a_walk_between_two_servers_breaks_no_rule_of_the_primary_host() -> None:
    results = a_walk(Tap(make_node("scada", servers=2))).results(host="scada", servers=2)
    assert reasons(results) == {}
    untested = names(results, "not_tested")
    asked = {assertion.name for assertion in assertions() if assertion.applies in ("host", "servers")}
    assert not untested & asked
    assert asked <= names(results, "passed")


def test_mqtt_5_is_judged_by_its_own_rules() -> None:
    passed = names(a_day(Tap(make_node(), level=5)).results(), "passed")
    assert "principles-persistence-clean-session-50" in passed
    assert "payloads-ndeath-will-message-publisher-disconnect-mqtt50" in passed
    assert "principles-persistence-clean-session-311" not in passed


# Broken nodes: one thing changed in what a good one said

Change = Callable[[list[Event]], list[Event]]


def connects(**changes: Any) -> Change:
    def change(events: list[Event]) -> list[Event]:
        return [
            replace(event, what=replace(event.what, **changes)) if isinstance(event.what, spb_mqtt.Connect) else event
            for event in events
        ]

    return change


def will(edit: Callable[[Payload], Payload]) -> Change:
    def change(events: list[Event]) -> list[Event]:
        return [
            replace(event, what=replace(event.what, will_payload=encode(edit(decode(event.what.will_payload)))))
            if isinstance(event.what, spb_mqtt.Connect)
            else event
            for event in events
        ]

    return change


def messages(
    kind: str, edit: Callable[[spb_mqtt.Publish], Any], only: Callable[[int], bool] = lambda n: True
) -> Change:
    """Edit the n-th messages of a kind; None drops, a list puts several in the place of one."""

    def change(events: list[Event]) -> list[Event]:
        changed, n = [], 0
        for event in events:
            what = event.what
            is_meant = (
                isinstance(what, spb_mqtt.Publish) and event.source == NODE and f"/{kind}/".encode() in what.topic
            )
            if is_meant and only(n):
                edited = edit(what)
                edited = edited if isinstance(edited, list) else [edited] if edited else []
                changed += [replace(event, what=packet) for packet in edited]
            else:
                changed.append(event)
            n += is_meant
        return changed

    return change


def payload(kind: str, edit: Callable[[Payload], Payload], only: Callable[[int], bool] = lambda n: True) -> Change:
    is_birth = kind.endswith("BIRTH") or kind == "NDEATH"

    def edit_packet(packet: spb_mqtt.Publish) -> spb_mqtt.Publish:
        read = decode(packet.payload)
        if not is_birth:
            guessed = [replace(m, datatype=m.datatype or _guess(m.value)) for m in read.metrics]
            read = replace(read, metrics=tuple(guessed))
        return replace(packet, payload=encode(edit(read), is_birth=is_birth))

    return messages(kind, edit_packet, only)


def _guess(value: Any) -> DataType | None:
    guesses = {bool: DataType.BOOLEAN, int: DataType.INT64, float: DataType.DOUBLE, str: DataType.STRING}
    return guesses.get(type(value))


def each_metric(**changes: Any) -> Callable[[Payload], Payload]:
    return lambda p: replace(p, metrics=tuple(replace(metric, **changes) for metric in p.metrics))


def metric(which: str, /, **changes: Any) -> Callable[[Payload], Payload]:
    return lambda p: replace(p, metrics=tuple(replace(m, **changes) if m.name == which else m for m in p.metrics))


def without(name: str) -> Callable[[Payload], Payload]:
    return lambda p: replace(p, metrics=tuple(m for m in p.metrics if m.name != name))


def with_type_in_data(packet: spb_mqtt.Publish) -> spb_mqtt.Publish:
    read = decode(packet.payload)
    typed = tuple(replace(m, datatype=_guess(m.value)) for m in read.metrics)
    return replace(packet, payload=encode(replace(read, metrics=typed)))


def drop_disconnect_death(events: list[Event]) -> list[Event]:
    return messages("NDEATH", lambda packet: None)(events)


def subscriptions(filters: tuple[tuple[str, int], ...]) -> Change:
    def change(events: list[Event]) -> list[Event]:
        return [
            replace(event, what=spb_mqtt.Subscribe(filters)) if isinstance(event.what, spb_mqtt.Subscribe) else event
            for event in events
        ]

    return change


def late_subscription(events: list[Event]) -> list[Event]:
    subscribes = [event for event in events if isinstance(event.what, spb_mqtt.Subscribe)]
    return [event for event in events if event not in subscribes] + [
        replace(event, at_s=events[-1].at_s + 1.0) for event in subscribes
    ]


def first(n: int) -> bool:
    return n == 0


def swap_first_birth_and_data(events: list[Event]) -> list[Event]:
    at, data = (
        next(n for n, e in enumerate(events) if isinstance(e.what, spb_mqtt.Publish) and kind in e.what.topic)
        for kind in (b"/NBIRTH/", b"/NDATA/")
    )
    changed = list(events)
    changed.insert(at, replace(changed.pop(data), at_s=events[at].at_s))
    return changed


def second_client(events: list[Event]) -> list[Event]:
    connect = next(e for e in events if isinstance(e.what, spb_mqtt.Connect))
    other = replace(connect, connection=99, what=replace(connect.what, client_id="another"), at_s=connect.at_s + 1.0)
    return [*events, other]


def data_while_rebirth_waits(events: list[Event]) -> list[Event]:
    asked = next(n for n, e in enumerate(events) if e.source == BROKER and isinstance(e.what, spb_mqtt.Publish))
    data = next(e for e in events if isinstance(e.what, spb_mqtt.Publish) and b"/NDATA/" in e.what.topic)
    late = [replace(e, at_s=e.at_s + (2.0 if n > asked else 0.0)) for n, e in enumerate(events)]
    return [*late[: asked + 1], replace(data, at_s=late[asked].at_s + 1.0), *late[asked + 1 :]]


def no_answer_to_rebirth(events: list[Event]) -> list[Event]:
    return messages("NBIRTH", lambda p: None, only=lambda n: n == 1)(events)


BROKEN: list[tuple[str, Change, str]] = [
    ("will with QoS 0", connects(will_qos=0), "payloads-ndeath-will-message-qos"),
    ("will retained", connects(will_retain=True), "payloads-ndeath-will-message-retain"),
    ("no will", connects(will_topic=None), "payloads-ndeath-will-message"),
    ("will to another topic", connects(will_topic="spBv1.0/plant/NDEATH/b"), "topics-ndeath-topic"),
    ("session kept", connects(is_clean=False), "principles-persistence-clean-session-311"),
    ("MQTT 5 session kept", connects(level=5, session_expiry_s=60), "principles-persistence-clean-session-50"),
    ("MQTT 5 plain disconnect", connects(level=5), "payloads-ndeath-will-message-publisher-disconnect-mqtt50"),
    (
        "will that is no payload",
        connects(will_payload=b"{}"),
        "message-flow-edge-node-birth-publish-will-message-payload",
    ),
    ("will with seq", will(lambda p: replace(p, seq=0)), "payloads-ndeath-seq"),
    ("will with two metrics", will(lambda p: replace(p, metrics=(*p.metrics, *p.metrics))), "topics-ndeath-payload"),
    ("bdSeq never counts", will(metric("bdSeq", value=0)), "topics-nbirth-bdseq-increment"),
    (
        "bdSeq of the wrong type",
        will(metric("bdSeq", datatype=DataType.UINT64)),
        "message-flow-edge-node-birth-publish-will-message-payload-bdSeq",
    ),
    ("NCMD with QoS 0", subscriptions(((NCMD, 0),)), "message-flow-edge-node-ncmd-subscribe"),
    ("no NCMD", subscriptions(()), "topics-ncmd-topic"),
    ("NCMD after the birth", late_subscription, "message-flow-edge-node-ncmd-subscribe"),
    (
        "DCMD with QoS 0",
        subscriptions(((NCMD, 1), (f"spBv1.0/{GROUP}/DCMD/{NAME}/line", 0))),
        "message-flow-device-dcmd-subscribe",
    ),
    ("DCMD of all nodes", subscriptions(((NCMD, 1), (f"spBv1.0/{GROUP}/DCMD/+/line", 1))), "topics-dcmd-topic"),
    ("NBIRTH retained", messages("NBIRTH", lambda p: replace(p, retain=True)), "payloads-nbirth-retain"),
    ("NBIRTH with QoS 1", messages("NBIRTH", lambda p: replace(p, qos=1)), "topics-nbirth-mqtt"),
    ("NDATA with QoS 1", messages("NDATA", lambda p: replace(p, qos=1)), "payloads-ndata-qos"),
    ("DDATA retained", messages("DDATA", lambda p: replace(p, retain=True)), "payloads-ddata-retain"),
    ("DBIRTH with QoS 2", messages("DBIRTH", lambda p: replace(p, qos=2)), "payloads-dbirth-qos"),
    ("DDEATH with QoS 1", messages("DDEATH", lambda p: replace(p, qos=1)), "topics-ddeath-mqtt"),
    ("NBIRTH with seq 1", payload("NBIRTH", lambda p: replace(p, seq=1)), "topics-nbirth-seq-num"),
    ("NBIRTH with seq 256", payload("NBIRTH", lambda p: replace(p, seq=256)), "payloads-nbirth-seq"),
    ("NDATA without seq", payload("NDATA", lambda p: replace(p, seq=None)), "payloads-ndata-seq"),
    ("a gap in seq", messages("DDATA", lambda p: None, only=lambda n: n == 7), "payloads-sequence-num-incrementing"),
    ("a message twice", messages("DDATA", lambda p: [p, p], only=lambda n: n == 7), "payloads-ddata-seq-inc"),
    ("seq past 255", payload("NDATA", lambda p: replace(p, seq=256), only=lambda n: n == 130), "topics-ndata-seq-num"),
    ("DDEATH out of order", payload("DDEATH", lambda p: replace(p, seq=3)), "payloads-ddeath-seq-number"),
    ("NBIRTH without time", payload("NBIRTH", lambda p: replace(p, timestamp_ms=None)), "payloads-nbirth-timestamp"),
    ("DDEATH without time", payload("DDEATH", lambda p: replace(p, timestamp_ms=None)), "payloads-ddeath-timestamp"),
    (
        "time in seconds",
        payload("NDATA", lambda p: replace(p, timestamp_ms=1_760_000_000)),
        "payloads-timestamp-in-UTC",
    ),
    ("metric time of tomorrow", payload("NBIRTH", each_metric(timestamp_ms=2**62)), "payloads-metric-timestamp-in-UTC"),
    ("metrics without time", payload("NDATA", each_metric(timestamp_ms=None)), "payloads-name-birth-data-requirement"),
    ("NBIRTH without bdSeq", payload("NBIRTH", without("bdSeq")), "payloads-nbirth-bdseq"),
    ("another bdSeq in NBIRTH", payload("NBIRTH", metric("bdSeq", value=9)), "topics-nbirth-bdseq-matching"),
    (
        "another bdSeq on rebirth",
        payload("NBIRTH", metric("bdSeq", value=9), only=lambda n: n == 1),
        "operational-behavior-data-commands-rebirth-action-3",
    ),
    (
        "no Rebirth metric",
        payload("NBIRTH", without("Node Control/Rebirth")),
        "operational-behavior-data-commands-rebirth-name",
    ),
    (
        "Rebirth is true",
        payload("NBIRTH", metric("Node Control/Rebirth", value=True)),
        "operational-behavior-data-commands-rebirth-value",
    ),
    (
        "Rebirth is a number",
        payload("NBIRTH", metric("Node Control/Rebirth", datatype=DataType.INT32, value=0)),
        "operational-behavior-data-commands-rebirth-datatype",
    ),
    (
        "Rebirth has an alias",
        payload("NBIRTH", metric("Node Control/Rebirth", alias=77)),
        "operational-behavior-data-commands-rebirth-name-aliases",
    ),
    ("a metric without name", payload("NBIRTH", metric("State", name=None)), "topics-nbirth-metrics"),
    ("a metric missing in NBIRTH", payload("NBIRTH", without("Temperature")), "topics-nbirth-metric-reqs"),
    ("a metric missing in DBIRTH", payload("DBIRTH", without("Parts")), "operational-behavior-data-publish-dbirth"),
    (
        "names that differ in case",
        payload("NBIRTH", metric("State", name="TEMPERATURE")),
        "case-sensitivity-metric-names",
    ),
    ("an alias twice", payload("DBIRTH", metric("Parts", alias=1)), "payloads-alias-uniqueness"),
    ("names in data", payload("NDATA", each_metric(name="Temperature")), "payloads-alias-data-cmd-requirement"),
    ("types in data", messages("NDATA", with_type_in_data), "payloads-metric-datatype-not-req"),
    (
        "quality of another type",
        payload("NBIRTH", each_metric(properties={"Quality": Property(DataType.INT64, 192)})),
        "payloads-propertyset-quality-value-type",
    ),
    (
        "quality that nobody knows",
        payload("NBIRTH", each_metric(properties={"Quality": Property(DataType.INT32, 3)})),
        "payloads-propertyset-quality-value-value",
    ),
    (
        "data that did not change",
        messages("NDATA", lambda p: [p, p], only=lambda n: n == 3),
        "principles-rbe-recommended",
    ),
    (
        "data older than before",
        payload("NDATA", each_metric(timestamp_ms=1_750_000_000_000), only=lambda n: n == 9),
        "operational-behavior-data-publish-nbirth-order",
    ),
    ("data before birth", swap_first_birth_and_data, "principles-birth-certificates-order"),
    ("no node birth", messages("NBIRTH", lambda p: None, only=first), "message-flow-device-birth-publish-nbirth-wait"),
    ("data of an unborn device", messages("DBIRTH", lambda p: None), "payloads-ddata-order"),
    (
        "a device not born again",
        messages("DBIRTH", lambda p: None, only=lambda n: n in (2, 3)),
        "payloads-ndata-order",
    ),
    (
        "no device in the rebirth",
        messages("DBIRTH", lambda p: None, only=lambda n: n in (2, 3)),
        "operational-behavior-data-commands-rebirth-action-2",
    ),
    (
        "data of a dead device",
        messages("DBIRTH", lambda p: None, only=lambda n: n == 4),
        "operational-behavior-device-ddeath",
    ),
    ("a device back without death", messages("DDEATH", lambda p: None), "topic-structure-namespace-unique-device-id"),
    ("a device born late", messages("DDEATH", lambda p: None), "payloads-dbirth-order"),
    ("no NDEATH at the end", drop_disconnect_death, "operational-behavior-edge-node-intentional-disconnect-ndeath"),
    ("NDEATH of another session", payload("NDEATH", metric("bdSeq", value=200)), "payloads-ndeath-bdseq"),
    ("a rebirth ignored", data_while_rebirth_waits, "operational-behavior-data-commands-rebirth-action-1"),
    (
        "a topic of four levels for a device",
        messages("DDATA", lambda p: replace(p, topic=p.topic[:-5])),
        "topics-ddata-topic",
    ),
    (
        "a node topic with a device",
        messages("NDATA", lambda p: replace(p, topic=p.topic + b"/x")),
        "topic-structure-namespace-device-id-non-associated-message-types",
    ),
    (
        "another namespace",
        messages("NDATA", lambda p: replace(p, topic=p.topic.replace(b"spBv1.0", b"spBv3.0"))),
        "topic-structure-namespace-a",
    ),
    ("a type that is none", messages("NDATA", lambda p: replace(p, topic=p.topic + b"/DATA/x")), "topic-structure"),
    (
        "ids that are not UTF-8",
        messages("DDATA", lambda p: replace(p, topic=p.topic + b"\xff")),
        "intro-device-id-string",
    ),
    ("a plus in the device", messages("DDATA", lambda p: replace(p, topic=p.topic + b"+")), "intro-device-id-chars"),
    ("two clients of one name", second_client, "intro-edge-node-id-uniqueness"),
    (
        "an NBIRTH that is no payload",
        messages("NBIRTH", lambda p: replace(p, payload=b"\xff")),
        "message-flow-edge-node-birth-publish-nbirth-payload",
    ),
]


@pytest.fixture(scope="module")
def good_day() -> Tap:
    return a_day(Tap(make_node()))


@pytest.mark.parametrize(("change", "broken"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_broken_rule_is_named(good_day: Tap, change: Change, broken: str) -> None:
    assert broken in names(good_day.results(change(good_day.events)), "failed")


def hold_death(events: list[Event]) -> list[Event]:
    return messages("NDEATH", lambda p: None)(events)


def states(edit: Callable[[bytes], bytes]) -> Change:
    def change(events: list[Event]) -> list[Event]:
        return [
            replace(event, what=replace(event.what, payload=edit(event.what.payload)))
            if event.source == BROKER and isinstance(event.what, spb_mqtt.Publish)
            else event
            for event in events
        ]

    return change


HOST_BROKEN: list[tuple[str, Change, str]] = [
    (
        "born while offline",
        states(lambda p: p.replace(b"true", b"false")),
        "message-flow-edge-node-birth-publish-phid-wait",
    ),
    (
        "born on a late message",
        states(lambda p: p.replace(b"1003", b"998")),
        "message-flow-edge-node-birth-publish-phid-wait-timestamp",
    ),
    ("STATE not asked for", subscriptions(((NCMD, 1),)), "message-flow-edge-node-birth-publish-phid-wait-id"),
    ("no death when the host leaves", hold_death, "message-flow-edge-node-birth-publish-phid-offline"),
    (
        "left on a late message",
        states(lambda p: p.replace(b"1001", b"901")),
        "operational-behavior-edge-node-termination-host-offline-timestamp",
    ),
    (
        "back to the same server",
        lambda events: [replace(event, server=0) for event in events],
        "operational-behavior-primary-application-state-with-multiple-servers-walk",
    ),
    (
        "two servers at a time",
        lambda events: [event for event in events if event.what != "closed"],
        "operational-behavior-primary-application-state-with-multiple-servers-single-server",
    ),
]


@pytest.mark.parametrize(("change", "broken"), [row[1:] for row in HOST_BROKEN], ids=[row[0] for row in HOST_BROKEN])
def test_a_broken_rule_of_the_primary_host_is_named(change: Change, broken: str) -> None:
    tap = a_walk(Tap(make_node("scada", servers=2)))
    assert broken in names(tap.results(change(tap.events), host="scada", servers=2), "failed")


# Bytes


@given(st.lists(st.tuples(st.sampled_from([0x10, 0x30, 0x32, 0x82, 0xE0]), st.binary(max_size=300))), st.data())
def test_packets_come_out_whole_however_the_bytes_are_split(sent: list[tuple[int, bytes]], data: st.DataObject) -> None:
    stream = b"".join(spb_mqtt._packet(first_byte, body) for first_byte, body in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    cutter, found = spb_mqtt.Cutter(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += cutter.feed(stream[start:end])
    assert found == sent


@given(st.integers(0, 255), st.binary(max_size=60), st.sampled_from([4, 5]))
def test_any_packet_is_read_or_refused(first_byte: int, body: bytes, level: int) -> None:
    with contextlib.suppress(spb_mqtt.MqttError):
        spb_mqtt.read(first_byte, body, level)


@given(st.binary(max_size=100))
def test_any_payload_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(spb_payload.PayloadError):
        spb_payload.read(body)
