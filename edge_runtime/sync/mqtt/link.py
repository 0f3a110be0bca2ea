"""One connection to an MQTT broker, kept up: the only file that knows the MQTT library.

Passive: its owner's thread calls `turn` and everything happens inside. No thread of the library's own, because its
`loop_stop` never returns while a publish is unacknowledged. What else paho 2 does not do, and this file does:

- A new client for each connection. paho keeps unacknowledged messages over a reconnect and sends all of them at once,
  beyond any window; here they stay with the owner, who is told that the link is new and decides anew.
- The window is min(configured, Receive Maximum of the CONNACK), which paho never reads.
- A publish that is not acknowledged within `ack_timeout_s` ends the connection; paho waits for ever.
- Attempts to connect are spaced with jitter. Only an acknowledgement of something that the owner gave a token, or a
  link that held, resets the spacing: that of `state`, at each connection, says nothing of the records behind it.
- A refusal of MQTT 5 ends one publish and not the connection; the owner is told. Codes that the specification does not
  list for a packet (mosquitto says 0x95 in a PUBACK) are codes like others, where paho ends the connection.
- Nothing is sent that is larger than the broker takes (Maximum Packet Size), or than the station lets it be.
- Another client with our name is noticed, see `mqtt_link_rival`.

MQTT 5 is preferred because a broker says there what it refused; a 3.1.1 broker acknowledges what it throws away.
"""

from __future__ import annotations

import logging
import os
import random
import select
import ssl
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_runtime.core.clock import MS, SECOND, Clock, monotonic_ns
from edge_runtime.flow.components import Health, State
from edge_runtime.sync.mqtt.backoff import Backoff
from edge_runtime.sync.mqtt.reasons import (
    KEEP_ALIVE,
    REFUSED,
    SESSION_TAKEN_OVER,
    UNHEARD,
    UNSUPPORTED_VERSION,
    in_words,
    publish_bytes,
)
from edge_runtime.sync.mqtt.refusal import TlsSocket, explain_hang_up, explain_refusal
from edge_runtime.sync.mqtt.rival import BUSY, IDLE, STUCK, Rival
from edge_runtime.sync.mqtt.settings import CONNECT_WAIT_S, LinkSettings, Message, TlsFiles
from edge_runtime.sync.mqtt.tls_files import read_password, tls_context
from edge_runtime.sync.mqtt.window import Window

__all__ = ["LinkSettings", "Message", "MqttLink", "TlsFiles"]

log = logging.getLogger(__name__)

HANDSHAKE_WAIT_S = 10.0  # from TCP to CONNACK and SUBACK
QUIET_NS = 200 * MS  # a broker that hangs up because of a message does so before that
MQTT_MOST_BYTES = 268_435_460  # of any packet: four bytes of length, and what stands before
HELD_NS = 30 * SECOND  # a link that was up so long was worth connecting for
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


