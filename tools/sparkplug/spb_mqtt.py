"""MQTT 3.1.1 and 5 packets as the checker needs them: cut a byte stream into packets, read those that matter.

Knows nothing of the product: it must be able to find its faults. Also writes the four packets that a host needs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAX_PACKET = 1 << 20
CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, DISCONNECT = 1, 2, 3, 4, 8, 9, 14
SESSION_EXPIRY = 0x11  # property of CONNECT and DISCONNECT, MQTT 5 section 3.1.2.11.2


class MqttError(Exception):
    """Bytes that are no MQTT packet."""


@dataclass(frozen=True, slots=True)
class Connect:
    level: int  # 4 is 3.1.1, 5 is 5.0
    client_id: str
    is_clean: bool
    session_expiry_s: int
    will_topic: str | None = None
    will_payload: bytes = b""
    will_qos: int = 0
    will_retain: bool = False


@dataclass(frozen=True, slots=True)
class Publish:
    topic: bytes  # as it came: UTF-8 or not is one of the questions
    payload: bytes
    qos: int
    retain: bool


@dataclass(frozen=True, slots=True)
class Subscribe:
    filters: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Disconnect:
    reason: int


@dataclass(frozen=True, slots=True)
class Answer:
    """CONNACK (one code) or SUBACK (one per filter)."""

    kind: int
    codes: tuple[int, ...]


Packet = Connect | Publish | Subscribe | Disconnect | Answer


class Cutter:
    """Bytes in, whole packets out, each as its first byte and its body."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        self._rest += data
        packets: list[tuple[int, bytes]] = []
        while True:
            head = _length(self._rest)
            if head is None or len(self._rest) < sum(head):
                return packets
            start, size = head
            packets.append((self._rest[0], self._rest[start : start + size]))
            self._rest = self._rest[start + size :]


def _length(data: bytes) -> tuple[int, int] | None:
    """Where the body begins and how long it is; None while that is not yet known."""
    size = 0
    for n, byte in enumerate(data[1:5]):
        size |= (byte & 0x7F) << (7 * n)
        if byte < 0x80:
            if size > MAX_PACKET:
                raise MqttError(f"packet of {size} bytes")
            return n + 2, size
    if len(data) >= 5:
        raise MqttError("packet length of more than four bytes")
    return None


def read(first: int, body: bytes, level: int) -> Packet | None:
    """The packet, or None for a kind that does not matter. level: that of the connection, once CONNECT was seen."""
    try:
        match first >> 4:
            case 1:
                return _connect(body)
            case 3:
                return _publish(first, body, level)
            case 8:
                return _subscribe(body, level)
            case 14:
                return Disconnect(body[0] if body else 0)
            case 2:
                return Answer(CONNACK, (body[1],))
            case 9:
                return Answer(SUBACK, tuple(body[_skip_properties(body, 2) if level == 5 else 2 :]))
    except (IndexError, struct.error, UnicodeDecodeError) as err:
        raise MqttError(f"malformed packet of type {first >> 4}: {err}") from err
    return None


def _connect(body: bytes) -> Connect:
    _, at = _string(body, 0)
    level, flags, at = body[at], body[at + 1], at + 4
    expiry = 0
    if level == 5:
        expiry = _session_expiry(body, at)
        at = _skip_properties(body, at)
    client_id, at = _string(body, at)
    topic, payload = None, b""
    if flags & 0x04:
        at = _skip_properties(body, at) if level == 5 else at
        raw, at = _string(body, at)
        topic = raw.decode()
        payload, at = _string(body, at)
    return Connect(
        level, client_id.decode(), bool(flags & 2), expiry, topic, payload, flags >> 3 & 3, bool(flags & 0x20)
    )


def _publish(first: int, body: bytes, level: int) -> Publish:
    topic, at = _string(body, 0)
    qos = first >> 1 & 3
    at += 2 if qos else 0
    at = _skip_properties(body, at) if level == 5 else at
    return Publish(topic, body[at:], qos, bool(first & 1))


def _subscribe(body: bytes, level: int) -> Subscribe:
    at = _skip_properties(body, 2) if level == 5 else 2
    filters = []
    while at < len(body):
        topic, at = _string(body, at)
        filters.append((topic.decode(), body[at] & 3))
        at += 1
    return Subscribe(tuple(filters))


def _string(body: bytes, at: int) -> tuple[bytes, int]:
    (size,) = struct.unpack_from(">H", body, at)
    if at + 2 + size > len(body):
        raise IndexError("string is cut off")
    return body[at + 2 : at + 2 + size], at + 2 + size


def _variable(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (body[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if body[at - 1] < 0x80:
            return value, at


def _skip_properties(body: bytes, at: int) -> int:
    size, at = _variable(body, at)
    return at + size


_PROPERTY_SIZES = {0x17: 1, 0x19: 1, 0x21: 2, 0x22: 2, SESSION_EXPIRY: 4, 0x27: 4}  # of CONNECT; others are strings


def _session_expiry(body: bytes, at: int) -> int:
    size, at = _variable(body, at)
    end = at + size
    while at < end:
        kind, at = body[at], at + 1
        if kind == SESSION_EXPIRY:
            return int(struct.unpack_from(">I", body, at)[0])
        if kind in _PROPERTY_SIZES:
            at += _PROPERTY_SIZES[kind]
        else:
            _, at = _string(body, at)
            at = _string(body, at)[1] if kind == 0x26 else at  # a user property is two strings
    return 0


# What a host sends


def connect_bytes(client_id: str) -> bytes:
    name = client_id.encode()
    return _packet(0x10, b"\0\4MQTT\4\2\0\x3c" + struct.pack(">H", len(name)) + name)


def publish_bytes(topic: str, payload: bytes, *, retain: bool = False) -> bytes:
    name = topic.encode()
    return _packet(0x30 | retain, struct.pack(">H", len(name)) + name + payload)


PING = b"\xc0\0"
GOODBYE = b"\xe0\0"


def _packet(first: int, body: bytes) -> bytes:
    size, head = len(body), bytearray([first])
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(head) + bytes([size]) + body
