"""The seat of a model by itself: each part that it takes is told once, whatever the model does."""

from __future__ import annotations

import queue
import threading

import numpy as np
import pytest

from edge_runtime.config.schema import DecisionConfig
from edge_runtime.core.clock import MS, monotonic_ns
from edge_runtime.core.messages import Cause, Frame, PartKey, Prediction, Trigger, Verdict
from edge_runtime.decision.policy import Policy
from edge_runtime.flow.components import State
from edge_runtime.flow.stage_runner import Hung
from edge_runtime.lines.inspector import Inspector, Job, LineModel

WAIT_S = 20.0
IMAGE = np.zeros((4, 4, 3), np.uint8)


def part(number: int, age_ms: float = 0.0) -> Job:
    now = monotonic_ns()
    key = PartKey(1, number)
    return Job(Trigger(key, number, now - round(age_ms * MS)), Frame("cam0", number, now, 0, IMAGE, part=key))


class Seat:
    """An inspector whose owner writes down what it is told."""

    def __init__(self, **decision):
        self.told: queue.Queue = queue.Queue()
        self.model_waits = threading.Event()
        self.model_waits.set()
        self.in_model = threading.Semaphore(0)
        self.score, self.fault, self.wanted = 0.1, "", True
        self.inspector = Inspector(
            LineModel("m@1", lambda: self.model, Policy(0.4, 0.6), lambda image: self.fault),
            DecisionConfig(**{"deadline_ms": 5000, "stage_budget_ms": 10_000, **decision}),
            look=lambda image, gate: gate(image),
            begins=lambda job: self.wanted,
            on_judged=lambda job, judged: self.note("judged", job, judged),
            on_overload=lambda job, why: self.note("overload", job, why),
            on_fault=lambda job, error: self.note("fault", job, error),
            clock=monotonic_ns,
        )
        self.inspector.start()

    def note(self, what, job, more):
        self.told.put((what, job.trigger.key.part_id, more))

    def model(self, image):
        self.in_model.release()
        assert self.model_waits.wait(WAIT_S)
        return Prediction("m@1", self.score, {}, timings_ms={"invoke": 2.0})

    def next(self):
        return self.told.get(timeout=WAIT_S)


@pytest.fixture
def seat():
    made = []

    def make(**decision) -> Seat:
        made.append(Seat(**decision))
        return made[-1]

    yield make
    for one in made:
        one.model_waits.set()
        one.inspector.stop()


@pytest.mark.parametrize(("score", "verdict"), [(0.1, Verdict.ACCEPT), (0.5, Verdict.UNSURE), (0.9, Verdict.REJECT)])
def test_a_part_is_judged_by_the_thresholds_of_its_model(seat, score, verdict):
    s = seat()
    s.score = score
    s.inspector.offer(part(1))
    what, number, judged = s.next()
    assert (what, number, judged.verdict, judged.cause) == ("judged", 1, verdict, Cause.MODEL)
    assert judged.prediction.score == score
    assert s.inspector.invoke.summary()["p50"] == pytest.approx(2.0)


def test_a_picture_that_shows_nothing_is_unsure_and_the_model_is_not_asked(seat):
    s = seat()
    s.fault = "too dark"
    s.inspector.offer(part(1))
    _, _, judged = s.next()
    assert (judged.prediction, judged.verdict, judged.cause) == (None, Verdict.UNSURE, Cause.INVALID_IMAGE)
    assert not s.in_model.acquire(blocking=False)


def test_a_part_that_wants_no_answer_any_more_costs_the_model_nothing(seat):
    s = seat()
    s.wanted = False
    s.inspector.offer(part(1))
    s.inspector.offer(part(2, age_ms=6000))  # too late for any answer: told, so that part 1 is known to be through
    assert s.next()[:2] == ("overload", 2)
    assert not s.in_model.acquire(blocking=False)


def test_a_full_queue_is_told_at_once_by_whoever_offers(seat):
    s = seat(queue_parts=1)
    s.model_waits.clear()
    s.inspector.offer(part(1))
    assert s.in_model.acquire(timeout=WAIT_S)
    s.inspector.offer(part(2))
    s.inspector.offer(part(3))
    assert s.told.get_nowait() == ("overload", 3, "1 parts are waiting already")
    assert len(s.inspector) == 1 and not s.inspector.is_idle


def test_a_hung_model_is_replaced_by_who_supervises_and_its_late_answer_is_thrown_away(seat):
    s = seat(stage_budget_ms=30)
    s.model_waits.clear()
    s.inspector.offer(part(1))
    assert s.in_model.acquire(timeout=WAIT_S)
    s.inspector.supervise(s.inspector.due_ns + 1)
    what, number, error = s.next()
    assert (what, number) == ("fault", 1) and isinstance(error, Hung)
    s.model_waits.set()
    s.inspector.offer(part(2))
    assert s.next()[:2] == ("judged", 2)
    assert s.told.empty() and s.inspector.health().state is State.OK


def test_a_model_slower_than_the_time_left_refuses_parts_and_asks_again_some_time(seat):
    s = seat(deadline_ms=2000, stage_budget_ms=20_000)
    s.inspector._model_ns = 1e12  # as after a suspend in the middle of an inference
    told = []
    for number in range(1, 200):
        s.inspector.offer(part(number))
        told.append(s.next()[0])
        if told[-1] == "judged":
            break
    assert told[0] == "overload" and told[-1] == "judged"
