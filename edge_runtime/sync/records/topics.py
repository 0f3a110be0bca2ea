"""Where things go: `edge/<site>/<line>/<box>/...`. Names of stations hold no character that MQTT gives a meaning to."""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.config.schema import StationConfig


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one box; `command` and `reply` are for whoever answers the cloud."""

    base: str
    records: str  # QoS 1, everything that must arrive
    events: str  # QoS 0, a copy of event records as they happen
    state: str  # retained: online or offline
    files: str  # QoS 1, pieces of pictures
    ack: str  # from the consumer
    command: str
    reply: str


def topics(station: StationConfig) -> Topics:
    base = f"edge/{station.site}/{station.line}/{station.name}"
    names = ("rec", "event", "state", "file", "ack", "cmd", "cmd/reply")
    return Topics(base, *(f"{base}/{name}" for name in names))
