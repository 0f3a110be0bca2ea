"""The node's connections, one `MqttLink` after the other, each used for one session only.

`MqttLink` would connect again by itself, with the same will; a Sparkplug session needs a new bdSeq and perhaps another
server, so the node decides when and where. MQTT 3.1.1 is spoken: for 5 the DISCONNECT has to carry a reason code.
What is kept over the sessions is whether another client has our name: then the node's attempts fail here for a while,
before anything is sent.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from edge_runtime.core.clock import SECOND, Clock, monotonic_ns
from edge_runtime.core.errors import DeviceError
from edge_runtime.sync.mqtt.link import MqttLink
from edge_runtime.sync.mqtt.rival import Rival
from edge_runtime.sync.mqtt.settings import LinkSettings, Message
from edge_runtime.sync.sparkplug.actions import Connect, Publish
from edge_runtime.sync.sparkplug.runner import Connected, Heard, Lost, Received

PROTOCOL = "3.1.1"
GOODBYE_S = 1.0  # for the broker to acknowledge NDEATH


class SparkplugLink:
    """servers: settings by the index that the node walks. Client ids must differ from that of the records' link."""

    def __init__(self, servers: Sequence[LinkSettings], *, clock: Clock = monotonic_ns) -> None:
        self._servers = [replace(settings, protocol=PROTOCOL) for settings in servers]
        self._clock = clock
        self._rivals = [Rival(settings.client_id) for settings in servers]
        self._not_before_ns = [0] * len(self._servers)
        self._server = 0
        self._link: MqttLink | None = None
        self._before = ""  # the link's word for "not tried yet"
        self._heard: deque[Heard] = deque()
        self._woken = threading.Event()  # for the time between two connections

    def open(self, connect: Connect) -> None:
        self.close()
        self._server = connect.server
        rival = self._rivals[connect.server]
        if self._clock() < self._not_before_ns[connect.server]:
            raise DeviceError(rival.trouble())
        will = Message(connect.will_topic, connect.will_payload, connect.will_qos, connect.will_retain)
        link = MqttLink(
            self._servers[connect.server],
            will=lambda: will,
            subscriptions=connect.filters,
            on_up=lambda: self._up(connect.hint),
            on_down=lambda why: self._heard.append(Lost(why)),
            on_message=lambda m: self._heard.append(Received(m.topic, m.payload, m.retain)),
            clock=self._clock,
            rival=rival,
        )
        self._before = link.trouble
        link.turn(0.0)
        if link.trouble != self._before:  # it failed while dialling
            why = link.trouble
            link.close()
            raise DeviceError(why)
        self._link = link

    def _up(self, hint: str) -> None:
        self._heard.append(Connected())
        if hint and self._link:
            self._link.listen(hint)

    def turn(self, timeout_s: float) -> Sequence[Heard]:
        link = self._link
        if link is None:
            self._woken.wait(timeout_s)
            self._woken.clear()
            return ()
        link.turn(timeout_s)
        heard = list(self._heard)
        self._heard.clear()
        if any(isinstance(word, Lost) for word in heard):
            self._end(0.0)
        elif not link.is_up and link.trouble != self._before:  # lost before it was up
            heard.append(Lost(link.trouble))
            self._end(0.0)
        return heard

    def publish(self, publish: Publish) -> None:
        if self._link:
            self._link.publish(publish.topic, publish.payload, qos=publish.qos, retain=publish.retain)

    def close(self) -> None:
        self._end(GOODBYE_S)

    def wake(self) -> None:
        self._woken.set()
        if link := self._link:
            link.wake()

    def _end(self, timeout_s: float) -> None:
        link, self._link = self._link, None
        self._heard.clear()
        if link:
            wait_ns = round(link.rival.wait_s() * SECOND)
            self._not_before_ns[self._server] = self._clock() + wait_ns if wait_ns else 0
            link.close(timeout_s=timeout_s)
