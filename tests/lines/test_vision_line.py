"""The line between a scripted camera and a scripted gate: who decides, by when, and exactly once."""

from __future__ import annotations

import queue
import threading

import numpy as np
import pytest

from edge_runtime.config.schema import CameraConfig, DecisionConfig
from edge_runtime.core.clock import MS, monotonic_ns
from edge_runtime.core.errors import DeviceError, ModelError
from edge_runtime.core.messages import Cause, Frame, GateReport, Outcome, PartKey, Prediction, Trigger, Verdict, Where
from edge_runtime.decision.policy import Policy
from edge_runtime.flow.components import Health, State
from edge_runtime.lines.inspector import Inspector, Job, LineModel
from edge_runtime.lines.vision_line import VisionLine

WAIT_S = 20.0
IMAGE = np.zeros((4, 4, 3), np.uint8)


class ScriptedCamera:
    name, pairs_by = "cam0", "part"

    def __init__(self):
        self.frames: queue.SimpleQueue = queue.SimpleQueue()
        self.starts = 0
        self.fail_starts = 0

    def start(self):
        if self.starts and self.fail_starts:
            self.fail_starts -= 1
            raise DeviceError("no camera")
        self.starts += 1

    def stop(self): ...
    def trigger(self, trigger): ...
    def health(self):
        return Health(State.OK)

    def report(self):
        return {}

    def read(self, timeout_s):
        try:
            frame = self.frames.get(timeout=min(timeout_s, 0.02))
        except queue.Empty:
            return None
        if isinstance(frame, Exception):
            raise frame
        return frame


class ScriptedGate:
    """Passes what was accepted, fires at the rest, and remembers both."""

    name = "gate"

    def __init__(self, on_trigger, on_report, on_event):
        self.on_trigger, self.on_report = on_trigger, on_report
        self.written = []
        self.is_silent = False

    def start(self): ...
    def stop(self): ...
    def arm(self):
        return True

    def health(self):
        return Health(State.OK)

    def report(self):
        return {}

    def write(self, decision):
        self.written.append(decision)
        if not self.is_silent:
            outcome = Outcome.PASSED if decision.verdict is Verdict.ACCEPT else Outcome.FIRED
            self.on_report(GateReport(decision.key, outcome, 0, monotonic_ns()))


class Listener:
    """A tap that lets the test wait for decisions and events."""

    def __init__(self):
        self.decisions: queue.Queue = queue.Queue()
        self.events: queue.Queue = queue.Queue()
        self.triggers = 0
        self.labels = []

    def triggered(self, trigger):
        self.triggers += 1

    def decided(self, decision, frame, prediction):
        self.decisions.put(decision)

    def ended(self, report): ...
    def labelled(self, label):
        self.labels.append((label.key.part_id, label.label, label.by, label.where))

    def happened(self, event):
        self.events.put(event.kind)

    def decision(self):
        return self.decisions.get(timeout=WAIT_S)


class Bench:
    def __init__(self, taps=(), **decision):
        self.camera, self.listener = ScriptedCamera(), Listener()
        self.model_waits = threading.Event()
        self.model_waits.set()
        self.in_model = threading.Semaphore(0)
        self.score = 0.1
        self.against = ""
        self.faults: dict[int, str] = {}  # by the level of a picture's first pixel
        self.level = 0
        self.line = VisionLine(
            camera=self.camera,
            camera_cfg=CameraConfig(lost_after_s=0.05),
            model=LineModel(
                "m@1",
                lambda: self.model,
                Policy(0.4, 0.6),
                lambda image: self.faults.get(int(image[0, 0, 0]), ""),
            ),
            decision_cfg=DecisionConfig(**{"deadline_ms": 5000, "stage_budget_ms": 10_000, **decision}),
            open_rejecter=ScriptedGate,
            taps=[self.listener, *taps],
            clock=monotonic_ns,
            rule=lambda: self.against,
        )
        self.gate = self.line.rejecter
        self.line.start()

    def model(self, image):
        self.in_model.release()
        assert self.model_waits.wait(WAIT_S)
        return Prediction("m@1", self.score, {"scratch": self.score})

    def trigger(self, part: int, age_ms: float = 0.0, **more) -> PartKey:
        key = PartKey(1, part)
        self.line.on_trigger(Trigger(key, part, monotonic_ns() - round(age_ms * MS), **more))
        return key

    def frame(self, key: PartKey, level: int | None = None):
        self.level = (self.level + 40) % 200
        image = np.full_like(IMAGE, self.level if level is None else level)  # each part another picture
        self.camera.frames.put(Frame("cam0", key.part_id, monotonic_ns(), 0, image, part=key))


