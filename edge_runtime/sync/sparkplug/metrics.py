"""Which metrics a box shows, and how they are read out of the status document of `edge-runtime run`.

The node is the box; `line`, `camera`, `controller` and, where there is one, `microphone` are its devices. A device
whose component has failed is lost (DDEATH); all are when `run` does not answer, and why it does not stands in
`Runtime/State`. Every name is declared at birth, so the tables below are the whole of it. A value that the document
lacks is null with bad quality, never a made-up zero.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from edge_runtime.core.glance import Percentiles
from edge_runtime.core.messages import Cause, Outcome, Verdict
from edge_runtime.core.state import State
from edge_runtime.core.status import CameraReport, ControllerReport, MicrophoneReport, Status
from edge_runtime.process.ask_status import Silence
from edge_runtime.sync.sparkplug.actions import Readings, Sample
from edge_runtime.sync.sparkplug.board import Tag
from edge_runtime.sync.sparkplug.payload import DataType, Value

INT, REAL, TEXT, FLAG = DataType.INT64, DataType.DOUBLE, DataType.STRING, DataType.BOOLEAN

COMPONENTS = ("line", "camera", "model", "controller", "microphone", "journal", "evidence")
DOWN = (State.FAILED, State.STOPPED)  # states in which a device gives no live data
RATE_WINDOW_S = 60.0  # parts per minute over the last minute
AUTOMATION = "Control/Automation Degree"  # writable where the sync daemon allows the command
ROLLBACK = "Control/Model Rollback"

Source = TypeVar("Source")
Box = Mapping[str, Any]  # what the sync daemon knows of its own, by the keys of BOX


class Reading(NamedTuple, Generic[Source]):
    """A metric and how it is read out of the document, or of a component's report."""

    tag: Tag
    read: Callable[[Source], Value | None]


def _reading(
    name: str, datatype: DataType, read: Callable[[Source], Value | None], unit: str = "", deadband: float = 0.0
) -> Reading[Source]:
    return Reading(Tag(name, datatype, unit, deadband), read)


def _health(name: str, component: str) -> Reading[Status]:
    return _reading(name, TEXT, lambda shot: health.state if (health := shot.health.get(component)) else None)


def _counts(folder: str, kinds: Iterable[str], of: Callable[[Status], Mapping[str, int]]) -> list[Reading[Status]]:
    return [_count(f"Counts/{folder}/{kind}", kind, of) for kind in kinds]


def _count(name: str, kind: str, of: Callable[[Status], Mapping[str, int]]) -> Reading[Status]:
    return _reading(name, INT, lambda shot: of(shot).get(kind))


def _latency(name: str, of: Callable[[Status], Percentiles]) -> list[Reading[Status]]:
    return [
        _reading(f"Latency/{name}/p50", REAL, lambda shot: of(shot).p50, unit="ms", deadband=0.1),
        _reading(f"Latency/{name}/p99", REAL, lambda shot: of(shot).p99, unit="ms", deadband=0.1),
    ]


def _own(name: str, datatype: DataType, key: str, unit: str = "", deadband: float = 0.0) -> Reading[Box]:
    return _reading(name, datatype, lambda box: _scalar(box.get(key)), unit, deadband)


NODE: list[Reading[Status]] = [
    _reading("Properties/Station", TEXT, lambda shot: shot.station),
    _reading("Properties/Site", TEXT, lambda shot: shot.site),
    _reading("Properties/Line", TEXT, lambda shot: shot.line),
    _reading("Properties/Software Version", TEXT, lambda shot: shot.version),
    _reading("Runtime/State", TEXT, lambda shot: shot.state),
    _reading("Runtime/Memory", REAL, lambda shot: shot.rss_mb, unit="MB", deadband=1.0),
    _reading("Runtime/Uptime", REAL, lambda shot: shot.uptime_s, unit="s", deadband=60.0),
    _reading("Model/Label", TEXT, lambda shot: shot.model),
    _reading("Model/Digest", TEXT, lambda shot: shot.model_digest),
    _reading("Config/Digest", TEXT, lambda shot: shot.config_digest),
    *(_health(f"Health/{name}", name) for name in COMPONENTS),
]
# What the sync daemon adds of its own: not in the document of `run`, but in the `box` mapping handed to `read`.
BOX: list[Reading[Box]] = [
    _own("Outbox/Waiting", INT, "outbox_waiting"),
    _own("Outbox/Dropped", INT, "outbox_dropped"),
    _own("Outbox/Oldest", REAL, "outbox_oldest_s", unit="s", deadband=5.0),
    _own("Box/Temperature", REAL, "temperature_c", unit="degC", deadband=0.5),
    _own("Box/Disk Free", REAL, "disk_free_mb", unit="MB", deadband=64.0),
    _own("Box/Time Quality", TEXT, "time_quality"),
]
LINE: list[Reading[Status]] = [
    _health("State", "line"),
    _reading("Counts/Parts", INT, lambda shot: shot.parts),
    *_counts("Verdict", Verdict, lambda shot: shot.verdicts),
    *_counts("Cause", Cause, lambda shot: shot.causes),
    *_counts("Outcome", Outcome, lambda shot: shot.outcomes),
    _reading("Counts/Late", INT, lambda shot: shot.late),
    _reading("Counts/On Belt", INT, lambda shot: shot.on_belt),
    *_latency("Trigger to Verdict", lambda shot: shot.latency_ms.trigger_to_verdict),
    *_latency("Capture to Verdict", lambda shot: shot.latency_ms.capture_to_verdict),
    *_latency("Invoke", lambda shot: shot.latency_ms.invoke),
]
STATE = Tag("State", TEXT)  # of a device's component
CAMERA: list[Reading[CameraReport]] = [
    _reading("Driver", TEXT, lambda camera: camera.driver),
    _reading("Frames", INT, lambda camera: camera.frames, deadband=10),
    _reading("Frames Skipped", INT, lambda camera: camera.skipped),
    _reading("Connects", INT, lambda camera: camera.connects),
]
CONTROLLER: list[Reading[ControllerReport]] = [
    _reading("Phase", TEXT, lambda link: link.phase),
    _reading("Boot Id", INT, lambda link: link.boot_id),
    _reading("Open Parts", INT, lambda link: link.open_parts),
    _reading("Link Opened", INT, lambda link: link.opened),
    _reading("Bad Frames", INT, lambda link: link.bad_crc),
    _reading("Answer/p50", REAL, lambda link: link.verdict_ms_p50, unit="ms", deadband=0.1),
    _reading("Answer/p99", REAL, lambda link: link.verdict_ms_p99, unit="ms", deadband=0.1),
    # the level that tells the operator's panel that the belt may run
    _reading("Healthy Output", FLAG, lambda link: link.is_armed),
]
MICROPHONE: list[Reading[MicrophoneReport]] = [
    _reading("Driver", TEXT, lambda microphone: microphone.driver),
    _reading("Chunks", INT, lambda microphone: microphone.chunks, deadband=10),
    _reading("Overruns", INT, lambda microphone: microphone.overruns),
]
RATES = [Tag("Rate/Parts", REAL, "parts/min", 0.1), Tag("Rate/Rejects", REAL, "%", 0.1)]
_CONTROLS = {AUTOMATION: Tag(AUTOMATION, TEXT, is_writable=True), ROLLBACK: Tag(ROLLBACK, FLAG, is_writable=True)}


