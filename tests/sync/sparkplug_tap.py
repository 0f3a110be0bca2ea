"""The product's node on one side, the checker's log on the other, and a hand that moves time: no socket, no thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import spb_mqtt
import spb_payload  # noqa: F401
from spb_course import Watch
from spb_proxy import BROKER, NODE, WIRE, Event
from spb_rules import judge
from spb_sessions import sessions
from spb_tally import Result

from edge_runtime.core.clock import SECOND
from edge_runtime.sync.sparkplug.actions import (
    Action,
    Command,
    Connect,
    Disconnect,
    Moment,
    Note,
    Publish,
    Remember,
    Sample,
)
from edge_runtime.sync.sparkplug.node import Phase, SparkplugNode

UTC_MS = 1_760_000_000_000
GROUP, NAME = "plant", "box"


class Tap:
    """Carries out what the node says, against a broker that answers at once, and writes down what a proxy would see."""

    def __init__(self, node: SparkplugNode, level: int = 4) -> None:
        self.node = node
        self.level = level
        self.now = Moment(SECOND, UTC_MS)
        self.events: list[Event] = []
        self.remembered: list[int] = []
        self.commands: list[Command] = []
        self.notes: list[Note] = []
        self.server = 0
        self.is_reachable = True
        self._connection = -1

    # time and weather

    def wait(self, seconds: float, *, wall: bool = True) -> None:
        self.now = Moment(
            self.now.ns + round(seconds * SECOND), self.now.utc_ms + (round(seconds * 1000) if wall else 0)
        )
        self.do(self.node.tick(self.now))

    def wait_until(self, phase: Phase, most_s: float = 200.0) -> None:
        for _ in range(round(most_s / 0.5)):
            if self.node.phase is phase:
                return
            self.wait(0.5)
        raise AssertionError(f"still {self.node.phase} after {most_s} s")

    def sample(self, node: dict[str, Any] | None = None, **devices: Any) -> None:
        self.do(self.node.sample(Sample(node or {}, devices), self.now))
        self.wait(0.1)

    def cut(self) -> None:
        self.log(WIRE, "cut")
        self.log(WIRE, "closed")
        self.do(self.node.disconnected(self.now, "cut"))

    def hear(self, topic: str, payload: bytes, *, retained: bool = False) -> None:
        self.wait(0.05)
        self.log(BROKER, spb_mqtt.Publish(topic.encode(), payload, 1, retained))
        self.do(self.node.received(topic, payload, self.now, retained=retained))

    def stop(self) -> None:
        self.do(self.node.stop(self.now))

    # what the node says

    def do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Remember(bd_seq):
                    self.remembered.append(bd_seq)
                case Connect():
                    self._connect(action)
                case Publish(topic, payload, qos, retain):
                    self.log(NODE, spb_mqtt.Publish(topic.encode(), payload, qos, retain))
                case Disconnect():
                    self.log(NODE, spb_mqtt.Disconnect(4 if self.level == 5 else 0))
                    self.log(WIRE, "closed")
                    self.do(self.node.disconnected(self.now, "left"))
                case Command():
                    self.commands.append(action)
                case Note():
                    self.notes.append(action)

    def _connect(self, action: Connect) -> None:
        if not self.is_reachable:
            self.do(self.node.connect_failed(self.now, "refused"))
            return
        self._connection += 1
        self.server = action.server
        will = (action.will_topic, action.will_payload, action.will_qos, action.will_retain)
        self.log(NODE, spb_mqtt.Connect(self.level, NAME, True, 0, *will))
        self.log(BROKER, spb_mqtt.Answer(spb_mqtt.CONNACK, (0,)))
        self.log(NODE, spb_mqtt.Subscribe(action.filters))
        self.log(BROKER, spb_mqtt.Answer(spb_mqtt.SUBACK, (1,) * len(action.filters)))
        self.do(self.node.connected(self.now))

    def log(self, source: str, what: Any) -> None:
        at_s = (self.now.ns - SECOND) / SECOND + len(self.events) * 1e-7  # no two at the same instant
        self.events.append(Event(at_s, self._connection, self.server, source, what))

    # what the checker says

    def results(self, events: Sequence[Event] | None = None, host: str | None = None, servers: int = 1) -> list[Result]:
        seen = self.events if events is None else events
        watch = Watch(GROUP, NAME, host, servers, UTC_MS, (self.now.ns - SECOND) / SECOND + 0.01)
        return judge(sessions(seen, GROUP, NAME), watch).results()

    def published(self, kind: str) -> list[bytes]:
        return [
            event.what.payload
            for event in self.events
            if event.source == NODE
            and isinstance(event.what, spb_mqtt.Publish)
            and f"/{kind}/".encode() in event.what.topic
        ]

    def kinds(self) -> list[str]:
        """What the node published, in order: NBIRTH, DBIRTH..."""
        whats = [event.what for event in self.events if event.source == NODE]
        return [what.topic.decode().split("/")[2] for what in whats if isinstance(what, spb_mqtt.Publish)]


def names(results: Sequence[Result], result: str) -> set[str]:
    return {found.assertion.name for found in results if found.result == result}


def reasons(results: Sequence[Result]) -> dict[str, tuple[str, ...]]:
    return {found.assertion.name: found.reasons for found in results if found.reasons}
