"""The link against brokers that misbehave: a stub for what no real broker does on request, real ones for the rest."""

from __future__ import annotations

import random
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.core.clock import SECOND
from edge_runtime.flow.components import State
from edge_runtime.sync.backoff import Backoff
from edge_runtime.sync.mqtt.link import MqttLink
from edge_runtime.sync.mqtt.settings import LinkSettings, Message, TlsFiles
from edge_runtime.sync.mqtt.window import MQTT_MOST, Window
from tests.support.waiting import until
from tests.sync.sync_rig import Broker, Proxy

CONNACK_OK_5 = b"\x20\x03\x00\x00\x00"
NOT_AUTHORIZED_5 = b"\x20\x03\x00\x87\x00"


class Stub:
    """A broker in a thread: answers CONNECT with the given bytes, and PUBLISH as told."""

    def __init__(self, connack: bytes = CONNACK_OK_5, *, acks: bool = True, reason: int | None = None) -> None:
        self.connack, self.acks, self.reason = connack, acks, reason
        self.publishes: list[list[int]] = []  # packet ids, by connection
        self.most_open = 0
        self.levels: list[int] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        stream, ids, open_ids = client.makefile("rb"), list[int](), 0
        self.publishes.append(ids)
        try:
            while head := stream.read(1):
                body = stream.read(self._length(stream))
                kind = head[0] >> 4
                if kind == 1:
                    self.levels.append(body[6])
                    client.sendall(self.connack)
                elif kind == 3:
                    at = 2 + struct.unpack(">H", body[:2])[0]
                    ids.append(struct.unpack(">H", body[at : at + 2])[0])
                    open_ids += 1
                    self.most_open = max(self.most_open, open_ids)
                    if self.acks:
                        tail = b"" if self.reason is None else bytes([self.reason, 0])
                        client.sendall(bytes([0x40, 2 + len(tail)]) + struct.pack(">H", ids[-1]) + tail)
                        open_ids -= 1
                elif kind == 12:
                    client.sendall(b"\xd0\x00")
        except OSError:
            pass
        stream.close()
        client.close()

    @staticmethod
    def _length(stream: Any) -> int:
        size, shift = 0, 0
        while True:
            byte = stream.read(1)[0]
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return size

    def close(self) -> None:
        self._listener.close()
        for client in self._sockets:
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Owner:
    """Turns a link and notes what it is told."""

    def __init__(self, port: int, **options: Any) -> None:
        callbacks = {name: options.pop(name) for name in ("will", "subscriptions") if name in options}
        self.acked: list[int] = []
        self.refused: list[tuple[int | None, int]] = []
        self.ups = 0
        self.downs: list[str] = []
        self.messages: list[Message] = []
        settings = {
            "client_id": "box-7",
            "protocol": "5",
            "window": 20,
            "reconnect_max_s": 0.2,
            "ack_timeout_s": 0.5,
        } | options
        self.link = MqttLink(
            LinkSettings("127.0.0.1", port, **settings),
            on_up=self._up,
            on_down=self.downs.append,
            on_acked=self.acked.append,
            on_refused=lambda token, code: self.refused.append((token, code)),
            on_message=self.messages.append,
            rng=random.Random(1),
            **callbacks,
        )

    def _up(self) -> None:
        self.ups += 1

    def turn_until(self, what: Callable[[], Any], wait_s: float = 15.0) -> None:
        limit = time.monotonic() + wait_s
        while not what():
            assert time.monotonic() < limit, self.link.report()
            self.link.turn(0.05)

    def publish(self, count: int) -> int:
        return sum(self.link.publish("t", b"x" * 50, token=number) for number in range(1, count + 1))


@pytest.fixture
def stub(closing: ExitStack) -> Callable[..., Stub]:
    def make(*args: Any, **options: Any) -> Stub:
        made = Stub(*args, **options)
        closing.callback(made.close)
        return made

    return make


@pytest.fixture
def own(closing: ExitStack) -> Callable[..., Owner]:
    def make(port: int, **options: Any) -> Owner:
        owner = Owner(port, **options)
        closing.callback(owner.link.close, None, 0.2)
        return owner

    return make


def test_the_window_is_the_smaller_of_ours_and_the_brokers(
    stub: Callable[..., Stub], own: Callable[..., Owner]
) -> None:
    receive_maximum_7 = b"\x20\x06\x00\x00\x03\x21\x00\x07"
    broker = stub(receive_maximum_7, acks=False)
    owner = own(broker.port)
    owner.turn_until(lambda: owner.link.is_up)
    assert owner.publish(50) == 7 and owner.link.room == 0
    until(lambda: len(broker.publishes[0]) == 7)
    assert broker.most_open == 7


def test_after_a_cut_nothing_is_sent_that_the_owner_did_not_ask_for(
    stub: Callable[..., Stub], own: Callable[..., Owner]
) -> None:
    broker = stub(acks=False)
    owner = own(broker.port)
    owner.turn_until(lambda: owner.link.is_up)
    assert owner.publish(20) == 20
    owner.turn_until(lambda: owner.ups == 2)
    assert owner.downs == ["no acknowledgement for 0.5 s"] and owner.link.report()["under_way"] == 0
    for _ in range(5):
        owner.link.turn(0.02)
    assert [len(ids) for ids in broker.publishes] == [20, 0]


