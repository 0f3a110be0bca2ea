"""Tests and bounds that hold however often they are looked at: evidence from counts of pairs, no state, no I/O.

An e-process starts at 1 and is, where its null hypothesis holds, at no time expected to have grown. So it ever reaches
1/alpha with a probability of at most alpha (Ville's inequality: J. Ville, "Etude critique de la notion de collectif",
1939), and whoever looks at it after each part, and stops when it pleases him, errs no more often than that. A repeated
fixed-size z test at 5 % errs in a third of such rollouts.

All are functions of counts alone: what the journal holds is all there is to know, and a restart loses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

# Pairs put before the first one, candidate wrong and active wrong: a prior that expects a worse candidate to be wrong
# in most disagreements. At chances of 5/6, 11/12, 3/4 it takes 14, 7, 23 labels at the median; a flat one 15, 7, 24.
PRIOR_WRONG, PRIOR_RIGHT = 4, 1

BETS = tuple(2.0**-step for step in range(8))  # shares of the largest bet that can never lose everything
SEARCH_STEPS = 30  # halvings of [0, 1]: bounds to 1e-9


def log_e_worse(candidate_wrong: int, active_wrong: int) -> float:
    """Log evidence that the candidate is wrong in more than half of the pairs in which one of the two is wrong.

    Null: each such pair is the candidate's error with a chance of at most 1/2, whatever came before. The likelihood
    ratio against 1/2, mixed over the chances above 1/2 with a beta prior cut off there: the mixture SPRT (H. Robbins,
    "Statistical methods related to the law of the iterated logarithm", Ann. Math. Stat. 1970) on the discordant pairs
    alone (Q. McNemar, Psychometrika 1947). Cut off, it holds for all chances up to 1/2, not for 1/2 alone: each ratio
    rises with the candidate's errors (Ramdas, Grunwald, Vovk, Shafer, "Game-theoretic statistics", Stat. Sci. 2023).
    Counts are whole numbers >= 0; raises ValueError on others.
    """
    if candidate_wrong < 0 or active_wrong < 0:
        raise ValueError(f"counts of pairs {candidate_wrong} and {active_wrong} are not both 0 or more")
    pairs = candidate_wrong + active_wrong
    return (
        pairs * math.log(2.0)
        + _log_upper_half(candidate_wrong + PRIOR_WRONG, active_wrong + PRIOR_RIGHT)
        - _log_upper_half(PRIOR_WRONG, PRIOR_RIGHT)
    )


def log_e_not_worse(parts: int, candidate_wrong: int, active_wrong: int, margin: float) -> float:
    """Log evidence that the candidate errs in less than `margin` more of the parts than the active model.

    Null: the mean of (candidate wrong) - (active wrong), one of -1, 0, 1 for each part, is at least `margin`. A bet
    against each part with a fixed share of the capital, mixed over shares (I. Waudby-Smith, A. Ramdas, "Estimating
    means of bounded random variables by betting", JRSS B 2024). It falls with `candidate_wrong`: to count what nobody
    has labelled yet as the candidate's errors keeps the promise. Raises ValueError on impossible counts and margins.
    """
    neither = parts - candidate_wrong - active_wrong
    if min(neither, candidate_wrong, active_wrong) < 0:
        raise ValueError(f"{candidate_wrong} + {active_wrong} pairs with one wrong cannot come from {parts} parts")
    if not 0.0 < margin < 1.0:
        raise ValueError(f"margin {margin} is not between 0 and 1")
    logs = []
    for share in BETS:
        bet = share / (1.0 - margin) * 0.999  # at 1 a single error of the candidate would end all evidence for ever
        logs.append(
            candidate_wrong * math.log1p(bet * (margin - 1.0))
            + active_wrong * math.log1p(bet * (margin + 1.0))
            + neither * math.log1p(bet * margin)
        )
    top = max(logs)
    return top + math.log(sum(math.exp(one - top) for one in logs) / len(logs))


def rate_bounds(count: int, parts: int, alpha: float) -> tuple[float, float]:
    """Where the rate of something lies that `count` of `parts` showed: bounds that hold at all times together.

    With a chance of at least 1 - alpha the true rate never leaves them. The rates that the beta-binomial mixture, with
    Jeffreys' prior, has not left behind by a factor of 1/alpha (Robbins 1970; Howard, Ramdas, McAuliffe, Sekhon,
    "Time-uniform, nonparametric, nonasymptotic confidence sequences", Ann. Stat. 2021). (0, 1) where nothing was seen.
    Raises ValueError on impossible counts.
    """
    _check_count(count, parts)
    seen = count / parts if parts else 0.5
    low = _edge(lambda rate: is_ruled_out(rate, count, parts, alpha), 0.0, seen) if count else 0.0
    high = _edge(lambda rate: is_ruled_out(rate, count, parts, alpha), 1.0, seen) if count < parts else 1.0
    return low, high


def is_ruled_out(rate: float, count: int, parts: int, alpha: float) -> bool:
    """Whether a rate, 0 < rate < 1, lies outside `rate_bounds`: at a hundredth of their cost."""
    _check_count(count, parts)
    missed = parts - count
    mixture = _log_beta(count + 0.5, missed + 0.5) - _log_beta(0.5, 0.5)
    return mixture - count * math.log(rate) - missed * math.log1p(-rate) >= -math.log(alpha)


def _check_count(count: int, parts: int) -> None:
    if not 0 <= count <= parts:
        raise ValueError(f"{count} of {parts} parts is no count")


def _edge(is_out: Callable[[float], bool], outside: float, inside: float) -> float:
    for _ in range(SEARCH_STEPS):
        middle = (outside + inside) / 2.0
        outside, inside = (middle, inside) if is_out(middle) else (outside, middle)
    return outside


@lru_cache(maxsize=4096)  # who looks after each part asks the same again
def _log_upper_half(wrong: int, right: int) -> float:
    """Log of the integral of t^wrong (1 - t)^right over 1/2 <= t <= 1, exact: a sum of binomials."""
    pairs = wrong + right
    tail = sum(math.comb(pairs + 1, errors) for errors in range(wrong + 1))
    return math.log(tail) - (pairs + 1) * math.log(2.0) + _log_beta(wrong + 1.0, right + 1.0)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
