"""What the log says of one edge node: its connections, and the Sparkplug messages of each in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import spb_payload
from spb_mqtt import CONNACK, Answer, Connect, Disconnect, Publish, Subscribe
from spb_payload import Payload, PayloadError
from spb_proxy import BROKER, NODE, Event

KINDS = ("NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH")


@dataclass(frozen=True, slots=True)
class Message:
    """One PUBLISH of the node. `kind` is "" when the topic says none that an edge node sends."""

    at_s: float
    topic: bytes
    levels: tuple[str, ...]  # of the topic; broken UTF-8 shows as U+FFFD
    kind: str
    device: str | None
    qos: int
    retain: bool
    payload: Payload | None  # None when it cannot be read


@dataclass
class Session:
    """One CONNECT and what followed. Times are seconds since the log began."""

    number: int
    server: int
    opened_s: float
    connect: Connect
    will: Payload | None
    accepted_s: float | None = None
    ended_s: float | None = None
    disconnect: Disconnect | None = None
    was_cut: bool = False
    messages: list[Message] = field(default_factory=list)
    subscriptions: list[tuple[float, str, int]] = field(default_factory=list)
    heard: list[tuple[float, str, bytes]] = field(default_factory=list)  # what the broker delivered to it

    def of(self, kind: str) -> Iterator[Message]:
        return (message for message in self.messages if message.kind == kind)


def sessions(events: Sequence[Event], group: str, node: str) -> list[Session]:
    """Those connections that speak for this node, in order of CONNECT."""
    found: dict[int, Session] = {}
    for event in events:
        if isinstance(event.what, Connect) and event.connection not in found:
            will = _payload(event.what.will_payload) if event.what.will_topic else None
            found[event.connection] = Session(event.connection, event.server, event.at_s, event.what, will)
        elif event.connection in found:
            _note(found[event.connection], event)
    return [session for session in found.values() if _is_of(session, group, node)]


def _note(session: Session, event: Event) -> None:
    match event.what:
        case Publish() as publish if event.source == NODE:
            session.messages.append(_message(event.at_s, publish))
        case Publish() as publish if event.source == BROKER:
            session.heard.append((event.at_s, publish.topic.decode(errors="replace"), publish.payload))
        case Subscribe(filters):
            session.subscriptions += [(event.at_s, topic, qos) for topic, qos in filters]
        case Answer(kind, codes) if kind == CONNACK and codes == (0,):
            session.accepted_s = event.at_s
        case Disconnect() as disconnect if event.source == NODE:
            session.disconnect = disconnect
        case "cut":
            session.was_cut = True
        case "closed":
            session.ended_s = event.at_s


def _message(at_s: float, publish: Publish) -> Message:
    levels = tuple(publish.topic.decode(errors="replace").split("/"))
    kind = levels[2] if len(levels) > 2 and levels[2] in KINDS else ""
    device = levels[4] if len(levels) > 4 else None
    return Message(at_s, publish.topic, levels, kind, device, publish.qos, publish.retain, _payload(publish.payload))


def _payload(data: bytes) -> Payload | None:
    try:
        return spb_payload.read(data)
    except PayloadError:
        return None


def _is_of(session: Session, group: str, node: str) -> bool:
    if session.connect.will_topic == f"spBv1.0/{group}/NDEATH/{node}":
        return True
    if any(topic == f"spBv1.0/{group}/NCMD/{node}" for _, topic, _ in session.subscriptions):
        return True
    return any(m.kind and m.levels[1] == group and len(m.levels) > 3 and m.levels[3] == node for m in session.messages)