@pytest.fixture
def bench():
    made = []

    def make(taps=(), **decision) -> Bench:
        made.append(Bench(taps, **decision))
        return made[-1]

    yield make
    for one in made:
        one.model_waits.set()
        one.line.stop()


@pytest.mark.parametrize(("score", "verdict"), [(0.1, Verdict.ACCEPT), (0.5, Verdict.UNSURE), (0.9, Verdict.REJECT)])
def test_part_with_its_frame_is_judged(bench, score, verdict):
    b = bench()
    b.score = score
    b.frame(b.trigger(1))
    decision = b.listener.decision()
    assert (decision.verdict, decision.cause, decision.score) == (verdict, Cause.MODEL, score)
    assert b.line.is_drained and b.line.ledger.counts().unaccounted == 0


def test_frame_before_its_trigger_is_paired(bench):
    b = bench()
    b.frame(PartKey(1, 1))
    b.trigger(1)
    assert b.listener.decision().cause is Cause.MODEL


def test_part_without_a_frame_is_unsure_by_the_deadline(bench):
    b = bench(deadline_ms=30)
    b.trigger(1)
    decision = b.listener.decision()
    assert (decision.verdict, decision.cause) == (Verdict.UNSURE, Cause.NO_FRAME)
    assert decision.decided_ns - decision.trigger_ns >= 30 * MS


def test_frame_of_a_decided_part_changes_nothing(bench):
    b = bench(deadline_ms=30)
    key = b.trigger(1)
    b.listener.decision()
    b.frame(key)
    b.frame(b.trigger(2))
    assert b.listener.decision().key.part_id == 2
    assert [decision.key.part_id for decision in b.gate.written] == [1, 2]


def test_parts_beyond_the_queue_are_overload_at_once(bench):
    b = bench(queue_parts=2)
    b.model_waits.clear()
    b.frame(b.trigger(1))
    assert b.in_model.acquire(timeout=WAIT_S)
    for part in range(2, 7):
        b.frame(b.trigger(part))
    refused = [b.listener.decision() for _ in range(3)]
    assert {decision.cause for decision in refused} == {Cause.OVERLOAD}
    b.model_waits.set()
    assert {b.listener.decision().cause for _ in range(3)} == {Cause.MODEL}
    assert b.line.ledger.counts().unaccounted == 0


def test_garbage_score_is_an_engine_fault(bench):
    b = bench()
    b.score = float("nan")
    b.frame(b.trigger(1))
    decision = b.listener.decision()
    assert (decision.verdict, decision.cause) == (Verdict.UNSURE, Cause.ENGINE_FAULT)


def test_hung_model_is_replaced_and_its_late_answer_ignored(bench):
    b = bench(stage_budget_ms=30)
    b.model_waits.clear()
    b.frame(b.trigger(1))
    assert b.listener.decision().cause is Cause.ENGINE_FAULT
    b.model_waits.set()
    b.frame(b.trigger(2))
    assert b.listener.decision().cause is Cause.MODEL
    assert len(b.gate.written) == 2


