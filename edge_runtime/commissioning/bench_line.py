"""A whole line for benches: the real one from trigger to gate, with frames from memory on a known schedule.

Real: `VisionLine` with pairing, ledger, worker and policy; `Rejecter` over a pty to the controller's double in a
process of its own; journal and evidence on a disk. Only the camera is not: it hands out frames that were drawn before,
each at the moment that `Schedule` says, so that a bare loop can be given the very same frames at the very same pace.

`Frame.captured_ns` is the moment at which `read` returned, so that `decided_ns - captured_ns` is frame to verdict.
"""

from __future__ import annotations

import gc
import math
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from edge_runtime.actuation.rejecter import Rejecter
from edge_runtime.commissioning.bench_models import open_model
from edge_runtime.config.schema import ControllerConfig, EdgeConfig, RecordingConfig
from edge_runtime.core.clock import SECOND, monotonic_ns
from edge_runtime.core.errors import DeviceError
from edge_runtime.core.messages import Decision, Event, Frame, GateReport, HumanLabel, PartKey, Prediction, Trigger
from edge_runtime.decision.policy import station_policy
from edge_runtime.flow.components import Health, State
from edge_runtime.lines.inspector import LineModel
from edge_runtime.lines.vision_line import VisionLine
from edge_runtime.modelstore.bundle import Bundle
from edge_runtime.predictors.vision import picture_gate
from edge_runtime.recording.evidence import Evidence
from edge_runtime.recording.journal import Journal
from edge_runtime.recording.records import RunInfo
from edge_runtime.simulation.child import SimChild
from edge_runtime.simulation.line import open_controller, require_core
from edge_runtime.simulation.world import LEAD_S, Belt, draw

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SPACING, DELAY = 0x51, 0x52  # salts of `draw`
JITTER = 0.2  # of the pitch, either way: parts do not come like clockwork
DELAY_S = (0.004, 0.014)  # from eye to frame: exposure, readout and transfer of a global-shutter camera
PAUSE_S = 0.45  # after a turn: its last part is past the gate and in the journal before the other side begins
GATE = ControllerConfig(decide_counts=500, fire_counts=600)  # 0.25 and 0.3 s at the belt's 2000 counts/s
MOST_DEADLINE_MS = 200.0  # before that gate's point of decision
LEAST_RAMP_PARTS = 30
RAMP_RATES = (1.0, 500.0)  # parts/s between which a limit is looked for; the simulated controller ends not far above
ARM_WITHIN_S = 5.0
DRAIN_WITHIN_S = 5.0


@dataclass(frozen=True)
class Schedule:
    """Which part comes when, in seconds from the start of the belt.

    Two sides take turns, in the order line, other, other, line, so that neither always follows the other. `ramp` is by
    how many parts/s the rate grows with each part.
    """

    rate: float
    per_turn: int
    turns: int = 1  # of each side
    is_alone: bool = False  # nobody to take turns with
    ramp: float = 0.0
    seed: int = 1

    @property
    def parts(self) -> int:
        return self.per_turn * self.turns

    @property
    def turn_s(self) -> float:
        return self._travel_s(self.per_turn + 1) + PAUSE_S

    def turn(self, number: int, is_line: bool = True) -> tuple[float, float]:
        """Start and end of a side's turn."""
        slot = number if self.is_alone else 2 * number + (number + (not is_line)) % 2
        return LEAD_S + slot * self.turn_s, LEAD_S + (slot + 1) * self.turn_s

    def eye_s(self, index: int, is_line: bool = True) -> float:
        """When part `index`, from 0, breaks the photo-eye."""
        number, place = divmod(index, self.per_turn)
        shift = (2.0 * draw(self.seed, index, SPACING) - 1.0) * JITTER
        return self.turn(number, is_line)[0] + self._travel_s(place + 1 + shift)

    def frame_s(self, index: int, is_line: bool = True) -> float:
        """When its frame is handed out, never before that of an earlier part."""
        least, most = DELAY_S
        varied = draw(self.seed, index, DELAY) if not self.ramp else 0.0
        return self.eye_s(index, is_line) + least + (most - least) * varied

    def rate_at(self, index: int) -> float:
        """Parts/s around part `index`."""
        return self.rate + self.ramp * (index % self.per_turn)

    def _travel_s(self, place: float) -> float:
        """The integral of 1 / rate over `place` parts."""
        return place / self.rate if not self.ramp else math.log1p(place * self.ramp / self.rate) / self.ramp


