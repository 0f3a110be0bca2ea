"""One camera to one reject gate. Read down: this is the order in which a part travels.

    photo-eye --trigger--> ledger row opened           (bridge thread)
    camera ----frame-----> paired with its trigger     (camera thread)
    queue ---------------> picture shows something? -> model -> policy -> decision (worker thread, replaced when hung)
    deadline ------------> unsure decision             (keeper thread)
    person --------------> verdict, where the station lets one decide (decision.automation)
    decision ------------> verdict on the wire, taps   (whichever thread decided first)

Whoever decides first decides; the ledger makes every later decision a no-op. Nothing waits for the taps.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edge_runtime.capture.cameras.camera import Camera
from edge_runtime.capture.pairing import Pairing
from edge_runtime.config.schema import Automation, CameraConfig, DecisionConfig
from edge_runtime.core.clock import MS, SECOND, Clock
from edge_runtime.core.errors import DeviceError, ModelError
from edge_runtime.core.messages import (
    Cause,
    Decision,
    Event,
    Frame,
    GateReport,
    HumanLabel,
    Outcome,
    PartKey,
    Prediction,
    Trigger,
    Verdict,
)
from edge_runtime.decision.ledger import Ledger, Row
from edge_runtime.decision.policy import Policy
from edge_runtime.flow.components import Component, Health, State
from edge_runtime.flow.handoff import Bounded
from edge_runtime.flow.priority import run_promptly, share_interpreter
from edge_runtime.flow.stage_runner import StageRunner
from edge_runtime.flow.timing import Latency
from edge_runtime.lines.picture_watch import Gate, PictureWatch

log = logging.getLogger(__name__)

Model = Callable[[Any], Prediction]  # picture (h, w, 3) u8 RGB -> prediction

KEEPER_NAPS = 4  # in the shorter of deadline and stage budget: what begins during a nap is seen long before it is due
MOST_NAP_NS, LEAST_NAP_NS = 50 * MS, MS // 2  # 20 turns a second show that it is alive; never a busy loop
READ_TIMEOUT_S = 0.2  # how long the camera thread waits before it shows that it is alive
OUTCOME_WAIT_NS = 5 * SECOND  # after the deadline; a stopped belt is reported by the controller, not waited out
REOPEN_WAIT_S = (0.25, 0.5, 1.0, 2.0, 5.0)  # between attempts to bring a camera back
SILENT_PARTS = 2  # parts without a frame before silence is called a lost camera: one may just be a dropped frame
SHOWS_LIFE_NS = 2 * SECOND  # a camera thread without a turn for so long hangs, which is worse than what it shows
RECENT = 24  # decisions kept for the live screen
ESTIMATE_GAIN = 0.2  # weight of the newest part in the running mean of model time


class Rejecter(Component, Protocol):
    """The way to the far side: verdicts out; triggers, outcomes and events come back by callbacks."""

    def write(self, decision: Decision) -> None: ...
    def arm(self) -> bool: ...
    def hold(self, wanted: bool) -> None: ...


OpenRejecter = Callable[
    [Callable[[Trigger], None], Callable[[GateReport], None], Callable[[Event], None]],
    Rejecter,
]


class Tap(Protocol):
    """Who listens beside the flow: journal, evidence, monitors. Every method returns at once and never raises."""

    def triggered(self, trigger: Trigger) -> None: ...
    def decided(self, decision: Decision, frame: Frame | None, prediction: Prediction | None) -> None: ...
    def ended(self, report: GateReport) -> None: ...
    def labelled(self, label: HumanLabel) -> None: ...
    def happened(self, event: Event) -> None: ...


@dataclass(frozen=True, slots=True)
class Job:
    """One part on its way to the model."""

    trigger: Trigger
    frame: Frame


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found out about one part's picture: what the model said, or why it was not asked."""

    prediction: Prediction | None
    policy: Policy
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """One part that waits for a person, with what the model said; nothing where its picture is not valid."""

    job: Job
    prediction: Prediction | None
    reason: str
    cause: Cause = Cause.MODEL


