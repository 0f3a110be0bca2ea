"""Seeded streams as a line's measures make them, with a spread of 1 and a change of known size and moment."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

WEEK = 20_000  # parts
DAY = WEEK // 5
CYCLE = 0.7  # of the spread: how far the light of day carries the measure to each side
WANDER = {"independent": 0.0, "ar1_0.9": 0.9, "ar1_0.98": 0.98, "day_cycle": 0.5, "slow_ramp": 0.9}
RAMP_WEEKS = 4  # until a ramp has reached its size
CHUNK = 256


class Stream:
    """One metric of one box. Goes on where the last piece ended."""

    def __init__(self, kind: str, seed: int) -> None:
        self.kind = kind
        self.at = 0
        self._rng = np.random.default_rng(seed)
        self._phi = WANDER[kind]
        steps = np.arange(CHUNK)
        powers = np.tril(self._phi ** np.maximum(0, steps[:, None] - steps[None, :]))
        self._filter = powers * np.sqrt(1 - self._phi**2)
        self._carry = self._phi ** (steps + 1.0)
        self._last = float(self._rng.standard_normal())

    def clean(self, parts: int) -> Values:
        values = self._wander(parts)
        if self.kind == "day_cycle":
            phase = 2 * np.pi * ((self.at + np.arange(parts)) % DAY) / DAY
            values = np.sqrt(1 - CYCLE**2 / 2) * values + CYCLE * np.sin(phase)
        self.at += parts
        return values

    def changed(self, size: float, parts: int) -> Values:
        """size: in spreads; at once, or growing over RAMP_WEEKS where the stream is a ramp."""
        values = self.clean(parts)
        if self.kind == "slow_ramp":
            return values + size * np.minimum(1.0, np.arange(parts) / (RAMP_WEEKS * WEEK))
        return values + size

    def _wander(self, parts: int) -> Values:
        if self._phi == 0.0:
            return self._rng.standard_normal(parts)
        return np.concatenate(list(self._chunks(parts)))[:parts]

    def _chunks(self, parts: int) -> Iterator[Values]:
        """AR(1), a chunk at a time as a product with the matrix of its powers: hundreds of times as fast as a loop."""
        shocks = self._rng.standard_normal((-(-parts // CHUNK), CHUNK)) @ self._filter.T
        for row in shocks:
            values = row + self._carry * self._last
            self._last = float(values[-1])
            yield values
