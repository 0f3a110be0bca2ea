"""What is under way to the broker: at most so many publishes without an acknowledgement, and since when.

Pure: no clock, no I/O. The MQTT library numbers publishes of a connection; the owner names them by a token of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

MQTT_MOST = 65_535  # packet identifiers, and the Receive Maximum of a broker that names none


@dataclass(slots=True)
class _Sent:
    token: int | None
    at_ns: int


class Window:
    """Publishes of one connection, the oldest first."""

    def __init__(self, configured: int) -> None:
        self._configured = configured
        self.size = configured
        self._sent: dict[int, _Sent] = {}  # packet id -> what; a dict keeps the order of insertion
        self.most = 0  # highest number that was ever under way, the proof that the window held

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def room(self) -> int:
        return max(0, self.size - len(self._sent))

    def open(self, receive_maximum: int | None) -> None:
        """A new connection. receive_maximum: what the broker's CONNACK allows; None where it says nothing."""
        self._sent.clear()
        self.size = min(self._configured, receive_maximum or MQTT_MOST)

    def sent(self, packet_id: int, token: int | None, now_ns: int) -> None:
        self._sent[packet_id] = _Sent(token, now_ns)
        self.most = max(self.most, len(self._sent))

    def acked(self, packet_id: int) -> tuple[bool, int | None]:
        """Whether that publish was under way, and its token."""
        sent = self._sent.pop(packet_id, None)
        return sent is not None, sent.token if sent else None

    def tokens(self) -> int:
        """How many of those under way have a token."""
        return sum(sent.token is not None for sent in self._sent.values())

    def oldest_ns(self) -> int | None:
        """When the publish was sent that waits the longest; None when nothing is under way."""
        return next(iter(self._sent.values())).at_ns if self._sent else None
