"""What a person must know of the box's health, the worst first, from the status document.

The priorities are those of a box that degrades: what stops the inspection or loses records is high, an ear or an unsure
clock is low.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edge_runtime.core.state import State
from edge_runtime.core.status import Status

PRIORITIES = ("high", "medium", "low")
FREE_RUNNING = "free_running"

_FAILED: Mapping[str, str] = {
    "line": "high",
    "camera": "high",
    "model": "high",
    "controller": "high",
    "journal": "high",
    "evidence": "high",
    "voice": "low",
    "sound": "low",
    "microphone": "low",
}


@dataclass(frozen=True, slots=True)
class Alarm:
    """source: the component, or `clock`. detail: in the box's own words."""

    source: str
    priority: str
    detail: str


def alarms_of(status: Status) -> tuple[Alarm, ...]:
    """The highest first; in the order of the status document among equals."""
    found = [*_components(status), *_clock(status)]
    return tuple(sorted(found, key=lambda alarm: PRIORITIES.index(alarm.priority)))


def _components(status: Status) -> Iterator[Alarm]:
    for name, health in status.health.items():
        priority = _FAILED.get(name, "medium")
        is_disarmed = name == "controller" and not (status.report.controller.is_armed or status.held_by)
        if is_disarmed or health.state in (State.FAILED, State.STOPPED):
            yield Alarm(name, priority, health.detail)
        elif health.state is State.DEGRADED:
            yield Alarm(name, "medium" if priority == "high" else priority, health.detail)


def _clock(status: Status) -> Iterator[Alarm]:
    journal = status.report.journal
    if journal is not None and journal.time_quality == FREE_RUNNING:
        yield Alarm("clock", "low", status.retention.says)
