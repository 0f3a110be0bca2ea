"""Which of two answers decides a part: exactly one, the remote one if it is in time, and never after the share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.config.schema import DecisionConfig
from edge_runtime.core.clock import MS, ManualClock
from edge_runtime.core.messages import Cause, Frame, PartKey, Prediction, Trigger, Verdict
from edge_runtime.decision.policy import Policy
from edge_runtime.lines.inspector import Job, Judged, LineModel
from edge_runtime.lines.remote_first import RemoteFirst

IMAGE = np.zeros((4, 4, 3), np.uint8)
READING = object()
MODEL = LineModel("m@1", lambda: None, Policy(0.4, 0.6), elsewhere=READING)
FAULT = Judged(None, Verdict.UNSURE, Cause.ENGINE_FAULT, "engine: hung")
OWN = Judged(Prediction("m@1", 0.1, {}), Verdict.ACCEPT, Cause.MODEL, "score 0.10 < 0.40")


class Seat:
    """A part in work. share of the deadline: 100 of 200 ms. Who is asked elsewhere does nothing by itself."""

    def __init__(self, takes=True):
        self.clock = ManualClock()
        self.takes, self.told = takes, []
        self.settled: list[tuple[str, Judged]] = []
        self.first = RemoteFirst(self, DecisionConfig(deadline_ms=200), 0.5, self.note("remote"), self.clock)
        key = PartKey(1, 1)
        self.job = Job(Trigger(key, 1, self.clock()), Frame("cam0", 1, self.clock(), 0, IMAGE, part=key))

    def ask(self, image, reading, due_ns, tell):
        assert image is IMAGE and reading is READING and due_ns == self.job.trigger.at_ns + 100 * MS
        self.told.append(tell)
        return self.takes

    def report(self):
        return {}

    def note(self, by):
        return lambda job, judged: self.settled.append((by, judged))

    def begin(self, model=MODEL):
        self.first.ask(self.job, model)

    def own(self, judged=OWN):
        self.first.own(self.job, judged, self.note("own"))

    def remote(self, score=0.9):
        self.told[0](None if score is None else Prediction("m@1", score, {}, origin="remote:m@there"))

    def expire(self):
        self.first.expire(self.clock())

    @property
    def by(self):
        return [by for by, _ in self.settled]


def test_an_answer_in_time_decides_by_the_limits_of_the_bundle():
    for score, verdict in ((0.1, Verdict.ACCEPT), (0.5, Verdict.UNSURE), (0.9, Verdict.REJECT)):
        seat = Seat()
        seat.begin()
        seat.own()
        assert seat.by == [] and seat.first.due_ns == seat.job.trigger.at_ns + 100 * MS
        seat.clock.advance_ms(99)
        seat.remote(score)
        ((by, judged),) = seat.settled
        assert (by, judged.verdict, judged.cause, judged.prediction.origin) == (
            "remote",
            verdict,
            Cause.MODEL,
            "remote:m@there",
        )
        seat.clock.advance_ms(500)
        seat.expire()
        assert len(seat.settled) == 1 and seat.first.due_ns is None
        assert seat.first.report()["agreed" if verdict is Verdict.ACCEPT else "disagreed"] == 1


def test_an_answer_before_the_own_model_decides_at_once():
    seat = Seat()
    seat.begin()
    seat.remote()
    assert seat.by == ["remote"]
    seat.own()
    assert seat.by == ["remote"] and seat.first.report()["disagreed"] == 1


def test_the_own_answer_decides_when_the_share_is_over():
    seat = Seat()
    seat.begin()
    seat.own()
    seat.clock.advance_ms(99)
    seat.expire()
    assert seat.by == []
    seat.clock.advance_ms(1)
    seat.expire()
    assert seat.by == ["own"]
    seat.remote()
    assert seat.by == ["own"]


@pytest.mark.parametrize("score", [None, float("nan"), 1.5])
def test_no_answer_or_none_that_is_a_score_lets_the_own_one_go_on_at_once(score):
    seat = Seat()
    seat.begin()
    seat.own()
    seat.remote(score)
    assert seat.by == ["own"]
    seat = Seat()
    seat.begin()
    seat.remote(score)
    seat.own()
    assert seat.by == ["own"]


class Broken(Policy):
    def judge(self, prediction):
        raise RuntimeError("a limit that nobody thought of")


def test_an_answer_that_cannot_be_judged_does_not_cost_the_part_its_own_one():
    seat = Seat()
    seat.begin(LineModel("m@1", lambda: None, Broken(0.4, 0.6), elsewhere=READING))
    seat.own()
    with pytest.raises(RuntimeError, match="nobody thought of"):
        seat.remote()
    seat.clock.advance_ms(100)
    seat.expire()
    assert seat.by == ["own"]


def test_a_part_about_which_nobody_is_asked_waits_for_nobody():
    for seat, model in ((Seat(takes=False), MODEL), (Seat(), LineModel("m@1", lambda: None, Policy(0.4, 0.6)))):
        seat.begin(model)
        seat.own()
        assert seat.by == ["own"] and seat.first.due_ns is None


def test_a_part_that_is_late_already_is_not_asked_about():
    seat = Seat()
    seat.clock.advance_ms(100)
    seat.begin()
    seat.own()
    assert seat.told == [] and seat.by == ["own"] and seat.first.report()["no_time"] == 1


def test_an_own_model_that_fails_leaves_the_part_to_the_other():
    seat = Seat()
    seat.begin()
    seat.own(FAULT)
    seat.remote()
    assert seat.by == ["remote"] and seat.first.report()["agreed"] == seat.first.report()["disagreed"] == 0
    seat = Seat()
    seat.begin()
    seat.own(FAULT)
    seat.clock.advance_ms(100)
    seat.expire()
    assert seat.settled == [("own", FAULT)]


@settings(max_examples=150, deadline=None)
@given(
    st.permutations(["own", "remote", "expire"]),
    st.lists(st.integers(0, 80), min_size=3, max_size=3),
    st.sampled_from([0.1, 0.9, None]),
)
def test_whatever_comes_when_one_answer_decides_and_none_after_its_time(order, pauses_ms, score):
    seat = Seat()
    seat.begin()
    for event, pause_ms in zip(order, pauses_ms, strict=True):
        seat.clock.advance_ms(pause_ms)
        is_over = seat.clock() >= seat.job.trigger.at_ns + 100 * MS
        before = len(seat.settled)
        getattr(seat, event)(*((score,) if event == "remote" else ()))
        if len(seat.settled) > before and seat.by[-1] == "remote":
            assert event == "remote" and not is_over and score is not None
        if event == "own" and is_over:
            assert seat.settled  # by now somebody has decided
    seat.clock.advance_ms(200)
    seat.expire()
    assert len(seat.settled) == 1 and seat.first.due_ns is None
