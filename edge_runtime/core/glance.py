"""A glance at a running box: the part of the status document (status.py) that `status` and `top` show.

It stands apart because they have 0.15 s of processor time from start to end, and each such class takes up to a
millisecond of it. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from edge_runtime.core.state import State
from edge_runtime.core.typed_json import from_json, to_json


@dataclass(frozen=True, slots=True)
class ComponentHealth:
    state: State
    detail: str
    age_ms: float | None  # since its loop last turned; None where it has no loop


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of everything that passed since the start; 0 while nothing did."""

    p50: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Latencies:
    """Milliseconds."""

    trigger_to_verdict: Percentiles
    capture_to_verdict: Percentiles
    invoke: Percentiles


@dataclass(frozen=True, slots=True)
class RecentPart:
    """One of the parts decided last."""

    part: int
    verdict: str
    cause: str
    reason: str
    score: float | None
    ms: float  # photo-eye to verdict
    origin: str = ""  # whose answer it was: "local", "remote:scratch/3@gpu.example:8000"; empty where no model spoke
    is_recorded: bool = True  # on the disk; False: decided, not yet recorded


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """Whether what is old goes, and what went since the start."""

    says: str
    removed: Mapping[str, int]
    clock_steps: int


@dataclass(frozen=True, slots=True)
class RecentRequest:
    """One thing an operator asked of the box lately; see core/messages.OperatorRequest."""

    source: str
    transcript: str
    confidence: float
    command: str | None
    results: tuple[str, ...]
    choice: str | None
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceGlance:
    """What the operator's screen says, and what was asked last."""

    mode: str  # "idle", "shown", ...
    says: str
    shown: tuple[str, ...]
    recent: tuple[RecentRequest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """voice: None without a microphone, and where it cannot be had; `health` says which. last_part_s: since the newest
    part broke the photo-eye; None before the run's first."""

    station: str
    model: str  # label of the one that judges parts
    config_digest: str
    held_by: str  # who holds the line: "stop line"; empty while it may run
    voice: VoiceGlance | None
    retention: RetentionReport
    state: State
    uptime_s: float
    health: Mapping[str, ComponentHealth]
    parts: int
    verdicts: Mapping[str, int]
    causes: Mapping[str, int]
    outcomes: Mapping[str, int]
    late: int
    on_belt: int
    latency_ms: Latencies
    recent: tuple[RecentPart, ...]
    rss_mb: float
    last_part_s: float | None = None

    @property
    def is_well(self) -> bool:
        """It inspects."""
        return self.state in (State.OK, State.DEGRADED)

    def to_json(self) -> dict[str, Any]:
        told = to_json(self)
        if self.voice is None and "voice" in self.health:  # as it always was: an empty voice is one that cannot be had
            told["voice"] = {}
        return told

    @classmethod
    def from_json(cls, told: object) -> Self:
        """Raises ProtocolError when this is no status document."""
        if isinstance(told, Mapping) and told.get("voice") == {}:
            told = {**told, "voice": None}
        return from_json(cls, told, "status")
