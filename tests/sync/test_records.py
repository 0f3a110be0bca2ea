"""Records: the schema, the documentation and what the code makes are one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.config.schema import StationConfig
from edge_runtime.core.clock import SECOND, ManualClock
from edge_runtime.core.messages import Event
from edge_runtime.recording.wall_clock import WallClock
from edge_runtime.sync.daemon import SyncDaemon
from edge_runtime.sync.records.records import (
    SCHEMA_FILE,
    Draft,
    Kind,
    RecordFormat,
    decision_record,
    drop_record,
    outcome_record,
)
from edge_runtime.sync.records.topics import topics
from tests.support.waiting import until
from tests.sync.sync_rig import STATION, Consumer, Line

jsonschema = pytest.importorskip("jsonschema")
SCHEMA = json.loads(SCHEMA_FILE.read_text())
VALID = jsonschema.Draft202012Validator(SCHEMA)
DOCUMENT = SCHEMA_FILE.with_name("RECORDS.md").read_text()
FORM = RecordFormat("box-7")


def test_every_record_of_a_real_run_fits_the_schema(
    mosquitto: Any, consume: Callable[..., Consumer], line: Line, start_sync: Callable[..., SyncDaemon]
) -> None:
    consumer = consume(mosquitto.port)
    line.parts(5)
    line.trigger(6)
    line.journal.happened(Event("belt.stopped", 5, {"by": "technician", "odd": {1, 2}}))
    sync = start_sync(mosquitto.port, metrics_every_s=1.0, options={"snapshot": lambda: {"parts": 5}})
    assert sync.post("command.refused", {"why": "not on the list"}, wait_s=10)
    line.stop()
    wanted = {"epoch", "run", "decision", "outcome", "event", "metrics"}
    until(lambda: {record["kind"] for record in consumer.records.values()} >= wanted)
    until(lambda: {run["data"]["phase"] for run in consumer.of("run")} == {"started", "clean"})
    for record in consumer.records.values():
        VALID.validate(record)
    assert {event["data"]["event"] for event in consumer.of("event")} == {"belt.stopped", "command.refused"}
    until(lambda: {event["data"]["event"] for event in consumer.events} >= {"command.refused"})
    metrics = consumer.of("metrics")[0]["data"]
    assert metrics["box"] == {"parts": 5} and metrics["sync"]["epoch"] == consumer.of("epoch")[0]["epoch"]
    decision = next(record for record in consumer.of("decision") if record["data"]["part_id"] == 3)
    assert (
        decision["model"] == "scratch@1" and decision["model_digest"] == "d1" and decision["config_digest"] == "c0ffee"
    )
    assert decision["data"]["part"] == "0007-3" and decision["data"]["verdict"] == "reject"


ROW: dict[str, Any] = {
    "id": 1,
    "run": 1,
    "boot_id": 7,
    "part_id": 9,
    "encoder": None,
    "trigger_ns": 5 * SECOND,
    "trigger_utc_ns": 10 * SECOND,
    "time_quality": "synced",
    "captured_ns": None,
    "decided_ns": 6 * SECOND,
    "verdict": "unsure",
    "cause": "no_frame",
    "reason": None,
    "score": None,
    "model": None,
    "model_digest": None,
    "config_digest": "c",
    "recovered": 0,
    "outcome": "unknown",
    "outcome_encoder": None,
    "outcome_ns": None,
    "timings_ms": None,
    "regions": None,
}


def encoded(draft: Draft) -> dict[str, Any]:
    found = json.loads(FORM.encode(draft, "0" * 16, 1))
    VALID.validate(found)
    return dict(found)


def test_the_time_of_a_record_is_the_time_of_what_happened() -> None:
    assert encoded(decision_record(ROW, 0, 0))["time"] == "1970-01-01T00:00:11.000Z"
    reported = {**ROW, "outcome": "fired", "outcome_ns": 8 * SECOND}
    assert encoded(outcome_record(reported, 0))["time"] == "1970-01-01T00:00:13.000Z"
    after_reboot = {**ROW, "outcome": "fired", "outcome_ns": 1 * SECOND}
    assert encoded(outcome_record(after_reboot, 0))["time"] == "1970-01-01T00:00:10.000Z"


@pytest.mark.parametrize(
    "odd",
    [
        {"score": float("nan")},
        {"score": float("inf")},
        {"reason": "\ud800 lone surrogate"},
        {"timings_ms": "{broken"},
        {"regions": '[[0.1, 0.2, 0.3, 0.1, NaN, "scratch"]]'},
        {"trigger_utc_ns": 2**62},
        {"trigger_utc_ns": -(2**62)},
    ],
    ids=str,
)
def test_no_value_in_the_journal_keeps_a_verdict_from_being_sent(odd: dict[str, Any]) -> None:
    assert encoded(decision_record({**ROW, **odd}, 0, 0))["data"]["verdict"] == "unsure"


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.tuples(st.integers()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON_LIKE)
def test_any_detail_becomes_valid_json(detail: Any) -> None:
    wall = WallClock(ManualClock(), lambda: SECOND)
    draft = Draft(Kind.EVENT, 1, wall.now(), "synced", {"event": "x", "detail": {"it": detail}, "by": "sync"})
    payload = FORM.encode(draft, "0" * 16, 1)
    VALID.validate(json.loads(payload, parse_constant=lambda name: pytest.fail(f"{name} is not JSON")))


def test_the_schema_refuses_what_is_no_record() -> None:
    good = encoded(decision_record(ROW, 0, 0))
    for spoil in ({"seq": 0}, {"kind": "gossip"}, {"epoch": "x"}, {"time": "yesterday"}, {"data": {}}, {"more": 1}):
        assert not VALID.is_valid(good | spoil), spoil


def test_every_kind_field_and_reason_is_documented() -> None:
    kinds = SCHEMA["properties"]["kind"]["enum"]
    assert kinds == [kind.value for kind in Kind]
    for kind in kinds:
        (line,) = re.findall(rf"^\| `{kind}` \|.*$", DOCUMENT, re.MULTILINE)
        assert set(SCHEMA["$defs"][kind]["properties"]) <= set(re.findall(r"`([\w]+)`", line)), kind
    for name in SCHEMA["properties"]:
        assert f'"{name}":' in DOCUMENT, name
    for why in SCHEMA["$defs"]["drop"]["properties"]["why"]["enum"]:
        assert f"`{why}`" in DOCUMENT


def test_every_topic_is_documented() -> None:
    made = topics(StationConfig(**STATION))
    for topic in (made.records, made.events, made.state, made.files, made.ack, made.command, made.reply):
        assert f"`...{topic.removeprefix(made.base)}`" in DOCUMENT


def test_a_drop_names_what_is_missing() -> None:
    wall = WallClock(ManualClock(), lambda: SECOND)
    said = encoded(drop_record(wall, "metrics", "quota", 3, seqs=[(1, 2), (9, 9)]))
    assert said["data"]["seqs"] == [[1, 2], [9, 9]]