class VisionLine:
    """Camera -> model -> decision -> gate, with one decision for each trigger whatever happens on the way."""

    name = "vision"

    def __init__(
        self,
        *,
        camera: Camera,
        camera_cfg: CameraConfig,
        open_model: Callable[[], Model],
        model_label: str,
        policy: Policy,
        decision_cfg: DecisionConfig,
        open_rejecter: OpenRejecter,
        taps: Sequence[Tap],
        clock: Clock,
        rule: Callable[[], str] = lambda: "",
        gate: Gate | None = None,
    ) -> None:
        """rule: a reason to reject whatever the model says, such as a machine that sounds broken; empty: none.

        gate: what is wrong with a picture, asked before the model; None asks nothing (benches, rigs).
        """
        self.camera = camera
        self.model_label = model_label
        self._automation = decision_cfg.automation
        self._held: dict[PartKey, Held] = {}  # in the order they passed the eye; guarded by its own lock
        self._held_lock = threading.Lock()
        self._taps = taps
        self._rule = rule
        self._clock = clock
        self._deadline_ns = round(decision_cfg.deadline_ms * MS)
        self._budget_ns = round(decision_cfg.stage_budget_ms * MS)
        self._nap_ns = min(
            MOST_NAP_NS, round(min(decision_cfg.deadline_ms, decision_cfg.stage_budget_ms) * MS) // KEEPER_NAPS
        )
        self._lost_after_ns = round(camera_cfg.lost_after_s * SECOND)
        pairs_by = camera.pairs_by if camera_cfg.pair_by == "auto" else camera_cfg.pair_by
        self._pairing = Pairing(pairs_by, camera_cfg, clock)
        self.pictures = PictureWatch(camera.name, camera_cfg.check_pictures, clock, self.on_event)
        self.ledger = Ledger(self._deadline_ns, OUTCOME_WAIT_NS)
        self._queue: Bounded[Job] = Bounded(decision_cfg.queue_parts)
        self.runner: StageRunner[Job, Judged | None] = StageRunner(
            "model",
            self._queue,
            lambda: self._inspector(open_model(), policy, gate),
            self._judge,
            self._blame_engine,
            self._budget_ns,
            clock,
        )
        self.rejecter = open_rejecter(self.on_trigger, self.on_report, self.on_event)
        self._stop = threading.Event()
        self._closing = threading.Event()  # no new parts, those on the belt are seen through
        self._threads: list[threading.Thread] = []
        self._camera_state = Health(State.STOPPED)
        self._camera_progress_ns = self._keeper_progress_ns = clock()
        self._last_frame_ns = clock()
        self._parts_since_frame = 0
        self._model_ns = 0.0  # running mean of the time one part takes in the model
        self.trigger_to_verdict = Latency()
        self.capture_to_verdict = Latency()
        self.invoke = Latency()
        self.recent: deque[Decision] = deque(maxlen=RECENT)
        self.scheduling: dict[str, str] = {}  # thread -> "fifo", or why it has to wait its turn

    # -- start and stop: sinks first, sources last; and back in flow order ---------------------------------------

    def start(self) -> None:
        self._stop.clear()
        self._closing.clear()
        share_interpreter()
        try:
            self.runner.start()
            self._thread("keeper", self._keep)
            self._camera_state = self._start_camera()
            self._thread("camera", self._watch_camera)
            self.rejecter.start()
        except BaseException:
            self.stop()
            raise

    def arm(self) -> bool:
        """Let the belt run. False when the controller does not say yes in time; it stays wanted and is asked again."""
        return self.rejecter.arm()

    def close(self) -> None:
        """Take no further parts (the far side gives them its default); those on the belt are seen through."""
        self._closing.set()

    @property
    def is_drained(self) -> bool:
        return self.ledger.open_parts == 0 and self.runner.is_idle

    def stop(self) -> None:
        """End at once: parts nobody decided become unsure, outcomes nobody reported become unknown."""
        self._stop.set()
        self.camera.stop()
        self.runner.stop()
        for thread in self._threads:
            thread.join(timeout=2.0)
        self._threads.clear()
        for row in self.ledger.undecided():
            self._give_up(row, Cause.DEADLINE, "the line stopped")
        self.rejecter.stop()
        self._end_forgotten(self._clock() + OUTCOME_WAIT_NS + self._deadline_ns)
        self._camera_state = Health(State.STOPPED)

    def _thread(self, name: str, target: Callable[[], None]) -> None:
        def run() -> None:
            self.scheduling[name] = run_promptly()
            while not self._stop.is_set():
                try:
                    target()
                except Exception:  # the thread's outermost loop: nothing but `stop` may end it
                    log.exception("thread failed name=%s; goes on", name)
                    self._stop.wait(REOPEN_WAIT_S[0])

        thread = threading.Thread(target=run, name=f"vision-{name}", daemon=True)
        thread.start()
        self._threads.append(thread)

    # -- photo-eye: a part begins (bridge thread) ------------------------------------------------------------------

    def on_trigger(self, trigger: Trigger) -> None:
        if self._closing.is_set() or not self.ledger.open(trigger):
            return
        for tap in self._taps:
            tap.triggered(trigger)
        late_ns = self._clock() - trigger.at_ns
        if trigger.missed or late_ns > self._deadline_ns:
            self._unsure(trigger, None, Cause.LINK_FAULT, f"the box heard of it {late_ns / SECOND:.1f} s late")
            return
        self._parts_since_frame += 1
        self.camera.trigger(trigger)
        for pair in self._pairing.on_trigger(trigger):
            self._enqueue(*pair)

    # -- camera: a frame finds its part (camera thread) ------------------------------------------------------------

    def _start_camera(self) -> Health:
        """A camera that is not there yet is no reason to stay down: parts are rejected until it comes."""
        try:
            self.camera.start()
        except DeviceError as err:
            return Health(State.FAILED, str(err))
        return Health(State.OK)

    def _watch_camera(self) -> None:
        if not self._camera_state.is_working:
            self._reopen_camera(self._camera_state.detail)
        while not self._stop.is_set():
            self._camera_progress_ns = self._clock()
            try:
                frame = self.camera.read(READ_TIMEOUT_S)
            except DeviceError as err:
                self._reopen_camera(str(err))
                continue
            if frame is not None:
                self._last_frame_ns = self._clock()
                self._parts_since_frame = 0
                for pair in self._pairing.on_frame(frame):
                    self._enqueue(*pair)
            elif self._camera_is_silent():
                self._reopen_camera(f"{self._parts_since_frame} parts without a frame")

    def _camera_is_silent(self) -> bool:
        silent_ns = self._clock() - self._last_frame_ns
        return self._parts_since_frame >= SILENT_PARTS and silent_ns > self._lost_after_ns

    def _reopen_camera(self, why: str) -> None:
        if self._stop.is_set():
            return
        self._camera_state = Health(State.FAILED, f"camera '{self.camera.name}' lost: {why}")
        log.error("camera.lost camera=%s why=%s", self.camera.name, why)
        self.on_event(Event("camera.lost", self._clock(), {"camera": self.camera.name, "why": why}))
        attempt = 0
        while not self._stop.is_set():
            self.camera.stop()
            try:
                self.camera.start()
            except DeviceError as err:
                self._camera_state = Health(State.FAILED, str(err))
                self._camera_progress_ns = self._clock()
                self._stop.wait(REOPEN_WAIT_S[min(attempt, len(REOPEN_WAIT_S) - 1)])
                attempt += 1
            else:
                break
        self._camera_state = Health(State.OK)
        self._last_frame_ns, self._parts_since_frame = self._clock(), 0
        self.on_event(Event("camera.reopened", self._clock(), {"camera": self.camera.name, "attempts": attempt + 1}))

    def _enqueue(self, trigger: Trigger, frame: Frame) -> None:
        if not self.ledger.advance(trigger.key, Cause.OVERLOAD, frame.captured_ns):
            return
        if not self._queue.offer(Job(trigger, frame)):
            self._overload(Job(trigger, frame), f"{self._queue.capacity} parts are waiting already")

    # -- model and policy: the frame becomes a verdict (worker thread) ---------------------------------------------

    def swap_model(
        self,
        open_model: Callable[[], Model],
        policy: Policy,
        label: str,
        gate: Gate | None = None,
        commit: Callable[[], None] = lambda: None,
    ) -> None:
        """Load another model beside the running one, then switch between two parts. Raises EdgeError: nothing changed.

        commit: called once the new one is ready, just before it takes over; what it raises keeps the old one.
        Takes as long as loading and warming up; call it from a thread that may wait.
        """
        before = self.model_label
        self.runner.swap(lambda: self._inspector(open_model(), policy, gate), commit)
        self.model_label = label
        self._model_ns = 0.0
        self.on_event(Event("model.swapped", self._clock(), {"before": before, "now": label}))

    def _inspector(self, model: Model, policy: Policy, gate: Gate | None) -> Callable[[Job], Judged | None]:
        """The model with the thresholds and the picture gate that belong to it: none is ever used with another's."""

        def inspect(job: Job) -> Judged | None:
            now = self._clock()
            if now + self._model_ns > job.trigger.at_ns + self._deadline_ns:
                self._overload(job, "no time left for the model")  # late work would make the next part late too
                self._model_ns *= 1.0 - ESTIMATE_GAIN  # nothing was measured: doubt it, or one stall refuses for ever
                return None
            if not self.ledger.advance(job.trigger.key, Cause.DEADLINE):
                return None
            fault = self.pictures.look(job.frame.image, gate)
            if fault:
                return Judged(None, policy, fault)
            prediction = model(job.frame.image)
            if not 0.0 <= prediction.score <= 1.0:
                raise ModelError(f"score {prediction.score} is not between 0 and 1")
            took_ns = min(self._clock() - now, self._budget_ns)  # more is a stall or a hung call, not the model's pace
            self._model_ns += ESTIMATE_GAIN * (took_ns - self._model_ns)
            return Judged(prediction, policy)

        return inspect

    def _judge(self, job: Job, found: Judged | None) -> None:
        if found is None:
            return
        prediction = found.prediction
        if prediction is None:
            verdict, cause, reason = Verdict.UNSURE, Cause.INVALID_IMAGE, f"{Cause.INVALID_IMAGE}: {found.fault}"
        else:
            self.invoke.add(prediction.timings_ms.get("invoke", 0.0))
            cause = Cause.MODEL
            verdict, reason = found.policy.judge(prediction)
        against = self._rule()
        if against:
            self._decide(job, prediction, Verdict.REJECT, Cause.RULE, against)
        elif self._asks_person(verdict):
            self._hold(Held(job, prediction, reason, cause))
        else:
            self._decide(job, prediction, verdict, cause, reason)

    def _decide(self, job: Job, prediction: Prediction | None, verdict: Verdict, cause: Cause, reason: str) -> bool:
        decision = Decision(
            key=job.trigger.key,
            verdict=verdict,
            cause=cause,
            reason=reason,
            score=prediction.score if prediction else None,
            trigger_ns=job.trigger.at_ns,
            captured_ns=job.frame.captured_ns,
            decided_ns=self._clock(),
            model=prediction.model if prediction else self.model_label,
        )
        return self._settle(decision, job.frame, prediction)

    def _blame_engine(self, job: Job, error: Exception) -> None:
        self.on_event(Event("engine.fault", self._clock(), {"error": str(error), "part": job.trigger.key.part_id}))
        self._unsure(job.trigger, job.frame, Cause.ENGINE_FAULT, f"engine: {error}")

    def _overload(self, job: Job, why: str) -> None:
        self._unsure(job.trigger, job.frame, Cause.OVERLOAD, f"overload: {why}")

    # -- a person, where the station lets one decide (voice line, control socket) -----------------------------------

    def _asks_person(self, verdict: Verdict) -> bool:
        if self._automation is Automation.PARTIAL:
            return verdict is Verdict.UNSURE
        return self._automation is Automation.HUMAN_ONLY

    def _hold(self, held: Held) -> None:
        crowded_out = None
        with self._held_lock:
            if self.ledger.hold(held.job.trigger.key):
                self._held[held.job.trigger.key] = held
            if len(self._held) > self._queue.capacity:  # each holds its picture
                crowded_out = next(iter(self._held.values()))
        if crowded_out is not None:
            why = f"{crowded_out.reason}; {self._queue.capacity} parts wait for a person already"
            self._decide(crowded_out.job, crowded_out.prediction, Verdict.UNSURE, Cause.OVERLOAD, why)

    @property
    def automation(self) -> Automation:
        return self._automation

    def set_automation(self, degree: Automation) -> None:
        """Who decides from the next part on; parts that wait for a person go on waiting."""
        before, self._automation = self._automation, degree
        if degree is not before:
            self.on_event(Event("automation.set", self._clock(), {"before": before.value, "now": degree.value}))

    def waiting_for_person(self) -> list[Held]:
        """Parts that a person may decide now, the one nearest to the gate first."""
        with self._held_lock:
            return list(self._held.values())

    def decide_by_person(self, verdict: Verdict, by: str, key: PartKey | None = None) -> PartKey | None:
        """A person's verdict for a waiting part, the oldest where no key is given. None when none waits (any more)."""
        for held in self.waiting_for_person():
            part = held.job.trigger.key
            if key not in (None, part):
                continue
            if self._decide(held.job, held.prediction, verdict, Cause.HUMAN, f"{by}; {held.reason}"):
                self.label(HumanLabel(part, verdict.value, self._clock(), by))
                return part
        return None

    def label(self, label: HumanLabel) -> None:
        """Note what a person said about a part. It moves nothing."""
        for tap in self._taps:
            tap.labelled(label)

    # -- deadline: nobody decided in time (keeper thread) ----------------------------------------------------------

    def _keep(self) -> None:
        while not self._stop.is_set():
            now = self._keeper_progress_ns = self._clock()
            self.runner.supervise(now)
            for row in self.ledger.overdue(now):
                self._give_up(row, row.stage, _missing(row, self._deadline_ns))
            self._end_forgotten(now)
            self._stop.wait(self._nap_s())

    def _nap_s(self) -> float:
        """Until something is due. Not every 5 ms: a tick in every other part's model time costs that part 30 us."""
        due_ns = [row.deadline_ns for row in self.ledger.undecided()]
        if self.runner.due_ns is not None:
            due_ns.append(self.runner.due_ns)
        soonest_ns = min(due_ns, default=self._clock() + self._nap_ns) - self._clock()
        return max(LEAST_NAP_NS, min(self._nap_ns, soonest_ns)) / SECOND

    def _give_up(self, row: Row, cause: Cause, why: str) -> None:
        self._pairing.forget(row.trigger.key)
        held = self._held.get(row.trigger.key)
        if held is not None:
            self._decide(held.job, held.prediction, Verdict.UNSURE, held.cause, f"{held.reason}; no person decided")
        else:
            self._unsure(row.trigger, None, cause, why, row.captured_ns)

    def _end_forgotten(self, now_ns: int) -> None:
        for key in self.ledger.forgotten(now_ns):
            self.on_report(GateReport(key, Outcome.UNKNOWN, 0, now_ns))

    # -- decision: to the wire first, then to who listens ----------------------------------------------------------

    def _unsure(
        self, trigger: Trigger, frame: Frame | None, cause: Cause, reason: str, captured_ns: int | None = None
    ) -> None:
        self._settle(
            Decision(
                key=trigger.key,
                verdict=Verdict.UNSURE,
                cause=cause,
                reason=reason,
                score=None,
                trigger_ns=trigger.at_ns,
                captured_ns=frame.captured_ns if frame else captured_ns,
                decided_ns=self._clock(),
                model=self.model_label,
            ),
            frame,
            None,
        )

    def _settle(self, decision: Decision, frame: Frame | None, prediction: Prediction | None) -> bool:
        if not self.ledger.decide(decision):
            return False
        with self._held_lock:
            self._held.pop(decision.key, None)
        self.rejecter.write(decision)
        self.trigger_to_verdict.add((decision.decided_ns - decision.trigger_ns) / 1e6)
        if decision.captured_ns is not None:
            self.capture_to_verdict.add((decision.decided_ns - decision.captured_ns) / 1e6)
        self.recent.append(decision)
        for tap in self._taps:
            tap.decided(decision, frame, prediction)
        return True

    # -- gate: what the far side did (bridge thread) ---------------------------------------------------------------

    def on_report(self, report: GateReport) -> None:
        if self.ledger.end(report):
            for tap in self._taps:
                tap.ended(report)

    def on_event(self, event: Event) -> None:
        if event.kind == "link.up":  # said by the bridge's thread, the first time before any part
            self.scheduling["bridge"] = run_promptly()
        for tap in self._taps:
            tap.happened(event)

    # -- what it tells -----------------------------------------------------------------------------------------------

    def health(self) -> Health:
        """The line's own threads; camera, model and bridge tell their own."""
        return Health(State.STOPPED if self._stop.is_set() else State.OK, progress_ns=self._keeper_progress_ns)

    def healths(self) -> Mapping[str, Health]:
        """Every required component by name. A failed camera is not a hung one: the line goes on rejecting."""
        camera = self.camera.health() if self._camera_state.state is State.OK else self._camera_state
        if camera.state is State.OK and self._clock() - self._camera_progress_ns < SHOWS_LIFE_NS:
            camera = self.pictures.health() or camera
        return {
            "line": self.health(),
            "camera": Health(camera.state, camera.detail, self._camera_progress_ns),
            "model": self.runner.health(),
            "controller": self.rejecter.health(),
        }

    def report(self) -> Mapping[str, Any]:
        return {
            "model": self.runner.report(),
            "camera": self.camera.report(),
            "controller": self.rejecter.report(),
            "pictures": self.pictures.report(),
            "pairing": self._pairing.report(),
            "queue": len(self._queue),
            "on_belt": self.ledger.open_parts,
            "waiting_for_person": len(self._held),
            "scheduling": {**self.scheduling, "model": self.runner.scheduling},
        }


def _missing(row: Row, deadline_ns: int) -> str:
    what = {Cause.NO_FRAME: "no frame", Cause.OVERLOAD: "still waiting for the model"}.get(row.stage, "no answer")
    return f"{what} after {deadline_ns / MS:.0f} ms"
