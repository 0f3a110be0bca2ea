"""One part, one decision, one outcome: whatever order things happen in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge_runtime.core.messages import (
    Cause,
    Decision,
    GateReport,
    Outcome,
    PartKey,
    Prediction,
    Region,
    Trigger,
    Verdict,
)
from edge_runtime.decision.ledger import Ledger
from edge_runtime.decision.policy import Policy

DEADLINE, WAIT = 100, 1000


def trigger(part: int, at_ns: int = 0) -> Trigger:
    return Trigger(PartKey(7, part), part * 200, at_ns)


def decision(part: int, verdict: Verdict = Verdict.ACCEPT, cause: Cause = Cause.MODEL, now: int = 50) -> Decision:
    return Decision(PartKey(7, part), verdict, cause, "because", 0.5, 0, None, now, "m@1")


def test_first_decision_stands():
    ledger = Ledger(DEADLINE, WAIT)
    ledger.open(trigger(1))
    assert ledger.decide(decision(1, Verdict.REJECT))
    assert not ledger.decide(decision(1, Verdict.ACCEPT))
    assert ledger.counts().verdicts == {"accept": 0, "reject": 1, "unsure": 0}


def test_unknown_parts_get_neither_decision_nor_outcome():
    ledger = Ledger(DEADLINE, WAIT)
    assert not ledger.decide(decision(1))
    assert not ledger.end(GateReport(PartKey(7, 1), Outcome.PASSED, 0, 0))
    assert ledger.counts().unaccounted == 0


def test_resent_trigger_is_not_a_second_part_even_when_the_first_is_finished():
    ledger = Ledger(DEADLINE, WAIT)
    assert ledger.open(trigger(1))
    ledger.decide(decision(1))
    ledger.end(GateReport(PartKey(7, 1), Outcome.PASSED, 0, 0))
    assert not ledger.open(trigger(1))
    assert (ledger.counts().triggers, ledger.counts().repeats, ledger.open_parts) == (1, 1, 0)


def test_the_newest_part_is_the_last_at_the_eye_whatever_comes_later_or_twice():
    ledger = Ledger(DEADLINE, WAIT)
    assert ledger.last_trigger_ns is None
    for part, at_ns in ((1, 1000), (2, 3000), (3, 2000), (2, 9000)):  # 3 was told late, 2 once more
        ledger.open(trigger(part, at_ns))
    assert ledger.last_trigger_ns == 3000


def test_overdue_tells_who_is_to_blame():
    ledger = Ledger(DEADLINE, WAIT)
    ledger.open(trigger(1))
    ledger.open(trigger(2))
    ledger.advance(PartKey(7, 2), Cause.OVERLOAD, captured_ns=5)
    assert ledger.overdue(99) == []
    assert [(row.trigger.key.part_id, row.stage) for row in ledger.overdue(100)] == [
        (1, Cause.NO_FRAME),
        (2, Cause.OVERLOAD),
    ]


def test_decided_parts_nobody_reports_are_forgotten_after_the_wait():
    ledger = Ledger(DEADLINE, WAIT)
    ledger.open(trigger(1))
    ledger.decide(decision(1, now=150))
    assert ledger.counts().late == 1
    assert ledger.forgotten(DEADLINE + WAIT - 1) == []
    assert ledger.forgotten(DEADLINE + WAIT) == [PartKey(7, 1)]


class AnyOrder(RuleBasedStateMachine):
    """Triggers, decisions and outcomes in any order and any number."""

    def __init__(self):
        super().__init__()
        self.ledger = Ledger(DEADLINE, WAIT)
        self.opened, self.decided, self.ended = set(), {}, {}

    @rule(part=st.integers(1, 6))
    def open(self, part):
        assert self.ledger.open(trigger(part)) == (part not in self.opened)
        self.opened.add(part)

    @rule(part=st.integers(1, 6), verdict=st.sampled_from(Verdict))
    def decide(self, part, verdict):
        took = self.ledger.decide(decision(part, verdict))
        assert took == (part in self.opened and part not in self.decided)
        if took:
            self.decided[part] = verdict

    @rule(part=st.integers(1, 6), outcome=st.sampled_from(Outcome))
    def end(self, part, outcome):
        took = self.ledger.end(GateReport(PartKey(7, part), outcome, 0, 0))
        assert took == (part in self.opened and part not in self.ended)
        if took:
            self.ended[part] = outcome

    @invariant()
    def counts_add_up(self):
        counts = self.ledger.counts()
        assert counts.triggers == len(self.opened)
        assert sum(counts.verdicts.values()) == sum(counts.causes.values()) == len(self.decided)
        assert sum(counts.outcomes.values()) == len(self.ended)
        assert self.ledger.open_parts == len(self.opened - (self.decided.keys() & self.ended.keys()))


TestAnyOrder = AnyOrder.TestCase


def predict(score: float, *regions: Region) -> Prediction:
    return Prediction("m@1", score, {"scratch": score}, regions)


def test_policy_has_three_bands_and_says_why():
    policy = Policy(0.3, 0.8)
    assert policy.judge(predict(0.29)) == (Verdict.ACCEPT, "score 0.29 < 0.30")
    assert policy.judge(predict(0.3))[0] is Verdict.UNSURE
    verdict, reason = policy.judge(predict(0.93, Region(0, 0, 1, 1, 0.9, "scratch")))
    assert (verdict, reason) == (Verdict.REJECT, "scratch 0.93 >= 0.80")


@pytest.mark.parametrize(
    ("score", "scores", "places", "expected"),
    [
        (0.0, {"tv": 0.9}, {"tv": 0.9}, "score 0.00 < 0.30"),  # no defect was found, and a tv is none
        (0.2, {"tv": 0.9, "cat": 0.2}, {"tv": 0.9}, "score 0.20 < 0.30"),  # the cat was too faint to be a place
        (0.6, {"tv": 0.9, "cat": 0.6}, {"tv": 0.9, "cat": 0.6}, "cat 0.60 between 0.30 and 0.80"),
        (0.9, {"tv": 0.9, "cat": 0.9}, {"tv": 0.9, "cat": 0.9}, "cat 0.90 >= 0.80"),  # scores of 8 bits are often equal
        (0.9, {"cat": 0.8, "dog": 0.9}, {"cat": 0.99, "dog": 0.7}, "dog 0.90 >= 0.80"),  # maps: a cell is not the score
    ],
)
def test_the_reason_names_the_finding_that_decided_or_none(score, scores, places, expected):
    regions = tuple(Region(0, 0, 1, 1, place, label) for label, place in places.items())
    assert Policy(0.3, 0.8, ("cat", "dog")).judge(Prediction("m@1", score, scores, regions))[1] == expected


@pytest.mark.parametrize(
    ("score", "low", "high", "expected"),
    [
        (0.0039, 0.002, 0.002, "score 0.004 >= 0.002"), (0.0, 0.002, 0.002, "score 0.000 < 0.002"),
        (0.4996, 0.5, 0.5, "score 0.4996 < 0.5000"), (0.0004, 0.41, 0.96, "score 0.00 < 0.41"),
        (0.5, 0.5, 0.5, "score 0.50 >= 0.50"), (0.957, 0.41, 0.96, "score 0.957 between 0.410 and 0.960"),
        (0.0, 0.0, 0.0, "score 0.00 >= 0.00"), (0.49999999, 0.5, 0.5, "score 0.5000 < 0.5000"),
    ],
)  # fmt: skip
def test_the_figures_of_a_reason_show_which_is_larger(score, low, high, expected):
    assert Policy(low, high).judge(predict(score))[1] == expected


@given(st.floats())
def test_policy_never_accepts_what_is_not_below_the_threshold(score):
    verdict, _ = Policy(0.3, 0.8).judge(predict(score))
    assert (verdict is Verdict.ACCEPT) == (score < 0.3)


@pytest.mark.parametrize(("low", "high"), [(0.9, 0.1), (-0.1, 0.5), (0.5, 1.1), (float("nan"), 0.5)])
def test_policy_refuses_thresholds_out_of_order(low, high):
    with pytest.raises(ValueError, match="accept_below"):
        Policy(low, high)
