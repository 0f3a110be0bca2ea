"""Pass, fail or inconclusive: what counts come out as which, and that the reason names them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_runtime.modelstore.rollout.gate import Counts, Limits, Outcome, judge

LIMITS = Limits()
GOOD = Counts(pairs=1500, disagreeing=6, differing=6, candidate_wrong=3, active_wrong=3)


def test_a_candidate_that_is_not_worse_over_many_parts_passes():
    finding = judge(GOOD, LIMITS)
    assert (finding.outcome, finding.is_final) == (Outcome.PASS, True)
    assert "1500 parts" in finding.why


@pytest.mark.parametrize("pairs", [0, 1, 299])
def test_too_few_parts_never_pass_however_good_they_were(pairs):
    finding = judge(Counts(pairs=pairs), Limits(margin=0.5, disagreement=0.9, over_reject=0.9, slow=0.9))
    assert (finding.outcome, finding.is_final) == (Outcome.INCONCLUSIVE, False)
    assert finding.why == f"too few parts: {pairs} of 300"


def test_a_candidate_wrong_in_most_labelled_disagreements_fails_with_few_parts():
    finding = judge(Counts(pairs=200, disagreeing=14, differing=14, candidate_wrong=13, active_wrong=1), LIMITS)
    assert finding.outcome is Outcome.FAIL
    assert "13 of 14 labelled disagreements" in finding.why


def test_disagreements_without_a_label_neither_pass_nor_fail_a_candidate():
    finding = judge(replace(GOOD, disagreeing=60, differing=60), LIMITS)
    assert finding.outcome is Outcome.INCONCLUSIVE
    assert "54 disagreements wait for a label" in finding.why


@pytest.mark.parametrize(("name", "counts"), [
    ("disagreement", replace(GOOD, disagreeing=300)),
    ("over-reject", replace(GOOD, over_rejected=150)),
    ("slow answers", replace(GOOD, slow=150)),
])  # fmt: skip
def test_a_rate_that_is_above_its_limit_for_certain_fails(name, counts):
    finding = judge(counts, LIMITS)
    assert finding.outcome is Outcome.FAIL
    assert finding.why.startswith(name)


def test_a_rate_near_its_limit_is_neither_passed_nor_failed():
    finding = judge(replace(GOOD, slow=70), LIMITS)
    assert finding.outcome is Outcome.INCONCLUSIVE
    assert finding.why.startswith("slow answers 70 of 1500")


def test_a_rollout_without_an_answer_ends_inconclusive():
    finding = judge(replace(GOOD, disagreeing=60, differing=60), replace(LIMITS, max_parts=1500))
    assert (finding.outcome, finding.is_final) == (Outcome.INCONCLUSIVE, True)