@pytest.mark.parametrize("news", [{"missed": True}, {"age_ms": 6000}])
def test_part_heard_of_too_late_is_a_link_fault(bench, news):
    b = bench()
    b.trigger(1, **news)
    assert b.listener.decision().cause is Cause.LINK_FAULT


def test_repeated_trigger_is_one_part(bench):
    b = bench()
    b.trigger(1)
    b.frame(b.trigger(1))
    b.listener.decision()
    assert (b.listener.triggers, b.line.ledger.counts().triggers) == (1, 1)


@pytest.mark.parametrize("fail_starts", [0, 2])
def test_lost_camera_is_reopened(bench, fail_starts):
    b = bench()
    b.camera.fail_starts = fail_starts
    b.camera.frames.put(DeviceError("unplugged"))
    assert [b.listener.events.get(timeout=WAIT_S) for _ in range(2)] == ["camera.lost", "camera.reopened"]
    b.frame(b.trigger(1))
    assert b.listener.decision().cause is Cause.MODEL
    assert b.line.healths()["camera"].state is State.OK


def test_silent_camera_is_reopened_while_parts_pass(bench):
    b = bench(deadline_ms=20)
    for part in range(1, 4):
        b.trigger(part)
    assert b.listener.events.get(timeout=WAIT_S) == "camera.lost"
    assert b.listener.events.get(timeout=WAIT_S) == "camera.reopened"


def test_quiet_belt_is_no_camera_fault(bench):
    b = bench()
    b.frame(b.trigger(1))
    b.listener.decision()
    b.line.stop()  # several read timeouts have passed by now or not: there must be no event either way
    assert b.listener.events.empty()


def test_stop_decides_what_is_open_and_ends_what_is_not_reported(bench):
    b = bench()
    b.gate.is_silent = True
    b.trigger(1)
    b.line.stop()
    counts = b.line.ledger.counts()
    assert (counts.unaccounted, counts.verdicts["unsure"], counts.outcomes["unknown"]) == (0, 1, 1)


def test_closed_line_takes_no_further_parts(bench):
    b = bench()
    b.line.close()
    b.trigger(1)
    assert b.line.ledger.counts().triggers == 0


def held(bench_, count):
    """Wait until so many parts wait for a person."""
    for _ in range(2000):
        if len(bench_.line.people.waiting()) == count:
            return bench_.line.people.waiting()
        threading.Event().wait(0.005)
    raise AssertionError(f"{len(bench_.line.people.waiting())} parts wait, not {count}")


def test_with_partial_automation_a_person_decides_what_the_model_is_unsure_of(bench):
    line = bench(automation="partial")
    line.score = 0.5
    key = line.trigger(1)
    line.frame(key)
    held(line, 1)
    assert line.gate.written == []
    assert line.line.people.decide(Verdict.ACCEPT, Where.VOICE) == key
    decision = line.listener.decision()
    assert (decision.verdict, decision.cause, decision.score) == (Verdict.ACCEPT, Cause.HUMAN, 0.5)
    assert line.listener.labels == [(1, "accept", "operator", "voice")]


def test_with_partial_automation_the_model_decides_where_it_is_sure(bench):
    line = bench(automation="partial")
    line.frame(line.trigger(1))
    assert line.listener.decision().cause is Cause.MODEL


def test_a_part_that_nobody_decides_is_unsure_at_the_deadline_and_not_late(bench):
    line = bench(automation="human_only", deadline_ms=100)
    key = line.trigger(1)
    line.frame(key)
    decision = line.listener.decision()
    assert (decision.verdict, decision.cause) == (Verdict.UNSURE, Cause.MODEL)
    assert "no person decided" in decision.reason
    assert line.line.ledger.counts().late == 0
    assert line.line.people.decide(Verdict.ACCEPT, Where.VOICE) is None


def test_with_full_automation_nothing_waits_for_a_person(bench):
    line = bench()
    line.score = 0.5
    line.frame(line.trigger(1))
    assert line.listener.decision().verdict is Verdict.UNSURE
    assert line.line.people.decide(Verdict.ACCEPT, Where.VOICE) is None


