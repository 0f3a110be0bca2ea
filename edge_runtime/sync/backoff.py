"""How long to wait before the next attempt. Pure: no clock, randomness is handed in.

Exponential with half jitter: a fleet whose broker comes back does not arrive in one second, and no attempt comes
at once. Only progress (an acknowledgement, or a link that held) starts it over: a broker that accepts every
connection and never answers would otherwise be knocked at for ever at the shortest interval.
"""

from __future__ import annotations

import random

FIRST_S = 0.5


class Backoff:
    """Delays that double from `first_s` up to `most_s`, each drawn between half and all of its size."""

    def __init__(self, most_s: float, first_s: float = FIRST_S, rng: random.Random | None = None) -> None:
        self._first_s = min(first_s, most_s)
        self._most_s = most_s
        self._rng = rng or random.Random()
        self.failures = 0

    def next_s(self) -> float:
        """Another attempt failed: seconds to wait before the next one."""
        doublings = min(self.failures, 32)  # beyond it the product would only grow past any limit
        self.failures += 1
        ceiling = min(self._most_s, self._first_s * 2.0**doublings)
        return ceiling * (0.5 + 0.5 * self._rng.random())

    def succeeded(self) -> None:
        self.failures = 0
