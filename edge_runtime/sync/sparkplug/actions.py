"""What goes into a Sparkplug node and what comes out of it, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from edge_runtime.core.events import EventKind
from edge_runtime.sync.sparkplug.payload import Value

Readings = Mapping[str, Value | None]  # metric name -> value now; None where it is not known


class Moment(NamedTuple):
    """One instant on both clocks: the box's own for waiting, the calendar for what leaves the box."""

    ns: int  # monotonic
    utc_ms: int  # since 1970


@dataclass(frozen=True, slots=True)
class Sample:
    """Everything the node reports, at one moment. A device that is None is lost; one left out is as it was."""

    node: Readings = field(default_factory=dict)
    devices: Mapping[str, Readings | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Remember:
    """Write this down before anything else is done: the bdSeq of the next CONNECT, also after a power cut."""

    bd_seq: int


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a clean session (MQTT 5: clean start, session expiry 0) with this will and subscribe to these filters.

    Answer by `connected` when CONNECT and every subscription were granted, by `connect_failed` when no CONNECT packet
    left the box, by `disconnected` for anything else.
    """

    server: int  # index into the configured list
    will_topic: str
    will_payload: bytes
    filters: tuple[tuple[str, int], ...]  # topic filter, QoS
    hint: str = ""  # a topic that is good to hear: a broker may refuse it
    will_qos: int = 1
    will_retain: bool = False


@dataclass(frozen=True, slots=True)
class Publish:
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Send DISCONNECT after what was published, then close. With MQTT 5 the reason code is 0x04, "with will", as
    Sparkplug asks. Answer by `disconnected`."""


@dataclass(frozen=True, slots=True)
class Command:
    """A host wrote a writable metric. Whoever carries it out decides whether it may be done; the node only checked
    that the metric exists, is writable and has this type."""

    device: str | None
    name: str
    value: Value
    sent_ms: int | None  # as the host has it; None where it said none


@dataclass(frozen=True, slots=True)
class Note:
    """Something for the log or the journal: see EventKind."""

    kind: EventKind
    detail: Mapping[str, object] = field(default_factory=dict)


Action = Remember | Connect | Publish | Disconnect | Command | Note
