"""Records: the schema, the documentation and what the code makes are one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.config.schema import EdgeConfig, StationConfig
from edge_runtime.core.clock import SECOND, ManualClock
from edge_runtime.core.messages import Event, Label, OperatorRequest, Verdict, Where
from edge_runtime.core.status import Status
from edge_runtime.recording.labels import undo_of
from edge_runtime.recording.reader import JournalReader
from edge_runtime.recording.wall_clock import WallClock
from edge_runtime.sync.box import RunWatch, metrics
from edge_runtime.sync.delivery import Delivery
from edge_runtime.sync.records.format import (
    SCHEMA_FILE,
    Draft,
    Kind,
    RecordFormat,
    decision_record,
    drop_record,
    outcome_record,
)
from edge_runtime.sync.records.topics import topics
from tests.support.real_box import telling
from tests.support.waiting import until
from tests.sync.sync_rig import STATION, Consumer, Line, config

jsonschema = pytest.importorskip("jsonschema")
SCHEMA = json.loads(SCHEMA_FILE.read_text())
VALID = jsonschema.Draft202012Validator(SCHEMA)
DOCUMENT = SCHEMA_FILE.with_name("RECORDS.md").read_text()
FORM = RecordFormat("box-7")


@pytest.fixture
def run_watch(state: Path, real_status: Status) -> Iterator[RunWatch]:
    """Looks at a run that says what a real one said."""
    with telling(state / "control.sock", real_status):
        yield RunWatch(state / "control.sock")


def test_every_record_of_a_real_run_fits_the_schema(
    mosquitto: Any,
    consume: Callable[..., Consumer],
    line: Line,
    start_sync: Callable[..., Delivery],
    state: Path,
    run_watch: RunWatch,
    real_status: Status,
) -> None:
    consumer = consume(mosquitto.port)
    line.parts(5)
    line.trigger(6)
    line.journal.happened(Event("belt.stopped", 5, {"by": "technician", "odd": {1, 2}}))
    line.say(3, Label.ACCEPT, "anna", comment="dust")
    line.journal.requested(REQUEST)
    sync = start_sync(mosquitto.port, metrics_every_s=1.0, options={"snapshot": lambda: metrics(run_watch, state)})
    assert sync.post("command.refused", {"why": "not on the list"}, wait_s=10)
    line.stop()
    wanted = {"epoch", "run", "decision", "outcome", "label", "request", "event", "metrics"}
    until(lambda: {record["kind"] for record in list(consumer.records.values())} >= wanted)
    until(lambda: {run["data"]["phase"] for run in consumer.of("run")} == {"started", "clean"})
    for record in consumer.records.values():
        VALID.validate(record)
    assert {event["data"]["event"] for event in consumer.of("event")} == {"belt.stopped", "command.refused"}
    until(lambda: {event["data"]["event"] for event in consumer.events} >= {"command.refused"})
    told = consumer.of("metrics")[0]["data"]
    assert told["sync"]["epoch"] == consumer.of("epoch")[0]["epoch"]
    run = told["box"]["run"]
    assert (run["parts"], run["state"], run["model"]) == (real_status.parts, real_status.state, real_status.model)
    assert (
        run["health"]["microphone"] == real_status.health["microphone"].state and run["latency_ms"]["invoke"]["p50"] > 0
    )
    decision = next(record for record in consumer.of("decision") if record["data"]["part_id"] == 3)
    assert (
        decision["model"] == "scratch@1" and decision["model_digest"] == "d1" and decision["config_digest"] == "c0ffee"
    )
    assert decision["data"]["part"] == "0007-3" and decision["data"]["verdict"] == "reject"


REQUEST = OperatorRequest(
    "wake", 5, 6, 7, "where is the oil filter", 0.9, None, ("D02",), 0, "D02", "answered", "", "commands-embed@1"
)


def test_every_label_reaches_the_cloud_once_with_who_said_it_and_what_they_had_seen(
    mosquitto: Any, consume: Callable[..., Consumer], line: Line, start_sync: Callable[..., Delivery]
) -> None:
    consumer = consume(mosquitto.port)
    line.parts(2, Verdict.ACCEPT)
    line.say(1, Label.REJECT, "anna", defect="scratch", saw_model="scratch@1", saw_verdict=Verdict.ACCEPT)
    start_sync(mosquitto.port)
    until(lambda: len(consumer.of("label")) == 1)
    line.say(1, Label.ACCEPT, "ben")
    with JournalReader(line.journal.path) as reader:
        slip = reader.history(1)[0]
    line.journal.labelled(undo_of(slip, line.clock(), "anna", Where.PAGE))
    until(lambda: len(consumer.of("label")) == 3)
    line.parts(1)
    until(lambda: 3 in consumer.parts("decision"))
    first, second, undo = sorted(consumer.of("label"), key=lambda record: record["data"]["number"])
    for record in (first, second, undo):
        VALID.validate(record)
    assert (first["model"], first["model_digest"], first["data"]["saw_verdict"]) == ("scratch@1", "d1", "accept")
    assert (second["model"], second["data"]["by"], second["data"]["label"]) == (None, "ben", "accept")
    assert (undo["data"]["label"], undo["data"]["undoes"]) == (None, first["data"]["number"])
    decision = next(record for record in consumer.of("decision") if record["data"]["part_id"] == 1)
    for record in (first, second, undo):
        assert record["data"]["row"] == decision["data"]["row"] and record["journal"] == decision["journal"]
    assert (first["data"]["part"], first["data"]["defect"]) == (decision["data"]["part"], "scratch")
    assert len(consumer.of("label")) == 3 and not consumer.repeats


@pytest.mark.parametrize("may_leave", [False, True])
def test_what_an_operator_asked_reaches_the_cloud_but_the_words_only_where_they_may_leave(
    mosquitto: Any, consume: Callable[..., Consumer], line: Line, state: Path, may_leave: bool
) -> None:
    consumer = consume(mosquitto.port)
    line.parts(1)
    line.journal.requested(REQUEST)
    assert line.journal.flush(10)
    settings = config(state, mosquitto.port).model_dump() | {"voice": {"remote": {"may_leave": may_leave}}}
    sync = Delivery(EdgeConfig.model_validate(settings))
    sync.start()
    try:
        until(lambda: consumer.of("request"))
    finally:
        sync.stop()
    (record,) = consumer.of("request")
    VALID.validate(record)
    asked = record["data"]
    assert (asked["results"], asked["choice"], asked["outcome"]) == (["D02"], "D02", "answered")
    assert asked["transcript"] == ("where is the oil filter" if may_leave else None)


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
