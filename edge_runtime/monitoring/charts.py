"""Control charts over standardised values (mean 0, spread 1 while all is as it was): state without limits.

CUSUM finds a sudden change soonest, EWMA a small or slow one. Both see clipped values, so that one odd part, however
odd, cannot raise an alarm alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

CLIP = 4.0  # spreads; most of what one value says


@dataclass(slots=True)
class Cusum:
    """Two-sided cumulative sum, Page (1954), Biometrika 41. allowance: spreads a value that are forgiven (k)."""

    allowance: float
    up: float = 0.0
    down: float = 0.0

    def add(self, value: float) -> float:
        """The larger of both sums, to be held against the limit."""
        up, down = self.up + value - self.allowance, self.down - value - self.allowance
        self.up = up = up if up > 0.0 else 0.0
        self.down = down = down if down > 0.0 else 0.0
        return up if up > down else down

    def reset(self) -> None:
        self.up = self.down = 0.0


@dataclass(slots=True)
class Ewma:
    """Exponentially weighted mean, Roberts (1959), Technometrics 1. weight: of the newest value (lambda)."""

    weight: float
    mean: float = 0.0

    def add(self, value: float) -> float:
        """How far the mean is from 0, to be held against the limit."""
        self.mean += self.weight * (value - self.mean)
        return abs(self.mean)

    def reset(self) -> None:
        self.mean = 0.0


def clipped(value: float) -> float:
    return max(-CLIP, min(CLIP, value)) if math.isfinite(value) else 0.0
