"""The score from which parts are rejected, chosen from samples of which somebody said what they are.

The limit lies just above the good samples that must pass: of n good ones at a wanted over-reject r, at most r * n may
be over it. Where bad samples lie further up, it goes to the middle of the gap, which costs no good and no bad sample.

Both shares are told with their exact 95 % interval (Clopper and Pearson, 1934, Biometrika 26:404). For the over-reject
its upper end holds although the limit was chosen from the very same samples: with k of n at or above a limit that is an
order statistic, the true share is Beta(k + 1, n - k) (Wilks, 1941, Ann. Math. Stat. 12:91), and that is the interval's
upper end. So 20 good samples without one over the limit prove no more than 17 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edge_runtime.core.share_interval import share_interval

FEWEST_GOOD = 5  # fewer say nothing: no limit is chosen from them
STEP = 1e-3  # above the last good sample where nothing bad is further up
DIGITS = 4
TAIL = 0.025  # of a two-sided 95 % interval
STEADY = 1e-9  # 0.29 * 100 is 28.999999999999996


@dataclass(frozen=True, slots=True)
class Limit:
    """at: scores of at least that are rejected. over: good samples that are. missed: bad samples that are not."""

    at: float
    wanted: float
    good: int
    over: int
    bad: int
    missed: int

    @property
    def over_interval(self) -> tuple[float, float]:
        return share_interval(self.over, self.good)

    @property
    def missed_interval(self) -> tuple[float, float]:
        return share_interval(self.missed, self.bad)

    @property
    def is_shown(self) -> bool:
        """Enough good samples to say, with 95 % certainty, that no more than wanted are rejected."""
        return self.over_interval[1] <= self.wanted

    @property
    def good_needed(self) -> int:
        """How many good samples show the wanted over-reject when none of them is over."""
        return good_needed(self.wanted)

    def sentences(self) -> list[str]:
        """What may be said of it, honestly."""
        low, high = self.over_interval
        said = [
            f"rejects {self.over} of {self.good} good samples (95 %: {low:.1%} to {high:.1%}), "
            f"chosen for at most {self.wanted:.2%}"
        ]
        if self.over > self.wanted * self.good + STEADY:
            said.append("good and bad look alike to it: no limit costs as little as was wanted")
        elif not self.is_shown:
            said.append(
                f"too few to show {self.wanted:.2%}: that takes {self.good_needed} good samples with none over the "
                f"limit; these show {high:.1%}"
            )
        if self.bad:
            low, high = self.missed_interval
            said.append(f"misses {self.missed} of {self.bad} bad samples (95 %: {low:.1%} to {high:.1%})")
        else:
            said.append("no bad sample was judged: how many defects it misses is not known")
        return said


def good_needed(wanted: float) -> int:
    """The least n at which 0 of n has an interval that ends at or below the wanted share; 0 where none can."""
    return 0 if wanted <= 0.0 else math.ceil(math.log(TAIL) / math.log1p(-min(wanted, 1.0 - STEADY)))


def choose_limit(good: Sequence[float], bad: Sequence[float], wanted: float) -> Limit | None:
    """The limit from the scores of both, or None where the good ones are too few. wanted: share of good parts."""
    if len(good) < FEWEST_GOOD:
        return None
    may_be_over = math.floor(wanted * len(good) + STEADY)
    must_pass = sorted(good, reverse=True)[may_be_over]
    return limit_at(_above(must_pass, bad), good, bad, wanted)


def limit_at(at: float, good: Sequence[float], bad: Sequence[float], wanted: float) -> Limit:
    """The same figures for a limit that was told."""
    over, missed = sum(score >= at for score in good), sum(score < at for score in bad)
    return Limit(at, wanted, len(good), over, len(bad), missed)


def _above(score: float, bad: Sequence[float]) -> float:
    """Above a score that must pass, at most at 1, and not above a bad one that can be caught."""
    further = min((other for other in bad if other > score), default=None)
    at = score + STEP if further is None else (score + further) / 2.0
    rounded = round(at, DIGITS)
    if rounded <= score or (further is not None and rounded > further):
        rounded = at
    return min(rounded, 1.0)
