"""What the link tells: frozen values, in the order in which things became known."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from firmware_bridge.reject.messages import Answer, Verdict


class Outcome(StrEnum):
    """What the far side did with one part."""

    PASSED = "passed"
    FIRED = "fired"
    DEFAULTED = "defaulted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class LinkUp:
    """The controller is armed."""

    boot_id: int


@dataclass(frozen=True, slots=True)
class LinkLost:
    reason: str


@dataclass(frozen=True, slots=True)
class LinkRefused:
    """It will not work like this, however long we wait."""

    reason: str


@dataclass(frozen=True, slots=True)
class LinkBlocked:
    """The controller will not be armed before somebody has been at the machine. We keep asking."""

    reason: str


@dataclass(frozen=True, slots=True)
class ControllerReset:
    old_boot_id: int
    new_boot_id: int


@dataclass(frozen=True, slots=True)
class Tripped:
    """The controller let itself fall into the safe state. The link arms it again by itself."""

    reason: str  # "watchdog", "overflow", "disarmed" (an input; see InputChanged)
    at_ns: int


@dataclass(frozen=True, slots=True)
class InputChanged:
    """Something that stands in the way of rejects came or went."""

    bin_full: bool
    air_low: bool
    encoder_lost: bool
    belt_reversed: bool
    at_ns: int


@dataclass(frozen=True, slots=True)
class Triggered:
    boot_id: int
    part_id: int
    encoder: int
    at_ns: int  # host time of the moment at the eye
    is_related: bool  # False: clocks are not related yet and `at_ns` is the time of arrival


@dataclass(frozen=True, slots=True)
class PartsMissed:
    """Parts `first` to `last` passed the eye, but their trigger events are gone. They default, or already did."""

    boot_id: int
    first: int
    last: int
    untold: int  # still more of them before `first`, too many to tell
    before_ns: int  # they passed before this


@dataclass(frozen=True, slots=True)
class Settled:
    boot_id: int
    part_id: int
    outcome: Outcome
    encoder: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class GateConfirmed:
    boot_id: int
    part_id: int
    is_confirmed: bool  # False: the sensor behind the gate saw nothing


@dataclass(frozen=True, slots=True)
class EventsLost:
    count: int


@dataclass(frozen=True, slots=True)
class VerdictAnswered:
    boot_id: int
    part_id: int
    answer: Answer
    in_force: Verdict
    round_trip_ns: int  # from submission


LinkEvent = (
    LinkUp | LinkLost | LinkRefused | LinkBlocked | ControllerReset | Tripped | InputChanged | Triggered | PartsMissed
    | Settled | GateConfirmed | EventsLost | VerdictAnswered
)  # fmt: skip
