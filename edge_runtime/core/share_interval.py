"""How far a share that was counted may be from the true one."""

from __future__ import annotations

import math
from collections.abc import Callable

NOTHING = 1e-17  # of a sum in double precision


def share_interval(hits: int, count: int) -> tuple[float, float]:
    """Exact 95 % interval of a share (Clopper and Pearson 1934), by bisection of the binomial tail."""
    low = 0.0 if hits == 0 else _solve(lambda share: 1.0 - _binomial_below(hits - 1, count, share), 0.025)
    high = 1.0 if hits == count else _solve(lambda share: 1.0 - _binomial_below(hits, count, share), 0.975)
    return low, high


def _binomial_below(hits: int, count: int, share: float) -> float:
    """Probability of at most `hits` of `count`. Summed from the largest term down, in units of that term, and always in
    the tail that falls: (1 - share) ** count alone is 0 in floating point for 900 of 1000."""
    if share <= 0.0 or share >= 1.0 or hits >= count:
        return 1.0 if share <= 0.0 or hits >= count else 0.0
    if hits > count * share:
        return 1.0 - _binomial_below(count - hits - 1, count, 1.0 - share)
    ways = math.lgamma(count + 1) - math.lgamma(hits + 1) - math.lgamma(count - hits + 1)
    largest = ways + hits * math.log(share) + (count - hits) * math.log1p(-share)
    term = total = 1.0
    for k in range(hits, 0, -1):
        term *= k * (1.0 - share) / ((count - k + 1) * share)
        total += term
        if term < total * NOTHING:
            break
    return math.exp(largest) * total


def _solve(rising: Callable[[float], float], value: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if rising(middle) < value else (low, middle)
    return (low + high) / 2.0