def test_parts_that_wait_for_a_person_are_bounded_and_the_oldest_goes_first(bench):
    line = bench(automation="human_only", queue_parts=2)
    keys = [line.trigger(part) for part in (1, 2, 3)]
    for count, key in enumerate(keys, 1):
        line.frame(key)
        if count < 3:
            held(line, count)
    decision = line.listener.decision()
    assert (decision.key, decision.verdict, decision.cause) == (keys[0], Verdict.UNSURE, Cause.OVERLOAD)
    assert line.line.people.decide(Verdict.REJECT, Where.PAGE, keys[2]) == keys[2]
    assert [one.key for one in line.line.people.waiting()] == [keys[1]]


def test_a_model_is_swapped_between_two_parts_with_its_own_thresholds(bench):
    line = bench()
    line.frame(line.trigger(1))
    assert line.listener.decision().model == "m@1"
    line.line.swap_model(LineModel("m@2", lambda: lambda image: Prediction("m@2", 0.5, {}), Policy(0.6, 0.8)))
    line.frame(line.trigger(2))
    decisions = [line.listener.decision()]
    if decisions[0].model == "m@1":  # the old worker had its hand on the queue already
        line.frame(line.trigger(3))
        decisions.append(line.listener.decision())
    assert (decisions[-1].model, decisions[-1].verdict) == ("m@2", Verdict.ACCEPT)
    assert line.line.inspector.label == "m@2"


def test_a_model_that_cannot_be_opened_changes_nothing(bench):
    line = bench()

    def broken():
        raise ModelError("truncated")

    with pytest.raises(ModelError, match="truncated"):
        line.line.swap_model(LineModel("m@2", broken, Policy(0.4, 0.6)))
    line.frame(line.trigger(1))
    assert line.listener.decision().model == "m@1"
    assert line.line.inspector.label == "m@1"


class Beside:
    """A second inspector, asked of every picture that the line decided on."""

    def __init__(self, model):
        self.told: queue.Queue = queue.Queue()
        self.inspector = Inspector(
            model,
            DecisionConfig(deadline_ms=60_000, stage_budget_ms=10_000),
            look=lambda image, gate: "",
            begins=lambda job: True,
            on_judged=lambda job, judged: self.told.put(judged.verdict),
            on_overload=lambda job, why: self.told.put(why),
            on_fault=lambda job, error: self.told.put(error),
            clock=monotonic_ns,
        )
        self.inspector.start()

    def triggered(self, trigger): ...
    def ended(self, report): ...
    def labelled(self, label): ...
    def happened(self, event): ...
    def decided(self, decision, frame, prediction):
        self.inspector.offer(Job(Trigger(decision.key, 0, decision.trigger_ns), frame))


def test_a_second_model_beside_the_line_is_asked_the_same_and_moves_nothing(bench):
    scores = iter([0.9, 0.5, float("nan")])
    beside = Beside(LineModel("m@2", lambda: lambda image: Prediction("m@2", next(scores), {}), Policy(0.4, 0.6)))
    try:
        b = bench(taps=[beside])
        said = []
        for part in (1, 2, 3):
            b.frame(b.trigger(part))
            assert b.listener.decision().model == "m@1"
            said.append(beside.told.get(timeout=WAIT_S))
    finally:
        beside.inspector.stop()
    assert said[:2] == [Verdict.REJECT, Verdict.UNSURE] and isinstance(said[2], ModelError)
    assert [one.verdict for one in b.gate.written] == [Verdict.ACCEPT] * 3
    assert (beside.inspector.report()["faults"], b.line.inspector.report()["faults"]) == (1, 0)
    assert b.line.healths()["model"].state is State.OK and b.listener.events.empty()


