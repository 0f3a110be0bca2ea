"""The status document: what a running box tells about itself, defined once for whoever writes and whoever reads it.

`edge-runtime run` fills it (station/snapshot.py) and answers it as JSON on its control socket. `status`, `top`,
`doctor`, `io`, `bench`, live tags and metrics records read it as these types. How it becomes JSON, and what happens
between boxes of different versions, is in typed_json.py: a new field has a default, because the run that is asked may
be older than the program that asks.

What `status` and `top` show is its first part, and stands in glance.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_runtime.core.glance import Glance, Percentiles, VoiceGlance
from edge_runtime.core.remote_standing import RemoteStanding


@dataclass(frozen=True, slots=True)
class ModelSeat:
    """Which model sits where. candidate, previous: versions in its slots. fault: why another one was chosen. origin:
    signed, shipped, made here or unsigned; empty for a model of another line, and from an older box."""

    label: str  # "scratch@1"
    digest: str  # of its manifest; empty where its slot does not have it
    candidate: str | None
    previous: str | None
    fault: str
    origin: str = ""


# -- reports of the components: what each counts and measures ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModelReport:
    """The worker around the model."""

    done: int
    faults: int
    replaced: int  # workers that hung or died
    waiting: int


@dataclass(frozen=True, slots=True)
class CameraReport:
    """others: what only this driver tells."""

    driver: str
    frames: int
    skipped: int | None = None
    connects: int | None = None
    others: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PicturesReport:
    """Pictures that showed nothing. blind: why the camera has not seen anything for several parts."""

    invalid: int
    last: str
    blind: str


@dataclass(frozen=True, slots=True)
class ControllerReport:
    """The link to the reject controller or PLC. others: counters of port, link and protocol that counted something."""

    port: str
    phase: str  # "up" once it is armed
    boot_id: int | None
    open_parts: int
    pending_verdicts: int
    waiting_for_outcome: int
    inputs: tuple[str, ...]  # what stands in the way of rejects: "bin_full"
    is_hold_asked: bool
    adapter_problem: str
    latency_timer_ms: int | None  # of the USB adapter
    clock_drift_ppm: float
    beat_ms: float | None  # the quickest round trip
    verdict_ms_p50: float | None
    verdict_ms_p99: float | None
    opened: int = 0
    bad_crc: int | None = None  # None where the protocol counts none
    others: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_armed(self) -> bool:
        """Its healthy output is on: the belt may run."""
        return self.phase == "up"


@dataclass(frozen=True, slots=True)
class PairingReport:
    """Frames and the parts they show."""

    paired: int
    unpaired_frames: int
    repeats: int
    waiting_frames: int
    waiting_triggers: int


@dataclass(frozen=True, slots=True)
class JournalReport:
    """Rows on their way to the disk."""

    accepted: int
    durable: int  # of the accepted: on the disk
    waiting: int
    commits: int
    commit_ms: Percentiles
    lost: Mapping[str, int]
    recovered: int
    orphans: int
    quarantined: tuple[str, ...]  # files set aside
    time_quality: str  # "synced", "free_running"


@dataclass(frozen=True, slots=True)
class EvidenceReport:
    """Pictures kept, missed and removed, each by its reason."""

    kept: Mapping[str, int]
    missed: Mapping[str, int]
    removed: Mapping[str, int]
    waiting: int
    used_mb: float
    quota_mb: float
    encode_ms: Percentiles
    write_ms: Percentiles


@dataclass(frozen=True, slots=True)
class MicrophoneReport:
    """others: what only this driver tells."""

    driver: str
    chunks: int
    overruns: int
    overwritten: int
    clipped_chunks: int
    silent_chunks: int
    restarts: int
    device: str = ""  # as the sound system names it; empty where there is none
    others: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SoundReport:
    """The ear for the machine; empty until its model is loaded. others: counters that have counted something."""

    model: str = ""
    chunks: int = 0
    judged: int = 0
    is_abnormal: bool = False
    is_invalid: bool = False
    smoothed: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    judge_ms: Percentiles | None = None
    microphone: MicrophoneReport | None = None  # as this listener has it
    others: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RemoteReport:
    """The inference server that is asked first. asked = answered + late + refused + wrong + unreachable + open ones.

    resting, busy, no_time: parts about which it was not asked. agreed, disagreed: with the box's own model's verdict.
    """

    server: str  # who answered last: "remote:scratch/3@gpu.example:8000"
    phase: str  # "up", "resting", "trial"
    trouble: str  # why it did not answer last; empty where it did
    asked: int
    answered: int
    late: int
    refused: int
    wrong: int
    unreachable: int
    resting: int
    busy: int
    no_time: int
    trials: int
    agreed: int
    disagreed: int
    answer_ms: Percentiles
    standing: RemoteStanding | None = None


@dataclass(frozen=True, slots=True)
class Reports:
    """What the components count and measure. None: the station has no such component, or an older box tells none."""

    model: ModelReport
    camera: CameraReport
    controller: ControllerReport
    pictures: PicturesReport
    queue: int  # parts that wait for the model
    on_belt: int
    waiting_for_person: int
    scheduling: Mapping[str, str]  # thread -> "fifo", or why it has to wait its turn
    pairing: PairingReport | None = None
    journal: JournalReport | None = None
    evidence: EvidenceReport | None = None
    microphone: MicrophoneReport | None = None
    sound: SoundReport | None = None
    remote: RemoteReport | None = None


# -- the voice ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VoiceActivityReport:
    """What tells speech from noise. is_latched: noise holds it open."""

    open_ratio: float
    is_latched: bool
    floor_dbfs: float
    others: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceReport(VoiceGlance):
    """others: counters such as `wakes` that have counted something."""

    wake_score: float
    level_dbfs: float
    is_speech: bool
    recogniser: Mapping[str, Any]
    microphone: MicrophoneReport
    voice_activity: VoiceActivityReport
    word_to_event_ms: Percentiles
    requests: int
    missing: tuple[str, ...]  # parts of the voice that cannot be had
    others: Mapping[str, Any] = field(default_factory=dict)


# -- the document ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Status(Glance):
    """One look at a running box."""

    site: str
    line: str
    model_digest: str
    config: str  # where the station file came from
    run: int | None  # number of the run in the journal; None before it is there
    parts_asked: int | None
    automation: str
    voice: VoiceReport | None
    version: str
    pid: int
    report: Reports
    cpu_s: float
    models: Mapping[str, ModelSeat] = field(default_factory=dict)  # "line", "voice", "sound"
