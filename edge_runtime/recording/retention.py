"""What may be deleted because of its age, when, and how much at once. Three things must agree before anything goes:

1. The clock is believed: synchronised and steady (`clock_watch`). Until then retention waits, and says why.
2. The thing is older than its days by the time that the box was on (`on_time`), which no clock can make wrong. So a
   clock that is 500 days ahead, back, drifting or lying for months deletes nothing, even when it is believed.
3. Its own date does not say that it is younger. A date can hold a thing back, never condemn it: one from the future
   comes from a clock that was wrong and has no say; `free_running` ones are heard, because holding is safe. So rows
   of a clock that was ahead go when their on-time says so, and no later than their date plus their days.

And should all three be wrong, an allowance accrues with monotonic time: a pass takes at most a hundredth of what there
is (at least one), a day at most a tenth, or twice the share that comes of age each day where things are kept for a few
days only. What a run did not use is handed to the next one, once: a box that is switched off each evening does not keep
things for ever, and restarts do not add up. Room for new pictures (quota, full disk) is made without any of this.

Shared by the journal, the pictures and the clips, each in a thread of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_runtime.core.clock import Clock
from edge_runtime.core.events import EventKind
from edge_runtime.core.messages import Event
from edge_runtime.recording.clock_watch import DAY_NS, MINUTE_NS, ClockWatch, Step
from edge_runtime.recording.on_time import FILE, OnTime
from edge_runtime.recording.wall_clock import time_quality

log = logging.getLogger(__name__)

MARGIN_NS = 60 * MINUTE_NS  # a power cut loses the last minutes of what `on_time` noted
SWEEP_EVERY_NS = 10 * MINUTE_NS
SAVE_EVERY_NS = 10 * MINUTE_NS
TELL_EVERY_NS = 60 * MINUTE_NS  # one event for what was removed, one for steps of the clock
PASS_SHARE = 0.01
DAY_SHARE = 0.1
MOST_DAY_SHARE = 0.5  # kept for one day: the box then holds two


class Retention:
    """state: the state folder. clock: monotonic. utc_ns: the wall clock."""

    def __init__(self, state: Path, clock: Clock, utc_ns: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._utc_ns = utc_ns
        self.on_time = OnTime(state / FILE, clock)
        self._watch = ClockWatch(self.on_time.kept, self.on_time.has_same_boot)
        self._lock = threading.RLock()
        self._allowances: dict[str, _Allowance] = {}
        self._inherited = _tokens(self.on_time.kept.get("allowances"))
        self._has_taken = False  # the file no longer offers what this run inherited: a crash now cannot grant it twice
        self._untold: Counter[str] = Counter()
        self._steps: list[Step] = []  # not told yet
        self.removed: Counter[str] = Counter()
        self.steps = 0
        now_ns = clock()
        self.sweepers: list[Callable[[], None]] = []  # those who have no thread of their own; quick, and never raise
        self._saved_ns = now_ns - SAVE_EVERY_NS
        self._swept_ns = now_ns
        self._told_ns = self._told_step_ns = now_ns - TELL_EVERY_NS

    # -- whether ------------------------------------------------------------------------------------------------------

    def look(self) -> bool:
        """Look at the clock; whether things may be deleted by age now. Every few seconds, from any thread."""
        with self._lock:
            now_ns = self._clock()
            step = self._watch.look(now_ns, self._utc_ns(), time_quality())
            if step:
                self.steps += 1
                self._steps.append(step)
                self._saved_ns = now_ns - SAVE_EVERY_NS  # a restart now must know of it
            return not self._watch.trouble

    @property
    def trouble(self) -> str:
        """Why it waits, where a person should know; empty while all is well or only young."""
        return "" if self._watch.is_warming or not self._watch.trouble else f"retention waits: {self._watch.trouble}"

    def words(self) -> str:
        return f"waits, {self._watch.trouble}" if self._watch.trouble else "works, the clock is synchronised and steady"

    # -- what ---------------------------------------------------------------------------------------------------------

    def is_old(self, made_on_ns: int, date_utc_ns: int, keep_ns: int) -> bool:
        """made_on_ns: on the scale of `on_time`. date_utc_ns: what the thing itself says."""
        is_old = self.on_time.now() - made_on_ns > keep_ns + MARGIN_NS
        return is_old and not self._holds(date_utc_ns, keep_ns)

    def is_young(self, made_on_ns: int, keep_ns: int) -> bool:
        """By on-time alone: all that was made later is young as well."""
        return self.on_time.now() - made_on_ns <= keep_ns + MARGIN_NS

    def _holds(self, date_utc_ns: int, keep_ns: int) -> bool:
        now_utc_ns = self._utc_ns()
        return now_utc_ns - keep_ns < date_utc_ns <= now_utc_ns + DAY_NS

    # -- how much -----------------------------------------------------------------------------------------------------

    def grant(self, what: str, stock: int, keep_ns: int) -> int:
        """How many of `stock` things may go in this pass."""
        with self._lock:
            if self._watch.trouble or stock <= 0 or not self._has_taken:
                return 0
            allowance = self._allowances.get(what)
            if allowance is None:
                allowance = self._allowances[what] = _Allowance(self._clock(), self._inherited.pop(what, 0.0))
            return allowance.grant(self._clock(), stock, _day_share(keep_ns))

    def sweep(self) -> None:
        """Let the sweepers do their part, every few minutes."""
        now_ns = self._clock()
        if now_ns - self._swept_ns >= SWEEP_EVERY_NS and self.look():
            self._swept_ns = now_ns
            for expire in self.sweepers:
                expire()

    def note_removed(self, what: str, count: int) -> None:
        """So many went: they count against the allowance, and are told in an event."""
        if count:
            with self._lock:
                self.removed[what] += count
                self._untold[what] += count
                self._allowances[what].spend(count)

    # -- what it tells ------------------------------------------------------------------------------------------------

    def take_events(self, *, is_last: bool = False) -> list[Event]:
        """What the journal should note now. A clock that jumps all day is told once an hour, with how often."""
        now_ns, events = self._clock(), []
        with self._lock:
            if self._steps and (is_last or now_ns - self._told_step_ns >= TELL_EVERY_NS):
                largest = max(self._steps, key=lambda step: abs(step.to_utc_ns - step.from_utc_ns))
                log.warning("clock.stepped %s; steps=%d", largest.words(), len(self._steps))
                events.append(
                    Event(EventKind.CLOCK_STEPPED, largest.at_ns, {**largest.detail(), "steps": len(self._steps)})
                )
                self._steps, self._told_step_ns = [], now_ns
            if self._untold and (is_last or now_ns - self._told_ns >= TELL_EVERY_NS):
                events.append(Event(EventKind.RETENTION_REMOVED, now_ns, dict(self._untold)))
                self._untold, self._told_ns = Counter(), now_ns
        return events

    def report(self) -> dict[str, Any]:
        return {"says": self.words(), "removed": dict(self.removed), "clock_steps": self.steps}

    def save(self, *, is_last: bool = False) -> None:
        """Write down on-time and the clock's last look, when it is time to."""
        now_ns = self._clock()
        if is_last or now_ns - self._saved_ns >= SAVE_EVERY_NS:
            self._saved_ns = now_ns
            with self._lock:
                unused = {what: allowance.tokens for what, allowance in self._allowances.items()}
                offered = {**self._inherited, **unused} if self._has_taken else {}
                words = {"says": self.words(), "trouble": self.trouble, "allowances": offered}
            self._has_taken = self.on_time.save({**self._watch.mark(), **words}) or self._has_taken


class _Allowance:
    """Grows with monotonic time, by a share of the stock each day, and never beyond what one pass may take."""

    def __init__(self, now_ns: int, tokens: float) -> None:
        self._seen_ns = now_ns
        self.tokens = tokens

    def grant(self, now_ns: int, stock: int, day_share: float) -> int:
        self.tokens += stock * day_share * (now_ns - self._seen_ns) / DAY_NS
        self.tokens = min(self.tokens, max(1.0, stock * PASS_SHARE))
        self._seen_ns = now_ns
        return int(self.tokens)

    def spend(self, count: int) -> None:
        self.tokens -= count


def _tokens(kept: object) -> dict[str, float]:
    """What the last run did not use; nothing where that makes no sense."""
    if not isinstance(kept, dict):
        return {}
    return {what: float(tokens) for what, tokens in kept.items() if isinstance(tokens, int | float) and tokens > 0}


def _day_share(keep_ns: int) -> float:
    return min(MOST_DAY_SHARE, max(DAY_SHARE, 2.0 * DAY_NS / max(keep_ns, 1)))
