"""From a recorded clean reference to limits that keep a promise: one false alarm in so many parts.

The promise is of the whole box ("one in N weeks"); each metric gets an equal share of it, and of that each of its two
charts one half (`parts_between`). Three things make limits from textbooks break such promises, and each is met here:

- neighbours are alike: charts see means of blocks, the shortest whose lag-1 autocorrelation is below 0.2; what is left
  of it widens the variance by (1 + r) / (1 - r)
- values are not normal: the CUSUM's exponent is solved from the reference itself (Lundberg's root, E exp(t(x-k)) = 1)
- mean and spread are estimates: both are taken at the unfavourable end of their 90 % bounds

and no limit is below what the reference itself reached. Too little of it is not armed: it is told how much is missing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edge_runtime.monitoring.blocks import LENGTHS, MOST_CORRELATION, block_means, lag_one
from edge_runtime.monitoring.charts import CLIP, Cusum, Ewma

CHARTS = 2  # of each metric: CUSUM and EWMA
LEAST_BLOCKS = 100
ALLOWANCE = 0.5  # spreads of a block mean: half of the change that is to be found soonest
WEIGHT = 0.05  # of the EWMA: remembers some 40 blocks
SURELY = 1.28  # standard errors: one-sided 90 %
OVERSHOOT = 1.166  # how far a normal step lands beyond a limit, both ends together; Siegmund (1985)
STATES = 81  # of the chain that stands for an EWMA
MOST_LIMIT = 200.0


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is normal, and how far from it is an alarm. mean, spread: of block means, in units of the measure."""

    block: int
    blocks: int  # of the reference
    correlation: float  # of neighbouring block means
    mean: float
    spread: float
    allowance: float  # of the CUSUM
    cusum_limit: float
    ewma_limit: float


@dataclass(frozen=True, slots=True)
class Learning:
    """Not armed. parts, needed: of reference; needed is None where more parts alone do not help."""

    parts: int
    needed: int | None
    missing: str


def parts_between(weeks: float, parts_a_week: float, metrics: int) -> float:
    """Parts between two false alarms of one chart, so that the whole box has one in so many weeks."""
    if not (weeks > 0 and parts_a_week > 0 and metrics >= 1):
        raise ValueError(f"no promise of {weeks} weeks at {parts_a_week} parts a week for {metrics} metrics; "
                         "each must be above zero")  # fmt: skip
    return weeks * parts_a_week * metrics * CHARTS


def learn(reference: NDArray[np.float64], between: float) -> Baseline | Learning:
    """reference: values of clean parts in their order, finite. between: see `parts_between`."""
    if not np.isfinite(reference).all():
        raise ValueError("the reference has values that are not finite; leave those parts out")
    parts = len(reference)
    if parts < LEAST_BLOCKS:
        return Learning(parts, LEAST_BLOCKS, f"{LEAST_BLOCKS - parts} more clean parts")
    for length in LENGTHS:
        means = block_means(reference, length)
        if len(means) < LEAST_BLOCKS:
            needed = LEAST_BLOCKS * length
            return Learning(parts, needed, f"{needed - parts} more clean parts: neighbours are so much alike "
                                           f"that means of {length} parts are needed")  # fmt: skip
        if lag_one(means) < MOST_CORRELATION:
            return _arm(means, length, between / length)
    return Learning(parts, None, f"a steadier reference: even means of {LENGTHS[-1]} parts wander")


def _arm(means: NDArray[np.float64], length: int, between: float) -> Baseline | Learning:
    """between: blocks."""
    count, spread = len(means), float(means.std(ddof=1))
    if spread == 0.0:
        return Learning(count * length, None, "a reference that varies: all its values are the same")
    correlation = lag_one(means)
    steps = np.clip((means - means.mean()) / spread, -CLIP, CLIP)
    alike = max(0.0, correlation + SURELY / math.sqrt(count))
    wider = (1 + alike) / (1 - alike) * (1 + SURELY * math.sqrt(2.0 / count))
    mean_error = SURELY * math.sqrt(wider / count)
    exponent = min(2 * ALLOWANCE, _root(steps), _root(-steps)) / wider
    allowance = ALLOWANCE + mean_error
    cusum_reached, ewma_reached = _reached(steps, allowance)
    scale = math.sqrt(WEIGHT / (2 - WEIGHT) * wider)  # spread of the EWMA
    return Baseline(
        block=length,
        blocks=count,
        correlation=correlation,
        mean=float(means.mean()),
        spread=spread,
        allowance=allowance,
        cusum_limit=max(cusum_limit(exponent, between), cusum_reached),
        ewma_limit=max(ewma_spreads(round(between)) * scale + mean_error, ewma_reached),
    )


def _root(steps: NDArray[np.float64]) -> float:
    """The t > 0 with mean of exp(t (x - k)) = 1: false alarms become rarer by exp(-t) with each unit of limit."""
    low, high = 0.0, 8 * ALLOWANCE
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if np.exp(middle * (steps - ALLOWANCE)).mean() < 1.0 else (low, middle)
    return low


def _reached(steps: NDArray[np.float64], allowance: float) -> tuple[float, float]:
    cusum, ewma = Cusum(allowance), Ewma(WEIGHT)
    values = steps.tolist()
    return max(map(cusum.add, values)), max(map(ewma.add, values))


def cusum_limit(exponent: float, between: float) -> float:
    """Limit of a two-sided CUSUM with so many values between false alarms.

    Siegmund (1985), Sequential Analysis, 2.6: one side has (exp(tb) - tb - 1) / (tk) with b = h + 1.166, t = 2k for
    independent normal values; both sides together have half as many.
    """
    low, high = 0.0, MOST_LIMIT
    for _ in range(50):
        middle = (low + high) / 2
        reach = exponent * (middle + OVERSHOOT)
        is_short = math.exp(min(reach, 300.0)) - reach - 1 < 2 * between * exponent * ALLOWANCE
        low, high = (middle, high) if is_short else (low, middle)
    return high


@lru_cache(maxsize=64)
def ewma_spreads(between: int) -> float:
    """Limit of an EWMA in its own spreads, with so many values between false alarms, from its run length."""
    low, high = 0.5, 8.0
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if ewma_run_length(middle) < between else (low, middle)
    return high


def ewma_run_length(spreads: float) -> float:
    """Mean values until an EWMA of independent normal values leaves +- so many of its spreads.

    As a Markov chain over STATES slices: Lucas and Saccucci (1990), Technometrics 32, appendix.
    """
    limit = spreads * math.sqrt(WEIGHT / (2 - WEIGHT))
    half = limit / STATES
    centres = np.linspace(-limit + half, limit - half, STATES)
    ends = np.append(centres - half, limit)
    stays = np.array([[_normal((end - (1 - WEIGHT) * at) / WEIGHT) for end in ends] for at in centres.tolist()])
    lengths = np.linalg.solve(np.eye(STATES) - np.diff(stays, axis=1), np.ones(STATES))
    return float(lengths[STATES // 2]) if lengths.min() > 0 else math.inf  # negative: too rare for these numbers


def _normal(value: float) -> float:
    return math.erfc(-value / math.sqrt(2.0)) / 2.0