class MqttLink:
    """Connects by itself, again and again. Used by one thread, except `wake`, `health` and `report`.

    will: asked at every CONNECT, so that it may carry a number of its own.
    subscriptions: (filter, qos), made anew on each connection before `on_up`.
    on_acked(token): False where that acknowledgement is no proof of anything, and the spacing goes on.
    on_up, on_down(why), on_acked, on_refused(token, code), on_listening(is_granted), on_message: called from
    inside `turn`; what they raise comes out of `turn`.
    rival: what is known of another client with our name, by an owner who makes a link for each connection.
    """

    def __init__(
        self,
        settings: LinkSettings,
        *,
        will: Callable[[], Message | None] = lambda: None,
        subscriptions: Sequence[tuple[str, int]] = (),
        on_up: Callable[[], object] = lambda: None,
        on_down: Callable[[str], object] = lambda why: None,
        on_acked: Callable[[int], object] = lambda token: None,
        on_refused: Callable[[int | None, int], object] = lambda token, code: None,
        on_listening: Callable[[bool], object] = lambda is_granted: None,
        on_message: Callable[[Message], object] = lambda message: None,
        clock: Clock = monotonic_ns,
        rng: random.Random | None = None,
        rival: Rival | None = None,
    ) -> None:
        self.settings = settings
        self._will, self._subscriptions = will, subscriptions
        self._on_up, self._on_down, self._on_acked, self._on_message = on_up, on_down, on_acked, on_message
        self._on_refused, self._on_listening = on_refused, on_listening
        self._clock = clock
        self._backoff = Backoff(settings.reconnect_max_s, rng=rng)
        self.rival = rival or Rival(settings.client_id, rng)
        self._window = Window(settings.window)
        self._version = "5" if settings.protocol == "auto" else settings.protocol
        self._client: mqtt.Client | None = None
        self._socket: Any = None  # of the client, which forgets it as soon as it ends
        self._is_up = False
        self._since_ns = clock()  # when the present state began
        self._next_attempt_ns = clock()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lost = ""  # why the connection that is being used is no good any more
        self._was_answered = self._switch_version = self._announce = False
        self._was_closed = False  # by the far side
        self._sent_ns = 0  # when the last message went out
        self._acked_here = 0  # messages with a token, on this connection
        self._acked: list[int | None] = []
        self._refusals: list[tuple[int | None, int]] = []
        self._listening: tuple[str, int | None] | None = None  # one more filter, and the packet that asked for it
        self._is_granted: bool | None = None
        self._received: deque[Message] = deque()
        self._subscribed: set[int | None] = set()
        self.trouble = "not connected yet"
        self.max_packet: int | None = None  # largest packet the broker takes; None where it does not say
        self.end_code: int | None = None  # why the broker ended the last connection, where it said so
        self.lost_tokens = 0  # messages with a token that were under way when the last connection ended
        self.is_unheard = False  # the broker says of the last message with a token that nobody subscribes to it
        self.connects = self.losses = self.published = self.acknowledged = self.refused = self.unheard = 0

    # -- for the owner ------------------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Connected and subscribed."""
        return self._is_up

    @property
    def room(self) -> int:
        """How many further publishes of QoS 1 may be made now."""
        return self._window.room if self._is_up else 0

    @property
    def under_way(self) -> int:
        return len(self._window)

    @property
    def protocol(self) -> str:
        """The version spoken now: 5 or 3.1.1."""
        return self._version

    @property
    def most_bytes(self) -> int:
        """The largest packet that broker and station let us send."""
        return min(self.max_packet or MQTT_MOST_BYTES, self.settings.max_packet_bytes or MQTT_MOST_BYTES)

    def fits(self, topic: str, payload_bytes: int, qos: int = 1) -> bool:
        """Whether a message of that size may be sent."""
        return publish_bytes(topic, payload_bytes, qos=qos, is_mqtt5=self._version == "5") <= self.most_bytes

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, token: int | None = None
    ) -> bool:
        """Send one message; `on_acked(token)` or `on_refused(token, code)` follows for QoS 1.

        False: not sent, no link, no room in the window, or larger than a packet may be.
        """
        if not self._is_up or self._client is None or self._lost or (qos and not self._window.room):
            return False
        if not self.fits(topic, len(payload), qos):
            return False
        info = self._client.publish(topic, payload, qos, retain)
        if info.rc is not MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._lost = self._lost or f"sending failed: {mqtt.error_string(info.rc)}"
            return False  # QoS 1: it may have gone out, and goes again under the same number
        if qos:
            self._window.sent(info.mid, token, self._clock())
        self.published += 1
        self._sent_ns = self._clock()
        return True

    def listen(self, topic: str) -> bool:
        """Subscribe to one more topic on this connection; `on_listening(is_granted)` follows. False: no link.

        A refusal does not end the connection. One at a time.
        """
        if not self._is_up or self._client is None or self._lost:
            return False
        rc, packet = self._client.subscribe(topic, 1)
        self._listening, self._is_granted = (topic, packet), None
        return rc is MQTTErrorCode.MQTT_ERR_SUCCESS

    def stop_listening(self) -> None:
        listening, self._listening = self._listening, None
        if listening and self._is_up and self._client is not None and not self._lost:
            self._client.unsubscribe(listening[0])

    def turn(self, timeout_s: float) -> None:
        """Do what there is to do, waiting at most `timeout_s` for it; connecting may take CONNECT_WAIT_S more."""
        now = self._clock()
        if self._client is None:
            wait_s = (self._next_attempt_ns - now) / SECOND
            if wait_s > 0:
                self._wait(min(timeout_s, wait_s))
            else:
                self._connect()
            return
        if not self._lost:
            self._move(timeout_s)
        self._hand_over()
        why = self._lost or self._overdue()
        if why:
            self._drop(why)

    def worked(self) -> None:
        """The owner knows by other means that this connection is worth having."""
        self._backoff.succeeded()

    def renew(self, why: str) -> None:
        """Give this connection up: what is under way in it means nothing any more. From the owner's thread."""
        if self._client is not None:
            self._lost = self._lost or why

    def wake(self) -> None:
        """End the waiting of `turn` now. From any thread."""
        try:
            os.eventfd_write(self._wake_fd, 1)
        except OSError:
            pass  # closed already

    def close(self, last: Message | None = None, timeout_s: float = 1.0) -> None:
        """Say goodbye: send `last`, wait for acknowledgements, disconnect in good order. Safe to call twice."""
        try:
            if self._is_up and last:
                self.publish(last.topic, last.payload, qos=last.qos, retain=last.retain)
            limit = self._clock() + round(timeout_s * SECOND)
            while self._is_up and self._window and not self._lost and self._clock() < limit:
                self._move(0.05)
                self._hand_over()
            if self._client and not self._lost:
                self._client.disconnect()
                while self._client.want_write() and self._clock() < limit and not self._lost:
                    self._move(0.05)
        finally:
            self._shut()
            if self._wake_fd >= 0:
                os.close(self._wake_fd)
                self._wake_fd = -1

    def health(self) -> Health:
        where = f"{self.settings.host}:{self.settings.port}"
        rival = self.rival.trouble()
        if self._is_up:
            detail = f"connected to {where}"
            return Health(State.DEGRADED, f"{detail}: {rival}") if rival else Health(State.OK, detail)
        return Health(State.DEGRADED, f"no link to {where}: {rival or self.trouble}")

    def report(self) -> Mapping[str, Any]:
        return {
            "up": self._is_up,
            "since_s": round((self._clock() - self._since_ns) / SECOND, 1),
            "trouble": "" if self._is_up else self.trouble,
            "protocol": self._version,
            "window": self._window.size,
            "under_way": len(self._window),
            "most_under_way": self._window.most,
            "connects": self.connects,
            "losses": self.losses,
            "published": self.published,
            "acknowledged": self.acknowledged,
            "refused": self.refused,
            "unheard": self.unheard,
            "takeovers": self.rival.takeovers,
            "max_packet": self.max_packet,
        }

    # -- connecting ---------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._lost, self._was_answered, self._switch_version = "", False, False
        self._was_closed, self.end_code, self._acked_here = False, None, 0
        self._listening = self._is_granted = None
        self._acked.clear()
        self._refusals.clear()
        self._received.clear()
        try:
            self._client = self._dial()
            self._since_ns = self._clock()
        except (OSError, ValueError, mqtt.WebsocketConnectionError) as err:
            self._client = None
            self._fail(str(explain_refusal(err, self.settings)))

    def _dial(self) -> mqtt.Client:
        settings = self.settings
        version = _VERSIONS[self._version]
        clean = None if version == mqtt.MQTTv5 else True
        client = mqtt.Client(
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
        will = self._will()
        if will:
            client.will_set(will.topic, will.payload, will.qos, will.retain)
        client.connect(settings.host, settings.port, settings.keepalive_s)
        return client

    def _opened(self, client: mqtt.Client, _: Any, sock: Any) -> None:
        self._socket = sock

    def _connected(
        self, client: mqtt.Client, _: Any, flags: Any, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self._was_answered = True
        if reason.value >= REFUSED:
            is_unknown = reason.value == UNSUPPORTED_VERSION
            self._switch_version = is_unknown and self.settings.protocol == "auto" and self._version == "5"
            self._lost = f"the broker refuses this box: {reason}"
            return
        self._window.open(getattr(properties, "ReceiveMaximum", None))
        self.max_packet = getattr(properties, "MaximumPacketSize", None)
        self._subscribed = set()
        for topic, qos in self._subscriptions:
            rc, packet = client.subscribe(topic, qos)
            if rc is not MQTTErrorCode.MQTT_ERR_SUCCESS:
                self._lost = f"subscribing failed: {mqtt.error_string(rc)}"
            self._subscribed.add(packet)
        if not self._subscribed:
            self._rise()

    def _suback(self, client: mqtt.Client, _: Any, packet: int, reasons: list[ReasonCode], properties: Any) -> None:
        refused = [str(reason) for reason in reasons if reason.value >= REFUSED]
        if self._listening and packet == self._listening[1]:
            self._is_granted = not refused
            return
        if refused:
            self._lost = self._lost or f"the broker refuses a subscription: {', '.join(refused)}; check its access list"
            return
        self._subscribed.discard(packet)
        if not self._subscribed:
            self._rise()

    def _rise(self) -> None:
        self._is_up, self._since_ns, self.trouble = True, self._clock(), ""
        self.connects += 1
        log.info("link.up host=%s protocol=%s window=%d", self.settings.host, self._version, self._window.size)
        self._announce = True

    # -- turning ------------------------------------------------------------------------------------------------------

    def _move(self, timeout_s: float) -> None:
        """Wait for the socket and let the library read and write."""
        client = self._client
        sock = client.socket() if client else None
        if client is None or sock is None:
            self._lost = self._lost or "the connection ended"
            return
        pending = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        ready = self._wait(0.0 if pending else timeout_s, sock.fileno(), client.want_write())
        if ready or pending:
            rc = client.loop_read()
            if rc is MQTTErrorCode.MQTT_ERR_SUCCESS and client.want_write():
                rc = client.loop_write()
        else:
            rc = MQTTErrorCode.MQTT_ERR_SUCCESS
        if rc is MQTTErrorCode.MQTT_ERR_SUCCESS:
            rc = client.loop_misc()
        if rc is not MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._was_closed = self._was_closed or rc is MQTTErrorCode.MQTT_ERR_CONN_LOST
            self._lost = self._lost or mqtt.error_string(rc).lower().rstrip(".")

    def _wait(self, timeout_s: float, descriptor: int = -1, wants_write: bool = False) -> bool:
        """Whether the socket is ready; `wake` ends the waiting, too."""
        poll = select.poll()
        poll.register(self._wake_fd, select.POLLIN)
        if descriptor >= 0:
            poll.register(descriptor, select.POLLIN | (select.POLLOUT if wants_write else 0))
        ready = {fd for fd, _ in poll.poll(timeout_s * 1e3)}
        if self._wake_fd in ready:
            os.eventfd_read(self._wake_fd)
        return descriptor in ready

    def _hand_over(self) -> None:
        """Tell the owner what came in, outside of the library."""
        if self._announce:
            self._announce = False
            self._on_up()
        acked, self._acked = self._acked, []
        for token in acked:
            if token is not None and self._on_acked(token) is not False:
                self._backoff.succeeded()
        while self._refusals:
            self._on_refused(*self._refusals.pop(0))
        if self._is_granted is not None:
            is_granted, self._is_granted = self._is_granted, None
            self._on_listening(is_granted)
        while self._received:
            self._on_message(self._received.popleft())

    def _puback(self, client: mqtt.Client, _: Any, packet: int, reason: ReasonCode, properties: Any) -> None:
        was_ours, token = self._window.acked(packet)
        if not was_ours:
            return
        code = 0 if reason is None else reason.value
        if code >= REFUSED:
            self.refused += 1
            self._refusals.append((token, code))
            return
        self.acknowledged += 1
        if token is not None:
            self._acked_here += 1
            self.is_unheard = code == UNHEARD
            self.unheard += self.is_unheard
        self._acked.append(token)

    def _incoming(self, client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        self._received.append(Message(message.topic, bytes(message.payload), message.qos, message.retain))

    def _disconnected(self, client: mqtt.Client, _: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if flags.is_disconnect_packet_from_server and reason is not None:
            self.end_code = reason.value
            self._lost = self._lost or f"the broker ends the connection: {in_words(reason.value)}"
        self._was_closed = self._was_closed or (reason is not None and reason.value != KEEP_ALIVE)
        self._lost = self._lost or f"the connection ended: {reason}"

    def _overdue(self) -> str:
        """Why to give this connection up, or nothing."""
        now = self._clock()
        if not self._is_up:
            late = now - self._since_ns > HANDSHAKE_WAIT_S * SECOND
            return "the broker does not answer the connect request" if late else ""
        if now - self._since_ns > HELD_NS and not self._window:
            self._backoff.succeeded()
        self.rival.held(now - self._since_ns)
        oldest = self._window.oldest_ns()
        if oldest is not None and now - oldest > self.settings.ack_timeout_s * SECOND:
            return f"no acknowledgement for {self.settings.ack_timeout_s:g} s"
        return ""

    # -- losing it ----------------------------------------------------------------------------------------------------

    def _drop(self, why: str) -> None:
        was_up = self._is_up
        self.lost_tokens = self._window.tokens()
        if was_up and self._was_closed:
            self._look_for_rival()
        if self._lost and not self._was_answered:
            why = str(explain_hang_up(getattr(self._socket, "fault", None), self.settings))
            if self.settings.protocol == "auto":  # some just hang up on MQTT 5
                self._version = "3.1.1" if self._version == "5" else "5"
        self._shut()
        if self._switch_version:
            self._version, self._next_attempt_ns, self.trouble = "3.1.1", self._clock(), why
        else:
            self._fail(why)
        if was_up:
            self.losses += 1
            log.warning("link.down %s", why)
            self._on_down(why)

    def _look_for_rival(self) -> None:
        if self.end_code == SESSION_TAKEN_OVER:
            self.rival.taken_over()
        elif self.end_code is None:
            is_quiet = not self._window and self._clock() - self._sent_ns > QUIET_NS
            clue = IDLE if is_quiet else BUSY if self._acked_here else STUCK
            self.rival.closed(self._clock() - self._since_ns, clue)

    def _fail(self, why: str) -> None:
        if why != self.trouble:
            log.warning("link.trouble host=%s port=%d %s", self.settings.host, self.settings.port, why)
        self.trouble = why
        wait_s = max(self._backoff.next_s(), self.rival.wait_s())
        self._next_attempt_ns = self._clock() + round(wait_s * SECOND)

    def _shut(self) -> None:
        """Close the socket and forget the client with all that was under way in it."""
        client, self._client, self._socket = self._client, None, None
        self._is_up, self._announce, self._since_ns = False, False, self._clock()
        self._window.open(None)
        sock = client.socket() if client else None
        if sock is not None:
            sock.close()
