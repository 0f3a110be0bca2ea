"""Has the share of verdicts that people correct grown? Known from overrides and audits alone, whatever the input does.

A Bernoulli CUSUM on a lattice, so that run lengths are exact: Reynolds and Stoumbos (1999), Journal of Quality
Technology 31. With the shares p0 (normal) and p1 (to be found), r1 = -ln((1 - p1) / (1 - p0)) and
r2 = ln(p1 (1 - p0) / (p0 (1 - p1))), a corrected verdict adds m - 1 and a confirmed one takes 1, m = r2 / r1 rounded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

MOST_LIMIT = 4000  # lattice points; a chain longer than this is a share too small to watch


@dataclass(frozen=True, slots=True)
class OverrideLimits:
    """step: added by an override (m - 1). limit: an alarm from here on."""

    step: int
    limit: int


def override_limits(normal: float, raised: float, audited_between: float) -> OverrideLimits:
    """The smallest limit with at least so many audited verdicts between false alarms, on average.

    Raises ValueError for shares that are not 0 < normal < raised < 1, or too small to be watched.
    """
    if not 0.0 < normal < raised < 1.0:
        raise ValueError(f"shares of {normal} and {raised} cannot be told apart; give 0 < normal < raised < 1")
    r1 = -math.log((1 - raised) / (1 - normal))
    r2 = math.log(raised * (1 - normal) / (normal * (1 - raised)))
    step = max(1, round(r2 / r1) - 1)
    low, high = 0, step
    while audited_to_alarm(OverrideLimits(step, high), normal) < audited_between:
        low, high = high, 2 * high
        if high > MOST_LIMIT:
            raise ValueError(f"an override share of {normal} is too small to keep one false alarm in "
                             f"{audited_between:.0f} audited verdicts; give a larger normal share")  # fmt: skip
    while high - low > 1:
        middle = (low + high) // 2
        is_enough = audited_to_alarm(OverrideLimits(step, middle), normal) >= audited_between
        low, high = (low, middle) if is_enough else (middle, high)
    return OverrideLimits(step, high)


@lru_cache(maxsize=256)
def audited_to_alarm(limits: OverrideLimits, share: float) -> float:
    """Mean audited verdicts from 0 to an alarm when so many are overridden: the exact run length of the chain."""
    size = limits.limit
    chain = np.eye(size)
    for at in range(size):
        chain[at, max(0, at - 1)] -= 1 - share
        if at + limits.step < size:
            chain[at, at + limits.step] -= share
    return float(np.linalg.solve(chain, np.ones(size))[0])


class OverrideRate:
    """Counts audited verdicts up and down. Starts anew after an alarm."""

    def __init__(self, limits: OverrideLimits) -> None:
        self.limits = limits
        self.level = 0

    def add(self, is_override: bool) -> bool:
        """Whether this verdict raises the alarm."""
        self.level = self.level + self.limits.step if is_override else max(0, self.level - 1)
        if self.level < self.limits.limit:
            return False
        self.level = 0
        return True
