"""How an inference server in the house does, as whoever asks it about parts knows it; and that in words.

Not asked yet, answers, fails, is left alone: four things, and only one of them is good news. Trials, whose pictures no
part waits for, are never counted as questions about parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from edge_runtime.core.clock import SECOND, duration


class Standing(StrEnum):
    NOT_ASKED = "not_asked"  # about a part; nothing is known of its answers
    ANSWERS = "answers"
    FAILS = "fails"  # and is asked on
    RESTS = "rests"  # it is left alone until the next trial


@dataclass(frozen=True, slots=True)
class RemoteStanding:
    """last_answer_s: age of the last answer about a part; tried_s: of the last answer to a trial; both None: never.
    p95_ms: of the time its answers about parts took; None: there were none. failures: in a row, since it last answered.
    next_try_s: until the next trial, where it rests. why: of the last failure."""

    standing: Standing
    allowed_ms: float  # from the photo-eye to its answer
    last_answer_s: float | None = None
    tried_s: float | None = None
    p95_ms: float | None = None
    failures: int = 0
    next_try_s: float | None = None
    why: str = ""

    def words(self, now: datetime) -> str:
        """now: what the clock on the wall shows to whoever reads it."""
        match self.standing:
            case Standing.NOT_ASKED:
                tried = "" if self.tried_s is None else f"; a trial was answered {duration(self.tried_s)} ago"
                return f"not asked about a part yet{tried}; {self.allowed_ms:.0f} ms are allowed"
            case Standing.ANSWERS:
                return f"answers: {self._last()}, p95 {self.p95_ms or 0.0:.0f} ms of {self.allowed_ms:.0f} ms allowed"
            case Standing.FAILS:
                return f"fails: {self._failures()} in a row, {self._last()}: {self.why}"
            case Standing.RESTS:
                until = self._clock(now, self.next_try_s or 0.0)
                return f"rests until {until} after {self._failures()} ({self._last_at(now)}): {self.why}"

    def _last(self) -> str:
        return "no answer ever" if self.last_answer_s is None else f"last answer {duration(self.last_answer_s)} ago"

    def _failures(self) -> str:
        return f"{self.failures} failure{'' if self.failures == 1 else 's'}"

    def _last_at(self, now: datetime) -> str:
        """As a time of day: it stands still while it rests, so that an alarm with it does not change each second."""
        known = self.last_answer_s
        return "no answer ever" if known is None else f"last answer at {self._clock(now, -known)}"

    @staticmethod
    def _clock(now: datetime, in_s: float) -> str:
        return f"{now + timedelta(seconds=in_s):%H:%M:%S}"


def age_s(at_ns: int | None, now_ns: int) -> float | None:
    """How long ago a moment was, in seconds; None where it never was."""
    return None if at_ns is None else round((now_ns - at_ns) / SECOND, 1)
