"""One metric watched for drift: values in, block means judged by two charts, an alarm out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_runtime.monitoring.blocks import Block
from edge_runtime.monitoring.calibration import WEIGHT, Baseline
from edge_runtime.monitoring.charts import Cusum, Ewma, clipped


@dataclass(frozen=True, slots=True)
class Drift:
    """values: seen since the start, the one that raised it included. mean: of the last block, in units of the measure.

    away: how far that is from normal, in spreads of block means.
    """

    chart: str  # "cusum": sudden, "ewma": small or slow
    values: int
    mean: float
    away: float


class Detector:
    """Holds a stream against its baseline. Charts start anew after an alarm, so that one change is one alarm a time."""

    def __init__(self, baseline: Baseline) -> None:
        self.baseline = baseline
        self.values = 0
        self.not_finite = 0
        self._block = Block(baseline.block)
        self._cusum = Cusum(baseline.allowance)
        self._ewma = Ewma(WEIGHT)

    def add(self, value: float) -> Drift | None:
        """A value that is not finite is counted, and says nothing about drift."""
        if not -math.inf < value < math.inf:
            self.not_finite += 1
            return None
        self.values += 1
        mean = self._block.add(value)
        return None if mean is None else self._judge(mean)

    def extend(self, values: NDArray[np.float64]) -> list[Drift]:
        """The same for many at once, quicker where blocks are long: recorded days."""
        found, at, finite = [], 0, values[np.isfinite(values)]
        self.not_finite += len(values) - len(finite)
        length = self.baseline.block
        if self._block.count:
            at = min(length - self._block.count, len(finite))
            found += [drift for value in finite[:at].tolist() if (drift := self.add(value))]
        whole = (len(finite) - at) // length
        blocks = finite[at : at + whole * length].reshape(whole, length)
        found += self._judge_all(blocks.mean(axis=1).tolist())
        found += [drift for value in finite[at + whole * length :].tolist() if (drift := self.add(value))]
        return found

    def reset(self) -> None:
        self._cusum.reset()
        self._ewma.reset()

    def _judge_all(self, means: Iterable[float]) -> list[Drift]:
        found = []
        for mean in means:
            self.values += self.baseline.block
            if drift := self._judge(mean):
                found.append(drift)
        return found

    def _judge(self, mean: float) -> Drift | None:
        away = (mean - self.baseline.mean) / self.baseline.spread
        step = clipped(away)
        is_sudden = self._cusum.add(step) > self.baseline.cusum_limit
        is_slow = self._ewma.add(step) > self.baseline.ewma_limit
        if not (is_sudden or is_slow):
            return None
        self.reset()
        return Drift("cusum" if is_sudden else "ewma", self.values, mean, away)
