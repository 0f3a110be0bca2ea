"""Latency of everything that passed, in constant memory: a histogram with logarithmic buckets 1 % wide."""

from __future__ import annotations

import math
import threading

_GROWTH = math.log(1.01)
_FLOOR_MS = 0.001
_BUCKETS = 1 + math.ceil(math.log(1e7 / _FLOOR_MS) / _GROWTH)  # 1 us to 2.8 hours


class Latency:
    """Counts latencies; percentiles are right within 1 %, the maximum exactly."""

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self._lock = threading.Lock()
        self.count = 0
        self.max_ms = 0.0

    def add(self, ms: float) -> None:
        index = 0 if ms <= _FLOOR_MS else min(_BUCKETS - 1, 1 + int(math.log(ms / _FLOOR_MS) / _GROWTH))
        with self._lock:
            self._counts[index] += 1
            self.count += 1
            self.max_ms = max(self.max_ms, ms)

    def percentile(self, share: float) -> float:
        """The latency in ms that `share` (0..1) of all stay under; 0.0 when nothing was counted."""
        with self._lock:
            wanted, seen = share * self.count, 0
            for index, count in enumerate(self._counts):
                seen += count
                if count and seen >= wanted:
                    return min(self.max_ms, _FLOOR_MS * math.exp(index * _GROWTH))
        return 0.0

    def summary(self) -> dict[str, float]:
        figures = {f"p{share}": self.percentile(share / 100) for share in (50, 95, 99)}
        return {name: round(value, 3) for name, value in {**figures, "max": self.max_ms}.items()}
