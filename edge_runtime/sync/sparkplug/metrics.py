"""Which metrics a box shows, and how they are read out of the status document of `edge-runtime run`.

The node is the box; `line`, `camera`, `controller` and, where there is one, `microphone` are its devices. A device
whose component has failed is lost (DDEATH); all are when `run` does not answer. Every name is declared at birth, so
the tables below are the whole of it. A value that the document lacks is null with bad quality, never a made-up zero.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from edge_runtime.core.messages import Cause, Outcome, Verdict
from edge_runtime.sync.sparkplug.actions import Readings, Sample
from edge_runtime.sync.sparkplug.board import Tag
from edge_runtime.sync.sparkplug.payload import DataType, Value

Document = Mapping[str, Any]
INT, REAL, TEXT, FLAG = DataType.INT64, DataType.DOUBLE, DataType.STRING, DataType.BOOLEAN

COMPONENTS = ("line", "camera", "model", "controller", "microphone", "journal", "evidence")
DOWN = ("failed", "stopped")  # states in which a device gives no live data
RATE_WINDOW_S = 60.0  # parts per minute over the last minute
AUTOMATION = "Control/Automation Degree"  # writable where the sync daemon allows the command
ROLLBACK = "Control/Model Rollback"


class Reading(tuple[Tag, Callable[[Document], object]]):
    """A metric and where it is found."""

    __slots__ = ()


def _path(*steps: str) -> Callable[[Document], object]:
    def read(document: Document) -> object:
        found: object = document
        for step in steps:
            found = found.get(step) if isinstance(found, Mapping) else None
        return found

    return read


def _reading(name: str, datatype: DataType, *path: str, unit: str = "", deadband: float = 0.0) -> Reading:
    return Reading((Tag(name, datatype, unit, deadband), _path(*path)))


def _counts(folder: str, kinds: Iterable[str], key: str) -> list[Reading]:
    return [_reading(f"Counts/{folder}/{kind}", INT, key, kind) for kind in kinds]


def _latency(name: str, key: str) -> list[Reading]:
    return [
        _reading(f"Latency/{name}/{quantile}", REAL, "latency_ms", key, quantile, unit="ms", deadband=0.1)
        for quantile in ("p50", "p99")
    ]


NODE = [
    _reading("Properties/Station", TEXT, "station"),
    _reading("Properties/Site", TEXT, "site"),
    _reading("Properties/Line", TEXT, "line"),
    _reading("Properties/Software Version", TEXT, "version"),
    _reading("Runtime/State", TEXT, "state"),
    _reading("Runtime/Memory", REAL, "rss_mb", unit="MB", deadband=1.0),
    _reading("Runtime/Uptime", REAL, "uptime_s", unit="s", deadband=60.0),
    _reading("Model/Label", TEXT, "model"),
    _reading("Model/Digest", TEXT, "model_digest"),
    _reading("Config/Digest", TEXT, "config_digest"),
    *(_reading(f"Health/{name}", TEXT, "health", name, "state") for name in COMPONENTS),
]
# What the sync daemon adds of its own: not in the document of `run`, but in the `box` mapping handed to `read`.
BOX = [
    _reading("Outbox/Waiting", INT, "outbox_waiting"),
    _reading("Outbox/Dropped", INT, "outbox_dropped"),
    _reading("Outbox/Oldest", REAL, "outbox_oldest_s", unit="s", deadband=5.0),
    _reading("Box/Temperature", REAL, "temperature_c", unit="degC", deadband=0.5),
    _reading("Box/Disk Free", REAL, "disk_free_mb", unit="MB", deadband=64.0),
    _reading("Box/Time Quality", TEXT, "time_quality"),
]
LINE = [
    _reading("State", TEXT, "health", "line", "state"),
    _reading("Counts/Parts", INT, "parts"),
    *_counts("Verdict", Verdict, "verdicts"),
    *_counts("Cause", Cause, "causes"),
    *_counts("Outcome", Outcome, "outcomes"),
    _reading("Counts/Late", INT, "late"),
    _reading("Counts/On Belt", INT, "on_belt"),
    *_latency("Trigger to Verdict", "trigger_to_verdict"),
    *_latency("Capture to Verdict", "capture_to_verdict"),
    *_latency("Invoke", "invoke"),
]
RATES = [Tag("Rate/Parts", REAL, "parts/min", 0.1), Tag("Rate/Rejects", REAL, "%", 0.1)]
CAMERA = [
    _reading("State", TEXT, "health", "camera", "state"),
    _reading("Driver", TEXT, "report", "camera", "driver"),
    _reading("Frames", INT, "report", "camera", "frames", deadband=10),
    _reading("Frames Skipped", INT, "report", "camera", "skipped"),
    _reading("Connects", INT, "report", "camera", "connects"),
]
CONTROLLER = [
    _reading("State", TEXT, "health", "controller", "state"),
    _reading("Phase", TEXT, "report", "controller", "phase"),
    _reading("Boot Id", INT, "report", "controller", "boot_id"),
    _reading("Open Parts", INT, "report", "controller", "open_parts"),
    _reading("Link Opened", INT, "report", "controller", "opened"),
    _reading("Bad Frames", INT, "report", "controller", "bad_crc"),
    _reading("Answer/p50", REAL, "report", "controller", "verdict_ms_p50", unit="ms", deadband=0.1),
    _reading("Answer/p99", REAL, "report", "controller", "verdict_ms_p99", unit="ms", deadband=0.1),
]
HEALTHY_OUTPUT = Tag("Healthy Output", FLAG)  # the level that tells the operator's panel that the belt may run
MICROPHONE = [
    _reading("State", TEXT, "health", "microphone", "state"),
    _reading("Driver", TEXT, "report", "microphone", "driver"),
    _reading("Chunks", INT, "report", "microphone", "chunks", deadband=10),
    _reading("Overruns", INT, "report", "microphone", "overruns"),
]
_CONTROLS = {AUTOMATION: Tag(AUTOMATION, TEXT, is_writable=True), ROLLBACK: Tag(ROLLBACK, FLAG, is_writable=True)}


def node_tags() -> list[Tag]:
    return [tag for tag, _ in (*NODE, *BOX)]


def device_tags(*, has_microphone: bool = False, commands: Iterable[str] = ()) -> dict[str, list[Tag]]:
    """Tags by device. commands: which of AUTOMATION and ROLLBACK a host may write on `line`; others raise KeyError."""
    tags = {
        "line": [*(tag for tag, _ in LINE), *RATES, *(_CONTROLS[name] for name in commands)],
        "camera": [tag for tag, _ in CAMERA],
        "controller": [*(tag for tag, _ in CONTROLLER), HEALTHY_OUTPUT],
    }
    return tags | ({"microphone": [tag for tag, _ in MICROPHONE]} if has_microphone else {})


class StatusReader:
    """Turns one status document after the other into samples; remembers a minute of them for the rates."""

    def __init__(self, *, has_microphone: bool = False, commands: Iterable[str] = ()) -> None:
        self._has_microphone = has_microphone
        self._commands = tuple(commands)
        self._past: deque[tuple[float, int, int]] = deque()  # uptime s, parts, rejects

    def read(self, status: Document | None, box: Document) -> Sample:
        """status: the answer of the control socket, None when `run` does not answer. box: see BOX; keys may lack."""
        if status is None:
            self._past.clear()
            node = _values(BOX, box) | {"Runtime/State": "stopped"}
            return Sample(node, dict.fromkeys(self._devices()))
        line = _values(LINE, status) | self._rates(status) | self._controls(status)
        devices: dict[str, Readings | None] = {"line": line, "camera": _device(CAMERA, "camera", status)}
        controller = _device(CONTROLLER, "controller", status)
        if controller is not None:
            controller = controller | {HEALTHY_OUTPUT.name: controller.get("Phase") == "up"}
        devices["controller"] = controller
        if self._has_microphone:
            devices["microphone"] = _device(MICROPHONE, "microphone", status)
        return Sample(_values(NODE, status) | _values(BOX, box), devices)

    def _devices(self) -> list[str]:
        return ["line", "camera", "controller", *(["microphone"] if self._has_microphone else [])]

    def _controls(self, status: Document) -> dict[str, Value | None]:
        """What a writable metric holds now: the degree in force, and false for a button."""
        held = {AUTOMATION: _scalar(status.get("automation")), ROLLBACK: False}
        return {name: held[name] for name in self._commands}

    def _rates(self, status: Document) -> dict[str, Value | None]:
        """Over the last minute, or since `run` started; null until there are two looks."""
        at_s, parts, rejects = (
            _path(*steps)(status) for steps in (("uptime_s",), ("parts",), ("verdicts", Verdict.REJECT.value))
        )
        if not (isinstance(at_s, int | float) and isinstance(parts, int) and isinstance(rejects, int)):
            return {tag.name: None for tag in RATES}
        if self._past and at_s < self._past[-1][0]:
            self._past.clear()  # `run` was started anew
        self._past.append((float(at_s), parts, rejects))
        while self._past[0][0] < at_s - RATE_WINDOW_S:
            self._past.popleft()
        first_s, first_parts, first_rejects = self._past[0]
        passed = parts - first_parts
        per_minute = 60.0 * passed / (at_s - first_s) if at_s > first_s else None
        share = 100.0 * (rejects - first_rejects) / passed if passed > 0 else None
        return {RATES[0].name: per_minute, RATES[1].name: share}


def _device(readings: list[Reading], component: str, status: Document) -> dict[str, Value | None] | None:
    """None where the component is down or not there."""
    state = _path("health", component, "state")(status)
    return None if state is None or state in DOWN else _values(readings, status)


def _values(readings: list[Reading], document: Document) -> dict[str, Value | None]:
    return {tag.name: _scalar(read(document)) for tag, read in readings}


def _scalar(found: object) -> Value | None:
    return found if isinstance(found, bool | int | float | str) else None
