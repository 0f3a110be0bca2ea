"""How often and how much: token buckets by address, and the size and the time of a body."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

MOST_ADDRESSES = 4096  # remembered; the one that was silent longest is forgotten, which gives it a full bucket again


class Buckets:
    """One token bucket for each address: `per_s` in the long run, `at_once` in a burst. For one thread (the loop's)."""

    def __init__(self, per_s: float, at_once: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._at_once = at_once
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> bool:
        """Whether there was one left."""
        level = self._level(address)
        taken = level >= 1.0
        self._left[address] = (level - 1.0 if taken else level, self._clock())
        self._left.move_to_end(address)
        if len(self._left) > MOST_ADDRESSES:
            self._left.popitem(last=False)
        return taken

    def wait_s(self, address: str) -> float:
        """Until there is one again."""
        return max(0.0, 1.0 - self._level(address)) / self._per_s

    def _level(self, address: str) -> float:
        level, at = self._left.get(address, (self._at_once, self._clock()))
        return min(self._at_once, level + (self._clock() - at) * self._per_s)
