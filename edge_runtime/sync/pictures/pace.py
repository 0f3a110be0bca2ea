"""When pictures may go, and how fast. Pure: the time is handed in."""

from __future__ import annotations

import time

from edge_runtime.core.clock import SECOND


class TokenBucket:
    """So many bytes a second on average, and at most one burst at once."""

    def __init__(self, bytes_s: float, burst: int, now_ns: int) -> None:
        self._bytes_s = bytes_s
        self._burst = float(burst)
        self._held = float(burst)
        self._at_ns = now_ns

    def wait_s(self, now_ns: int) -> float:
        """Seconds until something may be sent; 0 means now. One piece may overdraw, the next one waits for it."""
        self._held = min(self._burst, self._held + max(0, now_ns - self._at_ns) * self._bytes_s / SECOND)
        self._at_ns = now_ns
        return 0.0 if self._held > 0 else (1.0 - self._held) / self._bytes_s

    def take(self, size: int) -> None:
        self._held -= size


def is_within(hours: str, utc_ns: int) -> bool:
    """Whether local time is within `22:00-05:00`; empty is always. Begin counts, end does not; equal means all day."""
    if not hours:
        return True
    first, last = (int(part[:2]) * 60 + int(part[3:]) for part in hours.split("-"))
    local = time.localtime(utc_ns // SECOND)
    now = local.tm_hour * 60 + local.tm_min
    if first < last:
        return first <= now < last
    return now >= first or now < last
