"""What a broker does not do, and what it says when it ends a connection, are taken at its word."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.core.clock import SECOND
from edge_runtime.core.glance import ComponentHealth
from edge_runtime.core.state import State
from edge_runtime.process.ask_status import Silence
from edge_runtime.sync.box import Silent
from edge_runtime.sync.first_look import FirstLook
from edge_runtime.sync.mqtt.manners import Manner, Manners
from edge_runtime.sync.mqtt.reasons import SESSION_TAKEN_OVER, in_words
from edge_runtime.sync.mqtt.settings import Message
from tests.sync.stub_broker import Rules, StubBroker
from tests.sync.sync_rig import Broker
from tests.sync.test_mqtt_link import Owner

WILL = Message("edge/state", b"offline", retain=True)
DISCONNECT_CODES = (0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8E, 0x8F, 0x93, 0x95, 0x97, 0x98, 0x9A, 0x9C, 0xA0)


def owner_of(port: int, closing: ExitStack, **options: Any) -> Owner:
    owner = Owner(port, will=lambda: WILL, reconnect_max_s=0.05, **options)
    closing.callback(owner.link.close, None, 0.0)
    return owner


@pytest.mark.parametrize("protocol", ["auto", "5", "3.1.1"])
def test_a_broker_without_retained_messages_gets_none_and_all_else(
    make_broker: Callable[..., Broker], closing: ExitStack, protocol: str
) -> None:
    owner = owner_of(make_broker(extra="retain_available false").port, closing, protocol=protocol)
    owner.turn_until(lambda: owner.link.is_up)
    assert not owner.link.retains and "keeps no retained messages" in owner.link.health().detail
    assert owner.link.publish("edge/state", b"online", retain=True, token=7)
    owner.turn_until(lambda: owner.acked == [7])


@pytest.mark.parametrize("protocol", ["auto", "5", "3.1.1"])
def test_a_broker_that_keeps_them_is_asked_for_them_again_after_each_loss(
    make_broker: Callable[..., Broker], closing: ExitStack, protocol: str
) -> None:
    owner = owner_of(make_broker().port, closing, protocol=protocol)
    for _ in range(2):
        owner.turn_until(lambda: owner.link.is_up)
        assert owner.link.retains
        owner.link.renew("the test says so")
        owner.turn_until(lambda: not owner.link.is_up)


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        (b"\x24\x00", "raise its maximum QoS to 1"),
        (b"\x24\x00\x25\x00", "raise its maximum QoS to 1"),
        (b"\x24\x01", ""),
        (b"\x25\x01", ""),
        (b"\x21\x00\x14", ""),
    ],
)
def test_what_the_broker_says_it_does_is_kept_to(closing: ExitStack, properties: bytes, words: str) -> None:
    stub = StubBroker(Rules(connack=properties))
    closing.callback(stub.close)
    owner = owner_of(stub.port, closing)
    owner.turn_until(lambda: owner.link.is_up or (words and words in owner.link.trouble))
    assert owner.link.is_up is not bool(words) and not stub.sent


class LastWord:
    """A broker that takes a client in, waits for its publishes or not, and says DISCONNECT before it closes.

    is_rude: bytes of the client are left unread, so that its next writing fails.
    """

    def __init__(self, code: int, *, is_rude: bool) -> None:
        self._packet = bytes([0xE0, 2, code, 0])
        self._is_rude = is_rude
        self.must_end, self.is_closed = threading.Event(), threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client:
            client.recv(1024)
            client.sendall(b"\x20\x03\x00\x00\x00")
            self.must_end.wait(10.0)
            if not self._is_rude:
                client.recv(65536)
            client.sendall(self._packet)
            client.shutdown(socket.SHUT_WR)
            if self._is_rude:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
        self._listener.close()
        self.is_closed.set()


@pytest.mark.parametrize("is_rude", [False, True], ids=["read to the end", "left unread"])
@pytest.mark.parametrize("code", DISCONNECT_CODES, ids=hex)
def test_the_reason_of_a_disconnect_is_heard_also_by_who_is_just_sending(
    closing: ExitStack, code: int, is_rude: bool
) -> None:
    broker = LastWord(code, is_rude=is_rude)
    owner = owner_of(broker.port, closing)
    owner.turn_until(lambda: owner.link.is_up)
    owner.link.publish("t", b"x", token=1)
    broker.must_end.set()
    assert broker.is_closed.wait(10.0)
    for token in range(2, 6):  # the first fails at the latest, as the far side is gone
        owner.link.publish("t", b"x" * 50_000, token=token)
    owner.turn_until(lambda: owner.downs)
    assert owner.link.end_code == code and in_words(code) in owner.downs[0]
    assert "unknown reason" not in owner.downs[0]
    assert owner.link.rival.is_known is (code == SESSION_TAKEN_OVER)


def test_a_broker_that_closes_without_a_word_is_not_given_one(closing: ExitStack) -> None:
    stub = StubBroker(Rules())
    owner = owner_of(stub.port, closing)
    owner.turn_until(lambda: owner.link.is_up)
    stub.close()
    owner.turn_until(lambda: owner.downs)
    assert owner.downs == ["the broker closed the connection and gave no reason"]


def test_a_subscription_without_an_answer_is_named(closing: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_runtime.sync.mqtt.link.HANDSHAKE_WAIT_S", 0.1)
    stub = StubBroker(Rules(grants=lambda topic: threading.Event().wait(3.0) and 0))
    closing.callback(stub.close)
    owner = owner_of(stub.port, closing, subscriptions=[("edge/north/ack", 1)])
    owner.turn_until(lambda: "does not answer" in owner.link.trouble)
    assert owner.link.trouble == "the broker does not answer the subscription to edge/north/ack"


@given(st.sampled_from(["auto", "5", "3.1.1"]), st.lists(st.sampled_from(["hung up", "0x84", "0x9a", "0x87", "up"])))
def test_whatever_a_broker_does_the_version_is_one_the_station_allows_and_retain_comes_back(
    protocol: str, story: list[str]
) -> None:
    manners = Manners(protocol)
    for event in story:
        before = manners.now
        if event == "hung up":
            manners.hung_up()
        elif event == "up":
            manners.was_up()
            assert manners.now == Manner(before.version)
        else:
            is_new = manners.was_refused(int(event, 16))
            assert is_new is (manners.now != before)  # at once only where something changes: no storm
        assert manners.now.version in (("5", "3.1.1") if protocol == "auto" else (protocol,))
    seen = set()
    for _ in range(3):
        seen.add(manners.now)
        manners.hung_up()
    assert any(not manner.has_retain for manner in seen) and any(manner.has_retain for manner in seen)


def health_of(**states: State) -> dict[str, ComponentHealth]:
    return {name: ComponentHealth(state, "", None) for name, state in states.items()}


OPEN = health_of(line=State.OK, camera=State.OK, controller=State.DEGRADED)
OPENING = health_of(line=State.OK, camera=State.STARTING, controller=State.STOPPED)


class Shot:
    def __init__(self, health: dict[str, ComponentHealth]) -> None:
        self.health = health


@pytest.mark.parametrize(
    ("shots", "early_s"),
    [
        ([Silent(Silence.STOPPED, "")] * 40, 5),
        ([Silent(Silence.NO_ANSWER, "")] * 40, 30),
        ([Silent(Silence.REFUSED, "")], 0),
        ([Silent(Silence.UNREADABLE, "")], 0),
        ([Shot(OPENING)] * 40, 30),
        ([Shot(OPEN)], 0),
        ([Silent(Silence.STOPPED, "")] * 3 + [Shot(OPENING)] * 4 + [Shot(OPEN)] * 3, 7),
        ([Shot(OPEN)] + [Silent(Silence.STOPPED, "")] * 9, 0),
        ([Shot(health_of(line=State.OK, camera=State.FAILED, controller=State.OK))], 0),
    ],
)
def test_devices_that_are_still_being_opened_are_not_told_as_dead(shots: list[Any], early_s: int) -> None:
    now = [0]
    first = FirstLook(lambda: now[0])
    early = []
    for second, shot in enumerate(shots):
        now[0] = second * SECOND
        early.append(first.is_early(shot))
    assert early == [True] * early_s + [False] * (len(shots) - early_s)
