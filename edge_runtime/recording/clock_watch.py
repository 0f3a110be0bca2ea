"""Whether the wall clock may be believed: synchronised, plausible, and steady beside the monotonic clock for a while.

systemd-timesyncd's flag file stays after a step and says nothing of who set the clock, so `synced` alone is not enough:
for `STEADY_NS` nothing may have stepped. The last look is kept over restarts, so that a step while `run` did not work
is seen as well: within one boot exactly, over a reboot when the clock went back, or so far ahead that the box was off
for more than a month or its clock is wrong. No I/O, no clock of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from edge_runtime.core.clock import SECOND
from edge_runtime.recording.wall_clock import TimeQuality

MINUTE_NS = 60 * SECOND
DAY_NS = 86_400 * SECOND
STEADY_NS = 60 * MINUTE_NS  # longer than a time server's first answers, and than anybody who sets a clock by hand
STEP_NS = 2 * SECOND  # chrony slews by up to 0.1 s a second, looks are 10 s apart
DRIFT = 0.001  # the kernel slews by at most 0.0005
LONG_OFF_NS = 30 * DAY_NS
FIRST_UTC_NS = 1_704_067_200 * SECOND  # 2024: earlier dates come from a box that had no clock yet
LAST_UTC_NS = 4_102_444_800 * SECOND  # 2100


@dataclass(frozen=True, slots=True)
class Step:
    """The wall clock showed something else than the monotonic clock let expect."""

    at_ns: int  # monotonic
    from_utc_ns: int  # what it should have shown
    to_utc_ns: int
    where: str  # "running", "restart", "reboot"

    def words(self) -> str:
        by_ns = self.to_utc_ns - self.from_utc_ns
        way = "ahead" if by_ns > 0 else "back"
        return f"the clock stepped {span(abs(by_ns))} {way}, from {date(self.from_utc_ns)} to {date(self.to_utc_ns)}"

    def detail(self) -> dict[str, Any]:
        by_s = round((self.to_utc_ns - self.from_utc_ns) / SECOND, 3)
        return {"from": date(self.from_utc_ns), "to": date(self.to_utc_ns), "by_s": by_s, "where": self.where}


class ClockWatch:
    """kept: `mark()` of the last run; empty where there is none. has_same_boot: monotonic time goes on from there."""

    def __init__(self, kept: Mapping[str, Any], has_same_boot: bool) -> None:
        self._before = kept if _is_mark(kept) else {}
        self._has_same_boot = has_same_boot
        self._seen: tuple[int, int] | None = None  # monotonic, UTC: at the last look
        self._since: tuple[int, int] | None = None  # the same, since when it is steady; None: it is not
        self.step: Step | None = None  # the last one, of this run
        self.trouble = "nobody has looked at the clock yet"  # empty: believed
        self.is_warming = True  # nothing is wrong, it is only not known for long enough

    def look(self, now_ns: int, utc_ns: int, quality: str) -> Step | None:
        """Compare both clocks; answers the step that happened since the last look."""
        step = self._compare(now_ns, utc_ns) if self._seen else self._compare_with_kept(now_ns, utc_ns)
        self._seen = now_ns, utc_ns
        if step:
            self.step, self._since = step, None
        unfit = _unfit(utc_ns, quality)
        if unfit:
            self._since = None
        elif self._since is None:
            self._since = self._seen
        self._judge(now_ns, unfit)
        return step

    def mark(self) -> dict[str, Any]:
        """For the next run; empty before the first look."""
        if self._seen is None:
            return {}
        return {
            "seen_ns": self._seen[0],
            "seen_utc_ns": self._seen[1],
            "steady_ns": self._since[0] if self._since else None,
        }

    def _compare(self, now_ns: int, utc_ns: int) -> Step | None:
        for reference in (self._seen, self._since):
            if reference is None:
                continue
            passed = now_ns - reference[0]
            expected = reference[1] + passed
            if abs(utc_ns - expected) > STEP_NS + passed * DRIFT:
                return Step(now_ns, expected, utc_ns, "running")
        return None

    def _compare_with_kept(self, now_ns: int, utc_ns: int) -> Step | None:
        if not self._before:
            return None
        seen_ns, seen_utc_ns = self._before["seen_ns"], self._before["seen_utc_ns"]
        if not self._has_same_boot:
            is_odd = utc_ns < seen_utc_ns - STEP_NS or utc_ns > seen_utc_ns + LONG_OFF_NS
            return Step(now_ns, seen_utc_ns, utc_ns, "reboot") if is_odd else None
        passed = now_ns - seen_ns
        expected = seen_utc_ns + passed
        if abs(utc_ns - expected) > STEP_NS + passed * DRIFT:
            return Step(now_ns, expected, utc_ns, "restart")
        steady_ns = self._before["steady_ns"]
        if steady_ns is not None and steady_ns <= seen_ns:
            self._since = steady_ns, utc_ns - (now_ns - steady_ns)
        return None

    def _judge(self, now_ns: int, unfit: str) -> None:
        steady_ns = now_ns - self._since[0] if self._since else 0
        is_new = self.step is not None and now_ns - self.step.at_ns < STEADY_NS
        self.trouble, self.is_warming = unfit, False
        if is_new and self.step:
            told = f"{self.step.words()}, {span(now_ns - self.step.at_ns)} ago"
            self.trouble = f"{unfit}; {told}" if unfit else told
        elif not unfit and steady_ns < STEADY_NS:
            self.trouble = f"the clock has been steady for {span(steady_ns)} of {span(STEADY_NS)}"
            self.is_warming = True


def _unfit(utc_ns: int, quality: str) -> str:
    if not FIRST_UTC_NS <= utc_ns < LAST_UTC_NS:
        return f"the clock shows {date(utc_ns)}"
    return "" if quality == TimeQuality.SYNCED else "the clock is not synchronised"


def _is_mark(kept: Mapping[str, Any]) -> bool:
    numbers = kept.get("seen_ns"), kept.get("seen_utc_ns")
    return all(type(number) is int for number in numbers) and isinstance(kept.get("steady_ns"), int | None)


def date(utc_ns: int) -> str:
    """`2026-03-01T08:15:30Z`; a clock that is wildly off still gives words."""
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=utc_ns // SECOND)).strftime("%Y-%m-%dT%H:%M:%SZ")
    except OverflowError:
        return f"{utc_ns // SECOND} s since 1970"


def span(ns: int) -> str:
    """A time that has passed, in its largest unit: `500 d`, `3 min`."""
    for name, unit in (("d", DAY_NS), ("h", 60 * MINUTE_NS), ("min", MINUTE_NS)):
        if ns >= unit:
            return f"{ns / unit:.3g} {name}" if ns < 10 * unit else f"{round(ns / unit)} {name}"
    return f"{ns / SECOND:.3g} s"
