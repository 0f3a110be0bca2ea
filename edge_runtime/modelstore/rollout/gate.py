"""From the counts of pairs to pass, fail or inconclusive, with the figures that say why.

A pair is one part that both models judged. Only pairs whose verdicts would move the gate differently can tell the two
apart, and only those are shown to a person. What is not labelled yet never helps the candidate: it counts as its error
where it is to pass, and not at all where it is to fail.

Whether a pair is labelled must not depend on which model was right. It does not: who reviews is not told the verdicts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from edge_runtime.modelstore.rollout.sequential import is_ruled_out, log_e_not_worse, log_e_worse, rate_bounds

# False alarms share 5 %: the test on labels takes 4, the three limits 1/3 each. To pass wrongly has 5 % of its own.
ALPHA_FAIL = 0.04
ALPHA_LIMIT = 0.01 / 3
ALPHA_PASS = 0.05


class Outcome(StrEnum):
    """`inconclusive`: as yet, or for good where `is_final`."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a candidate may cost. Rates are shares of all pairs, 0..1."""

    margin: float = 0.01  # more errors than the active model from which on it must not pass
    disagreement: float = 0.10  # pairs whose verdicts differ
    over_reject: float = 0.05  # pairs that only the candidate rejects
    slow: float = 0.05  # pairs for which the candidate took longer than its part of the deadline
    min_parts: int = 300
    max_parts: int = 20_000


@dataclass(frozen=True, slots=True)
class Counts:
    """What was seen so far. differing: the gate would move differently; its labelled ones say who was wrong."""

    pairs: int = 0
    disagreeing: int = 0  # other verdicts, `unsure` against `reject` too
    differing: int = 0
    over_rejected: int = 0
    slow: int = 0
    candidate_wrong: int = 0
    active_wrong: int = 0

    @property
    def labelled(self) -> int:
        return self.candidate_wrong + self.active_wrong

    @property
    def unlabelled(self) -> int:
        return self.differing - self.labelled


@dataclass(frozen=True, slots=True)
class Finding:
    """e_worse, e_not_worse: evidence, 1 is none. is_final: nothing that comes later changes it."""

    outcome: Outcome
    is_final: bool
    why: str
    e_worse: float
    e_not_worse: float


def judge(counts: Counts, limits: Limits) -> Finding:
    """What these counts say. May be asked after each part and each label: the error rates hold all the same.

    The first pass or fail is the outcome; whoever asks keeps it, for evidence that falls again takes nothing back.
    """
    worse = log_e_worse(counts.candidate_wrong, counts.active_wrong)
    fine = log_e_not_worse(counts.pairs, counts.candidate_wrong + counts.unlabelled, counts.active_wrong, limits.margin)

    def found(outcome: Outcome, is_final: bool, why: str) -> Finding:
        return Finding(outcome, is_final, why, _e(worse), _e(fine))

    if worse >= -math.log(ALPHA_FAIL):
        return found(Outcome.FAIL, True, _told_worse(counts, worse))
    crossed, unproven = _limits(counts, limits)
    if crossed:
        return found(Outcome.FAIL, True, crossed)
    missing = _missing(counts, limits, fine, unproven)
    if not missing:
        why = (
            f"fewer than {limits.margin:.1%} more errors than the active model over {counts.pairs} parts: "
            f"evidence {_e(fine):.1f} >= {1 / ALPHA_PASS:.0f}"
        )
        return found(Outcome.PASS, True, why)
    if counts.pairs >= limits.max_parts:
        return found(Outcome.INCONCLUSIVE, True, f"ended at {counts.pairs} parts; {missing}")
    return found(Outcome.INCONCLUSIVE, False, missing)


def _told_worse(counts: Counts, worse: float) -> str:
    return (
        f"the candidate was wrong in {counts.candidate_wrong} of {counts.labelled} labelled disagreements: "
        f"evidence {_e(worse):.1f} >= {1 / ALPHA_FAIL:.0f}"
    )


def _limits(counts: Counts, limits: Limits) -> tuple[str, str]:
    """What is above its limit for certain, and what is not yet below it for certain; each a sentence or empty."""
    rates = {
        "disagreement": (counts.disagreeing, limits.disagreement),
        "over-reject": (counts.over_rejected, limits.over_reject),
        "slow answers": (counts.slow, limits.slow),
    }
    unproven = ""
    for name, (count, limit) in rates.items():
        is_certain = is_ruled_out(limit, count, counts.pairs, ALPHA_LIMIT)
        if is_certain and count > limit * counts.pairs:
            low, _ = rate_bounds(count, counts.pairs, ALPHA_LIMIT)
            return f"{name} {count} of {counts.pairs} parts: at least {low:.1%}, allowed {limit:.1%}", ""
        if not is_certain and not unproven:
            unproven = f"{name} {count} of {counts.pairs} parts: not yet surely below the allowed {limit:.1%}"
    return "", unproven


def _missing(counts: Counts, limits: Limits, fine: float, unproven: str) -> str:
    """Why it does not pass; empty: it does."""
    if counts.pairs < limits.min_parts:
        return f"too few parts: {counts.pairs} of {limits.min_parts}"
    if fine < -math.log(ALPHA_PASS):
        waits = f", {counts.unlabelled} disagreements wait for a label" if counts.unlabelled else ""
        return f"evidence {_e(fine):.1f} of {1 / ALPHA_PASS:.0f} that it is not worse{waits}"
    return unproven


def _e(log_e: float) -> float:
    return math.exp(min(log_e, 700.0))  # exp(709) is the largest that a float holds
