"""The daemon on a good day, over real brokers, and what it tells about itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from edge_runtime.core.errors import StorageError
from edge_runtime.flow.components import State
from edge_runtime.process.credentials import credential
from edge_runtime.sync.delivery import Delivery
from edge_runtime.sync.mqtt.settings import link_settings
from edge_runtime.sync.outbox.status import spool_status, wait_until_delivered
from tests.support.waiting import until
from tests.sync.sync_rig import BASE, Broker, Consumer, Line, config

START = Callable[..., Delivery]


def test_every_decision_and_outcome_arrives_once(
    broker: Broker, consume: Callable[..., Consumer], line: Line, start_sync: START
) -> None:
    consumer = consume(broker.port)
    sync = start_sync(broker.port)
    numbers = set(line.parts(300))
    until(lambda: consumer.parts("outcome") == numbers)
    assert sync.flush(10)
    assert consumer.parts("decision") == numbers
    assert consumer.missing() == {} and not consumer.repeats
    assert consumer.of("epoch")[0]["seq"] == 1
    assert sync.health().state is State.OK, sync.health()
    assert consumer.states[-1]["state"] == "online"
    sync.stop()
    until(lambda: consumer.states[-1]["state"] == "offline")
    assert consumer.states[-1]["why"] == "stopped" and sync.health().state is State.STOPPED


def test_a_decision_is_with_the_consumer_soon(
    mosquitto: Broker, consume: Callable[..., Consumer], line: Line, start_sync: START
) -> None:
    consumer = consume(mosquitto.port)
    sync = start_sync(mosquitto.port)
    until(lambda: sync.link.is_up and consumer.of("run"))
    line.trigger(1)
    line.decide(1)
    until(lambda: consumer.parts("decision") == {1}, 5.0)  # how soon, tools/bench/outbox says


def test_a_later_sync_sends_what_is_new_and_nothing_again(
    mosquitto: Broker, consume: Callable[..., Consumer], line: Line, start_sync: START
) -> None:
    consumer = consume(mosquitto.port)
    first = start_sync(mosquitto.port)
    numbers = set(line.parts(50))
    until(lambda: consumer.parts("outcome") == numbers)
    assert first.flush(10)
    first.stop()
    first.stop()
    numbers |= set(line.parts(50))
    second = start_sync(mosquitto.port)
    until(lambda: consumer.parts("outcome") == numbers)
    assert second.flush(10) and second.outbox.epoch == first.outbox.epoch
    assert not consumer.repeats and consumer.missing() == {}


def test_a_box_that_was_never_connected_has_a_spool_that_can_be_looked_at(
    mosquitto: Broker, line: Line, state: Path, start_sync: START, consume: Callable[..., Consumer]
) -> None:
    with pytest.raises(StorageError, match="no outbox"):
        spool_status(state)
    port = mosquitto.port
    mosquitto.kill()
    sync = start_sync(port)
    line.parts(40)
    until(lambda: sync.outbox.waiting >= 80)
    until(lambda: spool_status(state)["records"] == sync.outbox.waiting)
    status = spool_status(state)
    assert status["unread"] == 0 and status["sync_runs"]
    assert status["epoch"] == sync.outbox.epoch and status["oldest"].endswith("Z") and status["bytes"] > 10_000
    mosquitto.start()
    assert wait_until_delivered(state, 20)["records"] == 0
    sync.stop()
    line.parts(3)
    status = spool_status(state)
    assert status["unread"] == 3 and not status["sync_runs"]


def test_looking_at_the_spool_needs_no_big_library() -> None:
    program = (
        "import sys, edge_runtime.sync.outbox.status\n"
        "print([name for name in ('pydantic', 'numpy', 'paho', 'cv2') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_only_one_file_knows_the_mqtt_library() -> None:
    package = Path(__file__).parents[2] / "edge_runtime"
    users = [
        file.name for file in package.rglob("*.py") if "paho" in file.read_text() and "import paho" in file.read_text()
    ]
    assert users == ["connection.py"]


def test_credentials_are_found_where_systemd_puts_them(tmp_path: Path) -> None:
    env = {"CREDENTIALS_DIRECTORY": "/run/credentials/x"}
    assert credential("box.pem", env) == "/run/credentials/x/box.pem"
    assert credential("/etc/box.pem", env) == "/etc/box.pem"
    assert credential("box.pem", {}) == "box.pem" and credential("", env) == ""
    cfg = config(tmp_path, 1, tls=True, cert_file="box.pem", key_file="box.key").sync
    made = link_settings(cfg, "box-7", env, suffix="-sparkplug")
    assert made.tls and made.tls.key == "/run/credentials/x/box.key" and made.client_id == "edge-box-7-sparkplug"


@pytest.mark.parametrize(
    "wrong",
    [
        {"evidence": "http"},
        {"cert_file": "x", "tls": True},
        {"cert_file": "x", "key_file": "y"},
        {"evidence_hours": "25:00-05:00"},
        {"window": 0},
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        config(tmp_path, 1, **wrong)


def test_topics_of_the_box_are_as_the_contract_has_them(tmp_path: Path) -> None:
    made = Delivery(config(tmp_path, 1)).topics
    assert made.records == f"{BASE}/rec" and made.ack == f"{BASE}/ack" and made.state == f"{BASE}/state"
