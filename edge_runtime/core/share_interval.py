"""How far a share that was counted may be from the true one."""

from __future__ import annotations

from collections.abc import Callable


def share_interval(hits: int, count: int) -> tuple[float, float]:
    """Exact 95 % interval of a share (Clopper and Pearson 1934), by bisection of the binomial tail."""
    low = 0.0 if hits == 0 else _solve(lambda share: 1.0 - _binomial_below(hits - 1, count, share), 0.025)
    high = 1.0 if hits == count else _solve(lambda share: 1.0 - _binomial_below(hits, count, share), 0.975)
    return low, high


def _binomial_below(hits: int, count: int, share: float) -> float:
    """Probability of at most `hits` of `count`."""
    if share <= 0.0 or share >= 1.0:
        return 1.0 if share <= 0.0 or hits >= count else 0.0
    term, total = (1.0 - share) ** count, 0.0
    for k in range(hits + 1):
        total += term
        term *= (count - k) / (k + 1) * share / (1.0 - share)
    return total


def _solve(rising: Callable[[float], float], value: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if rising(middle) < value else (low, middle)
    return (low + high) / 2.0