def ramp(part_ms: float, seconds: float) -> Schedule:
    """From a quarter to four times of what a model of `part_ms` could do at best, within RAMP_RATES."""
    at_best = 1000.0 / part_ms
    low, high = (min(max(rate, RAMP_RATES[0]), RAMP_RATES[1]) for rate in (at_best / 4, at_best * 4))
    low = min(low, high / 4)
    seconds = max(seconds, LEAST_RAMP_PARTS / high)
    step = math.log(high / low) / seconds
    return Schedule(low, max(LEAST_RAMP_PARTS, round((high - low) / step)), is_alone=True, ramp=step)


@dataclass(frozen=True)
class ScheduleBelt(Belt):
    """The belt that carries the parts of a schedule past the eye."""

    schedule: Schedule = field(default_factory=lambda: Schedule(10.0, 1))

    def eye_counts(self, index: int) -> int:
        return self.first_count + int(self.schedule.eye_s(index) * self.counts_per_s)


@dataclass(frozen=True, slots=True)
class Passed:
    """One part as the line decided it. Times from the frame's hand-out; None where it never had a frame."""

    index: int
    decision: Decision
    decided_ms: float | None
    written_ms: float | None  # the verdict is on the wire


@dataclass(frozen=True)
class Measured:
    passed: tuple[Passed, ...]
    cpu_s: float  # of this process, during the line's own turns
    late: int
    unaccounted: int
    reports: Mapping[str, Any]

    @property
    def first_late(self) -> Passed | None:
        """The first part that the model did not decide in time."""
        return min((part for part in self.passed if part.decision.score is None), key=_index, default=None)


class MemoryCamera:
    """Frames from memory, handed out at `frame_s` of the part that triggered them."""

    name = "memory"
    pairs_by = "part"

    def __init__(self, frames: Sequence[NDArray[np.uint8]], schedule: Schedule, belt: Belt) -> None:
        self._frames = frames
        self._schedule = schedule
        self._belt = belt
        self._triggers: queue.SimpleQueue[Trigger] = queue.SimpleQueue()

    def start(self) -> None: ...
    def stop(self) -> None: ...

    def health(self) -> Health:
        return Health(State.OK)

    def report(self) -> Mapping[str, Any]:
        return {"waiting": self._triggers.qsize()}

    def trigger(self, trigger: Trigger) -> None:
        self._triggers.put(trigger)

    def read(self, timeout_s: float) -> Frame | None:
        try:
            trigger = self._triggers.get(timeout=timeout_s)
        except queue.Empty:
            return None
        index = index_of(trigger.key)
        sleep_until(self._belt.switch.start_ns + round(self._schedule.frame_s(index) * SECOND))
        image = self._frames[index % len(self._frames)]
        return Frame(self.name, index, monotonic_ns(), 0, image, part=trigger.key)


class Stopwatch:
    """A tap that notes when each verdict was decided and written. Put first, it is called right after the write."""

    def __init__(self) -> None:
        self.notes: list[tuple[Decision, int]] = []

    def triggered(self, trigger: Trigger) -> None: ...
    def ended(self, report: GateReport) -> None: ...
    def labelled(self, label: HumanLabel) -> None: ...
    def happened(self, event: Event) -> None: ...

    def decided(self, decision: Decision, frame: Frame | None, prediction: Prediction | None) -> None:
        self.notes.append((decision, monotonic_ns()))


