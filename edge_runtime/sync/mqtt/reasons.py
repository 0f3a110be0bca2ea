"""What a broker says with the reason codes of MQTT 5, in words, and what is to be done about each. Pure.

A code in a PUBACK is final: that publish is over, and the connection goes on. Which of them speak of the one message,
which of the way, and which of the moment decides whether a record is tried again, waits, or is set aside.
"""

from __future__ import annotations

from enum import Enum

REFUSED = 0x80  # codes from here on are errors (MQTT 5, 2.4)
UNHEARD = 0x10  # taken, and nobody subscribes to it
UNSUPPORTED_VERSION = 0x84
SESSION_TAKEN_OVER = 0x8E
KEEP_ALIVE = 0x8D
PACKET_TOO_LARGE = 0x95
RETAIN_NOT_SUPPORTED = 0x9A
QOS_NOT_SUPPORTED = 0x9B

# codes of our own, beyond those of a byte: what no reason code was sent for
TOO_LARGE_HERE = 0x100  # larger than the broker, or the station, lets a packet be: not sent at all
LOST_WITH_IT = 0x101  # the connection ended while this message alone was under way
NOT_KEPT = 0x102  # acknowledged, and thrown away: it did not come back while smaller ones did


class About(Enum):
    """What a refusal speaks of."""

    MESSAGE = "message"
    WAY = "way"  # who may publish what: it would be the same for every other record
    MOMENT = "moment"
    UNKNOWN = "unknown"


_ABOUT = {
    PACKET_TOO_LARGE: About.MESSAGE,
    0x99: About.MESSAGE,
    TOO_LARGE_HERE: About.MESSAGE,
    NOT_KEPT: About.MESSAGE,
    0x87: About.WAY,
    0x8A: About.WAY,
    0x90: About.WAY,
    QOS_NOT_SUPPORTED: About.WAY,
    RETAIN_NOT_SUPPORTED: About.WAY,
    0x88: About.MOMENT,
    0x89: About.MOMENT,
    0x8B: About.MOMENT,
    0x91: About.MOMENT,
    0x93: About.MOMENT,
    0x96: About.MOMENT,
    0x97: About.MOMENT,
    0x9C: About.MOMENT,
    0x9F: About.MOMENT,
}

_WORDS = {
    0x00: "normal disconnection",
    0x80: "unspecified error",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "implementation specific error",
    UNSUPPORTED_VERSION: "unsupported protocol version",
    0x85: "client identifier not valid",
    0x86: "bad user name or password",
    0x87: "not authorized",
    0x88: "server unavailable",
    0x89: "server busy",
    0x8A: "banned",
    0x8B: "server shutting down",
    0x8C: "bad authentication method",
    KEEP_ALIVE: "keep alive timeout",
    SESSION_TAKEN_OVER: "session taken over",
    0x8F: "topic filter invalid",
    0x90: "topic name invalid",
    0x91: "packet identifier in use",
    0x92: "packet identifier not found",
    0x93: "receive maximum exceeded",
    0x94: "topic alias invalid",
    PACKET_TOO_LARGE: "packet too large",
    0x96: "message rate too high",
    0x97: "quota exceeded",
    0x98: "administrative action",
    0x99: "payload format invalid",
    RETAIN_NOT_SUPPORTED: "retain not supported",
    QOS_NOT_SUPPORTED: "QoS not supported",
    0x9C: "use another server",
    0x9D: "server moved",
    0x9E: "shared subscriptions not supported",
    0x9F: "connection rate exceeded",
    0xA0: "maximum connect time",
    0xA1: "subscription identifiers not supported",
    0xA2: "wildcard subscriptions not supported",
    TOO_LARGE_HERE: "larger than a packet may be",
    LOST_WITH_IT: "the connection ends whenever it is sent",
    NOT_KEPT: "acknowledged and thrown away, smaller ones are kept",
}


def about(code: int) -> About:
    return _ABOUT.get(code, About.UNKNOWN)


def in_words(code: int) -> str:
    """`payload format invalid (0x99)`; codes of our own have words alone."""
    words = _WORDS.get(code, "unknown reason")
    return words if code > 0xFF else f"{words} (0x{code:02x})"


def publish_bytes(topic: str, payload_bytes: int, *, qos: int, is_mqtt5: bool) -> int:
    """Size of the whole PUBLISH packet without properties, as Maximum Packet Size counts it (MQTT 5, 3.1.2.11.4)."""
    rest = 2 + len(topic.encode()) + (2 if qos else 0) + (1 if is_mqtt5 else 0) + payload_bytes
    size, left = rest + 2, rest // 128  # type and flags, and the first byte of the length
    while left:
        size, left = size + 1, left // 128
    return size
