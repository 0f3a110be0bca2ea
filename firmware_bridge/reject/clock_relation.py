"""Relates the controller's clock to the host's, by regression over exchanges with a short round trip.

Every answer that carries the controller's time brackets one of its microseconds between two host times. A long round
trip says little (the host was busy, or the wire was), so only exchanges near the shortest one are used, as NTP's clock
filter does (RFC 5905, section 10). A line through them gives offset and rate: resonators of small controllers are off
by up to 0.5 %, 5 ms in a second, so one offset alone would not do.
"""

from __future__ import annotations

from collections import deque
from statistics import fmean, median

from firmware_bridge.wrap import since32

WINDOW = 64  # exchanges; 6.4 s of beats
SLACK_NS = 200_000  # a round trip this much above the shortest one is still good
MAX_RATE_ERROR = 0.01
MIN_SPAN_NS = 1_000_000_000  # below it the rate is taken as nominal: a slope over a short base is noise
OUTLIER = 4.0  # times the median residual
MIN_RESIDUAL_NS = 20_000
NS_PER_US = 1000


class ClockRelation:
    """Controller microseconds (u32, wrapping) to host nanoseconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[int, int, int]] = deque(maxlen=WINDOW)  # controller ns, host ns, round trip ns
        self._origin: tuple[int, int] | None = None  # a raw time and its host time, for unwrapping
        self._rate = 1.0  # host ns per controller ns
        self._at: tuple[float, float] = (0.0, 0.0)  # a point of the line

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def drift_ppm(self) -> float:
        """How much slower the controller's clock runs than the host's."""
        return (self._rate - 1.0) * 1e6

    @property
    def best_round_trip_ns(self) -> int | None:
        return min((trip for _, _, trip in self._samples), default=None)

    def reset(self) -> None:
        """The controller restarted: its clock begins anew."""
        self._samples.clear()
        self._origin = None
        self._rate = 1.0

    def add(self, time_us: int, sent_ns: int, received_ns: int) -> None:
        """One exchange: asked at `sent_ns`, answered with `time_us`, the answer complete at `received_ns`."""
        if received_ns < sent_ns:
            return
        host_ns = (sent_ns + received_ns) // 2
        if self._origin is None:
            self._origin = (time_us, host_ns)
        self._samples.append((self._unwrap_ns(time_us, host_ns), host_ns, received_ns - sent_ns))
        self._fit()

    def host_ns(self, time_us: int, now_ns: int) -> int | None:
        """When the controller's clock showed `time_us`, never after `now_ns`. None before the first exchange.

        Good for moments within half an hour of `now_ns`, after which the controller's time wraps.
        """
        if not self._samples:
            return None
        x, y = self._at
        return min(now_ns, round(y + (self._unwrap_ns(time_us, now_ns) - x) * self._rate))

    def _unwrap_ns(self, time_us: int, near_ns: int) -> int:
        """Controller time since the origin in ns, of all possible ones the nearest to host time `near_ns`."""
        assert self._origin is not None
        raw, host_ns = self._origin
        expected_us = (near_ns - host_ns) // NS_PER_US
        return (expected_us + since32(time_us, raw + expected_us)) * NS_PER_US

    def _fit(self) -> None:
        shortest = min(trip for _, _, trip in self._samples)
        good = [(x, y) for x, y, trip in self._samples if trip <= 1.5 * shortest + SLACK_NS]
        self._line(good)
        residuals = [abs(y - self._predict(x)) for x, y in good]
        limit = max(MIN_RESIDUAL_NS, OUTLIER * median(residuals))
        inliers = [point for point, residual in zip(good, residuals, strict=True) if residual <= limit]
        if len(inliers) < len(good):
            self._line(inliers)

    def _predict(self, x: int) -> float:
        return self._at[1] + (x - self._at[0]) * self._rate

    def _line(self, points: list[tuple[int, int]]) -> None:
        if not points:
            return
        mean_x = fmean(x for x, _ in points)
        mean_y = fmean(y for _, y in points)
        spread = sum((x - mean_x) ** 2 for x, _ in points)
        span = points[-1][0] - points[0][0]
        rate = self._rate if len(self._samples) > 1 else 1.0
        if span >= MIN_SPAN_NS:
            rate = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
        self._rate = min(1.0 + MAX_RATE_ERROR, max(1.0 - MAX_RATE_ERROR, rate))
        self._at = (mean_x, mean_y)
