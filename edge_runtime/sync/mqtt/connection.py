"""One connection to an MQTT broker: the only file that knows the MQTT library.

Passive: its owner's thread calls `move`, and what came in is picked up from its lists after that. No thread of the
library's own, because its `loop_stop` never returns while a publish is unacknowledged. What else paho 2 does not do,
and this file does:

- A new client for each connection. paho keeps unacknowledged messages over a reconnect and sends all of them at once,
  beyond any window; here they stay with the owner, who is told that the link is new and decides anew.
- The window is min(configured, Receive Maximum of the CONNACK), which paho never reads.
- Retain Available and Maximum QoS of the CONNACK are kept to, which paho never reads either.
- Where sending fails, what the broker said last is read before the end: a DISCONNECT has the reason.
- A refusal of MQTT 5 ends one publish and not the connection; the owner is told. Codes that the specification does not
  list for a packet (mosquitto says 0x95 in a PUBACK) are codes like others, where paho ends the connection.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Sequence
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_runtime.sync.mqtt.manners import Manner
from edge_runtime.sync.mqtt.reasons import KEEP_ALIVE, QOS_NOT_SUPPORTED, REFUSED, in_words
from edge_runtime.sync.mqtt.refusal import TlsSocket
from edge_runtime.sync.mqtt.settings import CONNECT_WAIT_S, LinkSettings, Message
from edge_runtime.sync.mqtt.tls_files import read_password, tls_context
from edge_runtime.sync.mqtt.waker import Waker
from edge_runtime.sync.mqtt.window import Window

_VERSIONS = {"5": mqtt.MQTTv5, "3.1.1": mqtt.MQTTv311}


def _name_every_code() -> None:
    """paho takes a PUBACK or DISCONNECT with a code that it does not list for a broken packet."""
    names = {code: {name: list(kinds) for name, kinds in named.items()} for code, named in ReasonCode.names.items()}
    for code in range(256):
        named = names.setdefault(code, {})
        for kind in (PacketTypes.PUBACK, PacketTypes.DISCONNECT):
            if not any(kind in kinds for kinds in named.values()):
                named.setdefault(next(iter(named), f"reason 0x{code:02x}"), []).append(kind)
    ReasonCode.names = (
        names  # a dict: paho copies it twice for each PUBACK, 2.6 us, and 19 where it is a MappingProxyType
    )


_name_every_code()

_QOS_0_ALONE = "it takes QoS 0 alone, which is never acknowledged: raise its maximum QoS to 1"


class _Client(mqtt.Client):
    def _sock_send(self, buf: Any) -> int:
        """paho closes at once where sending fails, and what the broker said before it hung up is never read. Taken as
        a socket that is full instead, its reading goes on to the end."""
        try:
            return super()._sock_send(buf)
        except ConnectionError as err:
            raise BlockingIOError(*err.args) from err


class Connection:
    """From CONNECT to its end. subscriptions: (filter, qos), made before it `is_up`."""

    def __init__(
        self,
        settings: LinkSettings,
        manner: Manner,
        subscriptions: Sequence[tuple[str, int]],
        window: Window,
        waker: Waker,
        will: Message | None,
    ) -> None:
        """Dials; takes CONNECT_WAIT_S at most. Raises OSError or ValueError where no CONNECT packet left."""
        self._version, self._subscriptions, self._window, self._waker = manner.version, subscriptions, window, waker
        self._socket: Any = None  # of the client, which forgets it as soon as it ends
        self._subscribed: set[int | None] = set()
        self._listening: tuple[str, int | None] | None = None  # one more filter, and the packet that asked for it
        self.is_up = False  # accepted, and every subscription granted
        self.lost = ""  # why it is no good any more
        self.was_answered = False
        self.has_retain = manner.has_retain  # retained messages are sent as such
        self.refusal_code: int | None = None  # of the CONNACK
        self.was_closed = False  # by the far side
        self.end_code: int | None = None  # why the broker ended it, where it said so
        self.max_packet: int | None = None  # largest packet the broker takes; None where it does not say
        self.acked: list[tuple[int | None, int]] = []  # tokens of what the broker has, with its code
        self.refusals: list[tuple[int | None, int]] = []  # tokens of what it does not take, with its code
        self.received: deque[Message] = deque()
        self.is_granted: bool | None = None  # the answer to `listen`
        self._client = self._dial(settings, will)

    @property
    def socket(self) -> Any:
        """What to poll; None once it ended."""
        return self._client.socket()

    @property
    def tls_fault(self) -> ssl.SSLError | None:
        """What TLS said where the library did not hear it."""
        return getattr(self._socket, "fault", None)

    def publish(self, topic: str, payload: bytes, qos: int, *, retain: bool) -> int | None:
        """The number of its packet; None: it could not be sent, and the connection is no good any more."""
        info = self._client.publish(topic, payload, qos, retain and self.has_retain)
        if info.rc is MQTTErrorCode.MQTT_ERR_SUCCESS:
            return info.mid
        self.lost = self.lost or f"sending failed: {mqtt.error_string(info.rc)}"
        return None  # QoS 1: it may have gone out, and goes again under the same number

    def listen(self, topic: str) -> bool:
        """Subscribe to one more topic; the answer will be `is_granted`."""
        rc, packet = self._client.subscribe(topic, 1)
        self._listening, self.is_granted = (topic, packet), None
        return rc is MQTTErrorCode.MQTT_ERR_SUCCESS

    def stop_listening(self) -> None:
        listening, self._listening = self._listening, None
        if listening and self.is_up and not self.lost:
            self._client.unsubscribe(listening[0])

    def move(self, timeout_s: float) -> None:
        """Wait for the socket and let the library read and write."""
        client, sock = self._client, self._client.socket()
        if sock is None:
            self.lost = self.lost or "the connection ended"
            return
        pending = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        wants_write = client.want_write()
        ready = self._waker.wait(0.0 if pending else timeout_s, sock.fileno(), wants_write=wants_write)
        rc = MQTTErrorCode.MQTT_ERR_SUCCESS
        if ready or pending:
            rc = client.loop_read()
            if rc is MQTTErrorCode.MQTT_ERR_SUCCESS and client.want_write():
                rc = client.loop_write()
        if rc is MQTTErrorCode.MQTT_ERR_SUCCESS:
            rc = client.loop_misc()
        if rc is not MQTTErrorCode.MQTT_ERR_SUCCESS:
            self.was_closed = self.was_closed or rc is MQTTErrorCode.MQTT_ERR_CONN_LOST
            self.lost = self.lost or mqtt.error_string(rc).lower().rstrip(".")

    def disconnect(self) -> None:
        """DISCONNECT behind what was published; it has left when nothing `wants_write`."""
        self._client.disconnect()

    @property
    def unanswered(self) -> str:
        """What the broker owes an answer to, before the connection is up."""
        if not self.was_answered:
            return "the connect request"
        return f"the subscription to {', '.join(topic for topic, _ in self._subscriptions)}"

    @property
    def wants_write(self) -> bool:
        return bool(self._client.want_write())

    def close(self) -> None:
        """Close the socket, and with it forget all that was under way."""
        self._socket = None
        sock = self._client.socket()
        if sock is not None:
            sock.close()

    # -- called by the library ----------------------------------------------------------------------------------------

    def _dial(self, settings: LinkSettings, will: Message | None) -> mqtt.Client:
        version = _VERSIONS[self._version]
        clean = None if version == mqtt.MQTTv5 else True
        kind = _Client if version == mqtt.MQTTv5 else mqtt.Client  # 3.1.1 has no DISCONNECT from a broker
        client = kind(
            CallbackAPIVersion.VERSION2, settings.client_id, clean, protocol=version, reconnect_on_failure=False
        )
        client.connect_timeout = CONNECT_WAIT_S
        client.max_inflight_messages_set(0)  # the window is ours
        client.on_socket_open = self._opened
        client.on_connect, client.on_subscribe = self._connected, self._suback
        client.on_publish, client.on_message, client.on_disconnect = self._puback, self._incoming, self._disconnected
        if settings.username:
            client.username_pw_set(settings.username, read_password(settings.password_file))
        if settings.tls:
            context = tls_context(settings.tls)
            context.sslsocket_class = TlsSocket
            client.tls_set_context(context)
        if will:
            client.will_set(will.topic, will.payload, will.qos, will.retain and self.has_retain)
        client.connect(settings.host, settings.port, settings.keepalive_s)
        return client

    def _opened(self, client: mqtt.Client, _: Any, sock: Any) -> None:
        self._socket = sock

    def _connected(
        self, client: mqtt.Client, _: Any, flags: Any, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self.was_answered = True
        if reason.value >= REFUSED:
            self.refusal_code = reason.value
            more = f"; {_QOS_0_ALONE}" if reason.value == QOS_NOT_SUPPORTED else ""
            self.lost = f"the broker refuses this box: {reason}{more}"
            return
        if getattr(properties, "MaximumQoS", 1) == 0:
            self.lost = f"the broker is of no use to this box: {_QOS_0_ALONE}"
            return
        self.has_retain = self.has_retain and getattr(properties, "RetainAvailable", 1) != 0
        self._window.open(getattr(properties, "ReceiveMaximum", None))
        self.max_packet = getattr(properties, "MaximumPacketSize", None)
        for topic, qos in self._subscriptions:
            rc, packet = client.subscribe(topic, qos)
            if rc is not MQTTErrorCode.MQTT_ERR_SUCCESS:
                self.lost = f"subscribing failed: {mqtt.error_string(rc)}"
            self._subscribed.add(packet)
        if not self._subscribed:
            self.is_up = True

    def _suback(self, client: mqtt.Client, _: Any, packet: int, reasons: list[ReasonCode], properties: Any) -> None:
        refused = [str(reason) for reason in reasons if reason.value >= REFUSED]
        if self._listening and packet == self._listening[1]:
            self.is_granted = not refused
            return
        if refused:
            self.lost = self.lost or f"the broker refuses a subscription: {', '.join(refused)}; check its access list"
            return
        self._subscribed.discard(packet)
        if not self._subscribed:
            self.is_up = True

    def _puback(self, client: mqtt.Client, _: Any, packet: int, reason: ReasonCode, properties: Any) -> None:
        was_ours, token = self._window.acked(packet)
        if not was_ours:
            return
        code = 0 if reason is None else reason.value
        (self.refusals if code >= REFUSED else self.acked).append((token, code))

    def _incoming(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        self.received.append(Message(message.topic, bytes(message.payload), message.qos, message.retain))

    def _disconnected(self, client: mqtt.Client, _: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if flags.is_disconnect_packet_from_server and reason is not None:
            self.end_code = reason.value
            self.lost = self.lost or f"the broker ends the connection: {in_words(reason.value)}"
        self.was_closed = self.was_closed or (reason is not None and reason.value != KEEP_ALIVE)
        if reason is not None and reason.value == KEEP_ALIVE:
            self.lost = self.lost or "the broker does not answer any more (keep alive timeout)"
        self.lost = self.lost or "the broker closed the connection and gave no reason"
