"""One camera to one reject gate. Read down: this is the order in which a part travels.

    photo-eye --trigger--> ledger row opened           (bridge thread)
    camera ----frame-----> paired with its trigger     (camera thread)
    queue ---------------> picture shows something? -> model -> policy -> decision (worker thread, replaced when hung)
    server, where one is asked: its answer first, if it is back in its share of the deadline (lines/remote_first.py)
    deadline ------------> unsure decision             (keeper thread)
    person --------------> verdict, where the station lets one decide (decision.automation)
    decision ------------> verdict on the wire, taps   (whichever thread decided first)

Whoever decides first decides; the ledger makes every later decision a no-op. Nothing waits for the taps.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from edge_runtime.capture.cameras.camera import Camera
from edge_runtime.capture.pairing import Pair, Pairing
from edge_runtime.config.schema import Automation, CameraConfig, DecisionConfig
from edge_runtime.core.clock import MS, SECOND, Clock
from edge_runtime.core.events import EventKind
from edge_runtime.core.messages import (
    LOCAL,
    Cause,
    Decision,
    Event,
    Frame,
    GateReport,
    HumanLabel,
    Prediction,
    Trigger,
    Verdict,
)
from edge_runtime.decision.ledger import Ledger, Row
from edge_runtime.flow.components import Component, Health, State
from edge_runtime.flow.priority import run_promptly, share_interpreter
from edge_runtime.flow.timing import Latency
from edge_runtime.lines.camera_watch import CameraWatch
from edge_runtime.lines.inspector import Inspector, Job, Judged, LineModel
from edge_runtime.lines.keeper import Keeper
from edge_runtime.lines.not_judged import NotJudged
from edge_runtime.lines.person_queue import Held, PersonQueue, asks_person
from edge_runtime.lines.picture_watch import PictureWatch
from edge_runtime.lines.remote_first import Elsewhere, RemoteFirst

log = logging.getLogger(__name__)

OUTCOME_WAIT_NS = 5 * SECOND  # after the deadline; a stopped belt is reported by the controller, not waited out
THREAD_AGAIN_S = 0.25  # after an error that nobody expected
RECENT = 24  # decisions kept for the live screen


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


class VisionLine:
    """Camera -> model -> decision -> gate, with one decision for each trigger whatever happens on the way."""

    name = "vision"

    def __init__(
        self,
        *,
        camera: Camera,
        camera_cfg: CameraConfig,
        model: LineModel,
        decision_cfg: DecisionConfig,
        open_rejecter: OpenRejecter,
        taps: Sequence[Tap],
        clock: Clock,
        rule: Callable[[], str] = lambda: "",
        elsewhere: Elsewhere | None = None,
        share: float = 0.5,
    ) -> None:
        """rule: a reason to reject whatever the model says, such as a machine that sounds broken; empty: none.

        elsewhere: who is asked first about each part, with this share of the deadline to answer; None: nobody.
        """
        self._automation = decision_cfg.automation
        self._taps = taps
        self._rule = rule
        self._clock = clock
        self._deadline_ns = round(decision_cfg.deadline_ms * MS)
        self.ledger = Ledger(self._deadline_ns, OUTCOME_WAIT_NS)
        pairs_by = camera.pairs_by if camera_cfg.pair_by == "auto" else camera_cfg.pair_by
        self._pairing = Pairing(pairs_by, camera_cfg, clock)
        self.pictures = PictureWatch(camera.name, camera_cfg.check_pictures, clock, self.on_event)
        self.camera = CameraWatch(
            camera,
            camera_cfg.lost_after_s,
            on_frame=lambda frame: self._enqueue(self._pairing.on_frame(frame)),
            tell=self.on_event,
            blindness=self.pictures.health,
            clock=clock,
        )
        self._elsewhere = elsewhere
        self.remote = RemoteFirst(elsewhere, decision_cfg, share, self._on_judged, clock) if elsewhere else None
        self.inspector = Inspector(
            model,
            decision_cfg,
            look=self.pictures.look,
            begins=lambda job: self.ledger.advance(job.trigger.key, Cause.DEADLINE),
            on_judged=self.remote.own if self.remote else self._on_judged,
            on_overload=self._on_overload,
            on_fault=self._on_fault,
            clock=clock,
            on_begun=self.remote.ask if self.remote else None,
        )
        self.people = PersonQueue(
            self.ledger, decision_cfg.queue_parts, decide=self._decide_job, label=self.label, clock=clock
        )
        self._keeper = Keeper(
            self.ledger,
            self.inspector,
            decision_cfg,
            self.remote,
            give_up=self._give_up,
            on_report=self.on_report,
            clock=clock,
        )
        self.rejecter = open_rejecter(self.on_trigger, self.on_report, self.on_event)
        self._stop = threading.Event()
        self._closing = threading.Event()  # no new parts, those on the belt are seen through
        self._threads: list[threading.Thread] = []
        self.trigger_to_verdict = Latency()
        self.capture_to_verdict = Latency()
        self.recent: deque[Decision] = deque(maxlen=RECENT)
        self.not_judged = NotJudged()
        self.origins: Counter[str] = Counter(local=0, remote=0)  # whose answer decided, where a model did
        self.scheduling: dict[str, str] = {}  # thread -> "fifo", or why it has to wait its turn

    # -- start and stop: sinks first, sources last; and back in flow order ---------------------------------------

    def start(self) -> None:
        self._stop.clear()
        self._closing.clear()
        share_interpreter()
        try:
            self.inspector.start()
            if self._elsewhere:
                self._elsewhere.start()
            self._thread("keeper", lambda: self._keeper.keep(self._stop))
            self.camera.start()
            self._thread("camera", self.camera.watch)
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
        return self.ledger.open_parts == 0 and self.inspector.is_idle

    def stop(self) -> None:
        """End at once: parts nobody decided become unsure, outcomes nobody reported become unknown."""
        self._stop.set()
        self.camera.stop()
        self.inspector.stop()
        if self._elsewhere:
            self._elsewhere.stop()
        for thread in self._threads:
            thread.join(timeout=2.0)
        self._threads.clear()
        for row in self.ledger.undecided():
            self._give_up(row, Cause.DEADLINE, "the line stopped")
        self.rejecter.stop()
        self._keeper.end_forgotten(self._clock() + OUTCOME_WAIT_NS + self._deadline_ns)

    def _thread(self, name: str, target: Callable[[], None]) -> None:
        def run() -> None:
            self.scheduling[name] = run_promptly()
            while not self._stop.is_set():
                try:
                    target()
                except Exception:  # the thread's outermost loop: nothing but `stop` may end it
                    log.exception("thread failed name=%s; goes on", name)
                    self._stop.wait(THREAD_AGAIN_S)

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
            self._unsure(trigger, Cause.LINK_FAULT, f"the box heard of it {late_ns / SECOND:.1f} s late")
            return
        self.camera.trigger(trigger)
        self._enqueue(self._pairing.on_trigger(trigger))

    # -- camera: a frame finds its part (camera thread) ------------------------------------------------------------

    def _enqueue(self, pairs: Sequence[Pair]) -> None:
        for trigger, frame in pairs:
            if self.ledger.advance(trigger.key, Cause.OVERLOAD, frame.captured_ns, frame.file):
                self.inspector.offer(Job(trigger, frame))

    # -- model: the frame becomes a verdict (worker thread) --------------------------------------------------------

    def swap_model(self, model: LineModel, commit: Callable[[], None] = lambda: None) -> None:
        """Another model takes the seat between two parts; see Inspector.swap. Raises EdgeError: nothing changed."""
        before = self.inspector.label
        self.inspector.swap(model, commit)
        self.on_event(Event(EventKind.MODEL_SWAPPED, self._clock(), {"before": before, "now": model.label}))

    def _on_judged(self, job: Job, judged: Judged) -> None:
        """What is held of a part, by whichever model, becomes its decision or waits for a person."""
        against = self._rule()
        if against:
            self._decide_job(job, Judged(judged.prediction, Verdict.REJECT, Cause.RULE, against))
        elif asks_person(self._automation, judged.verdict):
            self.people.hold(Held(job, judged))
        else:
            self._decide_job(job, judged)

    def _on_fault(self, job: Job, error: Exception) -> None:
        self.on_event(
            Event(EventKind.ENGINE_FAULT, self._clock(), {"error": str(error), "part": job.trigger.key.part_id})
        )
        judged = Judged(None, Verdict.UNSURE, Cause.ENGINE_FAULT, f"engine: {error}")
        if self.remote is None:
            self._decide_job(job, judged)
        else:
            self.remote.own(job, judged, self._decide_job)

    def _on_overload(self, job: Job, why: str) -> None:
        self._unsure(job.trigger, Cause.OVERLOAD, f"overload: {why}", job.frame)

    # -- a person, where the station lets one decide (voice line, control socket) -----------------------------------

    @property
    def deadline_ns(self) -> int:
        """From the photo-eye; after it nobody decides a part any more."""
        return self._deadline_ns

    @property
    def automation(self) -> Automation:
        return self._automation

    def set_automation(self, degree: Automation) -> None:
        """Who decides from the next part on; parts that wait for a person go on waiting."""
        before, self._automation = self._automation, degree
        if degree is not before:
            self.on_event(Event(EventKind.AUTOMATION_SET, self._clock(), {"before": before.value, "now": degree.value}))

    def label(self, label: HumanLabel) -> None:
        """Note what a person said about a part. It moves nothing."""
        for tap in self._taps:
            tap.labelled(label)

    # -- deadline: nobody decided in time (keeper thread) ----------------------------------------------------------

    def _give_up(self, row: Row, cause: Cause, why: str) -> None:
        self._pairing.forget(row.trigger.key)
        if not self.people.give_up(row.trigger.key):
            judged = Judged(None, Verdict.UNSURE, cause, why)
            self._decide(row.trigger, judged, None, row.captured_ns, row.file)

    # -- decision: to the wire first, then to who listens ----------------------------------------------------------

    def _decide_job(self, job: Job, judged: Judged) -> bool:
        return self._decide(job.trigger, judged, job.frame, job.frame.captured_ns, job.frame.file)

    def _unsure(self, trigger: Trigger, cause: Cause, reason: str, frame: Frame | None = None) -> None:
        judged = Judged(None, Verdict.UNSURE, cause, reason)
        self._decide(trigger, judged, frame, frame.captured_ns if frame else None, frame.file if frame else "")

    def _decide(
        self, trigger: Trigger, judged: Judged, frame: Frame | None, captured_ns: int | None, file: str
    ) -> bool:
        """False when somebody decided it before: then nothing happens. file: that the picture was read from."""
        decision = _decision(trigger, judged, captured_ns, self._clock(), self.inspector.label, file)
        if not self.ledger.decide(decision):
            return False
        self.people.forget(decision.key)
        self.rejecter.write(decision)
        self.trigger_to_verdict.add((decision.decided_ns - decision.trigger_ns) / 1e6)
        if captured_ns is not None:
            self.capture_to_verdict.add((decision.decided_ns - captured_ns) / 1e6)
        if decision.origin:
            self.origins[LOCAL if decision.origin == LOCAL else "remote"] += 1
        self.recent.append(decision)
        self.not_judged.note(decision)
        for tap in self._taps:
            tap.decided(decision, frame, judged.prediction)
        return True

    # -- gate: what the far side did (bridge thread) ---------------------------------------------------------------

    def on_report(self, report: GateReport) -> None:
        if self.ledger.end(report):
            for tap in self._taps:
                tap.ended(report)

    def on_event(self, event: Event) -> None:
        if event.kind == EventKind.LINK_UP:  # said by the bridge's thread, the first time before any part
            self.scheduling["bridge"] = run_promptly()
        for tap in self._taps:
            tap.happened(event)

    # -- what it tells -----------------------------------------------------------------------------------------------

    def health(self) -> Health:
        """The line's own threads; camera, model and bridge tell their own."""
        return Health(State.STOPPED if self._stop.is_set() else State.OK, progress_ns=self._keeper.progress_ns)

    def healths(self) -> Mapping[str, Health]:
        """Every required component by name. A failed camera is not a hung one: the line goes on rejecting."""
        return {
            "line": self.health(),
            "camera": self.camera.health(),
            "model": self.inspector.health(),
            "controller": self.rejecter.health(),
        }

    def report(self) -> Mapping[str, Any]:
        return {
            "model": self.inspector.report(),
            "camera": self.camera.report(),
            "controller": self.rejecter.report(),
            "pictures": self.pictures.report(),
            "pairing": self._pairing.report(),
            "queue": len(self.inspector),
            "on_belt": self.ledger.open_parts,
            "waiting_for_person": len(self.people),
            "remote": self.remote.report() if self.remote else None,
            "scheduling": {**self.scheduling, "model": self.inspector.scheduling},
        }


def _decision(
    trigger: Trigger, judged: Judged, captured_ns: int | None, now_ns: int, in_charge: str, file: str
) -> Decision:
    """in_charge: the model whose seat it is, where none spoke."""
    prediction = judged.prediction
    return Decision(
        key=trigger.key,
        verdict=judged.verdict,
        cause=judged.cause,
        reason=judged.reason,
        score=prediction.score if prediction else None,
        trigger_ns=trigger.at_ns,
        captured_ns=captured_ns,
        decided_ns=now_ns,
        model=prediction.model if prediction else in_charge,
        origin=prediction.origin if prediction else "",
        file=file,
    )
