"""A connection to an MQTT broker that is kept up: made again after each end, and no more of it used than it can carry.

Passive: its owner's thread calls `turn` and everything happens inside.

- A publish that is not acknowledged within `ack_timeout_s` ends the connection; the library waits for ever.
- Attempts to connect are spaced with jitter. Only an acknowledgement of something that the owner gave a token, or a
  link that held, resets the spacing: that of `state`, at each connection, says nothing of the records behind it.
- Nothing is sent that is larger than the broker takes (Maximum Packet Size), or than the station lets it be.
- Another client with our name is noticed, see `rival.py`.

MQTT 5 is preferred because a broker says there what it refused; a 3.1.1 broker acknowledges what it throws away.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edge_runtime.core.clock import MS, SECOND, Clock, monotonic_ns
from edge_runtime.flow.components import Health, State
from edge_runtime.sync.backoff import Backoff
from edge_runtime.sync.mqtt.connection import Connection
from edge_runtime.sync.mqtt.manners import Manners
from edge_runtime.sync.mqtt.reasons import UNHEARD, publish_bytes
from edge_runtime.sync.mqtt.refusal import explain_hang_up, explain_refusal
from edge_runtime.sync.mqtt.rival import Rival
from edge_runtime.sync.mqtt.settings import LinkSettings, Message
from edge_runtime.sync.mqtt.waker import Waker
from edge_runtime.sync.mqtt.window import Window

log = logging.getLogger(__name__)

HANDSHAKE_WAIT_S = 10.0  # from TCP to CONNACK and SUBACK
QUIET_NS = 200 * MS  # a broker that hangs up because of a message does so before that
MQTT_MOST_BYTES = 268_435_460  # of any packet: four bytes of length, and what stands before
UTF8_MOST_BYTES = 4  # of a character of a topic
ENVELOPE_MOST_BYTES = 10  # of a PUBLISH: type and flags, length (4), length of the topic (2), packet id (2), properties
HELD_NS = 30 * SECOND  # a link that was up so long was worth connecting for


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
        self._manners = Manners(settings.protocol)
        self._connection: Connection | None = None
        self._since_ns = clock()  # when the present state began
        self._next_attempt_ns = clock()
        self._waker = Waker()
        self._is_announced = False  # the owner knows that this connection is up
        self._sent_ns = 0  # when the last message went out
        self._acked_here = 0  # messages with a token, on this connection
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
        connection = self._connection  # other threads ask, too
        return connection is not None and connection.is_up

    @property
    def room(self) -> int:
        """How many further publishes of QoS 1 may be made now."""
        return self._window.room if self.is_up else 0

    @property
    def protocol(self) -> str:
        """The version spoken now: 5 or 3.1.1."""
        return self._manners.now.version

    @property
    def retains(self) -> bool:
        """Retained messages are sent as such; False where the broker of now keeps none, or nobody is connected."""
        connection = self._connection
        return connection is not None and connection.is_up and connection.has_retain

    @property
    def most_bytes(self) -> int:
        """The largest packet that broker and station let us send."""
        return min(self.max_packet or MQTT_MOST_BYTES, self.settings.max_packet_bytes or MQTT_MOST_BYTES)

    def fits(self, topic: str, payload_bytes: int, qos: int = 1) -> bool:
        """Whether a message of that size may be sent."""
        most = self.most_bytes
        if payload_bytes + UTF8_MOST_BYTES * len(topic) + ENVELOPE_MOST_BYTES <= most:
            return True  # nearly always, and asked twice for each record: no need to count exactly
        return publish_bytes(topic, payload_bytes, qos=qos, is_mqtt5=self.protocol == "5") <= most

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, token: int | None = None
    ) -> bool:
        """Send one message; `on_acked(token)` or `on_refused(token, code)` follows for QoS 1.

        False: not sent, no link, no room in the window, or larger than a packet may be.
        """
        connection = self._usable()
        if connection is None or (qos and not self._window.room) or not self.fits(topic, len(payload), qos):
            return False
        packet = connection.publish(topic, payload, qos, retain=retain)
        if packet is None:
            return False
        if qos:
            self._window.sent(packet, token, self._clock())
        self.published += 1
        self._sent_ns = self._clock()
        return True

    def listen(self, topic: str) -> bool:
        """Subscribe to one more topic on this connection; `on_listening(is_granted)` follows. False: no link.

        A refusal does not end the connection. One at a time.
        """
        connection = self._usable()
        return connection is not None and connection.listen(topic)

    def stop_listening(self) -> None:
        if self._connection:
            self._connection.stop_listening()

    def _usable(self) -> Connection | None:
        connection = self._connection
        return connection if connection and connection.is_up and not connection.lost else None

    def turn(self, timeout_s: float) -> None:
        """Do what there is to do, waiting at most `timeout_s` for it; connecting may take CONNECT_WAIT_S more."""
        connection = self._connection
        if connection is None:
            wait_s = (self._next_attempt_ns - self._clock()) / SECOND
            if wait_s > 0:
                self._waker.wait(min(timeout_s, wait_s))
            else:
                self._connect()
            return
        if not connection.lost:
            connection.move(timeout_s)
        self._hand_over(connection)
        if why := connection.lost or self._overdue():
            self._drop(connection, why)

    def worked(self) -> None:
        """The owner knows by other means that this connection is worth having."""
        self._backoff.succeeded()

    def renew(self, why: str) -> None:
        """Give this connection up: what is under way in it means nothing any more. From the owner's thread."""
        if self._connection:
            self._connection.lost = self._connection.lost or why

    def wake(self) -> None:
        """End the waiting of `turn` now. From any thread."""
        self._waker.wake()

    def close(self, last: Message | None = None, timeout_s: float = 1.0) -> None:
        """Say goodbye: send `last`, wait for acknowledgements, disconnect in good order. Safe to call twice."""
        connection = self._connection
        try:
            if last:
                self.publish(last.topic, last.payload, qos=last.qos, retain=last.retain)
            limit = self._clock() + round(timeout_s * SECOND)
            while connection and connection.is_up and self._window and not connection.lost and self._clock() < limit:
                connection.move(0.05)
                self._hand_over(connection)
            if connection and not connection.lost:
                connection.disconnect()
                while connection.wants_write and not connection.lost and self._clock() < limit:
                    connection.move(0.05)
        finally:
            self._shut()
            self._waker.close()

    def health(self) -> Health:
        where = f"{self.settings.host}:{self.settings.port}"
        rival = self.rival.trouble()
        if self.is_up:
            detail = f"connected to {where}" + ("" if self.retains else ", which keeps no retained messages")
            return Health(State.DEGRADED, f"{detail}: {rival}") if rival else Health(State.OK, detail)
        return Health(State.DEGRADED, f"no link to {where}: {rival or self.trouble}")

    def report(self) -> Mapping[str, Any]:
        return {
            "up": self.is_up,
            "since_s": round((self._clock() - self._since_ns) / SECOND, 1),
            "trouble": "" if self.is_up else self.trouble,
            "protocol": self.protocol,
            "retains": self.retains,
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

    # -- turning ------------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self.end_code, self._acked_here, self._is_announced = None, 0, False
        try:
            self._connection = Connection(
                self.settings, self._manners.now, self._subscriptions, self._window, self._waker, self._will()
            )
            self._since_ns = self._clock()
        except (OSError, ValueError) as err:
            self._fail(str(explain_refusal(err, self.settings)))

    def _hand_over(self, connection: Connection) -> None:
        """Tell the owner what came in, outside of the library."""
        if connection.is_up and not self._is_announced:
            self._rise(connection)
        acked, connection.acked = connection.acked, []
        for token, code in acked:
            self.acknowledged += 1
            if token is not None:
                self._acked_here += 1
                self.is_unheard = code == UNHEARD
                self.unheard += self.is_unheard
                if self._on_acked(token) is not False:
                    self._backoff.succeeded()
        while connection.refusals:
            self.refused += 1
            self._on_refused(*connection.refusals.pop(0))
        if connection.is_granted is not None:
            is_granted, connection.is_granted = connection.is_granted, None
            self._on_listening(is_granted)
        while connection.received:
            self._on_message(connection.received.popleft())

    def _rise(self, connection: Connection) -> None:
        self._is_announced, self._since_ns, self.trouble = True, self._clock(), ""
        self.max_packet = connection.max_packet
        self.connects += 1
        log.info("link.up host=%s protocol=%s window=%d", self.settings.host, self.protocol, self._window.size)
        if not self.retains:
            log.warning("link.no_retain host=%s: its messages reach who listens now, nobody later", self.settings.host)
        self._on_up()

    def _overdue(self) -> str:
        """Why to give this connection up, or nothing."""
        now = self._clock()
        if not self.is_up:
            late = now - self._since_ns > HANDSHAKE_WAIT_S * SECOND
            return f"the broker does not answer {self._connection.unanswered}" if late and self._connection else ""
        if now - self._since_ns > HELD_NS and not self._window:
            self._backoff.succeeded()
        self.rival.held(now - self._since_ns)
        oldest = self._window.oldest_ns()
        if oldest is not None and now - oldest > self.settings.ack_timeout_s * SECOND:
            return f"no acknowledgement for {self.settings.ack_timeout_s:g} s"
        return ""

    # -- losing it ----------------------------------------------------------------------------------------------------

    def _drop(self, connection: Connection, why: str) -> None:
        was_up = connection.is_up
        self.lost_tokens, self.end_code = self._window.tokens(), connection.end_code
        is_at_once = self._manners.was_refused(connection.refusal_code)
        if was_up and connection.was_closed:
            is_quiet = not self._window and self._clock() - self._sent_ns > QUIET_NS
            lived_ns = self._clock() - self._since_ns
            self.rival.ended(connection.end_code, lived_ns, is_quiet=is_quiet, was_useful=self._acked_here > 0)
        if connection.lost and not connection.was_answered:
            why = str(explain_hang_up(connection.tls_fault, self.settings))
            self._manners.hung_up()
        self._shut()
        if is_at_once:
            self._next_attempt_ns, self.trouble = self._clock(), why
        else:
            self._fail(why)
        if was_up:
            self._manners.was_up()
            self.losses += 1
            log.warning("link.down %s", why)
            self._on_down(why)

    def _fail(self, why: str) -> None:
        if why != self.trouble:
            log.warning("link.trouble host=%s port=%d %s", self.settings.host, self.settings.port, why)
        self.trouble = why
        wait_s = max(self._backoff.next_s(), self.rival.wait_s())
        self._next_attempt_ns = self._clock() + round(wait_s * SECOND)

    def _shut(self) -> None:
        """Forget the connection with all that was under way in it."""
        connection, self._connection = self._connection, None
        self._since_ns = self._clock()
        self._window.open(None)
        if connection:
            connection.close()
