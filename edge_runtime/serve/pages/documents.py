"""What the pages are told, as types: one JSON document each, made once for all who look.

PAGES.md describes them for whoever builds on them.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.core.messages import Region
from edge_runtime.serve.pages.alarms import Alarm


@dataclass(frozen=True, slots=True)
class Found:
    """One result of a search: what the catalogue has for a code."""

    code: str
    name: str
    instruction: str


@dataclass(frozen=True, slots=True)
class Asked:
    """One thing an operator asked of the box, with what was found."""

    source: str
    transcript: str
    command: str
    outcome: str
    reason: str
    found: tuple[Found, ...]


@dataclass(frozen=True, slots=True)
class VoiceLook:
    """asked: the newest last."""

    mode: str
    says: str
    shown: tuple[Found, ...]  # on the operator's screen now
    asked: tuple[Asked, ...]


@dataclass(frozen=True, slots=True)
class LineLook:
    """Event `line`: how the line is. What is empty is not known: the box does not answer, or has no such thing."""

    face: str  # see faces.Face
    detail: str  # why, in the box's own words
    station: str
    site: str
    line: str
    automation: str
    safe_action: str  # what becomes of a part that nobody judged: reject, accept
    model: str
    recipe: str
    lot: str
    held_by: str  # who holds the line
    held_why: str  # "stop line", "pause"
    held_since_ms: int  # UTC; 0: not known
    run: int
    uptime_s: float
    parts: int
    on_belt: int
    waiting_for_person: int
    late: int
    verdict_ms_p99: float
    is_clock_sure: bool
    alarms: tuple[Alarm, ...]
    voice: VoiceLook | None


@dataclass(frozen=True, slots=True)
class PartLook:
    """Event `part`: the part to look at. Its pictures are at api/view/PART.jpg and api/view/PART.heat.png."""

    part: str
    verdict: str
    cause: str
    reason: str
    score: float | None
    ms: float
    model: str
    regions: tuple[Region, ...]
    width: int
    height: int
    has_picture: bool
    has_heat: bool


@dataclass(frozen=True, slots=True)
class WaitingLook:
    """Event `waiting`: the part that a person may decide now; `part` is empty where none waits. Its picture is at
    api/view/PART.jpg."""

    part: str
    waiting: int
    until_ms: int  # UTC of the box
    left_ms: int
    reason: str
    regions: tuple[Region, ...]
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A part in the journal, as the strip of rejects and the review have it. `row` is its number there."""

    row: int
    part: str
    at_ms: int  # UTC, of the photo-eye
    verdict: str
    cause: str
    reason: str
    score: float | None
    ms: float | None
    outcome: str
    label: str
    model: str
    regions: tuple[Region, ...]
    has_picture: bool


@dataclass(frozen=True, slots=True)
class Counts:
    parts: int
    accept: int
    reject: int
    unsure: int


@dataclass(frozen=True, slots=True)
class Minute:
    at_ms: int  # UTC, its start
    parts: int
    reject: int
    unsure: int


@dataclass(frozen=True, slots=True)
class ShiftLook:
    """Event `shift`: what passed since the shift began, and minute by minute in the last hour.

    trouble: why the journal cannot be read; the figures are empty then.
    """

    since_ms: int
    counts: Counts
    hour: tuple[Minute, ...]
    rejects: tuple[Kept, ...]  # rejected and unsure parts, the newest first
    trouble: str
