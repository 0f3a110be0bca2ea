"""Proof that a broker keeps what it acknowledges, and what is done where there is none."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.core.clock import SECOND
from edge_runtime.core.errors import StorageError
from edge_runtime.flow.components import State
from edge_runtime.sync.delivery import Delivery
from edge_runtime.sync.mqtt.read_back import SHOW_WAIT_NS, SHOWN, ReadBack, Step, Verdict
from edge_runtime.sync.mqtt.read_back_once import read_back_once
from edge_runtime.sync.mqtt.settings import LinkSettings
from edge_runtime.sync.outbox.status import some_record, spool_status
from tests.support.waiting import until
from tests.sync.stub_broker import HANG_UP, Rules, StubBroker
from tests.sync.sync_rig import BASE, Broker, Line

START = Callable[..., Delivery]
REC = f"{BASE}/rec"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_runtime.sync.mqtt.read_back.SHOW_WAIT_NS", SECOND // 3)
    monkeypatch.setattr("edge_runtime.sync.mqtt.read_back.RETRY_NS", (SECOND, SECOND))
    monkeypatch.setattr("edge_runtime.sync.mqtt.read_back_once.SHOW_WAIT_NS", SECOND // 3)


@pytest.fixture
def stub(closing: ExitStack) -> Callable[[Rules], StubBroker]:
    def make(rules: Rules) -> StubBroker:
        made = StubBroker(rules)
        closing.callback(made.close)
        return made

    return make


def aside(state: Path) -> dict[str, Any]:
    """What lies beside the queue; nothing while the outbox is being made."""
    try:
        return dict(spool_status(state)["aside"])
    except StorageError:
        return {"unproven": 0, "gone": {}}


LIARS = {
    "throws away": Rules(keeps=lambda topic, p: not topic.endswith("/rec")),
    "shows nothing": Rules(shows=lambda topic: False),
    "refuses to show": Rules(grants=lambda topic: 0x80),
    "hangs up when asked": Rules(grants=lambda topic: HANG_UP),
}


@pytest.mark.parametrize("liar", LIARS)
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_nothing_is_claimed_or_deleted_without_proof_and_all_goes_again_with_it(
    stub: Callable[[Rules], StubBroker], line: Line, start_sync: START, state: Path, liar: str, protocol: str
) -> None:
    line.parts(30)
    broker = stub(LIARS[liar])
    sync = start_sync(broker.port, protocol=protocol)
    until(lambda: aside(state)["unproven"] >= 62)
    health = sync.health()
    assert health.state is State.DEGRADED and health.detail.startswith("unproven: the broker takes records by MQTT ")
    assert "access list" in health.detail and "sync.read_back = false" in health.detail
    assert sync.report()["delivered"] == 0 and spool_status(state)["records"] == sync.outbox.waiting
    broker.rules = Rules()
    line.parts(1)
    until(lambda: line.parts(1) and aside(state)["unproven"] == 0)
    until(lambda: {r["data"]["part_id"] for r in broker.records() if r["kind"] == "decision"} >= set(range(1, 32)))
    until(lambda: sync.health().state is State.OK)

    def events() -> set[str]:
        return {record["data"]["event"] for record in broker.records() if record["kind"] == "event"}

    until(lambda: {"uplink.unproven", "uplink.proven"} <= events())


@pytest.mark.parametrize(
    ("acl", "is_proven"),
    [
        ("topic readwrite edge/#\n", True),
        (f"topic readwrite {BASE}/+\n", True),
        (f"topic write {REC}\ntopic write {BASE}/state\n", False),
        (f"topic readwrite {BASE}/state\n", False),
        (f"topic read {REC}\ntopic write {BASE}/state\n", False),
    ],
    ids=["all", "own", "write only", "forgot rec", "read only"],
)
def test_an_access_list_of_a_3_1_1_broker_is_found_out(
    make_broker: Callable[..., Broker], tmp_path: Path, line: Line, start_sync: START, acl: str, is_proven: bool
) -> None:
    file = tmp_path / "acl"
    file.write_text(acl)
    broker = make_broker(extra=f"acl_file {file}")
    line.parts(5)
    sync = start_sync(broker.port, protocol="3.1.1")
    verdict = until(lambda: (now := sync.report()["sender"]["proof"]["verdict"]) != "open" and now)
    assert verdict == ("proven" if is_proven else "unproven")
    if is_proven:
        until(lambda: sync.outbox.waiting == 0 and sync.health().state is State.OK)
    else:  # mosquitto 2.0 hangs up after each that it throws away: some go, all are kept
        assert sync.report()["delivered"] == 0 and "access list" in sync.health().detail


def test_a_broker_by_mqtt_5_that_forbids_writing_says_so_and_everything_waits(
    make_broker: Callable[..., Broker], tmp_path: Path, line: Line, start_sync: START
) -> None:
    file = tmp_path / "acl"
    file.write_text(f"topic readwrite {BASE}/state\n")
    broker = make_broker(extra=f"acl_file {file}")
    line.parts(30)
    sync = start_sync(broker.port, protocol="5")
    until(lambda: "not authorized (0x87)" in sync.health().detail)
    until(lambda: sync.outbox.waiting >= 62)
    assert sync.report()["aside"] == {"refused": 0, "unproven": 0, "gone": {}} and sync.report()["delivered"] == 0


def test_a_site_that_takes_the_brokers_word_says_so_in_its_file_and_is_well(
    stub: Callable[[Rules], StubBroker], line: Line, start_sync: START
) -> None:
    line.parts(5)
    broker = stub(Rules(grants=lambda topic: 0x80))
    sync = start_sync(broker.port, protocol="3.1.1", read_back=False)
    assert sync.flush(10)
    until(lambda: sync.health().state is State.OK)
    assert sync.report()["sender"]["proof"]["verdict"] == "off"


def test_records_that_are_kept_without_proof_find_their_way_after_a_restart(
    stub: Callable[[Rules], StubBroker], line: Line, start_sync: START, state: Path
) -> None:
    line.parts(10)
    broker = stub(LIARS["throws away"])
    first = start_sync(broker.port, protocol="3.1.1")
    until(lambda: aside(state)["unproven"] >= 22)
    first.stop()
    broker.rules = Rules()
    line.parts(1)
    start_sync(broker.port, protocol="3.1.1")
    until(lambda: {r["data"]["part_id"] for r in broker.records() if r["kind"] == "outcome"} == set(range(1, 12)))
    until(lambda: aside(state)["unproven"] == 0)


def test_what_was_proven_is_proven_again_with_each_connection(
    stub: Callable[[Rules], StubBroker], line: Line, start_sync: START, state: Path
) -> None:
    """An access list is changed, and the broker started anew."""
    line.parts(5)
    broker = stub(Rules())
    sync = start_sync(broker.port, protocol="3.1.1", reconnect_max_s=0.2)
    until(lambda: sync.report()["sender"]["proof"]["verdict"] == "proven" and not sync.outbox.waiting)
    broker.rules = Rules(keeps=lambda topic, p: False)
    sync.link.renew("a restart")
    line.parts(5)
    until(lambda: sync.report()["sender"]["proof"]["verdict"] == "unproven")
    until(lambda: aside(state)["unproven"] >= 10)
    assert sync.report()["delivered"] + aside(state)["unproven"] >= 22


def test_the_room_for_what_is_not_proven_is_bounded_and_what_goes_is_counted(
    stub: Callable[[Rules], StubBroker], line: Line, start_sync: START, state: Path
) -> None:
    broker = stub(LIARS["throws away"])
    line.parts(1500)
    sync = start_sync(broker.port, protocol="3.1.1", quota_mb=5)
    until(lambda: aside(state)["gone"].get("unproven", 0) > 0)

    def kept_and_gone() -> int:
        found = aside(state)
        return int(found["unproven"] + found["gone"]["unproven"])

    until(lambda: sync.outbox.last_seq > 3000 and kept_and_gone() == sync.outbox.last_seq)
    assert not sync.report()["full"]
    broker.rules = Rules()
    sync.link.renew("the list is mended")
    until(lambda: sync.post("go.on", {}, wait_s=5) and sync.report()["sender"]["proof"]["verdict"] == "proven")
    until(lambda: not aside(state)["unproven"] and not sync.outbox.waiting)
    (drop,) = [record["data"] for record in broker.records() if record["kind"] == "drop"]
    never_came = set(range(1, sync.outbox.last_seq + 1)) - broker.seqs()
    assert (drop["what"], drop["why"], drop["count"]) == ("records", "unproven", len(never_came))
    assert not aside(state)["gone"]


# -- for doctor --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "is_proven", "why"),
    [
        (Rules(), True, ""),
        (LIARS["throws away"], False, "does not come back"),
        (LIARS["refuses to show"], False, "does not let this box read"),
        (LIARS["hangs up when asked"], False, "does not answer"),
    ],
    ids=["honest", *list(LIARS)[:1], *list(LIARS)[2:]],
)
def test_doctor_proves_it_where_no_sync_runs(
    stub: Callable[[Rules], StubBroker], rules: Rules, is_proven: bool, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.sync.mqtt.read_back_once.REACH_S", 1.0)
    monkeypatch.setattr("edge_runtime.sync.mqtt.read_back_once.ANSWER_S", 0.5)
    broker = stub(rules)
    proof = read_back_once(LinkSettings("127.0.0.1", broker.port, "edge-box-7", protocol="3.1.1"), REC, b"{}")
    assert (proof.is_proven, proof.protocol) == (is_proven, "3.1.1") and why in proof.why


def test_without_a_broker_doctor_proves_nothing_either_way(stub: Callable[[Rules], StubBroker], state: Path) -> None:
    broker = stub(Rules())
    broker.close()
    proof = read_back_once(LinkSettings("127.0.0.1", broker.port, "edge-box-7"), REC, b"{}")
    assert proof.is_proven is None and proof.why
    assert some_record(state) is None


# -- pure --------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=80), st.integers(0, 5000))
def test_no_record_is_believed_that_is_larger_than_one_that_came_back(sizes: list[int], limit: int) -> None:
    """A broker that keeps what is no larger than `limit` and acknowledges everything."""
    proof, now, queue = ReadBack(is_wanted=True), 0, list(enumerate(sizes, 1))
    believed, doubted = set[int](), set[int]()
    proof.link_up(now)
    while queue:
        now += SECOND // 100
        seq, size = queue[0]
        step = proof.step(size, now)
        if step is Step.ASK:
            proof.asked(now)
            proof.granted(True, now)
        elif step is Step.WAIT:
            now += SHOW_WAIT_NS
        else:
            queue.pop(0)
            if step is Step.SHOW:
                proof.sent(seq, seq.to_bytes(4, "big") * 5000)
                proof._shown[seq].payload = seq.to_bytes(4, "big") + bytes(max(0, size - 4))
                proof.acked(seq, now)
                if size <= limit:
                    proof.heard(proof._shown[seq].payload)
            elif proof.verdict is Verdict.PROVEN:
                believed.add(seq)
        if outcome := proof.outcome(now):
            believed.update(outcome.kept if proof.verdict is Verdict.PROVEN else ())
            doubted.update(seq for seq, _ in outcome.missing)
    assert all(max(4, sizes[seq - 1]) <= max(4, limit) for seq in believed)
    assert not believed & doubted and SHOWN > 1
