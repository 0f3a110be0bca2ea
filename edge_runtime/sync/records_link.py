"""The connection of the records: who on this box hears what the broker says on it, and what the broker tells others.

`.../state` is retained: `online` at each connection, `offline` with the goodbye or, by the will, without one.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Mapping
from typing import Any

from edge_runtime.core.clock import Clock
from edge_runtime.core.events import EventKind
from edge_runtime.recording.reader import iso_utc
from edge_runtime.sync.mqtt.link import MqttLink
from edge_runtime.sync.mqtt.reasons import in_words
from edge_runtime.sync.mqtt.settings import LinkSettings, Message
from edge_runtime.sync.outbox.queue import Queue
from edge_runtime.sync.outbox.sender import Sender
from edge_runtime.sync.pictures.carrier import Carrier
from edge_runtime.sync.pictures.mqtt import MQTT_TOKEN, MqttCarrier
from edge_runtime.sync.records.topics import Topics

log = logging.getLogger(__name__)

STATE_SCHEMA = "edge-runtime/state/1"
GOODBYE_S = 1.0


class RecordsLink:
    """Used by the thread that owns the outbox. `attach` must come before the first turn of `link`."""

    def __init__(
        self,
        settings: LinkSettings,
        topics: Topics,
        outbox: Queue,
        *,
        hears_consumer: bool,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._topics = topics
        self._outbox = outbox
        self.link = MqttLink(
            settings,
            will=lambda: Message(topics.state, self._state("offline", "link lost"), retain=True),
            subscriptions=[(topics.ack, 1)] if hears_consumer else [],
            on_up=self._up,
            on_down=self._down,
            on_acked=self._acked,
            on_refused=self._refused,
            on_listening=self._listening,
            on_message=self._heard,
            clock=clock,
            rng=rng,
        )
        self._sender: Sender
        self._pictures: MqttCarrier | None = None
        self._acks: list[bytes] = []  # of the consumer
        self._is_rival_told = False
        self.trouble = ""  # why the broker does not take `state`

    def attach(self, sender: Sender, carrier: Carrier | None) -> None:
        self._sender = sender
        self._pictures = carrier if isinstance(carrier, MqttCarrier) else None

    def take_acks(self) -> None:
        """Settle what the consumer said since the last time. Raises sqlite3.Error; the rest is kept then."""
        while self._acks:
            self._sender.consumer_acked(self._acks.pop(0))

    def tell_rival(self, tell: Callable[[EventKind, Mapping[str, Any]], object]) -> None:
        """Tell once that another client has our name, and once more when it came back after it was gone."""
        rival, settings = self.link.rival, self.link.settings
        if rival.is_known and not self._is_rival_told:
            log.warning("link.rival %s", rival.trouble())
            tell(EventKind.NAME_TAKEN, {"client_id": settings.client_id, "host": settings.host})
        self._is_rival_told = rival.is_known

    def say_goodbye(self) -> None:
        self.link.close(Message(self._topics.state, self._state("offline", "stopped"), retain=True), GOODBYE_S)

    # -- called by the link -------------------------------------------------------------------------------------------

    def _up(self) -> None:
        self._outbox.wall.refresh()
        self.trouble = ""
        self.link.publish(self._topics.state, self._state("online", ""), retain=True)
        self._sender.link_up()

    def _down(self, why: str) -> None:
        self._sender.link_down(self.link.end_code)
        if self._pictures:
            self._pictures.link_down()

    def _acked(self, token: int) -> bool:
        if token != MQTT_TOKEN:
            return self._sender.acked(token)
        if self._pictures:
            self._pictures.acked()
        return True

    def _refused(self, token: int | None, code: int) -> None:
        if token is None:
            self.trouble = f"the broker refuses {self._topics.state}: {in_words(code)}; check its access list"
            log.warning("link.state_refused %s", self.trouble)
        elif token != MQTT_TOKEN:
            self._sender.refused(token, code)
        elif self._pictures:
            self._pictures.refused(code)

    def _listening(self, is_granted: bool) -> None:
        self._sender.listening(is_granted)

    def _heard(self, message: Message) -> None:
        if message.topic == self._topics.ack:
            self._acks.append(message.payload)
        elif message.topic == self._topics.records:
            self._sender.heard(message.payload)

    def _state(self, state: str, why: str) -> bytes:
        wall = self._outbox.wall
        message = {
            "schema": STATE_SCHEMA,
            "box": self._outbox.form.box,
            "state": state,
            "why": why,
            "epoch": self._outbox.epoch,
            "time": iso_utc(wall.now()),
            "time_quality": wall.quality.value,
        }
        return json.dumps(message, separators=(",", ":")).encode()