def test_a_broker_that_never_acknowledges_is_asked_ever_more_seldom(
    stub: Callable[..., Stub], own: Callable[..., Owner]
) -> None:
    broker = stub(acks=False)
    owner = own(broker.port, ack_timeout_s=0.05, reconnect_max_s=100.0)
    for _ in range(2):
        owner.turn_until(lambda: owner.link.is_up)
        owner.publish(1)
        owner.turn_until(lambda: not owner.link.is_up)
    assert owner.link._backoff.failures == 2
    owner.link.close(timeout_s=0)


def test_acknowledgements_come_back_with_the_owners_names(mosquitto: Broker, own: Callable[..., Owner]) -> None:
    owner = own(mosquitto.port)
    owner.turn_until(lambda: owner.link.is_up)
    owner.publish(20)
    owner.turn_until(lambda: len(owner.acked) == 20)
    assert sorted(owner.acked) == list(range(1, 21)) and owner.link.room == 20
    assert owner.link.health().state is State.OK


def test_a_broker_that_says_nothing_is_given_up(
    stub: Callable[..., Stub], own: Callable[..., Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.sync.mqtt.link.HANDSHAKE_WAIT_S", 0.1)
    owner = own(stub(b"").port)
    owner.turn_until(lambda: "does not answer" in owner.link.trouble)
    assert owner.ups == 0 and owner.link.health().state is State.DEGRADED


def test_a_refusal_is_told_with_its_reason(stub: Callable[..., Stub], own: Callable[..., Owner]) -> None:
    owner = own(stub(NOT_AUTHORIZED_5).port)
    owner.turn_until(lambda: "Not authorized" in owner.link.trouble)
    assert not owner.link.publish("t", b"")


def test_a_publish_that_the_broker_refuses_is_not_delivered(
    stub: Callable[..., Stub], own: Callable[..., Owner]
) -> None:
    owner = own(stub(reason=0x87).port)
    owner.turn_until(lambda: owner.link.is_up)
    owner.publish(1)
    owner.turn_until(lambda: owner.refused)
    assert owner.refused == [(1, 0x87)] and owner.acked == [] and owner.link.refused == 1
    assert owner.link.is_up and owner.link.report()["under_way"] == 0, (
        "the refusal ends the publish, not the connection"
    )


def test_an_old_broker_gets_the_old_protocol(
    stub: Callable[..., Stub], make_broker: Callable[..., Broker], own: Callable[..., Owner]
) -> None:
    nats = make_broker("nats")  # speaks 3.1.1 only, and says so
    owner = own(nats.port, protocol="auto")
    owner.turn_until(lambda: owner.link.is_up)
    assert owner.link.report()["protocol"] == "3.1.1"
    one_that_hangs_up = stub(b"\x20\x02\x00\x01")
    other = own(one_that_hangs_up.port, protocol="auto")
    other.turn_until(lambda: len(one_that_hangs_up.levels) >= 2)
    assert one_that_hangs_up.levels[:2] == [5, 4]


def test_a_cut_in_the_middle_of_a_publish_is_a_lost_link_and_no_more(
    mosquitto: Broker, make_proxy: Callable[[int], Proxy], own: Callable[..., Owner]
) -> None:
    proxy = make_proxy(mosquitto.port)
    proxy.cut_after = 300
    owner = own(proxy.port)
    owner.turn_until(lambda: owner.link.is_up)
    owner.publish(10)
    owner.turn_until(lambda: owner.downs)
    proxy.cut_after = None
    owner.turn_until(lambda: owner.link.is_up)
    owner.publish(10)
    owner.turn_until(lambda: set(range(1, 11)) <= set(owner.acked))


def test_subscriptions_are_made_anew_on_each_connection(
    mosquitto: Broker, make_proxy: Callable[[int], Proxy], own: Callable[..., Owner]
) -> None:
    proxy = make_proxy(mosquitto.port)
    owner = own(proxy.port, subscriptions=[("edge/ack", 1)])
    for number in (1, 2):
        owner.turn_until(lambda: owner.link.is_up)
        owner.link.publish("edge/ack", b"%d" % number, token=number)
        owner.turn_until(lambda: len(owner.messages) == number)  # noqa: B023
        proxy.cut()
        owner.turn_until(lambda: len(owner.downs) == number)  # noqa: B023
    assert [message.payload for message in owner.messages] == [b"1", b"2"]


def test_the_will_speaks_for_a_box_that_is_cut_off(
    mosquitto: Broker, make_proxy: Callable[[int], Proxy], own: Callable[..., Owner]
) -> None:
    numbers = iter(range(100))
    watcher = own(mosquitto.port, subscriptions=[("will", 1)])
    watcher.turn_until(lambda: watcher.link.is_up)
    proxy = make_proxy(mosquitto.port)
    other = own(proxy.port, client_id="box-8", will=lambda: Message("will", b"%d" % next(numbers)))
    other.turn_until(lambda: other.link.is_up)
    proxy.cut()
    other.turn_until(lambda: other.ups == 2)
    proxy.cut()
    watcher.turn_until(lambda: len(watcher.messages) >= 2)
    assert [message.payload for message in watcher.messages][:2] == [b"0", b"1"], "asked at every connection"


def test_a_frozen_broker_does_not_hold_up_the_goodbye(mosquitto: Broker, own: Callable[..., Owner]) -> None:
    owner = own(mosquitto.port, ack_timeout_s=60.0)
    owner.turn_until(lambda: owner.link.is_up)
    mosquitto.freeze(True)
    owner.publish(20)
    begun = time.monotonic()
    owner.link.close(Message("t", b"bye"), 0.3)
    owner.link.close()
    assert time.monotonic() - begun < 5.0  # not the 60 s of ack_timeout_s
    mosquitto.freeze(False)


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities; a broker and a box signed by the first, a stranger by the second."""
    folder = tmp_path_factory.mktemp("pki")

    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

    for ca in ("ca", "foreign-ca"):
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                "-keyout", f"{ca}.key", "-out", f"{ca}.pem", "-subj", f"/CN={ca}")  # fmt: skip
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name, ca in (("broker", "ca"), ("box", "ca"), ("stranger", "foreign-ca")):
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key",
                "-out", f"{name}.csr", "-subj", f"/CN={name}")  # fmt: skip
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial",
                "-days", "2", "-extfile", "names", "-out", f"{name}.pem")  # fmt: skip
    return folder


@pytest.fixture
def tls_broker(certificates: Path, make_broker: Callable[..., Broker]) -> Broker:
    c = certificates
    return make_broker(
        extra=f"cafile {c}/ca.pem\ncertfile {c}/broker.pem\nkeyfile {c}/broker.key\nrequire_certificate true\n"
        "tls_version tlsv1.3\n"
    )


def test_mutual_tls_lets_this_box_in(tls_broker: Broker, certificates: Path, own: Callable[..., Owner]) -> None:
    c = certificates
    owner = own(tls_broker.port, tls=TlsFiles(f"{c}/ca.pem", f"{c}/box.pem", f"{c}/box.key"))
    owner.turn_until(lambda: owner.link.is_up)
    owner.publish(20)
    owner.turn_until(lambda: len(owner.acked) == 20)


@pytest.mark.parametrize(
    ("ca", "name", "trouble"),
    [
        ("foreign-ca", "box", "certificate is not trusted"),
        ("ca", "stranger", ""),
        ("ca", "", ""),
        ("missing", "box", "missing.pem"),
        ("ca", "missing", "missing.pem"),
    ],
)
def test_a_wrong_certificate_keeps_both_sides_apart(
    tls_broker: Broker, certificates: Path, own: Callable[..., Owner], ca: str, name: str, trouble: str
) -> None:
    c = certificates
    files = TlsFiles(f"{c}/{ca}.pem", f"{c}/{name}.pem" if name else "", f"{c}/{name}.key" if name else "")
    owner = own(tls_broker.port, tls=files)
    owner.turn_until(lambda: owner.link.trouble != "not connected yet")
    for _ in range(20):
        owner.link.turn(0.05)
    assert owner.ups == 0 and trouble in owner.link.trouble, owner.link.trouble


# -- pure parts --------------------------------------------------------------------------------------------------------


@given(st.floats(0.1, 3600), st.integers(0, 60), st.integers(0, 2**32))
def test_waits_grow_up_to_the_limit_and_are_never_short(most_s: float, failures: int, seed: int) -> None:
    backoff = Backoff(most_s, rng=random.Random(seed))
    waits = [backoff.next_s() for _ in range(failures + 1)]
    first = min(0.5, most_s)
    for number, wait in enumerate(waits):
        ceiling = min(most_s, first * 2.0 ** min(number, 32))
        assert ceiling / 2 <= wait <= ceiling
    backoff.succeeded()
    assert backoff.next_s() <= first


@given(st.integers(1, 200), st.one_of(st.none(), st.integers(1, 300)), st.lists(st.integers(1, 50), max_size=300))
def test_a_window_never_holds_more_than_both_sides_allow(
    configured: int, receive_maximum: int | None, packets: list[int]
) -> None:
    window = Window(configured)
    window.open(receive_maximum)
    limit = min(configured, receive_maximum or MQTT_MOST)
    under_way: list[int] = []
    for now, packet in enumerate(packets):
        if packet in under_way:
            under_way.remove(packet)
            assert window.acked(packet) == (True, packet * 10)
        elif window.room:
            window.sent(packet, packet * 10, now * SECOND)
            under_way.append(packet)
        assert len(window) == len(under_way) <= limit and window.room == limit - len(under_way)
        assert (window.oldest_ns() is None) == (not under_way)
    assert window.acked(60_000) == (False, None)
