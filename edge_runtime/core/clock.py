"""The one clock. Inside the box time is integer nanoseconds of CLOCK_MONOTONIC; tests move a clock of their own."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]

MS = 1_000_000  # nanoseconds in a millisecond
SECOND = 1_000_000_000

monotonic_ns: Clock = time.monotonic_ns


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now_ns: int = SECOND) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns

    def advance_ms(self, ms: float) -> int:
        self.now_ns += round(ms * MS)
        return self.now_ns


def duration(seconds: float) -> str:
    """A stretch of time for people: `3 d 4 h`, `12 min 5 s`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