def node_tags() -> list[Tag]:
    return [*(reading.tag for reading in NODE), *(reading.tag for reading in BOX)]


def device_tags(*, has_microphone: bool = False, commands: Iterable[str] = ()) -> dict[str, list[Tag]]:
    """Tags by device. commands: which of AUTOMATION and ROLLBACK a host may write on `line`; others raise KeyError."""
    tags = {
        "line": [*(reading.tag for reading in LINE), *RATES, *(_CONTROLS[name] for name in commands)],
        "camera": [STATE, *(reading.tag for reading in CAMERA)],
        "controller": [STATE, *(reading.tag for reading in CONTROLLER)],
    }
    return tags | ({"microphone": [STATE, *(reading.tag for reading in MICROPHONE)]} if has_microphone else {})


class StatusReader:
    """Turns one status document after the other into samples; remembers a minute of them for the rates."""

    def __init__(self, *, has_microphone: bool = False, commands: Iterable[str] = ()) -> None:
        self._has_microphone = has_microphone
        self._commands = tuple(commands)
        self._past: deque[tuple[float, int, int]] = deque()  # uptime s, parts, rejects

    def read(self, shot: Status | Silence, box: Box) -> Sample:
        """shot: what `run` says of itself, or why it does not. box: see BOX; keys may lack."""
        if isinstance(shot, Silence):
            self._past.clear()
            return Sample(_values(BOX, box) | {"Runtime/State": shot.value}, dict.fromkeys(self._devices()))
        line = _values(LINE, shot) | self._rates(shot) | self._controls(shot)
        devices: dict[str, Readings | None] = {
            "line": line,
            "camera": _device(CAMERA, shot, "camera", shot.report.camera),
            "controller": _device(CONTROLLER, shot, "controller", shot.report.controller),
        }
        if self._has_microphone:
            devices["microphone"] = _device(MICROPHONE, shot, "microphone", shot.report.microphone)
        return Sample(_values(NODE, shot) | _values(BOX, box), devices)

    def _devices(self) -> list[str]:
        return ["line", "camera", "controller", *(["microphone"] if self._has_microphone else [])]

    def _controls(self, shot: Status) -> dict[str, Value | None]:
        """What a writable metric holds now: the degree in force, and false for a button."""
        held: dict[str, Value | None] = {AUTOMATION: shot.automation, ROLLBACK: False}
        return {name: held[name] for name in self._commands}

    def _rates(self, shot: Status) -> dict[str, Value | None]:
        """Over the last minute, or since `run` started; null until there are two looks."""
        at_s, parts, rejects = shot.uptime_s, shot.parts, shot.verdicts.get(Verdict.REJECT, 0)
        if self._past and at_s < self._past[-1][0]:
            self._past.clear()  # `run` was started anew
        self._past.append((at_s, parts, rejects))
        while self._past[0][0] < at_s - RATE_WINDOW_S:
            self._past.popleft()
        first_s, first_parts, first_rejects = self._past[0]
        passed = parts - first_parts
        per_minute = 60.0 * passed / (at_s - first_s) if at_s > first_s else None
        share = 100.0 * (rejects - first_rejects) / passed if passed > 0 else None
        return {RATES[0].name: per_minute, RATES[1].name: share}


def _device(
    readings: list[Reading[Source]], shot: Status, component: str, report: Source | None
) -> dict[str, Value | None] | None:
    """None where the component is down or not there."""
    health = shot.health.get(component)
    if health is None or report is None or health.state in DOWN:
        return None
    return {STATE.name: health.state.value, **_values(readings, report)}


def _values(readings: list[Reading[Source]], source: Source) -> dict[str, Value | None]:
    return {reading.tag.name: reading.read(source) for reading in readings}


def _scalar(found: object) -> Value | None:
    return found if isinstance(found, bool | int | float | str) else None
