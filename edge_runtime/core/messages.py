"""The frozen types that flow from photo-eye to reject gate.

Time inside one machine is `int` nanoseconds of CLOCK_MONOTONIC, the same clock in every process of the box. Arrays
inside a message are read-only; who needs to write, copies. numpy is imported for type checkers only, so that
commands that merely talk about parts start without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from edge_runtime.core.events import EventKind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Verdict(StrEnum):
    """What to do with one part. `UNSURE` ends in the station's safe action."""

    ACCEPT = "accept"
    REJECT = "reject"
    UNSURE = "unsure"


class Cause(StrEnum):
    """Why a verdict is what it is. Only MODEL, RULE and HUMAN looked at the part."""

    MODEL = "model"
    RULE = "rule"
    HUMAN = "human"
    DEADLINE = "deadline"
    NO_FRAME = "no_frame"
    OVERLOAD = "overload"
    ENGINE_FAULT = "engine_fault"
    LINK_FAULT = "link_fault"
    INVALID_IMAGE = "invalid_image"  # the picture shows nothing that could be judged


class Outcome(StrEnum):
    """What the far side did with the part. `UNKNOWN` until it reports, and for ever if it forgot."""

    PASSED = "passed"
    FIRED = "fired"
    DEFAULTED = "defaulted"
    UNKNOWN = "unknown"


class Command(StrEnum):
    """What an operator may say. The values are the words."""

    ACCEPT = "accept"
    REJECT = "reject"
    RESCAN = "rescan"
    PAUSE = "pause"
    NEXT = "next"
    CANCEL = "cancel"
    STOP_LINE = "stop line"


class Label(StrEnum):
    """What a person may say about a part. `CANNOT_TELL` is an answer: they looked, and it does not show."""

    ACCEPT = "accept"
    REJECT = "reject"
    CANNOT_TELL = "cannot_tell"


class Where(StrEnum):
    """Where a person said it."""

    PAGE = "page"
    CLI = "cli"
    VOICE = "voice"
    IMPORT = "import"


LOCAL = "local"  # who answered: the box's own model, and not "remote:NAME/VERSION@HOST:PORT"
OPERATOR = "operator"  # who said it, where the box knows only that somebody at the line did


class PartKey(NamedTuple):
    """Identity of one part: the controller counts parts from its own start, so the id alone is not enough."""

    boot_id: int  # u16, drawn by the controller at every start
    part_id: int  # u32, counts up from 1 within one boot