class BenchLine:
    """`start` (or `with`), `begin`, `finish`, `stop`, in this order; nothing of it can be used twice.

    state: a folder for journal and pictures, on the disk that is meant.
    """

    def __init__(
        self, bundle: Bundle, cfg: EdgeConfig, frames: Sequence[NDArray[np.uint8]], schedule: Schedule, state: Path
    ) -> None:
        self.schedule = schedule
        self._belt = ScheduleBelt(parts_per_s=schedule.rate, parts=schedule.parts, schedule=schedule)
        self._controller = SimChild("the simulated controller", _control, (self._belt,))
        self._stopwatch = Stopwatch()
        self.journal = Journal(state / "journal.db", RunInfo(model=bundle.label))
        self.evidence = Evidence(state, RecordingConfig(), kept=self.journal.kept)
        self._cfg = cfg
        self._bundle = bundle
        self._camera = MemoryCamera(frames, schedule, self._belt)
        self.line: VisionLine | None = None

    def start(self) -> None:
        """Everything runs, the belt stands still."""
        require_core()
        self._controller.start()
        self.journal.start()
        self.evidence.start()
        line = self.line = self._wire(self._controller.wait_ready())
        line.start()
        gc.collect()
        gc.freeze()  # as the daemon does when it is ready

    def begin(self) -> int:
        """Start the belt; the moment it began to move, on the monotonic clock."""
        line = self._running()
        if not line.rejecter.arm():
            raise DeviceError("the simulated controller did not arm")
        return self._belt.switch.start_ns

    def finish(self) -> Measured:
        """See all parts through and tell about them."""
        line, schedule = self._running(), self.schedule
        started_ns = self._belt.switch.start_ns
        cpu_s = 0.0
        for number in range(schedule.turns):
            begin_s, end_s = schedule.turn(number)
            sleep_until(started_ns + round(begin_s * SECOND))
            before = time.process_time()
            sleep_until(started_ns + round(end_s * SECOND))
            cpu_s += time.process_time() - before
        limit = monotonic_ns() + round(DRAIN_WITHIN_S * SECOND)
        while not self._is_over(line) and monotonic_ns() < limit:
            threading.Event().wait(0.02)
        self.journal.flush(DRAIN_WITHIN_S)
        counts = line.ledger.counts()
        return Measured(
            passed=tuple(_passed(decision, at_ns) for decision, at_ns in list(self._stopwatch.notes)),
            cpu_s=cpu_s,
            late=counts.late,
            unaccounted=counts.unaccounted + max(0, schedule.parts - counts.triggers),
            reports={**line.report(), "journal": self.journal.report(), "evidence": self.evidence.report()},
        )

    def stop(self) -> None:
        if self.line:
            self.line.stop()
        self.evidence.stop()
        self.journal.stop()
        self._controller.stop()
        self.line = None
        gc.unfreeze()  # the next line of this process begins with what this one leaves
        gc.collect()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _wire(self, port: str) -> VisionLine:
        cfg, bundle = self._cfg, self._bundle
        decision = cfg.decision.model_copy(update={"deadline_ms": min(cfg.decision.deadline_ms, MOST_DEADLINE_MS)})
        return VisionLine(
            camera=self._camera,
            camera_cfg=cfg.camera,
            model=LineModel(
                bundle.label,
                lambda: open_model(bundle, cfg.model),
                station_policy(cfg.decision, bundle.manifest),
                picture_gate(bundle),
            ),
            decision_cfg=decision,
            open_rejecter=lambda on_trigger, on_report, on_event: Rejecter(
                GATE,
                port=port,
                safe_action=decision.safe_action,
                clock=monotonic_ns,
                on_trigger=on_trigger,
                on_report=on_report,
                on_event=on_event,
            ),
            taps=[self._stopwatch, self.journal, self.evidence],
            clock=monotonic_ns,
        )

    def _running(self) -> VisionLine:
        if self.line is None:
            raise DeviceError("the bench's line was not started")
        return self.line

    def _is_over(self, line: VisionLine) -> bool:
        return line.is_drained and line.ledger.counts().triggers >= self.schedule.parts


def _index(part: Passed) -> int:
    return part.index


def index_of(key: PartKey) -> int:
    """The controller counts parts from 1, and is started anew for each bench."""
    return key.part_id - 1


def sleep_until(at_ns: int) -> None:
    """As whoever paces a loop does it: one sleep, no spinning."""
    left_ns = at_ns - monotonic_ns()
    if left_ns > 0:
        time.sleep(left_ns / 1e9)


def _passed(decision: Decision, written_ns: int) -> Passed:
    handed_ns = decision.captured_ns
    return Passed(
        index=index_of(decision.key),
        decision=decision,
        decided_ms=None if handed_ns is None else (decision.decided_ns - handed_ns) / 1e6,
        written_ms=None if handed_ns is None else (written_ns - handed_ns) / 1e6,
    )


def _control(belt: Belt, pipe: Connection) -> None:
    """Main function of the controller's process; ends when the pipe closes."""
    sim = open_controller(belt)
    try:
        pipe.send(sim.path)
        while True:
            sim.step()
            if pipe.poll():
                pipe.recv()  # raises EOFError when the parent is gone
    finally:
        sim.close()