def test_a_rule_rejects_what_the_model_would_accept(bench):
    line = bench()
    line.against = "the machine sounds abnormal"
    line.frame(line.trigger(1))
    decision = line.listener.decision()
    assert (decision.verdict, decision.cause, decision.reason) == (Verdict.REJECT, Cause.RULE, line.against)


# -- pictures that show nothing ----------------------------------------------------------------------------------------


def judged(b: Bench, part: int, level: int | None = None):
    b.frame(b.trigger(part), level)
    return b.listener.decision()


def asked(b: Bench) -> int:
    """How often the model was asked since the last time."""
    count = 0
    while b.in_model.acquire(blocking=False):
        count += 1
    return count


def test_invalid_picture_is_unsure_and_the_model_is_not_asked(bench):
    b = bench()
    b.faults = {7: "too dark, mean 7 of 45"}
    decision = judged(b, 1, 7)
    assert (decision.verdict, decision.cause, decision.score) == (Verdict.UNSURE, Cause.INVALID_IMAGE, None)
    assert decision.reason == "invalid_image: too dark, mean 7 of 45"
    assert asked(b) == 0
    assert judged(b, 2).cause is Cause.MODEL
    assert b.line.ledger.counts().causes["invalid_image"] == 1


def test_camera_is_blind_after_three_and_sees_after_three(bench):
    b = bench()
    b.faults = {7: "too dark", 8: "too dark"}
    for part in (1, 2):
        judged(b, part, 6 + part)
    assert b.line.healths()["camera"].state is State.OK
    for part in range(3, 9):
        judged(b, part, 7 + part % 2)
    health = b.line.healths()["camera"]
    assert health.state is State.FAILED and "too dark" in health.detail and "check lamp" in health.detail
    for part in (10, 11):
        judged(b, part)
    assert b.line.healths()["camera"].state is State.FAILED
    judged(b, 12)
    assert b.line.healths()["camera"].state is State.OK
    told = [b.listener.events.get(timeout=WAIT_S) for _ in range(b.listener.events.qsize())]
    assert [kind for kind in told if kind.startswith(("camera.", "picture."))] == [
        "picture.invalid",
        "camera.blind",
        "camera.sees",
    ]


def test_camera_that_stands_still_is_told_from_the_second_picture(bench):
    b = bench()
    causes = [judged(b, part, 90).cause for part in range(1, 6)]
    assert causes == [Cause.MODEL, *[Cause.INVALID_IMAGE] * 4]
    assert "stands still" in b.line.healths()["camera"].detail
    assert judged(b, 6, 30).cause is Cause.MODEL


def test_machine_that_sounds_broken_rejects_a_part_that_nobody_could_see(bench):
    b = bench()
    b.faults, b.against = {7: "too dark"}, "the motor sounds broken"
    decision = judged(b, 1, 7)
    assert (decision.verdict, decision.cause) == (Verdict.REJECT, Cause.RULE)


@pytest.mark.parametrize("degree", ["partial", "human_only"])
def test_person_may_decide_a_part_whose_picture_shows_nothing(bench, degree):
    b = bench(automation=degree)
    b.faults = {7: "too dark"}
    b.frame(b.trigger(1), 7)
    (one,) = held(b, 1)
    assert one.judged.prediction is None and one.judged.reason == "invalid_image: too dark"
    assert b.line.people.decide(Verdict.REJECT, Where.PAGE)
    decision = b.listener.decision()
    assert (decision.verdict, decision.cause, decision.score) == (Verdict.REJECT, Cause.HUMAN, None)


def test_part_that_nobody_saw_and_no_person_decided_stays_an_invalid_image(bench):
    b = bench(automation="partial", deadline_ms=300)
    b.faults = {7: "too dark"}
    b.frame(b.trigger(1), 7)
    decision = b.listener.decision()
    assert (decision.verdict, decision.cause) == (Verdict.UNSURE, Cause.INVALID_IMAGE)
    assert decision.reason.endswith("no person decided")