@dataclass(frozen=True, slots=True)
class Trigger:
    """One part broke the photo-eye. The controller minted the key with the encoder latched."""

    key: PartKey
    encoder: int  # u32 counts, wraps
    at_ns: int  # host monotonic estimate of the moment at the eye
    missed: bool = False  # told afterwards by the far side: it passed while the box was away, and is at the gate by now


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture. It says itself which part it shows: by `part`, by `encoder` stamp, or by `captured_ns`."""

    camera: str
    seq: int  # the driver's own counter, so that a hole is visible
    captured_ns: int  # start of exposure, monotonic
    exposure_us: int  # 0 where the driver does not know
    image: NDArray[np.uint8]  # (height, width, 3) RGB, read-only
    part: PartKey | None = None  # set by cameras that are triggered per part
    encoder: int | None = None  # u32 counts latched at exposure, where the camera has an encoder input
    file: str = ""  # name of the file that it was read from; empty: it was taken


@dataclass(frozen=True, slots=True)
class Region:
    """One place on the picture. Coordinates are fractions of the frame, origin top left."""

    x: float
    y: float
    w: float
    h: float
    score: float  # 0..1
    label: str


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """One block of sound from a microphone."""

    seq: int  # counts up from 0 by one; a hole is an overrun
    captured_ns: int  # of the first sample
    rate_hz: int
    pcm: NDArray[np.int16]  # shape (n,), mono, read-only


@dataclass(frozen=True, slots=True)
class Utterance:
    """Speech from its first to its last sound, with the padding of silence around it."""

    start_ns: int  # of the first sample of `pcm`
    end_ns: int
    rate_hz: int
    pcm: NDArray[np.int16]  # shape (n,), mono, read-only; padding included
    padded_ms: int
    flaw: str = ""  # why its sound shows nothing and must not be understood: "clipped 40 % of samples"


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one model says about one picture. `score` is 0..1 and larger means more defective."""

    model: str  # "scratch@1"
    score: float
    scores: Mapping[str, float]  # label -> 0..1
    regions: tuple[Region, ...] = ()
    heat: NDArray[np.float32] | None = None  # (rows, cols) 0..1 over the whole frame, read-only
    timings_ms: Mapping[str, float] = field(default_factory=dict)  # prepare, invoke, decode; or remote
    origin: str = LOCAL  # who answered; else "remote:scratch/3@gpu.example:8000"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with one part. Exactly one is made for each part that passes the trigger."""

    key: PartKey
    verdict: Verdict
    cause: Cause
    reason: str  # "scratch 0.93 >= 0.80", "deadline 150 ms passed", "camera stalled"
    score: float | None  # the model's own scale, not a probability; None where no model spoke
    trigger_ns: int
    captured_ns: int | None  # exposure start; None where no frame came
    decided_ns: int
    model: str  # "scratch@1", the model in charge even when it did not speak
    origin: str = ""  # whose answer it was, as in Prediction; empty where no model spoke
    file: str = ""  # name of the file that its picture was read from; empty: it was taken, or none came


@dataclass(frozen=True, slots=True)
class GateReport:
    """What the far side did with one part. It knows better than the host what happened."""

    key: PartKey
    outcome: Outcome
    encoder: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class Box:
    """A place that a person drew on a picture. In fractions of the picture, origin top left."""

    x: float
    y: float
    w: float
    h: float


@dataclass(frozen=True, slots=True)
class HumanLabel:
    """One thing that a person said about one part. It never moves the gate by itself, and overwrites nothing."""

    key: PartKey
    label: Label | None  # None: it takes an earlier saying back, the one that `undoes` names
    at_ns: int
    by: str  # who: a name, or OPERATOR
    where: Where
    defect: str = ""  # class of the defect, as the model's labels name it; empty: none was named
    comment: str = ""
    saw_model: str = ""  # "scratch@1", whose verdict they saw before they spoke; empty: nobody's
    saw_verdict: Verdict | None = None
    undoes: int | None = None  # row of the label in the journal
    row: int | None = None  # row of the part in the journal; None: the newest part with this key
    ref: str = ""  # the name that whoever says it gives it: said again under it, it is not written again
    box: Box | None = None  # where the defect is


@dataclass(frozen=True, slots=True)
class OperatorRequest:
    """One thing an operator asked of the box, from the wake word or the key to what came of it.

    outcome: `done` (a command was carried out), `noted` (kept as a label, it moves nothing), `refused`, `cancelled`,
    `answered` (search results were shown), `empty` (nothing was found), `unheard` (speech that is neither command nor
    code), `silent` (nobody spoke).
    """

    source: str  # "wake", "button", "typed"
    opened_ns: int  # the wake word, the key
    start_ns: int | None  # of the speech; None where nobody spoke or it was typed
    end_ns: int | None
    transcript: str
    confidence: float  # 0..1; 1 for typed text
    command: Command | None
    results: tuple[str, ...]  # codes, the best first
    redo: int  # requests just before this one that came to nothing
    choice: str | None  # the code that was taken
    outcome: str
    reason: str
    origin: str  # which recogniser: "commands-embed@1", "remote:asr@edge-gpu", "" for typed text
    audio: str = ""  # file of the clip, relative to the state folder; empty: none was kept


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth a line in the journal that is not about one part: a link lost, a stage replaced."""

    kind: EventKind
    at_ns: int
    detail: Mapping[str, Any] = field(default_factory=dict)
